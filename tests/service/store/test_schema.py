from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from service.domain import (
    Collection,
    DataType,
    Distance,
    MultiTenancy,
    NamedVector,
    Property,
    Quantizer,
    Reranker,
    Space,
    VectorIndex,
    WeightedField,
)
from service.store.weaviate.schema import from_schema, patch_schema, to_schema, without_default_vector
from service.store.weaviate.vector_schema import add_binding, drop_binding
from tests.service.store.people import bare

COLLECTION = Collection(
    "Pictures",
    (Property("title", DataType.TEXT, "what it shows"), Property("photo", DataType.BLOB)),
    (
        NamedVector(
            "main", Space("s", 4, "m"), (WeightedField("photo", 0.9),), (WeightedField("title", 0.1),), Distance.DOT
        ),
    ),
    "Pictures of things",
)
SCHEMA: dict[str, Any] = {
    "class": "Pictures",
    "description": "Pictures of things",
    "properties": [
        {"name": "title", "dataType": ["text"], "description": "what it shows"},
        {
            "name": "photo",
            "dataType": ["blob"],
            "description": "",
            "indexFilterable": False,
            "indexSearchable": False,
        },
    ],
    "multiTenancyConfig": {"enabled": False},
    "invertedIndexConfig": {"indexNullState": True, "indexPropertyLength": True, "indexTimestamps": True},
    "vectorConfig": {
        "main": {
            "vectorizer": {
                "none": {
                    "space": "s",
                    "dimension": 4,
                    "model": "m",
                    "imageFields": ["photo"],
                    "textFields": ["title"],
                    "weights": {"imageFields": [0.9], "textFields": [0.1]},
                }
            },
            "vectorIndexType": "hnsw",
            "vectorIndexConfig": {"distance": "dot"},
        }
    },
}


def test_a_collection_becomes_a_schema_with_its_binding() -> None:
    assert to_schema(COLLECTION) == SCHEMA


def test_fields_of_one_input_are_stated_in_the_binding_without_weights_and_come_back() -> None:
    (vector,) = COLLECTION.vectors
    texts = (WeightedField("title"), WeightedField("about"))
    joint = replace(
        COLLECTION,
        properties=(*COLLECTION.properties, Property("about", DataType.TEXT)),
        vectors=(
            replace(vector, image_fields=(WeightedField("photo"),), text_fields=texts, weighted=False, joint=True),
        ),
    )

    schema = to_schema(joint)

    assert schema["vectorConfig"]["main"]["vectorizer"]["none"] == {
        "space": "s",
        "dimension": 4,
        "model": "m",
        "imageFields": ["photo"],
        "textFields": ["title", "about"],
        "combination": "joint",
    }
    assert bare(from_schema(schema)) == joint


def test_a_schema_becomes_the_collection_that_it_came_from() -> None:
    assert bare(from_schema(SCHEMA)) == COLLECTION


@pytest.mark.parametrize("description", ["", "Pictures", "Pictures\nof things", "[Vecgate: default_vector=b]\nno more"])
@pytest.mark.parametrize("default", ["", "b"])
def test_the_default_vector_survives_the_way_there_and_back_beside_a_description(
    description: str, default: str
) -> None:
    vectors = tuple(NamedVector(name, Space("s", 1, "m")) for name in ("a", "b"))
    collection = Collection("C", (), vectors, description, default_vector=default)

    schema = to_schema(collection)

    assert bare(from_schema(schema)) == collection
    assert bare(from_schema(patch_schema(schema, replace(collection, default_vector="a"))[0])).default_vector == "a"


@pytest.mark.parametrize("space", ["", "\n", "  \r\n"])
def test_a_default_vector_is_read_whatever_an_editor_leaves_behind_it(space: str) -> None:
    assert without_default_vector(f"Pictures\n[Vecgate: default_vector=a]{space}") == ("Pictures", "a")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("end", ["", "x"])
def test_a_long_description_of_such_lines_is_read_at_once(end: str) -> None:
    lines = "\n[Vecgate: default_vector=a]" * 100_000

    assert without_default_vector(lines + end) == (("", "a") if not end else (lines + end, ""))


def test_a_description_that_looks_like_a_default_vector_decides_nothing() -> None:
    vectors = tuple(NamedVector(name, Space("s", 1, "m")) for name in ("a", "b"))
    line = "[Vecgate: default_vector=a]"

    found = from_schema(to_schema(Collection("C", (), vectors, f"x\n{line}\n{line}")))

    assert (found.description, found.default_vector) == ("x", "")


def test_the_only_vector_needs_no_word_in_the_description() -> None:
    assert to_schema(replace(COLLECTION, default_vector="main")) == SCHEMA


@pytest.mark.parametrize("data_type", DataType)
def test_every_type_survives_the_way_there_and_back(data_type: DataType) -> None:
    nested = (Property("n", DataType.INT),) if data_type in (DataType.OBJECT, DataType.OBJECT_ARRAY) else ()
    collection = Collection("C", (Property("p", data_type, nested=nested),), ())
    assert bare(from_schema(to_schema(collection))) == collection


@pytest.mark.parametrize("tenancy", [MultiTenancy(), MultiTenancy(auto_creation=True), MultiTenancy(False, True)])
def test_multi_tenancy_survives_the_way_there_and_back(tenancy: MultiTenancy) -> None:
    collection = Collection("C", (), (), multi_tenancy=tenancy)
    assert bare(from_schema(to_schema(collection))) == collection


def test_a_native_vector_is_the_module_s_in_the_order_that_it_counts_in() -> None:
    vector = NamedVector(
        "v",
        Space("s", 2, "m"),
        (),
        (WeightedField("title", 0.25), WeightedField("alt", 0.75)),
        native=True,
        base_url="http://vecgate:8070",
    )
    schema = to_schema(Collection("C", (Property("title", DataType.TEXT), Property("alt", DataType.TEXT)), (vector,)))
    assert schema["vectorConfig"]["v"]["vectorizer"] == {
        "multi2vec-nvidia": {
            "space": "s",
            "dimension": 2,
            "model": "s",
            "servedModel": "m",
            "baseURL": "http://vecgate:8070",
            "textFields": ["alt", "title"],
            "weights": {"textFields": [0.75, 0.25]},
        }
    }
    (read,) = from_schema(schema).vectors
    assert (read.native, read.base_url, read.space) == (True, "http://vecgate:8070", vector.space)
    assert set(read.text_fields) == set(vector.text_fields)


def test_a_dynamic_index_holds_a_graph_and_a_flat_one_of_one_distance() -> None:
    index = VectorIndex(
        "dynamic",
        {"threshold": 5, "hnsw": {"ef": 7}, "flat": {"vectorCacheMaxObjects": 3}},
        Quantizer("rq", {"bits": 8}),
        Quantizer("bq", {"rescoreLimit": 4}),
    )
    vector = NamedVector("v", Space("s", 3, "m"), distance=Distance.DOT, index=index)
    schema = to_schema(Collection("C", (), (vector,)))
    assert schema["vectorConfig"]["v"]["vectorIndexConfig"] == {
        "distance": "dot",
        "threshold": 5,
        "hnsw": {"distance": "dot", "ef": 7, "rq": {"bits": 8, "enabled": True}},
        "flat": {"distance": "dot", "vectorCacheMaxObjects": 3, "bq": {"rescoreLimit": 4, "enabled": True}},
    }
    assert from_schema(schema).vectors == (vector,)


def test_a_reranker_survives_the_way_there_and_back_and_takes_the_place_of_another() -> None:
    first, second = Reranker("reranker-nvidia", {"model": "m"}), Reranker("reranker-cohere")
    collection = replace(COLLECTION, reranker=first)

    schema = to_schema(collection)
    schema["moduleConfig"]["generative-dummy"] = {"kept": True}
    patched, _ = patch_schema(schema, replace(collection, reranker=second))

    assert bare(from_schema(schema)) == collection
    assert patched["moduleConfig"] == {"generative-dummy": {"kept": True}, "reranker-cohere": {}}


def test_a_patch_keeps_what_this_version_does_not_know() -> None:
    unknown: dict[str, Any] = {
        **to_schema(COLLECTION),
        "moduleConfig": {"generative-dummy": {}},
        "invertedIndexConfig": {"usingBlockMaxWAND": True, "bm25": {"b": 0.1, "k1": 1}},
    }
    unknown["vectorConfig"]["main"]["vectorIndexConfig"] |= {
        "newer": {"than": "this"},
        "skipDefaultQuantization": False,
    }
    unknown["vectorConfig"]["main"]["vectorizer"] = {"other-module": {"kept": True}}
    before = deepcopy(unknown)
    wanted = replace(from_schema(unknown), description="new", inverted_index={"bm25": {"b": 0.2, "k1": 1}})
    patched, added = patch_schema(unknown, wanted)
    assert (patched["description"], added) == ("new", [])
    for name in ("moduleConfig", "vectorConfig", "properties", "multiTenancyConfig"):
        assert patched[name] == unknown[name]
    assert patched["invertedIndexConfig"]["usingBlockMaxWAND"] is True
    assert patched["invertedIndexConfig"]["bm25"] == {"b": 0.2, "k1": 1}
    assert unknown == before


def test_fields_follow_their_properties_to_a_small_first_letter() -> None:
    vector = NamedVector("v", Space("s", 1, "m"), (WeightedField("Photo"),), (WeightedField("Title"),))
    schema = to_schema(Collection("c", (Property("Photo", DataType.BLOB), Property("Title", DataType.TEXT)), (vector,)))
    binding = schema["vectorConfig"]["v"]["vectorizer"]["none"]
    assert (binding["imageFields"], binding["textFields"]) == (["photo"], ["title"])
    assert [each["name"] for each in schema["properties"]] == ["photo", "title"]


@pytest.mark.parametrize(
    ("types", "references"),
    [(["phoneNumber"], ()), (["Other"], ("Other",)), (["One", "Two"], ("One", "Two")), ([], ()), (None, ())],
    ids=["phone", "reference", "two", "none", "null"],
)
def test_a_type_that_is_not_handled_is_none(types: list[str] | None, references: tuple[str, ...]) -> None:
    collection = from_schema({"class": "C", "properties": [{"name": "p", "dataType": types}]})
    assert collection.properties == (Property("p", None, references=references),)


@pytest.mark.parametrize(
    ("config", "distance"),
    [
        ({"distance": "cosine"}, Distance.COSINE),
        ({"distance": "l2-squared"}, Distance.L2_SQUARED),
        ({"distance": "manhattan"}, Distance.MANHATTAN),
        ({"distance": "new"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_a_distance_that_is_not_handled_is_none(config: Any, distance: Distance | None) -> None:
    collection = from_schema({"class": "C", "vectorConfig": {"v": {"vectorIndexConfig": config}}})
    assert bare(collection).vectors == (NamedVector("v", None, distance=distance),)


@pytest.mark.parametrize(
    "vectorizer",
    [
        None,
        {},
        {"none": None},
        {"none": {}},
        {"none": {"space": "s"}},
        {"none": {"space": 1, "dimension": 1}},
        {"text2vec-nvidia": {"model": "nvidia/nv-embed"}},
    ],
)
def test_a_vector_without_our_keys_is_bound_to_no_space(vectorizer: Any) -> None:
    (vector,) = from_schema({"class": "C", "vectorConfig": {"v": {"vectorizer": vectorizer}}}).vectors
    assert vector.space is None


@pytest.mark.parametrize(
    ("config", "space"),
    [
        ({}, Space("nvidia/nvclip", 0, "nvidia/nvclip")),
        ({"model": "ViT-H-14"}, Space("ViT-H-14", 0, "ViT-H-14")),
        ({"model": "a", "space": "s", "dimension": 8}, Space("s", 8, "a")),
        ({"model": "s", "servedModel": "a", "space": "s", "dimension": 8}, Space("s", 8, "a")),
    ],
)
def test_a_vector_that_weaviate_s_own_module_fills_is_of_its_model_s_space(config: Any, space: Space) -> None:
    (vector,) = from_schema({"class": "C", "vectorConfig": {"v": {"vectorizer": {"multi2vec-nvidia": config}}}}).vectors
    assert vector.space == space


@pytest.mark.parametrize(
    ("space", "names"),
    [
        (Space("nvidia/nvclip", 4, "nvidia/nvclip"), {"model": "nvidia/nvclip"}),
        (Space("m@4", 4, "m"), {"model": "m@4", "servedModel": "m"}),
        (Space("clip:ViT-B-32:aaa", 4, "ViT-B-32"), {"model": "clip:ViT-B-32:aaa", "servedModel": "ViT-B-32"}),
    ],
)
def test_the_module_asks_for_the_space_of_a_native_vector_and_the_model_s_name_comes_back(
    space: Space, names: dict[str, str]
) -> None:
    (own,) = COLLECTION.vectors
    native = replace(own, space=space, native=True, base_url="http://vecgate:8070")

    schema = to_schema(replace(COLLECTION, vectors=(native,)))

    module = schema["vectorConfig"]["main"]["vectorizer"]["multi2vec-nvidia"]
    assert {key: module[key] for key in ("model", "servedModel") if key in module} == names
    assert bare(from_schema(schema)).vectors == (native,)


def test_fields_and_weights_of_a_module_are_read() -> None:
    module = {"imageFields": ["a", "b"], "textFields": ["t"], "weights": {"imageFields": [0.7, 0.2]}}
    (vector,) = from_schema({"class": "C", "vectorConfig": {"v": {"vectorizer": {"multi2vec-nvidia": module}}}}).vectors
    assert vector.image_fields == (WeightedField("a", 0.7), WeightedField("b", 0.2))
    assert vector.text_fields == (WeightedField("t", 1.0),)


def test_a_vector_without_a_name_is_read_and_changed_where_it_stands() -> None:
    module = {"textFields": ["title"], "model": "some/model"}
    schema = {
        "class": "Old",
        "properties": [{"name": "title", "dataType": ["text"]}],
        "vectorizer": "multi2vec-nvidia",
        "moduleConfig": {"multi2vec-nvidia": module, "generative-x": {"a": 1}},
        "vectorIndexType": "hnsw",
        "vectorIndexConfig": {"distance": "dot", "ef": 1, "rq": {"enabled": False}},
    }

    (vector,) = from_schema(schema).vectors
    index = replace(vector.index, parameters={**vector.index.parameters, "ef": 2})
    patched, _ = patch_schema(schema, replace(from_schema(schema), vectors=(replace(vector, index=index),)))

    assert (vector.name, vector.nameless, vector.native, vector.space) == (
        "default",
        True,
        True,
        Space("some/model", 0, "some/model"),
    )
    assert (vector.text_fields, vector.distance) == ((WeightedField("title"),), Distance.DOT)
    assert patched["vectorIndexConfig"]["ef"] == 2
    assert (patched["moduleConfig"], patched["vectorConfig"]) == (schema["moduleConfig"], {})


def test_a_collection_of_named_vectors_has_none_without_a_name() -> None:
    assert [(each.name, each.nameless) for each in from_schema(SCHEMA).vectors] == [("main", False)]


OWN = {"vectorizer": {"none": {}}, "vectorIndexType": "hnsw", "vectorIndexConfig": {"distance": "cosine"}}
BOUND = NamedVector(
    "own", Space("some/space", 4, "some/model"), (WeightedField("photo", 0.25),), (WeightedField("title"),)
)


def plain_schema(**vectors: Any) -> dict[str, Any]:
    """Return the schema of a collection for vectors of another client's."""
    properties = [{"name": name, "dataType": [type_]} for name, type_ in (("by", "Author"), ("title", "text"))]
    return {"class": "Plain", "properties": [*properties, {"name": "photo", "dataType": ["blob"]}], **vectors}


@pytest.mark.parametrize(
    ("name", "vectors"),
    [
        ("own", {"vectorConfig": {"own": OWN}}),
        ("default", {**OWN, "vectorizer": "none"}),
    ],
)
def test_a_vector_that_is_bound_later_has_its_binding_with_the_first_property(
    name: str, vectors: dict[str, Any]
) -> None:
    schema, wanted = plain_schema(**vectors), replace(BOUND, name=name)
    (before,) = from_schema(schema).vectors

    kept = add_binding(schema, wanted)

    (after,) = from_schema(schema).vectors
    assert (kept, before.space, before.binding, after.binding) == (True, None, 0, 1)
    assert (after.space, after.image_fields, after.text_fields) == (
        wanted.space,
        wanted.image_fields,
        wanted.text_fields,
    )
    assert [each["name"] for each in schema["properties"] if "moduleConfig" in each] == ["photo"]
    assert schema["properties"][2]["moduleConfig"]["vecgate-1"]["vector"] == name


def test_the_latest_binding_of_each_vector_counts() -> None:
    schema = plain_schema(vectorConfig={"own": OWN, "two": OWN})
    later = Space("later/space", 4, "later/model")
    for each in (BOUND, replace(BOUND, name="two"), replace(BOUND, space=later, image_fields=())):
        assert add_binding(schema, each)
    # As if a property that comes first had been added before the third one.
    schema["properties"].append({"name": "another", "dataType": ["int"], "moduleConfig": {"other": {}}})
    assert add_binding(schema, replace(BOUND, name="two", text_fields=()))

    own, two = from_schema(schema).vectors

    assert (own.space, own.image_fields, own.text_fields) == (later, (), BOUND.text_fields)
    assert (two.space, two.image_fields, two.text_fields) == (BOUND.space, BOUND.image_fields, ())
    assert schema["properties"][-1]["moduleConfig"].keys() == {"other", "vecgate-4"}


def test_a_vector_with_the_name_of_a_removed_one_does_not_inherit_its_binding() -> None:
    schema = plain_schema(vectorConfig={"own": OWN, "two": OWN})
    assert add_binding(schema, BOUND)

    dropped = [drop_binding(schema, name) for name in ("two", "own", "own")]

    assert dropped == [False, True, False]
    assert [each.space for each in from_schema(schema).vectors] == [None, None]
    again = replace(from_schema(schema).vectors[0], space=BOUND.space)
    assert add_binding(schema, again)
    assert [each.space for each in from_schema(schema).vectors] == [BOUND.space, None]


def test_a_binding_changes_no_vector_that_something_else_makes() -> None:
    module = {"multi2vec-nvidia": {"textFields": ["title"]}}
    vectors = {
        "bound": {**OWN, "vectorizer": {"none": {"space": "first", "dimension": 4, "model": "first/model"}}},
        "native": {**OWN, "vectorizer": module},
        "openai": {**OWN, "vectorizer": {"text2vec-openai": {}}},
        "several": {**OWN, "vectorIndexConfig": {"distance": "cosine", "multivector": {"enabled": True}}},
    }
    schema = plain_schema(vectorConfig=vectors)
    before = from_schema(schema).vectors

    for name in vectors:
        assert add_binding(schema, replace(BOUND, name=name))

    assert from_schema(schema).vectors == before
    assert [(each.name, each.module, each.multi) for each in before] == [
        ("bound", "", False),
        ("native", "", False),
        ("openai", "text2vec-openai", False),
        ("several", "", True),
    ]


def test_a_collection_of_references_alone_keeps_no_binding() -> None:
    schema = plain_schema(vectorConfig={"own": OWN})
    schema["properties"] = schema["properties"][:1]

    assert not add_binding(schema, BOUND)


def test_an_update_keeps_what_another_client_said_of_expired_objects() -> None:
    ttl = {"enabled": True, "deleteOn": "day", "defaultTtl": 5}
    schema = {**SCHEMA, "objectTtlConfig": {**ttl, "filterExpiredObjects": True}}
    found = from_schema(schema)

    patched, _ = patch_schema(schema, replace(found, object_ttl={**found.object_ttl, "defaultTtl": 9}))

    assert found.object_ttl == ttl
    assert patched["objectTtlConfig"] == {**ttl, "defaultTtl": 9, "filterExpiredObjects": True}
