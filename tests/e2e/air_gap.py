"""What runs behind the air gap of tests/e2e/test_air_gap.py: python -m tests.e2e.air_gap FOLDER WEAVIATE.

A server with its own Weaviate and the bundled model, an import and a search, from start to end.
"""

import json
import sys
from pathlib import Path

from tests.e2e.serving import serving
from vecgate.client import Object
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

PICTURES = Path(__file__).parents[1] / "data" / "pictures"
NAMES = ("dog", "bicycle", "pizza", "birthday-cake")


def main(folder: Path, weaviate: str) -> None:
    """Serve, import, search, end, and print what was found."""
    with serving(folder, VECGATE_WEAVIATE__BINARY=weaviate) as running, running.client() as client:
        client.create_collection(
            pb.Collection(
                name="Pictures",
                properties=[
                    property_pb.Property(name="image", data_type=property_pb.DATA_TYPE_BLOB),
                    property_pb.Property(name="file", data_type=property_pb.DATA_TYPE_TEXT),
                ],
                vectors=[pb.VectorConfig(name="default", image_fields=[pb.WeightedField(name="image", weight=1)])],
            )
        )
        objects = [Object({"file": name}, images={"image": (PICTURES / f"{name}.png").read_bytes()}) for name in NAMES]
        outcomes = list(client.import_objects("Pictures", objects))
        hits = client.search("Pictures", text="a bicycle", limit=1).hits
        found = {
            "failed": [str(outcome.error) for outcome in outcomes if outcome.error is not None],
            "first": [hit.object.properties["file"] for hit in hits],
            "code": running.end(),
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
