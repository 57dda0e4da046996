"""What `helm test` runs against a release: embed, create a collection, import, search, and delete the collection."""

import os
import sys
import uuid
from pathlib import Path

import grpc

from vecgate.client import Client, Object
from vecgate.v1 import collection_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

TITLES = ("a dog on a beach", "a red bicycle", "a birthday cake")


def connect(address: str, *, tls: bool, folder: Path) -> Client:
    """Return a client with what the folder holds: an authority's certificate, a client's own, and a key."""

    def read(name: str) -> bytes | None:
        return (folder / name).read_bytes() if (folder / name).exists() else None

    credentials = grpc.ssl_channel_credentials(read("ca.crt"), read("tls.key"), read("tls.crt")) if tls else None
    return Client(address, credentials=credentials, api_key=(read("api-key") or b"").decode().strip())


def main(address: str, *, tls: bool, folder: Path) -> None:
    """Try a server; whatever goes wrong is raised."""
    collection = f"VecgateHelmTest{uuid.uuid4().hex[:12]}"
    with connect(address, tls=tls, folder=folder) as client:
        embedded = client.embed(TITLES)
        print(f"embedded {len(embedded.matrix())} texts in space {embedded.embedder.space}")
        client.create_collection(
            pb.Collection(
                name=collection,
                properties=[property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT)],
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
    main(
        os.environ["VECGATE_ADDRESS"],
        tls=bool(os.environ.get("VECGATE_TLS")),
        folder=Path(os.environ.get("VECGATE_CREDENTIALS", "/test-credentials")),
    )
