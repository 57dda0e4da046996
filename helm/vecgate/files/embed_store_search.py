"""What `helm test` runs against a release: embed, create a collection, import, search, and delete the collection."""

import os
import sys
import uuid

from vecgate.client import Client, Object
from vecgate.v1 import collection_service_pb2 as pb

TITLES = ("a dog on a beach", "a red bicycle", "a birthday cake")


def main(address: str) -> None:
    """Try a server; whatever goes wrong is raised."""
    collection = f"VecgateHelmTest{uuid.uuid4().hex[:12]}"
    with Client(address) as client:
        embedded = client.embed(TITLES)
        print(f"embedded {len(embedded.matrix())} texts in space {embedded.embedder.space}")
        client.create_collection(
            pb.Collection(
                name=collection,
                properties=[pb.Property(name="title", data_type=pb.DATA_TYPE_TEXT)],
                vectors=[pb.VectorConfig(name="default", text_fields=[pb.WeightedField(name="title", weight=1)])],
            )
        )
        try:
            outcomes = list(client.import_objects(collection, [Object({"title": title}) for title in TITLES]))
            failed = [outcome.error for outcome in outcomes if outcome.error is not None]
            if failed:
                raise failed[0]
            print(f"stored {len(outcomes)} objects")
            first = client.search(collection, text=TITLES[1], limit=1).hits[0].object.properties["title"]
            print(f"searched {TITLES[1]!r}, found {first!r}")
            if first != TITLES[1]:
                sys.exit(f"the search for {TITLES[1]!r} found {first!r} first")
        finally:
            client.delete_collection(collection)


if __name__ == "__main__":
    main(os.environ["VECGATE_ADDRESS"])
