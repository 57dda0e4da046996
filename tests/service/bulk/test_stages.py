"""Stages without Ray, on a store in memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from embedders.contract import InputLimits
from embedders.errors import EmbedderUnavailable
from embedders.images.scaling import Scaling
from service.bulk import stages
from service.bulk.parquet import ParquetOutput, schema_of
from service.bulk.patience import BulkStopped
from service.bulk.rows import Row, from_table, to_table
from service.bulk.stages import Decode, Embed, Target, Write
from service.core.objects.duplicates import DuplicateAction, DuplicateCheck
from service.domain import Collection, DataType, NamedVector, Property, Scope, Space, StoredObject, WeightedField
from service.errors import StoreRejected, StoreUnavailable, TenantInactive
from service.settings import Settings, WeaviateSettings
from service.store.base import NO_TENANT, WriteFailure
from tests.fakes.embedder import FakeEmbedder, picture
from tests.fakes.store import FakeStore

COLLECTION = Collection(
    "Photos",
    (Property("image", DataType.BLOB), Property("name", DataType.TEXT)),
    (NamedVector("main", Space("fake", 3, "fake/model")),),
)


class SmallStore(FakeStore):
    """Refuses a whole write with more than so many bytes of pictures, as Weaviate's gRPC does."""

    max_bytes = 2**40

    async def put_objects(
        self, collection: str, objects: Sequence[StoredObject], scope: Scope = NO_TENANT
    ) -> list[WriteFailure | None]:
        """Write objects, each on its own."""
        if sum(len(content) for each in objects for content in each.images.values()) > self.max_bytes:
            raise StoreRejected("Weaviate refused: message larger than max")
        return await super().put_objects(collection, objects, scope)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> SmallStore:
    """Give the store that a Write has, with the collection."""
    found = SmallStore()
    asyncio.run(found.create_collection(COLLECTION))
    monkeypatch.setattr(stages, "WeaviateStore", lambda _: found)
    return found


def row(number: int, size: int = 3, name: str = "a") -> Row:
    id_ = UUID(int=number + 1)
    vector = np.array([1, 0, 0], np.float32)
    stored = StoredObject(id_, {"name": name}, {"image": bytes(size)}, {"main": vector})
    return Row("f" * 32, number, f"row {number + 1}", id=id_.bytes, object=stored)


def target(output: ParquetOutput | None = None, *, stores: bool = True) -> Target:
    return Target(COLLECTION, Scope(), WeaviateSettings(), 0.0, output, stores)


def test_rows_of_several_fragments_in_a_batch_get_the_vectors_of_their_own_pictures(monkeypatch: pytest.MonkeyPatch):
    contents = [picture((200, 30, 30)), picture((30, 200, 30))]
    vectors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    embedder = FakeEmbedder(dimension=3, known=dict(zip(contents, vectors, strict=True)))
    monkeypatch.setattr(stages, "build_embedders", lambda *_: [embedder])
    embedded = NamedVector("main", COLLECTION.vectors[0].space, (WeightedField("image"),))
    collection = replace(COLLECTION, vectors=(embedded,))
    rows = [
        Row(fragment * 32, 0, object=StoredObject(UUID(int=at + 1), {}, {"image": content}))
        for at, (fragment, content) in enumerate(zip("ab", contents, strict=True))
    ]

    embed = Embed(Settings(), replace(target(), collection=collection), truncate=False)
    done = from_table(embed(to_table(rows)))

    assert [each.object and each.object.vectors["main"].tolist() for each in done] == vectors


def test_a_vector_by_which_duplicates_are_found_and_that_no_embedder_makes_stops_the_job(
    monkeypatch: pytest.MonkeyPatch,
):
    """The other vector is made, so the object alone could be stored."""
    monkeypatch.setattr(stages, "build_embedders", lambda *_: [FakeEmbedder(dimension=3)])
    field = (WeightedField("image"),)
    made = NamedVector("new", Space("fake", 3, "fake/model"), field)
    unmade = NamedVector("old", Space("gone", 3, "gone/model"), field)
    both = replace(target(), collection=replace(COLLECTION, vectors=(unmade, made)))
    comparing = replace(both, duplicates=DuplicateCheck(SKIP, 0.9, "old"))
    pictured = Row("f" * 32, 0, object=StoredObject(UUID(int=1), {}, {"image": picture()}))
    bare, supplied = row(1), row(2)
    bare.object = StoredObject(UUID(int=2), {"name": "a"}, {}, {"new": np.array([1, 0, 0], np.float32)})
    supplied.object = StoredObject(UUID(int=3), {}, {"image": picture()}, {"old": np.array([1, 0, 0], np.float32)})

    with pytest.raises(
        BulkStopped, match="duplicates cannot be looked for: named vector 'old' is bound to space 'gone'"
    ):
        Embed(Settings(), comparing, truncate=False)(to_table([pictured]))

    for own, rows in ((both, [pictured]), (comparing, [bare, supplied])):
        done = from_table(Embed(Settings(), own, truncate=False)(to_table(rows)))
        assert [each.live for each in done] == [True] * len(rows)


def test_a_write_has_at_most_so_many_objects_and_bytes(store: SmallStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stages, "WRITE_OBJECTS", 3)
    monkeypatch.setattr(stages, "WRITE_BYTES", 1000)

    sizes = [3, 3, 3, 3, 450, 450, 2000, 3]
    rows = from_table(Write(target())(to_table([row(n, size) for n, size in enumerate(sizes)])))

    assert sorted(store.puts) == [1, 1, 1, 2, 3]
    assert [each.reason for each in rows] == [""] * len(sizes)


def test_an_object_that_is_too_large_for_a_write_alone_is_rejected_and_the_others_go_on(
    store: SmallStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stages, "WRITE_BYTES", 1000)
    store.max_bytes = 1500

    rows = from_table(Write(target())(to_table([row(0, 2000), row(1)])))

    assert [(each.reason, each.message) for each in rows] == [
        ("STORE_REJECTED", "Weaviate refused: message larger than max"),
        ("", ""),
    ]


@pytest.mark.parametrize(
    ("size", "error"), [(3, StoreRejected("Weaviate refuses the API key")), (2000, TenantInactive("t"))]
)
def test_a_refusal_that_is_not_for_the_size_of_one_object_stops_the_job(
    store: SmallStore, monkeypatch: pytest.MonkeyPatch, size: int, error: StoreRejected
):
    monkeypatch.setattr(stages, "WRITE_BYTES", 1000)
    store.fail_next_of("put_objects", error)

    with pytest.raises(BulkStopped, match="Weaviate does not take the objects"):
        from_table(Write(target())(to_table([row(0, size)])))


def test_a_row_whose_text_has_no_form_in_parquet_is_rejected_by_name(tmp_path: Path):
    output = ParquetOutput(str(tmp_path), schema_of(COLLECTION, ["name"], {"main": 3}), "0" * 8)

    rows = from_table(Write(target(output, stores=False))(to_table([row(0), row(1, name="\ud800"), row(2)])))

    assert [each.reason for each in rows] == ["", "ROW_REFUSED", ""]
    assert rows[1].message.startswith("name: has no form in Parquet")
    assert output.count({"f" * 32}) == {"f" * 32: 2}


SKIP, REPORT = DuplicateAction.SKIP, DuplicateAction.REPORT


def at(degrees: float, number: int, size: int = 3) -> Row:
    """Return a row whose vector has an angle."""
    turn = np.radians(degrees)
    made = row(number, size)
    assert made.object is not None
    vector = np.array([np.cos(turn), np.sin(turn), 0], np.float32)
    made.object = replace(made.object, vectors={"main": vector})
    return made


def looking(action: DuplicateAction, output: ParquetOutput | None = None) -> Target:
    """Return a target that takes vectors of less than two degrees for duplicates."""
    return replace(target(output), duplicates=DuplicateCheck(action, float(np.cos(np.radians(2)))))


def written(write: Write, *rows: Row) -> list[tuple[int, int, bool]]:
    """Write rows, and return the numbers of those that duplicate another one, with its number, and what is left out."""
    done = from_table(write(to_table(rows)))
    assert [each.reason for each in done] == [""] * len(rows)
    return [
        (each.number, each.duplicate_of.id.int - 1, each.duplicate_of.skipped)
        for each in done
        if each.duplicate_of is not None
    ]


@pytest.mark.parametrize(("action", "stored"), [(SKIP, {1, 3}), (REPORT, {1, 2, 3, 4, 5})])
def test_rows_that_nearly_equal_a_stored_object_or_an_earlier_row_name_it_and_are_left_out_if_asked_for(
    store: SmallStore, action: DuplicateAction, stored: set[int]
):
    write, skipped = Write(looking(action)), action is SKIP

    first = written(write, at(0, 0), at(1, 1), at(60, 2))
    second = written(write, at(-1, 3), at(61.5, 4))

    assert first == [(1, 0, skipped)]
    assert second == [(3, 0, skipped), (4, 2, skipped)]
    assert {each.int for each in store._within(COLLECTION, NO_TENANT)} == stored


def test_a_row_that_is_left_out_is_in_no_file(store: SmallStore, tmp_path: Path):
    output = ParquetOutput(str(tmp_path), schema_of(COLLECTION, ["name"], {"main": 3}), "0" * 8)

    written(Write(looking(SKIP, output)), at(0, 0), at(1, 1), at(60, 2))

    assert output.count({"f" * 32}) == {"f" * 32: 2}
    assert len(store._within(COLLECTION, NO_TENANT)) == 2


@pytest.mark.parametrize("action", [SKIP, REPORT])
def test_rows_that_are_written_again_in_another_order_have_the_same_outcomes(
    store: SmallStore, action: DuplicateAction
):
    rows = [(0, 0), (1, 1), (60, 2), (120, 3), (121, 4)]
    write = Write(looking(action))
    written(write, *(at(*each) for each in rows))
    before = set(store._within(COLLECTION, NO_TENANT))

    again = written(write, *(at(*each) for each in reversed(rows)))

    assert set(store._within(COLLECTION, NO_TENANT)) == before
    if action is SKIP:
        assert again == [(4, 3, True), (1, 0, True)]


def test_a_row_whose_own_object_is_stored_is_written_whatever_it_equals(store: SmallStore):
    written(Write(target()), at(0, 0), at(1, 1))

    assert written(Write(looking(SKIP)), at(1, 1)) == [(1, 0, False)]
    assert written(Write(looking(SKIP)), at(0, 0), at(1, 1)) == [(1, 0, False)]
    assert len(store._within(COLLECTION, NO_TENANT)) == 2


def test_rows_with_one_id_are_left_out_together(store: SmallStore):
    same = at(1, 1)
    same.number = 2

    assert written(Write(looking(SKIP)), at(0, 0), at(1, 1), same) == [(1, 0, True), (2, 0, True)]
    assert len(store._within(COLLECTION, NO_TENANT)) == 1


def test_of_near_rows_the_next_is_stored_where_the_store_refuses_the_first(store: SmallStore):
    store.rejected[UUID(int=1)] = "disk is full"

    done = from_table(Write(looking(SKIP))(to_table([at(0, 0), at(1, 1), at(1.5, 2)])))

    assert [each.reason for each in done] == ["STORE_REJECTED", "", ""]
    assert done[1].duplicate_of is None
    assert done[2].duplicate_of is not None
    assert done[2].duplicate_of.id.bytes == done[1].id
    assert [each.int for each in store._within(COLLECTION, NO_TENANT)] == [2]


@pytest.mark.parametrize("method", ["search", "put_objects", "get_objects"])
def test_near_rows_are_looked_for_again_where_weaviate_does_not_answer_for_a_while(store: SmallStore, method: str):
    store.fail_next_of(method, StoreUnavailable("Weaviate does not answer"))

    found = written(Write(replace(looking(SKIP), patience_s=600.0)), at(0, 0), at(1, 1), at(60, 2))

    assert found == [(1, 0, True)]
    assert {each.int for each in store._within(COLLECTION, NO_TENANT)} == {1, 3}


def test_a_search_that_weaviate_refuses_stops_the_job_by_its_name(store: SmallStore):
    store.fail_next_of("search", StoreRejected("Weaviate refused: query limit"))

    with pytest.raises(BulkStopped, match="duplicates cannot be looked for: Weaviate refused: query limit"):
        written(Write(looking(SKIP)), at(0, 0))
    assert not store._within(COLLECTION, NO_TENANT)


class BrokenDecoders:
    """Decoders of which each picture fails."""

    def __init__(self, cause: Exception | None) -> None:
        self._cause = cause

    async def scaled_picture(self, content: bytes, *_: object) -> bytes:
        if self._cause is None and content == b"good":
            return content
        raise EmbedderUnavailable("scaled_picture failed in its process: KeyError") from self._cause


def decode(monkeypatch: pytest.MonkeyPatch, cause: Exception | None) -> list[Row]:
    monkeypatch.setattr(stages, "Decoders", lambda _: BrokenDecoders(cause))
    bad, good = row(0), row(1)
    assert good.object is not None
    good.object = StoredObject(good.object.id, {}, {"image": b"good"})
    return from_table(Decode(InputLimits(), Scaling((8, 8)), ["image"], 0.0)(to_table([bad, good])))


def test_a_picture_that_fails_in_its_process_again_and_again_is_rejected(monkeypatch: pytest.MonkeyPatch):
    bad, good = decode(monkeypatch, None)

    assert bad.reason == "IMAGE_UNDECODABLE"
    assert "failed in its process" in bad.message
    assert (good.reason, good.pictures) == ("", {"image": b"good"})


def test_a_picture_behind_a_text_is_named_by_the_property_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stages, "Decoders", lambda _: BrokenDecoders(None))
    linked = row(0)
    linked.object = StoredObject(UUID(int=1), {"link": "https://h/a"})
    linked.pictures = {"link": b"bad"}

    (done,) = from_table(Decode(InputLimits(), Scaling((8, 8)), ["link"], 0.0)(to_table([linked])))

    assert done.reason == "IMAGE_UNDECODABLE"
    assert done.message.startswith("link: ")


def test_the_job_stops_where_no_process_for_pictures_starts(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BulkStopped, match="pictures cannot be decoded"):
        decode(monkeypatch, OSError("no file descriptors"))


def test_pictures_of_which_only_the_reference_is_stored_are_decoded_and_embedded_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stages, "Decoders", lambda _: BrokenDecoders(None))
    linked = row(0)
    linked.object = StoredObject(UUID(int=1), {"name": "a", "link": "https://h/a"}, {"image": b"good"})
    linked.pictures = {"link": b"good", "other": b"whole"}

    (done,) = from_table(Decode(InputLimits(), Scaling((8, 8)), ["image", "link"], 0.0)(to_table([linked])))

    assert done.object is not None
    assert done.pictures == {"link": b"good", "other": b"whole", "image": b"good"}
    assert done.object.properties["link"] == "https://h/a"
    made = stages._candidate(done).object
    assert (made.properties, made.images) == ({"name": "a"}, {"image": b"good", "link": b"good", "other": b"whole"})
