"""Pieces of core by themselves; what core does as a whole is tested through the wire."""

import asyncio
from dataclasses import replace
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedders.contract import QUERY, TextInput
from embedders.errors import EmbedderUnavailable
from embedders.front.breaker import BreakerEmbedder, BreakerRules
from embedders.front.cache import CachingEmbedder, VectorCache
from service.core.collections.changes import VectorDraft
from service.core.collections.collections import Collections
from service.core.embedder_pool import EmbedderPool
from service.core.objects import importing
from service.core.objects.checks import DraftObject, check_object, content_id, parse_vector
from service.core.objects.importing import Importer
from service.core.objects.vectorizing import join
from service.core.objects.writing import Writes
from service.domain import Collection, DataType, NamedVector, Property, Space, WeightedField
from service.errors import InvalidRequest, SpaceAmbiguous, SpaceMismatch, StoreUnavailable
from service.rpc.objects.messages import parse_object
from tests.conftest import assert_close
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.store import FakeStore
from vecgate.v1 import object_service_pb2 as object_pb

EVERY_TYPE = Collection(
    "All", tuple(Property(each.name.lower(), each) for each in DataType), (NamedVector("default", None),)
)

JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([each.name.lower() for each in DataType]), JSON))
def test_any_json_either_fits_its_type_or_is_named_by_its_path(properties: dict[str, object]) -> None:
    try:
        checked = check_object(EVERY_TYPE, DraftObject("objects[0]", properties=properties))
    except InvalidRequest as error:
        named = {violation.field for violation in error.violations}
        assert all(each.startswith(tuple(f'objects[0].properties["{name}"]' for name in properties)) for each in named)
        assert {violation.reason for violation in error.violations} == {"INVALID_PROPERTY"}
    else:
        assert set(checked.properties) == {name for name, value in properties.items() if value is not None}


@pytest.mark.parametrize(("field", "most"), [("images", 1000), ("vectors", 100)])
def test_an_object_has_so_many_images_and_vectors_and_no_more(field: str, most: int) -> None:
    refused = {}
    for count in (most, most + 1):
        message = object_pb.DataObject()
        for number in range(count):
            getattr(message, field)[f"a{number}"].SetInParent()
        with pytest.raises(InvalidRequest) as failure:
            check_object(EVERY_TYPE, parse_object(message, "object"))
        refused[count] = [violation.field for violation in failure.value.violations]

    assert refused[most][0].startswith(f'object.{field}["a')
    assert refused[most + 1] == [f"object.{field}"]


@given(st.binary(max_size=64))
def test_any_bytes_are_a_vector_of_finite_values_not_all_zero_or_refused(data: bytes) -> None:
    try:
        vector = parse_vector(data, 4, "path")
    except InvalidRequest as error:
        assert error.violations[0].reason == "INVALID_VECTOR"
    else:
        assert vector.shape == (4,)
        assert np.isfinite(vector).all()
        assert 0 < np.linalg.norm(vector) < np.inf


def fault_of(values: np.ndarray) -> str:
    """Return the words of the first rule that a vector breaks, each looked at by itself; nothing for a good one."""
    wide, bounds = values.astype(np.float64), np.finfo(np.float32)
    if not np.isfinite(values).all():
        return "NaN or infinity"
    if not values.any():
        return "only zeros"
    measurable = np.square(wide).max() >= bounds.tiny and wide @ wide <= bounds.max
    return "" if measurable else "so large or so small"


@given(st.lists(st.floats(width=32) | st.sampled_from([0.0, 1e-20, -1.1e-19, 1.3e19]), min_size=1, max_size=6))
def test_the_first_rule_that_a_vector_breaks_is_named(values: list[float]) -> None:
    data = np.array(values, "<f4")

    if fault := fault_of(data):
        with pytest.raises(InvalidRequest, match=fault):
            parse_vector(data.tobytes(), None, "path")
    else:
        np.testing.assert_array_equal(parse_vector(data.tobytes(), None, "path"), data)


def test_a_signalling_nan_is_refused_like_any_other_without_a_warning() -> None:
    with pytest.raises(InvalidRequest, match="NaN or infinity"):
        parse_vector(bytes.fromhex("0100807f") * 4, None, "path")


def test_what_is_made_of_a_collection_is_made_once() -> None:
    seen = []

    def names(collection: Collection) -> int:
        seen.append(collection)
        return len(collection.properties)

    assert EVERY_TYPE.once(names) == EVERY_TYPE.once(names) == len(EVERY_TYPE.properties)
    assert seen == [EVERY_TYPE]
    assert replace(EVERY_TYPE, properties=()).once(names) == 0


def test_the_id_of_a_content_never_changes() -> None:
    draft = DraftObject(
        "objects[0]", properties={"b": 1.0, "a": ["x"], "none": None}, images={"image": b"i"}, vectors={"v": b"1234"}
    )

    assert content_id("Pictures", draft) == UUID("3fbc95f0-7f18-5fae-b3bd-b72c3007266f")
    assert content_id("Others", draft) != content_id("Pictures", draft)


def test_vectors_are_joined_by_their_shares_and_scaled_to_unit_length() -> None:
    x, y = np.float32([1, 0]), np.float32([0, 1])

    joined = join([x, y], [3, 1])

    assert joined is not None
    assert_close(joined, np.array([3, 1]) / np.sqrt(10))
    assert joined.dtype == np.float32
    assert join([x], [0.5]) is x


def test_vectors_that_cancel_each_other_out_have_no_join() -> None:
    x = np.float32([1, 0])

    assert join([x, -x], [1, 1]) is None


async def test_the_next_chunk_is_embedded_while_the_last_one_is_written() -> None:
    embedder, store = FakeEmbedder(), FakeStore()
    written, release = asyncio.Event(), asyncio.Event()
    put = store.put_objects

    async def slow_put(*arguments: object) -> object:
        written.set()
        await release.wait()
        return await put(*arguments)  # type: ignore[arg-type]

    store.put_objects = slow_put  # type: ignore[assignment, method-assign]
    pool = EmbedderPool([embedder], check_interval_s=60)
    await store.create_collection(bound_collection(embedder))
    importer = Importer(store, pool, Writes(), max_chunk_objects=1, max_chunk_bytes=10**6)
    drafts = [DraftObject(f"objects[{n}]", properties={"title": f"title {n}"}) for n in range(3)]

    importing = asyncio.create_task(importer.import_objects("Pictures", drafts, truncate=False))
    async with asyncio.timeout(60):
        await written.wait()
        while len(embedder.calls) < 2:
            await asyncio.sleep(0)
        for _ in range(10):
            await asyncio.sleep(0)
    embedded_during_first_write = len(embedder.calls)
    release.set()
    report = await importing

    assert embedded_during_first_write == 2, "the next chunk, and no more: memory is bounded"
    assert [outcome.error for outcome in report.outcomes] == [None] * 3


async def test_chunks_are_bounded_in_bytes_but_a_large_object_still_goes_alone() -> None:
    embedder, store = FakeEmbedder(), FakeStore()
    await store.create_collection(bound_collection(embedder))
    importer = Importer(
        store, EmbedderPool([embedder], check_interval_s=60), Writes(), max_chunk_objects=10, max_chunk_bytes=100
    )
    drafts = [
        DraftObject(f"objects[{n}]", properties={"title": f"{n}" * size})
        for n, size in enumerate([30, 30, 30, 30, 500, 10])
    ]

    await importer.import_objects("Pictures", drafts, truncate=False)

    assert store.puts == [3, 1, 1, 1]


async def test_chunks_are_bounded_in_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "MAX_CHUNK_VALUES", 10)
    embedder, store = FakeEmbedder(), FakeStore()
    await store.create_collection(bound_collection(embedder))
    importer = Importer(store, EmbedderPool([embedder], check_interval_s=60), Writes())
    drafts = [
        DraftObject(f"objects[{n}]", properties={"title": f"title {n}"}, values=values)
        for n, values in enumerate([4, 6, 30, 1])
    ]

    await importer.import_objects("Pictures", drafts, truncate=False)

    assert store.puts == [2, 1, 1], "one with more values than that goes alone"


async def test_a_store_that_fails_in_the_middle_fails_the_call_and_leaves_no_task_behind() -> None:
    embedder, store = FakeEmbedder(), FakeStore()
    await store.create_collection(bound_collection(embedder))
    importer = Importer(
        store, EmbedderPool([embedder], check_interval_s=60), Writes(), max_chunk_objects=1, max_chunk_bytes=100
    )
    drafts = [DraftObject(f"objects[{n}]", properties={"title": f"{n}"}) for n in range(4)]
    collection = await store.get_collection("Pictures")
    before = asyncio.all_tasks()

    async def no_lookup(_: str) -> Collection:
        return collection

    store.get_collection = no_lookup  # type: ignore[method-assign]
    store.fail_next(StoreUnavailable("down"))
    with pytest.raises(StoreUnavailable):
        await importer.import_objects("Pictures", drafts, truncate=False)

    assert asyncio.all_tasks() == before


async def test_a_check_that_crashes_makes_the_embedder_unavailable_and_checks_go_on() -> None:
    embedder = FakeEmbedder()
    embedder.failure = ZeroDivisionError()
    breaker = BreakerEmbedder(embedder, BreakerRules())
    pool = EmbedderPool([breaker], check_interval_s=0.001)
    await pool.start()
    await pool.first_checks()
    first = pool.fault(breaker)
    embedder.failure = None
    async with asyncio.timeout(60):
        while pool.fault(breaker) is not None:
            await asyncio.sleep(0)
    await pool.close()

    assert first is not None
    assert "ZeroDivisionError" in first


async def test_a_check_that_hangs_delays_no_other_embedder_s() -> None:
    hanging, failing = FakeEmbedder(name="a"), FakeEmbedder(name="b")
    pool = EmbedderPool([hanging, failing], check_interval_s=0.001)
    await pool.start()
    await pool.first_checks()
    hanging.gate = asyncio.Event()
    hanging.entered.clear()
    async with asyncio.timeout(60):
        await hanging.entered.wait()

        failing.failure = EmbedderUnavailable("down")
        while pool.fault(failing) is None:
            await asyncio.sleep(0)

    assert hanging.in_flight == 1
    await pool.close()


async def test_a_dead_backend_is_found_out_however_often_the_cache_answers_for_it() -> None:
    backend = FakeEmbedder()
    embedder = CachingEmbedder(BreakerEmbedder(backend, BreakerRules()), VectorCache(100_000))
    pool = EmbedderPool([embedder], check_interval_s=0.001)
    await pool.start()
    await pool.first_checks()
    await pool.embed(embedder, [TextInput("a")], QUERY)
    backend.failure = EmbedderUnavailable("down")

    async with asyncio.timeout(60):
        while pool.fault(embedder) is None:
            await pool.embed(embedder, [TextInput("a")], QUERY)
            await asyncio.sleep(0)
    outcomes = await pool.embed(embedder, [TextInput("a")], QUERY)

    assert len(outcomes) == 1
    assert pool.fault(embedder) == "down", "what the cache answers clears no fault"
    await pool.close()


def bound_collection(embedder: FakeEmbedder) -> Collection:
    space = Space(embedder.spec.space, embedder.spec.dimension, embedder.spec.model)
    vector = NamedVector("default", space, text_fields=(WeightedField("title"),))
    return Collection("Pictures", (Property("title", DataType.TEXT),), (vector,))


@pytest.mark.parametrize("dimension", [0, 8])
async def test_nothing_is_bound_to_a_space_before_the_backend_has_shown_its_model(dimension: int) -> None:
    embedder = FakeEmbedder(dimension=dimension)
    embedder._spec = replace(embedder.spec, learnt=False)
    pool = EmbedderPool([embedder], check_interval_s=60)
    vectors = [VectorDraft(NamedVector("default", None))]

    with pytest.raises(EmbedderUnavailable, match="the model of embedder fake is not known until"):
        await Collections(FakeStore(), pool).create(Collection("Pictures", (), ()), vectors)


@pytest.mark.parametrize(
    ("model", "space"),
    [
        ("nvidia/nvclip", Space("nvidia/nvclip", 8, "nvidia/nvclip")),
        ("local", Space("clip:local:1", 9, "local")),
        ("unknown", Space("unknown", 0, "unknown")),
    ],
)
def test_an_adopted_vector_is_of_the_space_of_this_server_s_embedder_of_its_model(model: str, space: Space) -> None:
    pool = EmbedderPool(
        [
            FakeEmbedder(name="nim", model="nvidia/nvclip", space="nvidia/nvclip"),
            FakeEmbedder(name="clip", model="local", space="clip:local:1", dimension=9),
        ],
        check_interval_s=60,
    )
    adopted = Collection("C", (), (NamedVector("v", Space(model, 0, model)), NamedVector("w", None)))

    resolved = pool.resolve(adopted)

    assert [each.space for each in resolved.vectors] == [space, None]
    if model == "unknown":
        with pytest.raises(SpaceMismatch):
            pool.for_vector("C", resolved.vectors[0])
    else:
        assert [each.spec.model for each in pool.for_vector("C", resolved.vectors[0])] == [model]


@pytest.mark.parametrize(("learnt", "error"), [(False, EmbedderUnavailable), (True, SpaceMismatch)])
def test_a_space_in_other_letters_is_a_mismatch_only_once_the_nim_has_told_how_it_spells_its_model(
    *, learnt: bool, error: type[Exception]
) -> None:
    nim = FakeEmbedder(name="nim", model="NVIDIA/NVCLIP", space="NVIDIA/NVCLIP@8", dimension=8)
    nim._spec = replace(nim.spec, learnt=learnt)
    pool = EmbedderPool([nim], check_interval_s=60)

    with pytest.raises(error):
        pool.for_vector("C", NamedVector("v", Space("nvidia/nvclip@8", 8, "nvidia/nvclip")))
    with pytest.raises(SpaceMismatch):
        pool.for_vector("C", NamedVector("v", Space("nvidia/nvclip@16", 16, "nvidia/nvclip")))


CHECKPOINTS = ("clip:ViT-B-32:aaa", "clip:ViT-B-32:bbb")


def adopted(model: str) -> Collection:
    return Collection("C", (), (NamedVector("v", Space(model, 0, model)),))


@pytest.mark.parametrize("others", [[], [FakeEmbedder(name="late", model="", space="", dimension=0)]])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_adopted_vector_of_a_model_of_several_spaces_is_of_none_until_its_schema_or_the_server_says_which(
    order: tuple[int, int],
    others: list[FakeEmbedder],
) -> None:
    two = [FakeEmbedder(name=f"e{at}", model="ViT-B-32", space=CHECKPOINTS[at]) for at in order]
    pool = EmbedderPool([*two, *others], check_interval_s=60)
    (unclear,) = pool.resolve(adopted("ViT-B-32")).vectors
    (by_space,) = pool.resolve(adopted(CHECKPOINTS[1])).vectors
    (alone,) = EmbedderPool(two[:1], check_interval_s=60).resolve(adopted("ViT-B-32")).vectors

    with pytest.raises(
        SpaceAmbiguous, match=r"several vector spaces of that model: .*Leave only that embedder"
    ) as caught:
        pool.for_vector("C", unclear)

    assert unclear.space == Space("ViT-B-32", 0, "ViT-B-32")
    assert set(caught.value.metadata["given_space"].split(", ")) == set(CHECKPOINTS)
    assert by_space.space == Space(CHECKPOINTS[1], 8, "ViT-B-32")
    assert [each.spec.space for each in pool.for_vector("C", by_space)] == [CHECKPOINTS[1]]
    assert alone.space == Space(CHECKPOINTS[order[0]], 8, "ViT-B-32")


def test_an_adopted_vector_is_of_its_model_s_full_dimension_wherever_that_one_stands_and_waits_for_it() -> None:
    cut = FakeEmbedder(name="cut", model="m", space="m@8", dimension=8)
    full = FakeEmbedder(name="full", model="m", space="m", dimension=16)
    late = FakeEmbedder(name="late", model="", space="", dimension=0)
    resolved = [
        EmbedderPool(members, check_interval_s=60).resolve(adopted("m")).vectors[0].space
        for members in ([cut, full], [full, cut], [cut], [cut, late])
    ]

    with pytest.raises(EmbedderUnavailable, match="the model of late is not known yet"):
        EmbedderPool([cut, late], check_interval_s=60).for_vector("C", adopted("m").vectors[0])

    full_space = Space("m", 16, "m")
    assert resolved == [full_space, full_space, Space("m@8", 8, "m"), Space("m", 0, "m")]


def test_a_nim_that_has_not_told_its_model_yet_may_have_any_space_and_shares_it_with_nobody() -> None:
    waiting = [FakeEmbedder(name=name, model="", space="", dimension=0) for name in ("nim", "other")]
    waiting[0].health.fault = "the NIM cannot be reached"
    clip = FakeEmbedder(name="clip", model="local", space="clip:local:1")
    pool = EmbedderPool([*waiting, clip], check_interval_s=60)

    with pytest.raises(EmbedderUnavailable, match="nvidia/nvclip, but the model of nim is not known yet: the NIM"):
        pool.for_vector("C", NamedVector("v", Space("nvidia/nvclip", 8, "nvidia/nvclip")))

    assert pool.asked_for("") == waiting[:1]
    assert pool.of_space("") == []
    assert pool.for_vector("C", NamedVector("v", Space("clip:local:1", 8, "local"))) == [clip]


async def test_an_embedder_that_cannot_be_closed_keeps_no_other_one_open(monkeypatch: pytest.MonkeyPatch) -> None:
    embedders = [FakeEmbedder(name=name) for name in ("a", "b", "c")]

    async def fail() -> None:
        raise RuntimeError("stuck")

    monkeypatch.setattr(embedders[1], "close", fail)
    pool = EmbedderPool(embedders, check_interval_s=60)
    await pool.start()
    await pool.first_checks()
    with pytest.raises(RuntimeError, match="stuck"):
        await pool.close()
    assert [embedders[0].closed, embedders[2].closed] == [1, 1]
