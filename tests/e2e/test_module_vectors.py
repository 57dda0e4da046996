"""The vectors that imports through Vecgate give an adopted collection, beside those that Weaviate's module gives it."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from weaviate import use_async_with_local
from weaviate.classes.config import DataType, Property
from weaviate.classes.init import Auth

from embedders.nim.embedder import NimConfig, NimEmbedder
from service.core.embedder_pool import EmbedderPool
from service.core.objects.checks import DraftObject
from service.core.objects.importing import Importer
from service.core.objects.writing import Writes
from service.settings import WeaviateSettings, read_secret
from service.store.weaviate import WeaviateStore
from tests.fakes.embedder import picture, watched
from tests.fakes.nim import FakeNim

OBJECTS: Sequence[Mapping[str, Any]] = [
    {"body": f"a long story of number {number}", "title": f"title {number}", "picture": picture((number, 40, 90)),
     "thumb": picture((7, number, 3)), "tags": [f"tag {each}" for each in range(number % 4)],
     # Some objects lack it.
     **({"caption": f"caption {number}"} if number % 3 else {})}
    for number in range(12)
]  # fmt: skip
IDS = [UUID(int=number + 1) for number in range(len(OBJECTS))]

PROPERTIES = {
    "title": DataType.TEXT,
    "body": DataType.TEXT,
    "caption": DataType.TEXT,
    "tags": DataType.TEXT_ARRAY,
    "picture": DataType.BLOB,
    "thumb": DataType.BLOB,
}

Module = dict[str, Any]
CASES: dict[str, Module] = {
    "a text": {"textFields": ["title"]},
    "a picture": {"imageFields": ["picture"]},
    "a text and a picture": {"textFields": ["title"], "imageFields": ["picture"]},
    "a weight of one text": {"textFields": ["title"], "weights": {"textFields": [0.9]}},
    "equal weights": {
        "textFields": ["title"],
        "imageFields": ["picture"],
        "weights": {"textFields": [1.0], "imageFields": [1.0]},
    },
    "weights": {
        "textFields": ["title"],
        "imageFields": ["picture"],
        "weights": {"textFields": [0.1], "imageFields": [0.9]},
    },
    "two texts and two pictures with weights": {
        "textFields": ["body", "title"],
        "imageFields": ["picture", "thumb"],
        "weights": {"textFields": [0.3, 0.15], "imageFields": [0.35, 0.7]},
    },
    "two texts in another order without weights": {"textFields": ["title", "body"], "imageFields": ["picture"]},
    "a list of texts without weights": {"textFields": ["tags", "title"], "imageFields": ["picture"]},
    "a field that some objects lack, without weights": {"textFields": ["caption", "title"]},
    # The module counts weights off without looking at names: it gives fields those of others, and so does Vecgate here.
    "two texts in another order with weights": {
        "textFields": ["title", "body"],
        "imageFields": ["picture"],
        "weights": {"textFields": [0.5, 0.2], "imageFields": [0.3]},
    },
    "a field that some objects lack, with weights": {
        "textFields": ["caption", "title"],
        "imageFields": ["picture", "thumb"],
        "weights": {"textFields": [0.7, 0.1], "imageFields": [0.15, 0.9]},
    },
    "weights of texts alone": {"textFields": ["caption", "title"], "weights": {"textFields": [0.7, 0.1]}},
}


@pytest.mark.parametrize("case", CASES)
async def test_an_adopted_vector_is_the_modules_own_to_the_bit(weaviate_settings: WeaviateSettings, case: str) -> None:
    key = read_secret(weaviate_settings.api_key, weaviate_settings.api_key_file)
    client = use_async_with_local(
        host=weaviate_settings.http.host,
        port=weaviate_settings.http.port,
        grpc_port=weaviate_settings.grpc.port,
        auth_credentials=Auth.api_key(key) if key else None,
        headers={"X-Nvidia-Api-Key": "none"},
        skip_init_checks=True,
    )
    store = WeaviateStore(weaviate_settings)
    async with FakeNim(path="/nim", floats=True) as nim, client:
        pool = EmbedderPool(
            [watched(NimEmbedder(NimConfig(base_url=nim.base_url, model=nim.model)))],
            check_interval_s=60,
        )
        await pool.start()
        await pool.first_checks()
        await store.start()
        stored = {}
        for side in ("Theirs", "Ours"):
            name = f"{side}{uuid4().hex}"
            module = {"baseURL": nim.base_url, "model": nim.model, **CASES[case]}
            await client.collections.create_from_dict(
                {
                    "class": name,
                    "properties": [
                        Property(name=each, data_type=type_)._to_dict()
                        for each, type_ in PROPERTIES.items()
                    ],
                    "vectorConfig": {
                        "main": {"vectorizer": {"multi2vec-nvidia": module}, "vectorIndexType": "hnsw"},
                    },
                }
            )  # fmt: skip
            collection = client.collections.use(name)
            if side == "Theirs":
                for id_, values in zip(IDS, OBJECTS, strict=True):
                    await collection.data.insert(dict(map(_sendable, values, values.values())), uuid=id_)
            else:
                importer = Importer(store, pool, Writes(), max_chunk_objects=5, max_chunk_bytes=2**20)
                drafts = [_draft(id_, values) for id_, values in zip(IDS, OBJECTS, strict=True)]
                report = await importer.import_objects(name, drafts, truncate=False)
                assert [outcome.error for outcome in report.outcomes] == [None] * len(drafts)
            stored[side] = {
                each.uuid: np.asarray(each.vector["main"], np.float32)
                async for each in collection.iterator(include_vector=True)
            }
        await pool.close()
        await store.close()

    assert stored["Ours"].keys() == stored["Theirs"].keys() == set(IDS)
    for id_ in IDS:
        np.testing.assert_array_equal(stored["Ours"][id_], stored["Theirs"][id_])


def _sendable(name: str, value: object) -> tuple[str, object]:
    return name, base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _draft(id_: UUID, values: Mapping[str, Any]) -> DraftObject:
    images = {name: value for name, value in values.items() if isinstance(value, bytes)}
    return DraftObject(
        f"objects[{id_}]", str(id_), {name: value for name, value in values.items() if name not in images}, images
    )
