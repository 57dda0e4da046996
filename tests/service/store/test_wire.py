"""Requests and hits on Weaviate's wire are those of the client's own methods, for every kind of query and value."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from weaviate.proto.v1 import base_pb2, properties_pb2, search_get_pb2

from service.domain import (
    AllOf,
    AnyOf,
    Blend,
    Condition,
    Consistency,
    DataType,
    Filter,
    Fusion,
    GeoRange,
    GroupBy,
    Hit,
    Keywords,
    Not,
    Operator,
    Property,
    Rerank,
    ReturnFields,
    Scope,
    SearchOptions,
    SearchSpec,
    SortBy,
    StoredObject,
    Target,
    TargetJoin,
    TargetVectors,
    WeightedField,
)
from service.errors import InvalidRequest
from service.store.weaviate.wire import objects_request, read_hits, read_objects, search_request
from tests.service.store.client_queries import ClientQueries

RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
UNIT = st.floats(0, 1, width=32)
IDS = st.uuids(version=4)
NAMES = ("title", "count", "tags", "home")
PERSON = (
    Property("name", DataType.TEXT),
    Property("photo", DataType.BLOB),
    Property("home", DataType.OBJECT, nested=(Property("city", DataType.TEXT),)),
    Property("unknown", None),
)

vectors = st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=4).map(lambda each: np.array(each, np.float32))
named = st.dictionaries(st.sampled_from(["main", "other", "default"]), vectors, min_size=1, max_size=3)
conditions: st.SearchStrategy[Filter] = st.one_of(
    st.builds(
        lambda operator, value: Condition(Target.PROPERTY, operator, value, "title"),
        st.sampled_from([Operator.EQUAL, Operator.NOT_EQUAL, Operator.LIKE, Operator.GREATER, Operator.LESS_OR_EQUAL]),
        st.text(max_size=5) | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5),
    ),
    st.builds(
        lambda operator, value: Condition(Target.PROPERTY, operator, value, "tags"),
        st.sampled_from([Operator.CONTAINS_ANY, Operator.CONTAINS_ALL, Operator.CONTAINS_NONE]),
        st.lists(st.text(max_size=3), min_size=1, max_size=3)
        | st.lists(st.integers(-5, 5), min_size=1, max_size=3)
        | st.lists(st.floats(-5, 5), min_size=1, max_size=3)
        | st.lists(st.booleans(), min_size=1, max_size=3),
    ),
    st.builds(lambda id_: Condition(Target.ID, Operator.EQUAL, str(id_)), IDS),
    st.just(Condition(Target.PROPERTY, Operator.IS_NULL, True, "title")),
    st.just(Condition(Target.PROPERTY_LENGTH, Operator.LESS, 3, "tags")),
    st.just(Condition(Target.PROPERTY, Operator.EQUAL, "Ulm", "city", ("lives_in", "part_of"))),
    st.just(Condition(Target.PROPERTY, Operator.WITHIN_GEO_RANGE, GeoRange(1.5, 2.5, 100.0), "place")),
)
filters = st.recursive(
    conditions,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda each: AllOf(tuple(each)))
        | st.lists(inner, min_size=1, max_size=3).map(lambda each: AnyOf(tuple(each)))
        | inner.map(Not)
    ),
    max_leaves=4,
)
keywords = st.builds(
    Keywords,
    st.text(max_size=8),
    st.lists(st.builds(WeightedField, st.sampled_from(NAMES), st.integers(1, 5).map(float)), max_size=2).map(tuple),
    st.sampled_from([None, True, False]),
    st.integers(0, 3),
)
fields = st.builds(
    ReturnFields,
    st.lists(st.sampled_from(NAMES), unique=True, max_size=4),
    st.lists(st.sampled_from(["photo", "scan"]), unique=True),
    st.lists(st.sampled_from(["main", "other", "default"]), unique=True),
    st.just({"home": PERSON}),
)
scopes = st.builds(Scope, st.sampled_from(["", "tenant-1"]), st.sampled_from([None, *Consistency]))


@st.composite
def targets(draw: Any) -> TargetVectors:
    """Return named vectors to search, with a join that fits their number."""
    chosen = draw(named)
    if len(chosen) == 1:
        return TargetVectors(chosen)
    join = draw(st.sampled_from([None, *TargetJoin]))
    weighted = join in (TargetJoin.MANUAL_WEIGHTS, TargetJoin.RELATIVE_SCORE)
    return TargetVectors(chosen, join, {name: draw(UNIT) for name in chosen} if weighted else {})


def words_only(chosen: TargetVectors) -> TargetVectors:
    """Return the same named vectors without values."""
    return TargetVectors(dict.fromkeys(chosen.vectors, np.array([], np.float32)), chosen.join, chosen.weights)


blends = st.builds(
    Blend,
    keywords,
    st.none() | UNIT,
    st.sampled_from([None, *Fusion]),
    st.none() | UNIT,
    targets() | targets().map(words_only) | st.just(TargetVectors({})),
) | st.builds(Blend, st.none(), st.none(), st.sampled_from([None, *Fusion]), st.none() | UNIT, targets())


@st.composite
def specs(draw: Any) -> SearchSpec:
    """Return a search or a listing of any kind."""
    query = draw(st.none() | targets() | keywords | blends)
    options: dict[str, Any] = {"filters": draw(st.none() | filters), "times": draw(st.booleans())}
    if query is None:
        options["after"] = draw(st.none() | IDS)
        options["sort"] = draw(
            st.lists(st.builds(SortBy, st.sampled_from(NAMES), st.booleans()), max_size=2).map(tuple)
        )
    else:
        options["auto_limit"] = draw(st.integers(0, 3))
        options["group_by"] = draw(
            st.none() | st.builds(GroupBy, st.just("title"), st.integers(1, 5), st.integers(1, 5))
        )
        options["rerank"] = draw(st.none() | st.builds(Rerank, st.just("title"), st.text(max_size=5)))
        options["explain_score"] = draw(st.booleans())
    if isinstance(query, TargetVectors):
        options["certainty"], options["distance"] = draw(st.none() | UNIT), draw(st.none() | UNIT)
    return SearchSpec(
        query, draw(st.integers(1, 50)), draw(st.integers(0, 50)), draw(fields), SearchOptions(**options), draw(scopes)
    )


def without_order(request: search_get_pb2.SearchRequest) -> search_get_pb2.SearchRequest:
    """Return a request with the properties that it asks for in the order of their names; the client's are a set."""
    properties = request.properties
    properties.non_ref_properties[:] = sorted(properties.non_ref_properties)
    nested = sorted(properties.object_properties, key=lambda each: each.prop_name)
    del properties.object_properties[:]
    properties.object_properties.extend(nested)
    return request


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ClientQueries:
    """Return the client's methods."""
    return ClientQueries(monkeypatch)


@RELAXED
@given(spec=specs(), nameless=st.booleans())
async def test_a_request_is_the_client_s(client: ClientQueries, spec: SearchSpec, *, nameless: bool) -> None:
    try:
        await client.search("Things", spec, nameless=nameless)
    except InvalidRequest as error:
        with pytest.raises(InvalidRequest, match=str(error)):
            search_request("Things", spec, nameless=nameless)
        return

    assert without_order(search_request("Things", spec, nameless=nameless)) == without_order(client.request)


@RELAXED
@given(ids=st.lists(IDS, min_size=1, max_size=3, unique=True), wanted=fields, scope=scopes, nameless=st.booleans())
async def test_a_request_for_objects_finds_what_the_client_s_finds(
    client: ClientQueries, ids: list[UUID], wanted: ReturnFields, scope: Scope, *, nameless: bool
) -> None:
    await client.get("Things", ids, wanted, scope, nameless=nameless)

    made = objects_request("Things", ids, wanted, scope, nameless=nameless)
    assert without_order(made) == without_order(client.request)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
degrees = st.floats(-90, 90, width=32)


def packed(numbers: list[Any], kind: str) -> bytes:
    """Return numbers as Weaviate packs them."""
    return np.array(numbers, kind).tobytes()


lists = st.one_of(
    st.lists(texts, max_size=3).map(lambda each: properties_pb2.ListValue(text_values={"values": each})),
    st.lists(texts, max_size=3).map(lambda each: properties_pb2.ListValue(date_values={"values": each})),
    st.lists(st.uuids().map(str), max_size=3).map(lambda each: properties_pb2.ListValue(uuid_values={"values": each})),
    st.lists(st.booleans(), max_size=3).map(lambda each: properties_pb2.ListValue(bool_values={"values": each})),
    st.lists(st.integers(-(2**53), 2**53), max_size=3).map(
        lambda each: properties_pb2.ListValue(int_values={"values": packed(each, "<i8")})
    ),
    st.lists(st.floats(allow_nan=False), max_size=3).map(
        lambda each: properties_pb2.ListValue(number_values={"values": packed(each, "<f8")})
    ),
)
scalars = st.one_of(
    texts.map(lambda each: properties_pb2.Value(text_value=each)),
    texts.map(lambda each: properties_pb2.Value(date_value=each)),
    st.uuids().map(lambda each: properties_pb2.Value(uuid_value=str(each))),
    st.integers(-(2**53), 2**53).map(lambda each: properties_pb2.Value(int_value=each)),
    st.floats(allow_nan=False).map(lambda each: properties_pb2.Value(number_value=each)),
    st.booleans().map(lambda each: properties_pb2.Value(bool_value=each)),
    st.builds(lambda lat, lon: properties_pb2.Value(geo_value={"latitude": lat, "longitude": lon}), degrees, degrees),
    st.just(properties_pb2.Value(null_value=0)),
    st.just(properties_pb2.Value(phone_value={"input": "0171 1", "country_code": 49, "valid": True})),
    lists.map(lambda each: properties_pb2.Value(list_value=each)),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.dictionaries(texts, inner, max_size=2).map(
            lambda each: properties_pb2.Value(object_value=properties_pb2.Properties(fields=each))
        )
        | st.lists(st.dictionaries(texts, inner, max_size=2), max_size=2).map(
            lambda each: properties_pb2.Value(
                list_value=properties_pb2.ListValue(
                    object_values={"values": [properties_pb2.Properties(fields=one) for one in each]}
                )
            )
        )
    ),
    max_leaves=4,
)
SINGLE = base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32


@st.composite
def results(draw: Any) -> search_get_pb2.SearchResult:
    """Return an object as Weaviate's reply has it."""
    properties = {name: draw(values) for name in NAMES if draw(st.booleans())}
    for name in ("photo", "scan"):
        if draw(st.booleans()):
            properties[name] = properties_pb2.Value(blob_value=draw(st.sampled_from(["", "AAEC", "/9j/"])))
    metadata = search_get_pb2.MetadataResult(id_as_bytes=draw(IDS).bytes, explain_score=draw(texts))
    for name in ("distance", "certainty", "score", "rerank_score"):
        setattr(metadata, name, draw(UNIT))
        setattr(metadata, f"{name}_present", draw(st.booleans()))
    for name in ("creation_time_unix", "last_update_time_unix"):
        setattr(metadata, name, draw(st.sampled_from([1, 1_700_000_000_123, 1_700_000_000_123_456_789])))
        setattr(metadata, f"{name}_present", draw(st.booleans()))
    metadata.explain_score_present = draw(st.booleans())
    for name in ("main", "other"):
        if draw(st.booleans()):
            metadata.vectors.add(name=name, vector_bytes=packed(draw(vectors), "<f4"), type=SINGLE)
    if draw(st.booleans()):
        metadata.vector_bytes = packed(draw(vectors), "<f4")
    return search_get_pb2.SearchResult(
        properties=search_get_pb2.PropertiesResult(non_ref_props=properties_pb2.Properties(fields=properties)),
        metadata=metadata,
    )


@st.composite
def replies(draw: Any) -> search_get_pb2.SearchReply:
    """Return a reply with hits, in groups and without."""
    reply = search_get_pb2.SearchReply(results=draw(st.lists(results(), max_size=3)))
    for at in range(draw(st.integers(0, 2))):
        group = reply.group_by_results.add(
            name=f"group {at}",
            min_distance=draw(UNIT),
            max_distance=draw(UNIT),
            number_of_objects=2,
            objects=draw(st.lists(results(), max_size=2)),
        )
        group.rerank.score = draw(UNIT)
    return reply


def comparable(found: StoredObject) -> tuple[Any, ...]:
    """Return an object's parts, with NaN-free vectors as lists and values with their types."""
    arrays = {name: (vector.dtype, vector.tolist()) for name, vector in found.vectors.items()}
    return found.id, repr(found.properties), found.images, arrays


def comparable_hit(hit: Hit) -> tuple[Any, ...]:
    """Return a hit's parts."""
    rest = (hit.distance, hit.certainty, hit.score, hit.created, hit.updated, hit.explain_score, hit.rerank_score)
    return (*comparable(hit.object), *rest, hit.group)


@RELAXED
@given(spec=specs(), reply=replies())
async def test_hits_are_the_client_s(
    client: ClientQueries, spec: SearchSpec, reply: search_get_pb2.SearchReply
) -> None:
    if spec.query is None and not spec.options.times:  # then none is asked for, and the client ignores what comes
        for each in reply.results:
            each.metadata.CopyFrom(search_get_pb2.MetadataResult(id_as_bytes=each.metadata.id_as_bytes))
        spec = replace(spec, fields=replace(spec.fields, vectors=()))
    client.reply = reply
    try:
        theirs = await client.search("Things", spec)
    except InvalidRequest:
        return

    assert list(map(comparable_hit, read_hits(reply, spec))) == list(map(comparable_hit, theirs))


@RELAXED
@given(wanted=fields, reply=replies())
async def test_objects_are_the_client_s(
    client: ClientQueries, wanted: ReturnFields, reply: search_get_pb2.SearchReply
) -> None:
    client.reply = reply

    theirs = await client.get("Things", [UUID(int=1)], wanted, Scope())

    assert list(map(comparable, read_objects(reply, wanted))) == list(map(comparable, theirs))


async def test_several_vectors_of_an_object_are_read_and_searched_with_as_the_client_does(
    client: ClientQueries,
) -> None:
    rows = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    metadata = search_get_pb2.MetadataResult(id_as_bytes=UUID(int=1).bytes)
    metadata.vectors.add(
        name="main", vector_bytes=b"\x03\x00" + rows.tobytes(), type=base_pb2.Vectors.VECTOR_TYPE_MULTI_FP32
    )
    reply = search_get_pb2.SearchReply(results=[search_get_pb2.SearchResult(metadata=metadata)])
    single = np.array([1, 2], np.float32)

    (found,) = read_objects(reply, ReturnFields(vectors=["main"]))

    np.testing.assert_array_equal(found.vectors["main"], rows)
    for targets in (TargetVectors({"main": rows}), TargetVectors({"main": rows, "other": single}, TargetJoin.SUM)):
        await client.search("Things", SearchSpec(targets))
        assert search_request("Things", SearchSpec(targets), nameless=False) == client.request


@pytest.mark.parametrize("said", [1_700_000_000_123, 1_700_000_000_123_000_000])
def test_times_are_read_in_milliseconds_and_in_nanoseconds(said: int) -> None:
    metadata = search_get_pb2.MetadataResult(
        id_as_bytes=UUID(int=1).bytes, creation_time_unix=said, creation_time_unix_present=True
    )
    reply = search_get_pb2.SearchReply(results=[search_get_pb2.SearchResult(metadata=metadata)])

    (hit,) = read_hits(reply, SearchSpec())

    assert hit.created == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)
