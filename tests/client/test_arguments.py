"""What the client's methods take: one thing where several are taken, and ids as text or UUID."""

import inspect
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from functools import partial, reduce
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID, uuid4

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from tests.client.conftest import Connect
from tests.fakes.server import FakeVecgate, serving
from vecgate.client import (
    Client,
    Object,
    TextImage,
    VecgateError,
    bm25,
    encode_vector,
    hybrid,
    move,
    near_inputs,
    near_object,
    near_text,
    where,
)
from vecgate.client.values import PilImage
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import property_pb2 as property_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1 import tenant_pb2 as tenant_pb
from vecgate.v1.filter_pb2 import OBJECT_FIELD_ID
from vecgate.v1.scope_pb2 import CONSISTENCY_ALL

ID = UUID("3fa85f64-5717-4562-b3fc-2c963f66afa6")
GIVEN: dict[str, Any] = {
    "collection": "Pictures",
    "name": "Pictures",
    "id_": ID,
    "filters": where("title").equal("a"),
    "change": Object(id=ID),
}
SAMPLES: dict[type, Any] = {
    str: "title",
    bytes: b"a picture",
    bytearray: bytearray(b"a picture"),
    memoryview: memoryview(b"a picture"),
    PilImage: PIL.Image.new("RGB", (2, 3), "red"),
    Path: Path(__file__),
    TextImage: TextImage("title", b"a picture"),
    UUID: ID,
    Object: Object({"title": "a"}, id=ID),
    tenant_pb.Tenant: tenant_pb.Tenant(name="title"),
}


def lists() -> Iterator[tuple[str, str, Any]]:
    """Yield every parameter of a public method that takes several things, with each kind of one of them."""
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if name.startswith("_"):
            continue
        hints = get_type_hints(method)
        if "options" in hints:
            hints |= get_type_hints(*get_args(hints.pop("options")))
        for parameter, hint in hints.items():
            kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
            if parameter in ("return", "vector") or not any(
                get_origin(kind) and issubclass(get_origin(kind), Iterable) for kind in kinds
            ):
                continue
            alone = [kind for kind in kinds if kind in SAMPLES]
            assert alone, f"{name}({parameter}) takes a list and nothing alone"
            for kind in alone:
                yield name, parameter, SAMPLES[kind]


LISTS = list(lists())


@pytest.fixture
def fake() -> Iterator[FakeVecgate]:
    with serving(FakeVecgate()) as running:
        running.add_collection("Pictures", title=property_pb.DATA_TYPE_TEXT)
        yield running


@pytest.fixture
def client(fake: FakeVecgate, connect: Connect) -> Iterator[Client]:
    with connect(fake.address) as connected:
        yield connected


def request_of(client: Client, fake: FakeVecgate, name: str, **arguments: Any) -> Any:
    """Call a method and return what it sent."""
    method = getattr(client, name)
    needed = {
        parameter: GIVEN[parameter]
        for parameter, what in inspect.signature(method).parameters.items()
        if what.default is what.empty and what.kind is not what.VAR_KEYWORD and parameter not in arguments
    }
    if name == "update_collection":
        needed["collection"] = collection_pb.Collection(name="Pictures")
    if name == "search" and not arguments.keys() & {"text", "image", "vector", "query"}:
        needed["text"] = "a dog"
    fake.requests.clear()
    with suppress(VecgateError):
        answer = method(**needed, **arguments)
        if isinstance(answer, Iterator):
            list(answer)
    # An import asks for the bounds first.
    (sent,) = (requests[0] for called, requests in fake.requests.items() if called != "ListEmbedders")
    return sent


@pytest.mark.parametrize(("name", "parameter", "one"), LISTS, ids=lambda value: str(value).partition(" at 0x")[0][:40])
def test_one_alone_is_a_list_of_one(client: Client, fake: FakeVecgate, name: str, parameter: str, one: Any) -> None:
    alone = request_of(client, fake, name, **{parameter: one})
    listed = request_of(client, fake, name, **{parameter: [one]})
    drawn = request_of(client, fake, name, **{parameter: iter([one])})

    assert alone == listed == drawn


def test_every_list_is_found() -> None:
    found = {(name, parameter) for name, parameter, _ in LISTS}

    assert {
        ("embed", "inputs"),
        ("import_objects", "objects"),
        ("create_tenants", "tenants"),
        ("update_tenants", "tenants"),
        ("delete_tenants", "names"),
        ("list_tenants", "names"),
        ("update_collection", "update_mask"),
        ("backfill_vectors", "vectors"),
        ("search", "text"),
        ("search", "target_vector"),
        ("search", "return_properties"),
        ("get_object", "return_images"),
        ("list_objects", "return_vectors"),
    } <= found


def test_one_value_alone_is_a_filters_list_of_one() -> None:
    for value in ("abc", 5, 1.5, True, ID):
        for kind in ("contains_any", "contains_all", "contains_none"):
            assert getattr(where("a"), kind)(value) == getattr(where("a"), kind)([value])
    assert where("a").contains_any("abc").condition.value.texts.values == ["abc"]
    assert move(1, objects=ID) == move(1, objects=[str(ID)])


@pytest.mark.parametrize("name", ["get_object", "delete_object"])
def test_an_id_is_text_or_a_uuid(client: Client, fake: FakeVecgate, name: str) -> None:
    assert request_of(client, fake, name, id_=ID) == request_of(client, fake, name, id_=str(ID))


def test_an_unknown_keyword_of_a_search_is_refused(client: Client) -> None:
    with pytest.raises(TypeError, match=r"search\(\) has no argument limits"):
        client.search("Pictures", text="a", limits=3)  # type: ignore[call-arg]


def test_an_id_is_text_or_a_uuid_wherever_one_is_taken(client: Client, fake: FakeVecgate) -> None:
    (outcome,) = client.import_objects("Pictures", [Object({"title": "a"}, id=ID)])
    client.update_object("Pictures", Object({"title": "b"}, id=ID))

    assert (outcome.id, outcome.error) == (str(ID), None)
    assert Object(id=ID).id == client.get_object("Pictures", ID).id == str(ID)
    assert near_object(ID) == near_object(str(ID))
    assert near_inputs(ID).inputs[0].near_object.id == str(ID)
    assert where(object_field=OBJECT_FIELD_ID).contains_any([ID]).condition.value.texts.values == [str(ID)]
    assert where(object_field=OBJECT_FIELD_ID).equal(ID).condition.value.text == str(ID)


@pytest.mark.parametrize("wrong", [None, 7, ID.bytes, Object()])
@pytest.mark.parametrize(
    "call",
    [
        lambda _, wrong: Object(id=wrong),
        lambda client, wrong: client.get_object("Pictures", wrong),
        lambda client, wrong: client.delete_object("Pictures", wrong),
        lambda _, wrong: near_object(wrong),
        lambda _, wrong: move(1, objects=[wrong]),
    ],
)
def test_another_id_is_refused_by_its_type(client: Client, call: Callable[[Client, Any], object], wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"an id is a str or a UUID, not {type(wrong).__name__}"):
        call(client, wrong)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda client: client.embed([5]),
            "an image is bytes, the Path of a file, a PIL image or a Reference, not int",
        ),
        (
            lambda client: client.embed(None),
            "an image is bytes, the Path of a file, a PIL image or a Reference, not NoneType",
        ),
        (
            lambda client: client.search("Pictures", image="dog.png"),
            "an image is bytes, the Path of a file, a PIL image or a Reference, not str",
        ),
        (lambda client: client.search("Pictures", query="dog"), "str is not a query; give one of near_text"),
        (
            lambda client: list(client.import_objects("Pictures", [{"title": "a"}])),
            r"an object is an Object\(properties\), not dict",
        ),
        (
            lambda client: client.update_object("Pictures", {"title": "a"}),
            r"an object is an Object\(properties\), not dict",
        ),
        (lambda _: where("a").equal(None), "NoneType cannot be compared with"),
        (lambda _: where("a").contains_any([[1]]), "list cannot be compared with"),
        (lambda _: where("a").contains_any(["a", 1]), "several types .integer, text.; give values of one type"),
        (lambda _: where("a").contains_any([True, 2]), "several types .boolean, integer."),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_by_it(
    client: Client, call: Callable[[Client], object], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        call(client)


def test_an_image_of_a_wrong_type_fails_with_its_object(client: Client) -> None:
    (outcome,) = client.import_objects("Pictures", Object(images={"image": "dog.png"}))  # type: ignore[dict-item]

    assert (
        str(outcome.error)
        == "INVALID_INPUT: image 'image': an image is bytes, the Path of a file, a PIL image or a Reference, not str"
    )


def test_an_image_that_cannot_be_read_fails_with_its_object(client: Client, tmp_path: Path) -> None:
    paths = (tmp_path / "missing.png", Path(__file__))

    outcomes = list(client.import_objects("Pictures", [Object(images={"image": path}) for path in paths]))

    assert outcomes[1].error is None
    assert str(outcomes[0].error).startswith("INVALID_INPUT: image 'image' cannot be read: [Errno 2]")


def test_a_list_of_nothing_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="nothing to compare with; give 1 or more values"):
        where("a").contains_any([])


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.int64(3), "integer"),
        (np.float32(0.5), "number"),
        (np.bool_(True), "boolean"),
        (np.str_("a"), "text"),
        (2**53, "integer"),
        (2**53 + 2, "number"),
        (10**17, "number"),
        (2**70, "number"),
        (-(2**63), "number"),
    ],
)
def test_a_filters_value_is_sent_as_what_it_is(value: Any, kind: str) -> None:
    for filter_ in (where("a").equal(value), where("a").contains_any([value])):
        sent = filter_.condition.value
        field = str(sent.WhichOneof("kind"))
        found = getattr(sent, field)
        assert field.removesuffix("s") == kind
        assert (found if field == kind else found.values[0]) == value


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 10**400])
def test_a_whole_number_that_no_double_holds_is_refused_everywhere(client: Client, value: int) -> None:
    with pytest.raises(ValueError, match=r"beyond 2\^53"):
        where("a").equal(value)
    (outcome,) = client.import_objects("Pictures", Object({"year": [value]}, id=uuid4()))

    assert "property 'year': a whole number beyond 2^53" in str(outcome.error)


@pytest.mark.parametrize("make", [near_text, partial(move, 0.5)], ids=["near_text", "move"])
@pytest.mark.parametrize("concept", [["a", "b"], b"a", 5, None], ids=["list", "bytes", "number", "none"])
def test_a_concept_that_is_not_a_str_is_named_by_its_type(make: Callable[..., object], concept: object) -> None:
    with pytest.raises(TypeError, match=f"a concept is a str, not {type(concept).__name__}"):
        make(concept)


@pytest.mark.parametrize("value", [np.datetime64("2026-01-31T08:00:00", "ns"), np.timedelta64(5, "ns")])
def test_a_date_of_numpy_is_no_number(client: Client, value: Any) -> None:
    for make in (where("day").equal, where("day").contains_any):
        with pytest.raises(TypeError, match="a date of numpy has no time zone: give a datetime"):
            make(value)
    for given in (value, np.array([value])):
        (outcome,) = client.import_objects("Pictures", Object({"day": given}))
        assert str(outcome.error).endswith("property 'day': a date of numpy has no time zone: give a datetime")


def test_a_zone_with_seconds_is_written_in_whole_minutes_at_the_same_moment() -> None:
    moment = datetime(1, 1, 1, tzinfo=timezone(timedelta(minutes=53, seconds=28)))

    text = where("day").equal(moment).condition.value.text

    assert text == "0001-01-01T00:00:32+00:54"
    assert datetime.fromisoformat(text) == moment


@pytest.mark.parametrize(
    "moment",
    [
        datetime.max.replace(tzinfo=timezone(timedelta(minutes=53, seconds=28))),
        datetime(2000, 1, 1, tzinfo=timezone(timedelta(hours=23, minutes=59, seconds=30))),
    ],
    ids=["at the end of all dates", "beyond all zones"],
)
def test_a_moment_that_no_zone_of_whole_minutes_has_fails_with_its_object(client: Client, moment: datetime) -> None:
    (outcome,) = client.import_objects("Pictures", Object({"day": moment}))

    assert str(outcome.error).endswith("property 'day': in a zone of whole minutes there is no such date")


def test_a_property_of_too_many_levels_fails_with_its_object(client: Client) -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep = reduce(lambda inner, _: {"a": [inner]}, range(30), None)

    outcomes = list(client.import_objects("Pictures", [Object({"title": value}) for value in ("a", endless, deep)]))

    assert outcomes[0].stored
    for each in outcomes[1:]:
        assert "property 'title': there are more than 32 objects and lists within each other" in str(each.error)


@pytest.mark.parametrize("near", ["a dog", near_object(ID), bm25("dog")], ids=["str", "near_object", "bm25"])
def test_what_is_no_vector_side_is_refused_by_its_type(near: Any) -> None:
    sides = "near_text, near_image, near_vector, near_inputs"
    with pytest.raises(TypeError, match=f"^the vector side must be one of {sides}, not {type(near).__name__}$"):
        hybrid("a dog", near)


def test_weights_may_be_an_array_or_none() -> None:
    assert [each.weight for each in near_inputs("a", "b", weights=np.array([1, 2])).inputs] == [1, 2]
    assert near_inputs("a", "b", weights=None) == near_inputs("a", "b")


@pytest.mark.parametrize("secret", ["secret\n", "sécret", "sec\tret"])
def test_a_key_that_cannot_be_sent_is_refused_at_once_and_not_repeated(secret: str) -> None:
    for options in ({"api_key": secret}, {"metadata": [("x-nvidia-api-key", secret)]}):
        with pytest.raises(ValueError, match="is not printable ASCII") as caught:
            Client("127.0.0.1:1", **options)
        assert "ret" not in str(caught.value)


def test_a_name_of_metadata_is_sent_in_lower_case_or_refused(connect: Connect, fake: FakeVecgate) -> None:
    metadata = [("X-Nvidia-Api-Key", "key"), ("X-User", b"someone"), ("X-Trace-Bin", b"\xff")]
    with connect(fake.address, metadata=metadata) as connected:
        connected.embedders()

    sent = fake.metadata["ListEmbedders"]
    assert [sent[name] for name in ("x-nvidia-api-key", "x-user", "x-trace-bin")] == ["key", "someone", b"\xff"]
    with pytest.raises(ValueError, match="metadata cannot be called 'x key'"):
        Client("127.0.0.1:1", metadata=[("X key", "key")])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("X-User", 5, "the value of x-user is a str, not int"),
        ("X-Trace-Bin", "text", "the value of x-trace-bin is bytes, not str"),
    ],
)
def test_a_value_of_metadata_of_a_wrong_type_is_refused_by_it(name: str, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Client("127.0.0.1:1", metadata=[(name, value)])
    with pytest.raises(ValueError, match="the value of x-user has a character that is not printable ASCII"):
        Client("127.0.0.1:1", metadata=[("X-User", b"\n")])


def sent_image(client: Client, fake: FakeVecgate, image: Any) -> PIL.Image.Image:
    """Embed an image and return what the server got."""
    content = request_of(client, fake, "embed", inputs=image).inputs[0].image.content
    return PIL.Image.open(io.BytesIO(content))


def test_an_image_of_pillow_is_sent_as_png_without_loss(client: Client, fake: FakeVecgate) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)

    sent = sent_image(client, fake, PIL.Image.fromarray(pixels))

    assert sent.format == "PNG"
    assert (np.asarray(sent) == pixels).all()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("CMYK", "RGB"), ("F", "F"), ("I", "I"), ("I;16B", "I;16"), ("PA", "RGBA"), ("LA", "LA"), ("1", "1")],
)
def test_an_image_of_any_mode_is_sent(client: Client, fake: FakeVecgate, mode: str, expected: str) -> None:
    assert sent_image(client, fake, PIL.Image.new(mode, (2, 2))).mode == expected


@pytest.mark.parametrize("values", [np.float32, np.int32, ">u2", "<u2"])
def test_an_image_of_pillow_keeps_values_that_eight_bits_do_not_hold(
    client: Client, fake: FakeVecgate, values: npt.DTypeLike
) -> None:
    pixels = (np.arange(6).reshape(2, 3) * 13_000 if values != np.float32 else np.arange(6).reshape(2, 3) / 5).astype(
        values
    )

    assert (np.asarray(sent_image(client, fake, PIL.Image.fromarray(pixels))) == pixels).all()


def test_a_smooth_image_of_floats_is_sent_small(client: Client, fake: FakeVecgate) -> None:
    image = PIL.Image.fromarray(np.tile(np.linspace(0, 1, 512, dtype=np.float32), (512, 1)))

    content = request_of(client, fake, "embed", inputs=image).inputs[0].image.content

    assert len(content) < 512 * 512 * 4 / 10


def test_an_image_of_pillow_is_sent_upright(client: Client, fake: FakeVecgate) -> None:
    turned = PIL.Image.new("RGB", (2, 3))
    turned.getexif()[0x0112] = 6

    assert sent_image(client, fake, turned).size == (3, 2)


def test_an_image_is_taken_in_every_form_wherever_one_is(client: Client, fake: FakeVecgate, tmp_path: Path) -> None:
    picture = PIL.Image.new("RGB", (2, 3))
    file = tmp_path / "a.png"
    picture.save(file, compress_level=1)
    content = file.read_bytes()

    for image in (picture, file, content, bytearray(content), memoryview(content)):
        assert request_of(client, fake, "search", image=image).near_image.image.content == content
        assert near_inputs(image).inputs[0].image.content == content
        sent = request_of(client, fake, "import_objects", objects=Object(images={"image": image}))
        assert sent.objects[0].images["image"].content == content
        sent = request_of(client, fake, "update_object", change=Object(images={"image": image}, id=ID))
        assert sent.object.images["image"].content == content


def test_every_field_of_a_search_has_a_keyword(client: Client, fake: FakeVecgate) -> None:
    vector = np.ones(4)
    wanted = search_pb.SearchObjectsRequest(
        collection="Pictures",
        near_vector=search_pb.NearVector(target_vectors={"a": encode_vector(vector), "b": encode_vector(vector)}),
        limit=3,
        offset=2,
        target_vectors=["a", "b"],
        target_join=search_pb.TARGET_JOIN_RELATIVE_SCORE,
        target_weights=[0.5, 2],
        filters=where("title").equal("a"),
        certainty=0.5,
        distance=0.25,
        auto_limit=1,
        scope={"tenant": "a", "consistency": CONSISTENCY_ALL},
        output={"properties": ["title"], "images": ["image"], "vectors": ["a"]},
        return_times=True,
        return_explain_score=True,
        group_by=search_pb.GroupBy(property="title", number_of_groups=1, objects_per_group=2),
        rerank=search_pb.Rerank(property="title", query="a"),
    )

    sent = request_of(
        client,
        fake,
        "search",
        vector={"a": vector, "b": vector.tolist()},
        limit=3,
        offset=2,
        target_vector={"a": 0.5, "b": np.float32(2)},
        target_join=search_pb.TARGET_JOIN_RELATIVE_SCORE,
        filters=where("title").equal("a"),
        certainty=0.5,
        distance=0.25,
        auto_limit=1,
        tenant="a",
        consistency=CONSISTENCY_ALL,
        return_properties="title",
        return_images="image",
        return_vectors="a",
        return_times=True,
        return_explain_score=True,
        group_by=wanted.group_by,
        rerank=wanted.rerank,
    )

    assert sent == wanted
    queries = {field.name for field in sent.DESCRIPTOR.oneofs_by_name["query"].fields}
    unset = set(sent.DESCRIPTOR.fields_by_name) - {field.name for field, _ in sent.ListFields()} - queries
    assert unset == set()
