"""The page that evaluates a collection, in front of a real server: it shows what the API finds."""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import Descriptor
from google.rpc.error_details_pb2 import ErrorInfo
from playwright.async_api import Page, Route, expect

from service.cli.demo import COLLECTION
from tests.e2e.serving import ROOT, Serving
from tests.explorer.conftest import Guarded, NewPage
from tests.explorer.gestures import drop
from tests.explorer.samples import QUERIES
from tests.explorer.scenes import EVALUATED_WAYS, EVALUATION_MS, run_evaluation
from tests.explorer.test_access import REFUSED, with_key
from tests.explorer.watching import Watch
from vecgate.v1 import evaluation_service_pb2 as pb

CAPTIONS = f"#/evaluate?collection={COLLECTION}&by=captions&property=name&limit=3"
TIMES = ("time", "embedding_time", "mean_time", "median_time", "p95_time", "end_time")
CALL = "**/EvaluateCollection"


def untimed(result: Any) -> Any:
    """Return a result without what is never the same."""
    if isinstance(result, list):
        return [untimed(each) for each in result]
    if isinstance(result, dict):
        return {name: untimed(each) for name, each in result.items() if name not in TIMES}
    return result


async def evaluated(server: Serving, request: pb.EvaluateCollectionRequest) -> pb.Evaluation:
    """Return what the API finds."""

    def ask() -> pb.Evaluation:
        with server.client() as client:
            *_, last = client.evaluate_collection(request)
        return last.evaluation

    return await asyncio.to_thread(ask)


def as_json(found: pb.Evaluation) -> Any:
    """Return a result as the command line prints it."""
    return json_format.MessageToDict(found, preserving_proto_field_name=True)


async def saved(page: Page) -> Any:
    """Return the result that the page saves."""
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Save as JSON").click()
    path = await (await download.value).path()
    return json.loads(await asyncio.to_thread(path.read_text, encoding="utf-8"))


async def test_the_page_shows_and_saves_what_the_api_finds(page: Page, gallery: Serving) -> None:
    captions = pb.CaptionQueries(property="name")
    ways = [pb.EvaluatedSystem(), pb.EvaluatedSystem(alpha=0.5)]
    expected = await evaluated(
        gallery, pb.EvaluateCollectionRequest(collection=COLLECTION, captions=captions, systems=ways, limit=3)
    )

    await page.goto(f"{CAPTIONS}&ways={EVALUATED_WAYS}")
    await run_evaluation(page)
    # It is there when somebody comes back from another page.
    await page.get_by_role("link", name="Status").click()
    await page.get_by_role("link", name="Evaluate").click()

    assert untimed(await saved(page)) == untimed(as_json(expected))
    rows = page.get_by_role("region", name="Measures of each way").locator("tbody tr")
    for row, system in enumerate(expected.systems):
        await expect(rows.nth(row).get_by_role("rowheader")).to_have_text(system.system.name)
        for each in system.measures:
            value = each.estimate
            words = f"{value.mean:.3f} {value.low:.3f} to {value.high:.3f}"
            await expect(rows.nth(row).get_by_role("cell", name=words).first).to_be_visible()
    for finding in expected.findings:
        await expect(page.get_by_role("region", name="What to look at")).to_contain_text(finding.message)
    shown = page.get_by_role("region", name="Queries that win and lose most").get_by_role("list").first.locator("> li")
    await expect(shown).to_have_count(len(expected.queries))
    for number, query in enumerate(expected.queries):
        links = shown.nth(number).get_by_role("list").first.get_by_role("link")
        hashes = await links.evaluate_all("(all) => all.map((each) => each.hash)")
        assert [each.partition("id=")[2] for each in hashes] == list(query.found[0].ids)
        await expect(shown.nth(number)).to_contain_text(query.text)


def maps_of(message: Descriptor) -> set[str]:
    """Return the names of the maps in a message and in all messages in it."""
    found = set()
    for each in message.fields:
        if each.message_type is not None and each.message_type.GetOptions().map_entry:
            found.add(each.name)
        elif each.message_type is not None:
            found |= maps_of(each.message_type)
    return found


async def test_names_of_properties_and_vectors_are_saved_as_they_are(page: Page) -> None:
    weights = {"shortTitle": 0.75, "Photo": 0.25}
    suggested: Any = {"weights": weights, "ndcg": {"mean": 0.5}, "tried": [{"weights": weights, "ndcg": 0.5}]}
    ways = [{"name": "both", "target_weights": weights}, {"name": "fields", "field_weights": weights}]
    found = pb.Evaluation(systems=[{"system": each} for each in ways], weights=suggested, query_count=3)
    told = enveloped({"evaluation": json_format.MessageToDict(found)}, 0) + enveloped({}, 2)
    await page.goto(CAPTIONS)
    await page.route(CALL, lambda route: route.fulfill(body=told, content_type="application/connect+json"))

    await run_evaluation(page)

    assert await saved(page) == as_json(found)
    assert maps_of(pb.Evaluation.DESCRIPTOR) == {"target_weights", "field_weights", "weights"}


async def test_what_the_page_does_not_know_of_ways_in_its_address_is_named(page: Page) -> None:
    note = page.get_by_text("This page leaves out what it does not know of the ways in its address")
    await page.goto(f"{CAPTIONS}&ways=present;vector=default,alpha=0.5")
    await expect(page.get_by_role("group", name="Way 2", exact=True).get_by_label("Alpha")).to_have_value("0.5")
    await expect(note).to_have_count(0)

    many = ";".join(["alpha=0.1"] * 19)
    await page.goto(f"{CAPTIONS}&ways=present;vector=default,weights=a:1,join,alpha=0.2;{many}")
    # A change of the address alone leaves the form as it is.
    await page.reload()

    await expect(note).to_contain_text(": weights=a:1, join, alpha=0.1")
    await expect(page.get_by_role("group", name="Way 2", exact=True).get_by_label("Alpha")).to_have_value("0.2")


async def test_an_answer_has_as_much_room_for_its_picture_as_other_hits_before_it_comes(page: Page) -> None:
    async def never(_: Route) -> None:
        return None

    await page.route("**/GetObject", never)
    await page.goto(f"{CAPTIONS}&ways={EVALUATED_WAYS}")
    await run_evaluation(page)

    await expect(page.locator(".tile .badge").first).to_be_attached()
    sizes = await page.locator(".tile .picture").evaluate_all("(all) => all.map((each) => each.clientWidth)")
    assert len(set(sizes)) == 1
    await page.unroute("**/GetObject")


async def test_present_weights_of_fields_find_in_a_sample_of_all_objects_what_searches_find(gallery: Serving) -> None:
    captions = pb.CaptionQueries(property="keywords", sample_size=200)
    rest: Any = {"collection": COLLECTION, "captions": captions, "limit": 5}
    words_alone = pb.EvaluatedSystem(field_weights={"image": 0, "name": 1})

    searched = await evaluated(gallery, pb.EvaluateCollectionRequest(**rest))
    found = await evaluated(
        gallery,
        pb.EvaluateCollectionRequest(**rest, systems=[pb.EvaluatedSystem(), words_alone], suggest_field_weights=True),
    )

    assert found.sample_object_count == found.object_count
    by_search = {each.measure: each.estimate for each in searched.systems[0].measures}
    assert by_search.pop(pb.EVALUATION_MEASURE_INDEX_RECALL).mean == 1
    assert {each.measure: each.estimate for each in found.systems[0].measures} == by_search
    present, words = (each.measures[0].estimate.mean for each in found.systems)
    assert present != words
    best = dict(found.weights.weights)
    assert max(found.weights.tried, key=lambda each: each.ndcg).ndcg >= present
    assert best.keys() == {"image", "name"}
    assert found.embedded_inputs == found.query_count + 2 * found.object_count


async def test_copied_commands_find_what_the_page_shows(page: Page, gallery: Serving) -> None:
    await page.goto(f"{CAPTIONS}&sample=20&ways={EVALUATED_WAYS}&suggest=yes")
    await run_evaluation(page)
    expected = untimed(await saved(page))

    await page.get_by_text("This request as a command or a program").click()
    texts = []
    for name in ("curl", "vecgate"):
        await page.get_by_role("button", name=name, exact=True).click()
        texts.append(await page.get_by_label(f"{name} request", exact=True).inner_text())
    curl, command = texts
    ours = command.replace("127.0.0.1:50070", gallery.address).replace("vecgate", f"'{sys.executable}' -m service", 1)
    lines, printed = await asyncio.gather(output(curl), output(f"{ours} --json"))

    message = pb.EvaluateCollectionResponse()
    json_format.Parse(next(line for line in lines.splitlines() if line.startswith('{"evaluation"')), message)
    assert untimed(as_json(message.evaluation)) == expected
    assert untimed(json.loads(printed)) == expected


async def output(command: str) -> str:
    """Run a command of a shell, and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{command}: {err.decode()}"
    return out.decode()


async def test_queries_and_answers_come_from_files_that_are_dropped(
    page: Page, gallery: Serving, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    (folder / "pictures").mkdir(parents=True)
    picture = (QUERIES / "fluent" / "pizza.png").read_bytes()
    (folder / "pictures" / "pizza.png").write_bytes(picture)
    rows = ['words,"a small, <b>furry</b> pet",', "photo,,pictures/pizza.png", "unknown,nothing,"]
    (folder / "queries.csv").write_text("\ufeffid,text,image\r\n" + "\r\n".join(rows) + "\r\n", encoding="utf-8")
    (folder / "answers.qrels").write_text("words 0 cat 2\nwords 0 dog 1\nphoto 0 pizza 1\n", encoding="utf-8")
    request = pb.EvaluateCollectionRequest(collection=COLLECTION, limit=10)
    request.queries.answer_property = "name"
    words = request.queries.queries.add(id="words", answers=[{"name": "cat", "gain": 2}, {"name": "dog", "gain": 1}])
    words.input.text = "a small, <b>furry</b> pet"
    photo = request.queries.queries.add(id="photo", answers=[{"name": "pizza", "gain": 1}])
    photo.input.image.content = picture
    expected = as_json(await evaluated(gallery, request))
    await page.goto(f"#/evaluate?collection={COLLECTION}")
    await expect(page.get_by_role("button", name="Evaluate", exact=True)).to_be_enabled()

    await drop(page.get_by_role("main"), folder)
    await expect(page.get_by_text("2 queries in queries.csv, answers in answers.qrels")).to_be_visible()
    await page.get_by_role("combobox", name="Answers are").select_option("name")
    await run_evaluation(page)

    assert untimed(await saved(page)) == untimed(expected)
    await expect(page.get_by_alt_text("The picture that is searched by")).to_have_count(
        sum(each["id"] == "photo" for each in expected.get("queries", []))
    )


async def test_an_evaluation_is_compared_with_one_that_was_saved(page: Page, gallery: Serving, tmp_path: Path) -> None:
    await page.goto(f"{CAPTIONS}&sample=20")
    await run_evaluation(page)
    earlier = tmp_path / "evaluation.json"
    earlier.write_text(json.dumps(await saved(page)), encoding="utf-8")
    captions = pb.CaptionQueries(property="name", sample_size=20)
    request = pb.EvaluateCollectionRequest(collection=COLLECTION, captions=captions, limit=3)
    json_format.ParseDict(json.loads(earlier.read_text())["report"], request.earlier)
    expected = as_json(await evaluated(gallery, request))["drift"]

    await drop(page.get_by_role("main"), earlier)
    await expect(page.get_by_text("Compared with the evaluation in evaluation.json")).to_be_visible()
    await page.get_by_role("button", name="Evaluate", exact=True).click()

    table = page.get_by_role("region", name="Differences from the earlier evaluation")
    await expect(table.locator("tbody tr")).to_have_count(len(expected["changes"]), timeout=EVALUATION_MS)
    await expect(table.get_by_role("row", name="the collection objects 128 128")).to_be_visible()
    found = (await saved(page))["drift"]
    assert found["since"] == expected["since"]
    assert [each for each in found["changes"] if "TIME" not in each["kind"]] == [
        each for each in expected["changes"] if "TIME" not in each["kind"]
    ]


async def test_an_evaluation_is_stopped_and_another_one_begun(page: Page) -> None:
    async def never(_: Route) -> None:
        return None

    await page.goto(CAPTIONS)
    await page.route(CALL, never)

    button = page.get_by_role("button", name="Evaluate", exact=True)
    # A key is pressed whether or not it does something yet; a click waits.
    await expect(button).to_be_enabled()
    await button.press("Enter")
    await page.get_by_role("button", name="Stop").press("Enter")

    await expect(page.get_by_text("The evaluation was stopped.")).to_be_visible()
    await page.unroute(CALL)
    await run_evaluation(page)


async def test_a_key_without_permission_is_told_and_another_key_is_enough(
    guarded: Guarded, new_page: NewPage, watch: Watch
) -> None:
    watch.expect(*REFUSED)
    page = await new_page(guarded.server.url)
    await page.goto(CAPTIONS)
    await with_key(page, guarded.keys["reader"])

    await page.get_by_role("button", name="Evaluate", exact=True).click()

    note = page.get_by_role("alert")
    await expect(note).to_contain_text("PERMISSION_DENIED")
    await expect(note).to_contain_text("it needs the permission admin")
    await page.get_by_role("button", name="Forget key").click()
    await with_key(page, guarded.keys["admin"])
    await run_evaluation(page)


def enveloped(message: object, flags: int) -> bytes:
    """Return a message of Connect's streams."""
    content = json.dumps(message).encode()
    return bytes([flags]) + len(content).to_bytes(4, "big") + content


async def test_a_difference_says_whether_it_is_worse_better_or_may_be_chance(page: Page) -> None:
    differences = (("worse", -0.1, True), ("better", 0.1, True), ("may be chance", -0.1, False))
    comparisons = [
        {"system": verdict, "measure": "EVALUATION_MEASURE_NDCG", "difference": {"mean": mean}, "real": real}
        for verdict, mean, real in differences
    ]
    systems = [{"system": {"name": name}} for name in ("present", *(verdict for verdict, *_ in differences))]
    told = enveloped({"evaluation": {"systems": systems, "comparisons": comparisons}}, 0) + enveloped({}, 2)
    await page.goto(CAPTIONS)
    await page.route(CALL, lambda route: route.fulfill(body=told, content_type="application/connect+json"))

    await run_evaluation(page)

    rows = page.get_by_role("region", name="Differences from the first way").locator("tbody tr")
    for row, (verdict, *_) in enumerate(differences):
        await expect(rows.nth(row).locator(".badge")).to_have_text(verdict)


def missing_package() -> bytes:
    """Return the stream of a server without the library that measures against known answers."""
    info = AnyMessage()
    info.Pack(ErrorInfo(reason="PACKAGE_MISSING", domain="vecgate"))
    packed = {"type": "google.rpc.ErrorInfo", "value": base64.b64encode(info.value).decode()}
    message = "Measuring hits against known answers needs ir-measures: pip install 'vecgate[evaluate]'"
    return enveloped({"error": {"code": "failed_precondition", "message": message, "details": [packed]}}, 2)


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (missing_package(), ("The server lacks a package for this", "vecgate[evaluate]", "PACKAGE_MISSING")),
        (enveloped({"progress": {"done": "1", "total": "9"}}, 0), ("The server's answer broke off.",)),
    ],
    ids=["missing package", "cut off"],
)
async def test_a_call_that_fails_on_its_way_says_why(page: Page, stream: bytes, told: tuple[str, ...]) -> None:
    await page.goto(CAPTIONS)
    await page.route(CALL, lambda route: route.fulfill(body=stream, content_type="application/connect+json"))

    await page.get_by_role("button", name="Evaluate", exact=True).click()

    for words in told:
        await expect(page.get_by_role("alert")).to_contain_text(words)


async def test_the_focus_stays_near_ways_that_are_added_and_removed(page: Page) -> None:
    await page.goto(CAPTIONS)
    add = page.get_by_role("button", name="Add a way")

    await add.press("Enter")
    await page.get_by_role("group", name="Way 2").get_by_label("Alpha").fill("0.5")
    await page.get_by_role("button", name="Remove way 1").press("Enter")

    await expect(page.get_by_role("group", name="Way 2")).to_have_count(0)
    await expect(page.get_by_role("group", name="Way 1").get_by_label("Alpha")).to_have_value("0.5")
    await expect(add).to_be_focused()
