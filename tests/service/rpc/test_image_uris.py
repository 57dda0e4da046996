"""Images that calls and objects name by URI, from a real HTTP server."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple
from uuid import UUID

import numpy as np
import pytest
from grpc import StatusCode

from embedders.contract import ImageInput, InputLimits, Modality, TextImageInput
from embedders.errors import EmbedderUnavailable
from service.core.pictures import Pictures
from service.fetching import Fetcher, Origin, parse_uri
from service.rpc.server import calls
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import Wire, code_of, failure_of, over_every_wire, start_wire, stop_wire, unpack
from tests.service.fetching.conftest import Listener, answer, redirect
from vecgate.client import AsyncClient, Object, Reference
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1 import evaluation_service_pb2 as evaluation_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb
from vecgate.v1.input_pb2 import Image, Input

RED, BLUE = picture((255, 0, 0)), picture((0, 0, 255))
COMPUTED, KEPT, MISSING = (
    object_pb.VECTOR_ORIGIN_COMPUTED,
    object_pb.VECTOR_ORIGIN_KEPT,
    object_pb.VECTOR_ORIGIN_MISSING,
)
IDS = [str(UUID(int=n)) for n in range(5)]
BOTH_KINDS = frozenset({*Modality})


class Site(NamedTuple):
    """A server of Vecgate, and an origin that it may fetch from."""

    wire: Wire
    origin: Listener

    def uri(self, path: str) -> str:
        return f"{self.origin.base}{path}"


@pytest.fixture
async def site(transport: str) -> AsyncIterator[Site]:
    async with Listener().open() as origin:
        origin.replies |= {
            "/p/red": answer(RED),
            "/p/blue": answer(BLUE),
            "/p/page": answer(b"<html>not found</html>", "Content-Type: text/html"),
            "/p/busy": answer(b"", status=503),
            "/p/out": redirect("http://169.254.169.254/latest/meta-data/"),
            "/p/long": answer(bytes(100_001)),
        }
        listed = Origin(name="site", root=parse_uri(f"{origin.base}/p/"), private_addresses=True)
        async with Fetcher([listed]) as fetcher:
            limits = InputLimits(max_image_bytes=100_000)
            embedder = FakeEmbedder(limits=limits, modalities=BOTH_KINDS)
            wire = await start_wire(embedder, pictures=Pictures(fetcher, max_image_bytes=100_000))
            yield Site(wire, origin)
            await stop_wire(wire)


def vectors_of(answer: pb.EmbedInputsResponse) -> list[bytes]:
    return [each.embedding.vector.data for each in answer.results]


async def create(wire: Wire, photo: str, *vectors: dict[str, object], name: str = "Photos") -> None:
    properties = [{"name": "photo", "data_type": photo}, {"name": "title", "data_type": "DATA_TYPE_TEXT"}]
    vectors = vectors or ({"name": "looks", "image_fields": [{"name": "photo"}]},)
    collection = collection_pb.Collection(name=name, properties=properties, vectors=vectors)
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))


async def import_(wire: Wire, *objects: object_pb.DataObject, again: bool = False) -> Sequence[object_pb.ImportResult]:
    request = object_pb.ImportObjectsRequest(collection="Photos", objects=objects, embed_unchanged=again)
    return (await wire.objects.ImportObjects(request)).results


def origins_of(results: Sequence[object_pb.ImportResult]) -> list[int]:
    return [vector.origin for each in results for vector in each.stored.vectors]


def by_uri(uri: str, id_: str = "") -> object_pb.DataObject:
    return object_pb.DataObject(id=id_, images={"photo": Image(uri=uri)})


def stored_uri(uri: str, id_: str = IDS[1], **properties: str) -> object_pb.DataObject:
    return object_pb.DataObject(id=id_, properties={"photo": uri, **properties})


def embedded(wire: Wire) -> list[bytes]:
    """Return the images that were embedded since the last time."""
    inputs = [each for inputs, _ in wire.embedder.calls for each in inputs]
    wire.embedder.calls.clear()
    return [each.content for each in inputs if isinstance(each, ImageInput | TextImageInput)]


@over_every_wire
async def test_an_image_by_uri_has_the_vector_of_its_bytes(site: Site) -> None:
    inputs = [Input(image={"uri": site.uri("/p/red")}), Input(image={"content": RED}), Input(text="a neighbour")]

    answer = await site.wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=inputs))

    assert all(each.HasField("embedding") for each in answer.results)
    assert len({*vectors_of(answer)[:2]}) == 1


@over_every_wire
async def test_each_bad_uri_fails_alone_with_its_reason(site: Site) -> None:
    images = {
        "IMAGE_URI_NOT_ALLOWED": [
            Image(uri=site.uri("/secret")),
            Image(uri=site.uri("/p/../secret")),
            Image(uri=site.uri("/p/out")),
            Image(uri="http://169.254.169.254/"),
            Image(uri="file:///etc/hostname"),
            Image(uri="x" * 5000),
        ],
        "IMAGE_NOT_SERVED": [Image(uri=site.uri("/p/none"))],
        "IMAGE_UNREACHABLE": [Image(uri=site.uri("/p/busy"))],
        "IMAGE_TOO_LARGE": [Image(uri=site.uri("/p/long"))],
        "IMAGE_UNDECODABLE": [Image(uri=site.uri("/p/page"))],
        "INVALID_INPUT": [Image(uri=site.uri("/p/red"), content=RED)],
    }
    listed = [(reason, each) for reason, some in images.items() for each in some]
    inputs = [Input(image=each) for _, each in listed]

    answer = await site.wire.embedding.EmbedInputs(pb.EmbedInputsRequest(inputs=[*inputs, Input(text="a neighbour")]))

    *failed, neighbour = answer.results
    failures = [unpack(each.error) for each in failed]
    assert neighbour.HasField("embedding")
    assert [each.reason for each in failures] == [reason for reason, _ in listed]
    assert failures[0].fields == ["inputs[0].image.uri"]
    unreachable = next(each for each in failures if each.reason == "IMAGE_UNREACHABLE")
    assert (unreachable.code, unreachable.retry_s) == (StatusCode.UNAVAILABLE, 1.0)
    assert not any("secret" in each for each in site.origin.requests)


async def test_a_text_with_an_image_by_uri_is_one_input(site: Site) -> None:
    pair = {"text": "red", "image": {"uri": site.uri("/p/red")}}
    bad = {"text": "red", "image": {"uri": site.uri("/secret")}}
    request = pb.EmbedInputsRequest(inputs=[Input(text_image=pair), Input(text_image=bad)])

    answer = await site.wire.embedding.EmbedInputs(request)

    assert answer.results[0].HasField("embedding")
    assert unpack(answer.results[1].error).fields == ["inputs[1].text_image.image.uri"]
    assert embedded(site.wire) == [RED]


async def test_without_a_list_of_origins_every_uri_is_refused(wire: Wire) -> None:
    answer = await wire.embedding.EmbedInputs(
        pb.EmbedInputsRequest(inputs=[Input(image={"uri": "https://a.example/"})])
    )

    failure = unpack(answer.results[0].error)
    assert (failure.code, failure.reason) == (StatusCode.INVALID_ARGUMENT, "IMAGE_URI_NOT_ALLOWED")
    assert "operator" in failure.message


async def test_an_imported_image_by_uri_is_the_object_that_its_bytes_would_be(site: Site) -> None:
    await create(site.wire, "DATA_TYPE_BLOB")

    (first,) = await import_(site.wire, by_uri(site.uri("/p/red")))
    (second,) = await import_(site.wire, object_pb.DataObject(images={"photo": Image(content=RED)}))
    output = {"images": ["photo"]}
    request = object_pb.GetObjectRequest(collection="Photos", id=first.id, output=output)
    found = (await site.wire.objects.GetObject(request)).object

    assert first.id == second.id
    assert origins_of([first, second]) == [COMPUTED, KEPT]
    assert found.images["photo"].content == RED


async def test_of_an_image_by_uri_a_blob_hash_keeps_the_hash(site: Site) -> None:
    await create(site.wire, "DATA_TYPE_BLOB_HASH")

    results = await import_(site.wire, by_uri(site.uri("/p/red"), IDS[1]), by_uri(site.uri("/p/blue"), IDS[2]))
    again = await import_(site.wire, by_uri(site.uri("/p/red"), IDS[1]), by_uri(site.uri("/p/red"), IDS[2]))

    assert origins_of(results) == [COMPUTED, COMPUTED]
    assert origins_of(again) == [KEPT, COMPUTED]


async def test_objects_whose_images_cannot_be_fetched_fail_alone(site: Site) -> None:
    await create(site.wire, "DATA_TYPE_BLOB")
    both = object_pb.DataObject(images={"photo": Image(uri=site.uri("/p/red"), content=RED)})
    paths = ("/p/red", "/secret", "/p/none", "/p/busy", "/p/long", "/p/page", "/p/blue")

    results = await import_(site.wire, *(by_uri(site.uri(each)) for each in paths), both)

    failures = [unpack(each.error) if each.HasField("error") else None for each in results]
    assert [each.reason if each else "" for each in failures] == [
        "",
        "IMAGE_URI_NOT_ALLOWED",
        "IMAGE_NOT_SERVED",
        "IMAGE_UNREACHABLE",
        "IMAGE_TOO_LARGE",
        "IMAGE_UNDECODABLE",
        "",
        "INVALID_INPUT",
    ]
    assert failures[1] is not None
    assert failures[1].fields == ['objects[1].images["photo"].uri']
    assert failures[2] is not None
    assert failures[2].message.startswith("objects[2].images[\"photo\"].uri: origin 'site'")


async def test_an_update_takes_an_image_by_uri(site: Site) -> None:
    await create(site.wire, "DATA_TYPE_BLOB")
    await import_(site.wire, by_uri(site.uri("/p/red"), IDS[1]))
    embedded(site.wire)
    request = object_pb.UpdateObjectRequest(collection="Photos", object=by_uri(site.uri("/p/blue"), IDS[1]))

    await site.wire.objects.UpdateObject(request)
    request.object.images["photo"].uri = site.uri("/p/none")
    failure = await failure_of(site.wire.objects.UpdateObject(request))

    assert embedded(site.wire) == [BLUE]
    assert (failure.code, failure.reason) == (StatusCode.FAILED_PRECONDITION, "IMAGE_NOT_SERVED")


@pytest.mark.parametrize("form", ["near_image", "near_inputs", "hybrid"])
async def test_a_search_takes_an_image_by_uri(form: str, site: Site) -> None:
    await create(site.wire, "DATA_TYPE_BLOB")
    await import_(site.wire, by_uri(site.uri("/p/red"), IDS[1]), by_uri(site.uri("/p/blue"), IDS[2]))

    def request(path: str) -> search_pb.SearchObjectsRequest:
        image = {"image": {"uri": site.uri(path)}}
        query = {"near_inputs": {"inputs": [image]}, "hybrid": {"near_image": image}}.get(form, image)
        return search_pb.SearchObjectsRequest(collection="Photos", limit=1, **{form: query})  # type: ignore[arg-type]

    (hit,) = (await site.wire.search.SearchObjects(request("/p/blue"))).hits
    refused = await failure_of(site.wire.search.SearchObjects(request("/secret")))
    busy = await failure_of(site.wire.search.SearchObjects(request("/p/busy")))

    assert hit.object.id == IDS[2]
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "IMAGE_URI_NOT_ALLOWED")
    assert refused.fields[0].endswith(".image.uri")
    assert (busy.code, busy.reason) == (StatusCode.UNAVAILABLE, "IMAGE_UNREACHABLE")


async def test_a_text_property_as_an_image_field_keeps_the_uri_alone(site: Site) -> None:
    await create(site.wire, "DATA_TYPE_TEXT")
    red = site.uri("/p/red")

    first = await import_(site.wire, stored_uri(red))
    fetched = len(site.origin.requests)
    second = await import_(site.wire, stored_uri(red))
    kept = len(site.origin.requests)
    third = await import_(site.wire, stored_uri(red), again=True)
    fourth = await import_(site.wire, stored_uri(site.uri("/p/blue")))
    request = search_pb.SearchObjectsRequest(collection="Photos", near_image={"image": {"content": BLUE}})
    (hit,) = (await site.wire.search.SearchObjects(request)).hits

    assert origins_of([*first, *second, *third, *fourth]) == [COMPUTED, KEPT, COMPUTED, COMPUTED]
    assert (fetched, kept) == (1, 1)
    assert embedded(site.wire) == [RED, RED, BLUE, BLUE]
    assert hit.distance == pytest.approx(0, abs=1e-6)
    assert dict(hit.object.properties) == {"photo": site.uri("/p/blue")}


async def test_objects_whose_stored_uris_lead_nowhere_fail_alone(site: Site) -> None:
    await create(site.wire, "DATA_TYPE_TEXT")
    paths = ("/p/red", "/secret", "/p/none", "/p/busy", "/p/long", "/p/page", "/p/blue")
    objects = [object_pb.DataObject(properties={"photo": site.uri(each)}) for each in paths]

    results = await import_(site.wire, *objects, object_pb.DataObject(properties={"photo": "no uri"}))

    failures = [unpack(each.error) if each.HasField("error") else None for each in results]
    assert [each.reason if each else "" for each in failures] == [
        "",
        "IMAGE_URI_NOT_ALLOWED",
        "IMAGE_NOT_SERVED",
        "IMAGE_UNREACHABLE",
        "IMAGE_TOO_LARGE",
        "IMAGE_UNDECODABLE",
        "",
        "IMAGE_URI_NOT_ALLOWED",
    ]
    assert failures[1] is not None
    assert failures[1].fields == ['objects[1].properties["photo"]']


async def test_a_backfill_and_an_update_fetch_what_only_the_uri_is_stored_of(site: Site) -> None:
    words = {"name": "words", "text_fields": [{"name": "title"}]}
    looks = {"name": "looks", "image_fields": [{"name": "photo"}]}
    await create(site.wire, "DATA_TYPE_TEXT", words)
    await import_(
        site.wire,
        stored_uri(site.uri("/p/red"), IDS[1], title="a"),
        stored_uri(site.uri("/p/none"), IDS[2], title="b"),
        stored_uri(site.uri("/secret"), IDS[3], title="c"),
    )
    assert embedded(site.wire) == []
    added = {"collection": {"name": "Photos", "vectors": [looks]}, "update_mask": {"paths": ["vectors"]}}
    await site.wire.collections.UpdateCollection(collection_pb.UpdateCollectionRequest(**added))  # type: ignore[arg-type]

    pages = [
        each async for each in site.wire.objects.BackfillVectors(object_pb.BackfillVectorsRequest(collection="Photos"))
    ]
    change = object_pb.UpdateObjectRequest(collection="Photos", object=stored_uri(site.uri("/p/blue"), IDS[2]))
    updated = await site.wire.objects.UpdateObject(change)

    failures = {each.id: unpack(each.error).reason for page in pages for each in page.failures}
    assert sum(each.filled for each in pages) == 1
    assert failures == {IDS[2]: "IMAGE_NOT_SERVED", IDS[3]: "IMAGE_URI_NOT_ALLOWED"}
    assert {each.name: each.origin for each in updated.stored.vectors} == {"looks": COMPUTED, "words": KEPT}
    assert embedded(site.wire) == [RED, BLUE]


async def test_a_stored_uri_and_a_text_are_read_as_one_input(site: Site) -> None:
    joint = {
        "name": "both",
        "image_fields": [{"name": "photo"}],
        "text_fields": [{"name": "title"}],
        "combination": "COMBINATION_JOINT_INPUT",
    }
    await create(site.wire, "DATA_TYPE_TEXT", joint)

    results = await import_(
        site.wire, stored_uri(site.uri("/p/red"), title="red"), stored_uri(site.uri("/secret"), IDS[2], title="x")
    )

    pairs = [each for inputs, _ in site.wire.embedder.calls for each in inputs if isinstance(each, TextImageInput)]
    assert pairs == [TextImageInput("red", RED)]
    assert origins_of(results[:1]) == [COMPUTED]
    assert unpack(results[1].error).fields == ['objects[1].properties["photo"]']


async def test_a_text_is_not_both_an_image_and_a_text_and_no_image_of_a_native_vector(site: Site) -> None:
    photo = [{"name": "photo"}]
    twice = {"name": "v", "image_fields": photo, "text_fields": photo}
    native = {"name": "v", "image_fields": photo, "native": True, "base_url": "http://vecgate:8070"}

    failures = [
        await failure_of(create(site.wire, "DATA_TYPE_TEXT", each))  # type: ignore[arg-type]
        for each in (twice, native)
    ]

    assert [each.fields for each in failures] == [["collection.vectors[0].image_fields[0].name"]] * 2


async def test_fetched_bytes_count_with_those_of_all_calls(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await create(site.wire, "DATA_TYPE_BLOB")
    monkeypatch.setattr(calls, "MAX_CALLS_BYTES", 2000)
    site.origin.replies["/p/1500"] = answer(RED.ljust(1500, b"\0"))
    image = Image(uri=site.uri("/p/1500"))
    few = pb.EmbedInputsRequest(inputs=[Input(image=image)])
    many = pb.EmbedInputsRequest(inputs=[Input(image=image)] * 20)

    answer_ = await site.wire.embedding.EmbedInputs(few)
    failure = await failure_of(site.wire.embedding.EmbedInputs(many))
    results = [(await import_(site.wire, by_uri(site.uri("/p/1500"), id_)))[0] for id_ in IDS]

    assert answer_.results[0].HasField("embedding")
    assert (failure.code, failure.reason) == (StatusCode.UNAVAILABLE, "OVERLOADED")
    assert all(each.HasField("stored") for each in results)


async def test_bytes_that_no_embedder_takes_count_no_longer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = {"name": "looks", "image_fields": [{"name": "photo"}]}
    await create(site.wire, "DATA_TYPE_TEXT", looks, {"name": "words", "text_fields": [{"name": "title"}]})
    monkeypatch.setattr(calls, "MAX_CALLS_BYTES", 8000)
    site.origin.replies["/p/1500"] = answer(RED.ljust(1500, b"\0"))
    site.wire.embedder.failure = EmbedderUnavailable("down")
    objects = [stored_uri(site.uri("/p/1500"), str(UUID(int=n))) for n in range(9)]
    for each in objects:
        each.vectors["words"].data = np.ones(8, "<f4").tobytes()

    # In chunks of three.
    results = await import_(site.wire, *objects)

    assert all(each.HasField("stored") for each in results)
    assert MISSING in origins_of(results)


async def test_a_caller_waits_no_longer_than_its_deadline(site: Site) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    site.origin.replies["/p/silent"] = silent
    request = pb.EmbedInputsRequest(inputs=[Input(image={"uri": site.uri("/p/silent")})])

    assert await code_of(site.wire.embedding.EmbedInputs(request, timeout=0.5)) is StatusCode.DEADLINE_EXCEEDED


async def test_an_import_that_fails_ends_what_was_fetched_ahead(site: Site) -> None:
    await create(site.wire, "DATA_TYPE_BLOB")

    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    site.origin.replies["/p/silent"] = silent
    site.wire.embedder.failure = EmbedderUnavailable("down")
    paths = ["/p/red", "/p/blue"] * 10 + ["/p/silent"]
    objects = [by_uri(site.uri(each), str(UUID(int=n))) for n, each in enumerate(paths[-20:])]

    failure = await failure_of(import_(site.wire, *objects))

    assert failure.reason == "EMBEDDER_UNAVAILABLE"
    assert not [each for each in asyncio.all_tasks() if "filled" in repr(each) or "Pictures" in repr(each)]


async def test_the_client_sends_references(site: Site) -> None:
    await create(site.wire, "DATA_TYPE_BLOB")
    red = Reference(site.uri("/p/red"))

    async with AsyncClient(f"127.0.0.1:{site.wire.server.port}") as client:
        embeddings = await client.embed([red, RED])
        outcomes = [each async for each in client.import_objects("Photos", [Object(images={"photo": red})])]
        result = await client.search("Photos", image=red)

    first, second = embeddings.matrix()
    assert first.tolist() == second.tolist()
    assert [each.stored for each in outcomes] == [True]
    assert [each.object.id for each in result.hits] == [outcomes[0].id]


async def test_the_images_of_an_evaluations_queries_are_fetched(site: Site) -> None:
    await create(site.wire, "DATA_TYPE_BLOB")
    await import_(site.wire, *(by_uri(site.uri(f"/p/{name}"), IDS[n]) for n, name in enumerate(("red", "blue"), 1)))

    async def evaluate(*names: str) -> evaluation_pb.Evaluation:
        queries = [
            {
                "id": str(n),
                "input": {"image": {"uri": site.uri(f"/p/{name}")}},
                "answers": [{"name": IDS[n]}],
            }
            for n, name in enumerate(names, 1)
        ]
        request = evaluation_pb.EvaluateCollectionRequest(collection="Photos", queries={"queries": queries}, limit=1)
        *_, last = [each async for each in site.wire.evaluation.EvaluateCollection(request)]
        return last.evaluation

    (system,) = (await evaluate("red", "blue")).systems
    refused = await failure_of(evaluate("red", "out"))

    assert {each.estimate.mean for each in system.measures} == {1}
    assert (refused.reason, refused.fields) == ("IMAGE_URI_NOT_ALLOWED", ["queries.queries[1].input.image.uri"])
