"""What every store does with images of which it keeps the hashes; a test class derives from it beside StoreSuite."""

import hashlib
from base64 import b64encode
from uuid import UUID

import pytest

from service.domain import ObjectChange, ReturnFields
from service.errors import StoreRejected
from service.store.base import Store
from tests.service.store.store_suite import make_object, make_vector

OF_ONE = UUID(int=1)
FIELDS = ReturnFields(["text"], ["blob"], ["main", "other"], hashes=["blobHash"])


def hash_of(content: bytes) -> str:
    """Return what is kept of an image, said a second time."""
    return hashlib.sha256(b64encode(content)).hexdigest()


class HashSuite:
    """The contract of service/store/base.py on properties of type BLOB_HASH, as tests."""

    @pytest.fixture
    async def hashed(self, store: Store, pictures: str) -> str:
        """Return the name of a collection with an object that has an image, the hash of another, and two vectors."""
        vectors = {"main": make_vector(1, 2, 3), "other": make_vector(1, 2)}
        images = {"blob": b"photo", "blobHash": b"picture"}
        assert await store.put_objects(pictures, [make_object(1, vectors=vectors, images=images, text="a")]) == [None]
        return pictures

    async def test_keeps_the_hash_of_an_image_and_returns_it_as_such_and_as_a_text(
        self, store: Store, hashed: str
    ) -> None:
        found = await store.get_object(hashed, OF_ONE, FIELDS)
        assert (found.images, found.hashes) == ({"blob": b"photo"}, {"blobHash": hash_of(b"picture")})
        named = (await store.get_objects(hashed, [OF_ONE], ReturnFields(["blobHash"], hashes=["blobHash"])))[OF_ONE]
        assert (named.properties, named.hashes) == ({"blobHash": hash_of(b"picture")}, found.hashes)

    async def test_has_no_hash_of_an_image_that_an_object_lacks(self, store: Store, hashed: str) -> None:
        await store.put_objects(hashed, [make_object(1), make_object(2)])
        found = await store.get_objects(hashed, [OF_ONE, UUID(int=2)], FIELDS)
        assert [each.hashes for each in found.values()] == [{}, {}]

    @pytest.mark.parametrize(
        "change",
        [
            ObjectChange(OF_ONE, {"text": "b"}),
            ObjectChange(OF_ONE, {"text": None}),
            ObjectChange(OF_ONE, images={"blob": b"another"}),
            ObjectChange(OF_ONE, images={"blob": None}),
            ObjectChange(OF_ONE, images={"blobHash": b"picture"}),
            ObjectChange(OF_ONE, vectors={"main": make_vector(3, 2, 1)}),
            ObjectChange(OF_ONE, images={"blobHash": b"picture"}, lost_vectors=["other"]),
        ],
        ids=str,
    )
    async def test_keeps_a_hash_whatever_else_changes(self, store: Store, hashed: str, change: ObjectChange) -> None:
        await store.update_object(hashed, change)
        await store.update_object(hashed, change)
        found = await store.get_object(hashed, OF_ONE, FIELDS)
        assert found.hashes == {"blobHash": hash_of(b"picture")}
        assert found.vectors.keys() == {"main", "other"} - set(change.lost_vectors)

    async def test_keeps_a_hash_when_a_vector_is_entered_into_its_index_again(self, store: Store, hashed: str) -> None:
        await store.reindex_vector(hashed, OF_ONE, "main", make_vector(1, 2, 3))
        found = await store.get_object(hashed, OF_ONE, FIELDS)
        assert found.hashes == {"blobHash": hash_of(b"picture")}
        assert found.vectors["main"].tolist() == [1, 2, 3]

    async def test_changes_and_clears_a_hash(self, store: Store, hashed: str) -> None:
        await store.update_object(hashed, ObjectChange(OF_ONE, images={"blobHash": b"another"}))
        assert (await store.get_object(hashed, OF_ONE, FIELDS)).hashes == {"blobHash": hash_of(b"another")}
        await store.update_object(hashed, ObjectChange(OF_ONE, images={"blobHash": None}, lost_vectors=["other"]))
        found = await store.get_object(hashed, OF_ONE, FIELDS)
        assert (found.hashes, found.images, found.vectors.keys()) == ({}, {"blob": b"photo"}, {"main"})

    async def test_deletes_no_vector_where_that_would_spoil_a_hash(self, store: Store, hashed: str) -> None:
        with pytest.raises(StoreRejected, match="would spoil 'blobHash', a blobHash; send its image too"):
            await store.update_object(hashed, ObjectChange(OF_ONE, {"text": "b"}, lost_vectors=["other"]))
        found = await store.get_object(hashed, OF_ONE, FIELDS)
        assert (found.properties, found.hashes) == ({"text": "a"}, {"blobHash": hash_of(b"picture")})
        assert found.vectors.keys() == {"main", "other"}
