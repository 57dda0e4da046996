"""The whole service in front of a NIM: a process, a real Weaviate, and a NIM on loopback behind TLS."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from tests.e2e.serving import serving
from tests.fakes.embedder import picture
from tests.fakes.nim import FakeNim
from vecgate.client import Client, Object, VecgateError
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import property_pb2 as property_pb

MODEL = "nvidia/llama-nemotron-embed-vl-1b-v2"
OURS, ALICES = "nvapi-of-the-server", "nvapi-of-alice"
COLLECTION = collection_pb.Collection(
    name="Pictures",
    properties=[
        property_pb.Property(name="image", data_type=property_pb.DATA_TYPE_BLOB),
        property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
    ],
    vectors=[
        collection_pb.VectorConfig(
            name="default", image_fields=[{"name": "image"}], text_fields=[{"name": "title", "weight": 0.5}]
        )
    ],
)


def fill_and_search(client: Client) -> str:
    """Import three objects and return the title of the one nearest to a picture."""
    client.create_collection(COLLECTION)
    objects = [
        Object({"title": f"number {number}"}, images={"image": picture((number * 80, 0, 0))}) for number in range(3)
    ]
    assert [outcome.error for outcome in client.import_objects("Pictures", objects) if outcome.error] == []
    return str(client.search("Pictures", image=picture((80, 0, 0)), limit=1).hits[0].object.properties["title"])


async def test_a_nim_with_tls_roles_and_keys_serves_import_and_search_and_may_be_gone_for_a_while(
    weaviate_binary: None, tmp_path: Path
) -> None:
    authority, tls = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "key").write_text(f"{OURS}\n", encoding="utf-8")
    async with FakeNim(model=MODEL, dimension=2048, tls=tls, api_key=OURS) as nim:
        settings = {
            "VECGATE_EMBEDDERS__NIM__KIND": "nim",
            "VECGATE_EMBEDDERS__NIM__BASE_URL": f"{nim.base_url}/v1/",
            "VECGATE_EMBEDDERS__NIM__MODEL": MODEL,
            "VECGATE_EMBEDDERS__NIM__API_KEY_FILE": str(tmp_path / "key"),
            "VECGATE_EMBEDDERS__NIM__CA_FILE": str(tmp_path / "ca.pem"),
            "VECGATE_EMBEDDERS__NIM__ALLOW_CALLER_KEYS": "true",
        }
        with serving(tmp_path / "weaviate", **settings) as running:
            address = await asyncio.to_thread(lambda: running.address)
            with Client(address) as client, Client(address, metadata=[("x-nvidia-api-key", ALICES)]) as alice:
                assert await asyncio.to_thread(fill_and_search, client) == "number 1"
                assert {request["input_type"] for request in nim.requests} == {"query", "passage"}

                with pytest.raises(VecgateError) as refused:
                    await asyncio.to_thread(alice.search, "Pictures", text="number two")
                assert refused.value.reason == "UPSTREAM_KEY_REJECTED"

                await nim.die()
                with pytest.raises(VecgateError) as down:
                    await asyncio.to_thread(client.search, "Pictures", text="number two")
                assert down.value.reason == "EMBEDDER_UNAVAILABLE"

                await nim.rise()
                assert len((await asyncio.to_thread(client.search, "Pictures", text="number two")).hits) == 3
            code = await asyncio.to_thread(running.end)
    assert code == 0
    assert OURS not in str(running.log)
    assert ALICES not in str(running.log)
