"""`vecgate evaluate`, and the switch to another vector that asks for it, against a server over a store in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from service.cli import app, connection
from service.cli.drift import NAMES, drift_rows
from service.cli.evaluation_page import comparison_in_words
from service.domain import StoredObject, WeightedField
from tests.fakes.embedder import FakeEmbedder, picture
from tests.service.conftest import Wire, start_wire, stop_wire
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import evaluation_service_pb2 as pb
from vecgate.v1 import property_pb2 as property_pb

ROOT = Path(__file__).parents[3]
COUNT = 60
TITLES = [f"thing {number}" for number in range(COUNT)]
IDS = [UUID(int=number + 1) for number in range(COUNT)]


@pytest.fixture
async def moving() -> AsyncIterator[Wire]:
    """A collection with a named vector of each of two models; the second one's vectors are all at the wrong objects."""
    good, bad = FakeEmbedder(name="good", space="good"), FakeEmbedder(name="bad", space="bad")
    wire = await start_wire(good, bad)
    fields = [collection_pb.WeightedField(name="image")]
    await wire.collections.CreateCollection(
        collection_pb.CreateCollectionRequest(
            collection=collection_pb.Collection(
                name="Things",
                properties=[
                    property_pb.Property(name="image", data_type=property_pb.DATA_TYPE_BLOB),
                    property_pb.Property(name="title", data_type=property_pb.DATA_TYPE_TEXT),
                ],
                vectors=[
                    collection_pb.VectorConfig(name="old", embedder="good", image_fields=fields),
                    collection_pb.VectorConfig(name="new", embedder="bad", image_fields=fields),
                ],
                default_vector="old",
            )
        )
    )
    within = wire.store._objects.setdefault("Things", {})
    wrong = np.random.default_rng(1).permutation(COUNT)
    for number, id_ in enumerate(IDS):
        vectors = {"old": good.vector(TITLES[number]), "new": bad.vector(TITLES[wrong[number]])}
        colour = (4 * number, 0, 255 - 4 * number)
        within[id_] = StoredObject(id_, {"title": TITLES[number]}, {"image": picture(colour)}, vectors)
    yield wire
    await stop_wire(wire)


async def run(wire: Wire, *arguments: str) -> Result:
    command = ["--address", f"127.0.0.1:{wire.server.port}", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, app, command)


def printed(result: Result) -> dict[str, Any]:
    """Return the JSON that a command printed, among lines of the server's log."""
    found: dict[str, Any] = json.JSONDecoder().raw_decode(result.stdout[result.stdout.index("{\n") :])[0]
    return found


async def default_vector(wire: Wire) -> str:
    request = collection_pb.GetCollectionRequest(name="Things")
    return (await wire.collections.GetCollection(request)).collection.default_vector


async def test_the_table_says_what_each_system_reaches_and_what_differs(moving: Wire) -> None:
    result = await run(
        moving, "evaluate", "Things", "--caption-field", "title", "--system", "vector=old", "--system", "vector=new"
    )

    assert result.exit_code == 0, result.output
    assert "60 queries, 60 objects, the first 10 hits" in result.output
    old, new = (next(line for line in result.output.splitlines() if line.startswith(each)) for each in ("old", "new"))
    assert "1.000 (1.000 to 1.000)" in old
    assert old.count("*") == 0
    assert new.count("*") == 3
    assert "new: it finds" in result.output
    assert "and chance finds 16.7%" in result.output


async def test_json_and_the_page_hold_the_same_and_the_page_needs_nothing_else(moving: Wire, tmp_path: Path) -> None:
    page = tmp_path / "page.html"

    result = await run(
        moving,
        *("evaluate", "Things", "--caption-field", "title", "--system", "vector=old", "--system", "vector=new"),
        *("--json", "--html", str(page)),
    )

    assert result.exit_code == 0, result.output
    found = printed(result)
    assert [each["system"]["name"] for each in found["systems"]] == ["old", "new"]
    html = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in html
    assert "<script" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert html.count("<svg") == html.count('role="img" aria-label="') == 5
    assert 'aria-label="MRR of old: 1.000; new: ' in html
    assert "color-scheme: light dark" in html
    assert html.count("data:image/jpeg;base64,") > 10
    assert all(each["id"] in html for each in found["queries"])
    assert "Queries that win and lose most" in html
    assert "worse" in html


@pytest.mark.parametrize(
    ("mean", "real", "said"), [(-0.1, True, "worse"), (0.1, True, "better"), (-0.1, False, "may be chance")]
)
def test_each_comparison_says_whether_it_is_worse_better_or_may_be_chance(
    mean: float, said: str, *, real: bool
) -> None:
    assert comparison_in_words(pb.SystemComparison(difference=pb.Estimate(mean=mean), real=real)) == said


async def test_a_worse_vector_is_refused_as_the_default_and_a_better_one_taken(moving: Wire) -> None:
    switch = ("collections", "update", "Things", "--if-better", "--caption-field", "title", "--default-vector")

    worse = await run(moving, *switch, "new")
    after_worse = await default_vector(moving)
    await run(moving, "collections", "update", "Things", "--default-vector", "new")
    better = await run(moving, *switch, "old", "--measure", "mrr")

    assert worse.exit_code == 1
    assert "so it is worse; nothing is changed" in worse.output
    assert after_worse == "old"
    assert better.exit_code == 0, better.output
    assert "the MRR of old differs by +" in better.output
    assert await default_vector(moving) == "old"


async def switch(wire: Wire, folder: Path, numbers: Sequence[int]) -> Result:
    """Make the new vector the default one if it is no worse for the titles of these numbers."""
    file = folder / "queries.jsonl"
    lines = [json.dumps({"text": TITLES[number], "answers": str(IDS[number])}) for number in numbers]
    file.write_text("\n".join(lines))
    update = ("collections", "update", "Things", "--default-vector", "new", "--if-better")
    return await run(wire, *update, "--queries", str(file))


async def test_a_slightly_worse_vector_is_taken_only_if_the_queries_are_enough_to_tell_that_it_is_only_slightly_worse(
    moving: Wire, tmp_path: Path
) -> None:
    bad, within = FakeEmbedder(name="bad", space="bad"), moving.store._objects["Things"]
    for number, id_ in enumerate(IDS):
        # The first object is not found by its title any more.
        vector = bad.vector(TITLES[number]) if number else -bad.vector(TITLES[0])
        within[id_].vectors = {**within[id_].vectors, "new": vector}

    few = await switch(moving, tmp_path, range(12))
    after_few = await default_vector(moving)
    enough = await switch(moving, tmp_path, [0, *(number % 59 + 1 for number in range(299))])

    assert few.exit_code == 1
    assert "the nDCG of new differs by -0.083 (-0.250 to +0.000) from that of old" in few.output
    assert "so it may be worse by 0.02; more queries make this surer; nothing is changed" in few.output
    assert after_few == "old"
    assert enough.exit_code == 0, enough.output
    assert "the nDCG of new differs by -0.003 (-0.010 to +0.000) from that of old" in enough.output
    assert await default_vector(moving) == "new"


async def test_a_vector_that_finds_the_same_is_taken(moving: Wire, tmp_path: Path) -> None:
    bad, within = FakeEmbedder(name="bad", space="bad"), moving.store._objects["Things"]
    for number, id_ in enumerate(IDS):
        within[id_].vectors = {**within[id_].vectors, "new": bad.vector(TITLES[number])}

    same = await switch(moving, tmp_path, range(12))

    assert same.exit_code == 0, same.output
    assert "differs by +0.000 (+0.000 to +0.000) from that of old, so it is no worse by 0.02" in same.output
    assert await default_vector(moving) == "new"


async def test_a_comparison_that_proves_nothing_never_switches(moving: Wire, tmp_path: Path) -> None:
    bare, gone = UUID(int=1000), "5a7c2f0e-8d1b-4c39-9e64-b1f0a2d37c58"
    files = {
        "gone": [("thing 1", gone)] * 12,
        "zero": [(f"thing {row}", str(bare)) for row in range(12)],
        "few": [(f"thing {row}", str(IDS[row])) for row in range(9)],
    }
    for name, rows in files.items():
        lines = [json.dumps({"text": text, "answers": answer}) for text, answer in rows]
        (tmp_path / name).with_suffix(".jsonl").write_text("\n".join(lines))
    moving.store._objects["Things"][bare] = StoredObject(bare, {"title": "no search finds it, for it has no vector"})
    await run(moving, "collections", "update", "Things", "--default-vector", "new")

    results = {
        name: await run(
            moving,
            *("collections", "update", "Things", "--default-vector", "old", "--if-better"),
            *("--queries", str(tmp_path / f"{name}.jsonl")),
        )
        for name in files
    }

    assert {name: each.exit_code for name, each in results.items()} == {"gone": 1, "zero": 1, "few": 1}
    assert f"none of which is in the collection, such as '{gone}'" in results["gone"].output
    assert "proves nothing about old; nothing is changed: no answer is among the first" in results["zero"].output
    assert "9 queries are too few to tell any difference from chance; give at least 10" in results["few"].output
    assert await default_vector(moving) == "new"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("description", "has changed since its etag was read"),
        ("default vector", "has changed since its etag was read"),
        ("objects", "had 60 objects when it was compared, and has 70 now"),
    ],
)
async def test_what_has_changed_since_the_comparison_is_not_switched(
    moving: Wire, monkeypatch: pytest.MonkeyPatch, change: str, words: str
) -> None:
    await run(moving, "collections", "update", "Things", "--default-vector", "new")
    search = moving.store.search

    async def changing() -> None:
        present = await moving.store.get_collection("Things")
        match change:
            case "description":
                await moving.store.update_collection(replace(present, description="another"))
            case "default vector":
                await moving.store.update_collection(replace(present, default_vector=""))
            case "objects":
                within = moving.store._objects["Things"]
                for number in range(10):
                    within[UUID(int=1000 + number)] = StoredObject(UUID(int=1000 + number), {"title": "more"})

    async def meanwhile(collection: str, spec: Any) -> Any:
        if spec.query is not None:
            monkeypatch.setattr(moving.store, "search", search)
            await changing()
        return await search(collection, spec)

    monkeypatch.setattr(moving.store, "search", meanwhile)

    result = await run(
        moving, "collections", "update", "Things", "--default-vector", "old", "--if-better", "--caption-field", "title"
    )

    assert result.exit_code == 1
    assert words in result.output
    assert (await moving.store.get_collection("Things")).default_vector != "old"


async def test_queries_come_from_csv_or_jsonl_with_answers_in_them_or_in_trecs_form(
    moving: Wire, tmp_path: Path
) -> None:
    (tmp_path / "red.png").write_bytes(picture((255, 0, 0)))
    table = tmp_path / "queries.csv"
    table.write_text(f"id,text,image,answers\na,thing 1,,{IDS[1]}|{IDS[2]}\nb,,red.png,{IDS[3]}\n")
    lines = tmp_path / "queries.jsonl"
    lines.write_text('{"id": "a", "text": "thing 1"}\n\n{"id": "b", "text": "thing 2"}\n{"text": "thing 3"}\n')
    qrels = tmp_path / "qrels.txt"
    qrels.write_text(f"a 0 {IDS[1]} 2\nb 0 {IDS[2]} 0\n\n4 0 {IDS[3]} 1\n")

    plain = await run(moving, "evaluate", "Things", "--queries", str(table), "--json")
    trec = await run(moving, "evaluate", "Things", "--queries", str(lines), "--qrels", str(qrels), "--json")

    assert printed(plain)["query_count"] == 2
    measured = {each["measure"]: each["estimate"]["mean"] for each in printed(trec)["systems"][0]["measures"]}
    # The query b has no answer with a gain.
    assert printed(trec)["query_count"] == 2
    assert measured["EVALUATION_MEASURE_NDCG"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--qrels", "{file}"), "go with --queries"),
        (("--caption-field", "title", "--queries", "{file}"), "give one of them"),
        (("--queries", "{file}"), "line 2 has colour"),
        (("--queries", "{semicolons}"), "it has columns separated by semicolons; save it as CSV with commas"),
        (("--system", "alpha"), "write it as KEY=VALUE"),
        (("--system", "ef=much"), "'much' is not a number"),
        (("--system", "weights=old"), "write weights as NAME:WEIGHT+NAME:WEIGHT"),
        (("--system", "join=most"), "join (manual-weights or relative-score)"),
        (("--suggest",), "--suggest needs --allow-change-ef"),
        (("--field-weights", "title"), "write it as FIELD=WEIGHT"),
        (("--field-weights", "title=much,image=1"), "write it as FIELD=WEIGHT"),
        (("--field-weights", "title=0.9,title=0.1"), "has title twice"),
        (("--field-weights", "title=1,image=1", "--wanted-recall", "0.9"), "do not go with --field-weights"),
        (("--field-weights", "title=1,image=1", "--allow-change-ef"), "do not go with --field-weights"),
        (("--field-sample", "10"), "--field-sample goes with --field-weights"),
        (("--field-weights", "present"), "--field-weights present goes with --suggest"),
    ],
)
async def test_wrong_use_is_refused_in_words(
    moving: Wire, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    file, semicolons = tmp_path / "queries.csv", tmp_path / "semicolons.csv"
    file.write_text("text,colour\na,red\n")
    semicolons.write_text("text;id\na;1\n")
    files = {"file": file, "semicolons": semicolons}

    result = await run(moving, "evaluate", "Things", *(each.format(**files) for each in arguments))

    assert result.exit_code == 2
    assert words in result.output


async def test_suggestions_are_in_the_table_and_on_the_page(moving: Wire, tmp_path: Path) -> None:
    page = tmp_path / "page.html"

    result = await run(
        moving, "evaluate", "Things", "--caption-field", "title", "--suggest", "--limit", "5", "--html", str(page)
    )

    assert result.exit_code == 0, result.output
    assert "The best alpha is" in result.output
    assert "Best alpha" in page.read_text()
    assert "Queries that go worst" not in page.read_text()


async def test_the_best_weights_are_in_the_table_and_on_the_page(moving: Wire, tmp_path: Path) -> None:
    page = tmp_path / "page.html"

    result = await run(
        moving,
        *("evaluate", "Things", "--caption-field", "title", "--suggest", "--no-index-recall", "--html", str(page)),
        *("--system", "name=both,weights=old:0.5+new:0.5,join=manual-weights", "--system", "vector=old"),
    )

    assert result.exit_code == 0, result.output
    assert "The best weights are new 0" in result.output
    assert "new, old" in next(line for line in result.output.splitlines() if line.startswith("both"))
    assert " against both." in result.output
    html = page.read_text()
    assert "The best weights are new 0" in html
    assert " against both.</p>" in html
    assert html.count("new 0.5, old 0.5") == 1


async def test_weights_of_fields_are_compared_with_the_present_ones_in_the_table_and_on_the_page(
    moving: Wire, tmp_path: Path
) -> None:
    page, table = tmp_path / "page.html", tmp_path / "queries.csv"
    collection = await moving.store.get_collection("Things")
    both = replace(collection.vectors[0], name="both", text_fields=(WeightedField("title"),))
    vectors = (*collection.vectors, both)
    await moving.store.update_collection(replace(collection, vectors=vectors, default_vector="both"))
    rows = [f"{title},{id_}" for title, id_ in zip(TITLES, IDS, strict=True)]
    table.write_text("\n".join(["text,answers", *rows]))
    asked = ("evaluate", "Things", "--queries", str(table), "--field-sample", "60", "--suggest")

    result = await run(moving, *asked, "--field-weights", "title=0.01,image=1", "--html", str(page), "--limit", "3")
    suggested = await run(moving, *asked, "--system", "name=now,vector=both", "--field-weights", "present", "--json")

    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert "60 queries, a sample of 60 of 60 objects" in result.output
    assert not any("median" in line for line in lines)
    assert next(line for line in lines if line.startswith("image 1 title 0.01")).count("*") == 3
    assert "The best weights are image 0." in result.output
    assert " against present." in result.output
    assert "vecgate objects backfill" in " ".join(lines)
    html = page.read_text()
    assert "a sample of 60 of 60 objects" in html
    assert "Time of a search" not in html
    assert "The best weights are image 0." in html
    assert [each["system"]["name"] for each in printed(suggested)["systems"]] == ["now"]
    assert printed(suggested)["weights"]["weights"].keys() == {"image", "title"}


@pytest.mark.parametrize(
    ("command", "day"),
    [
        (("evaluate", "Things"), True),
        (("collections", "update", "Things", "--default-vector", "new", "--if-better", "--caption-field", "x"), True),
        (("collections", "update", "Things", "--default-vector", "new"), False),
    ],
)
def test_an_evaluation_may_take_as_long_as_the_server_lets_it(
    monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], *, day: bool
) -> None:
    seen = []

    def client(address: str, *, timeout_s: float, **options: object) -> None:
        del address, options
        seen.append(timeout_s)
        raise SystemExit(9)

    monkeypatch.setattr(connection, "Client", client)

    result = CliRunner().invoke(app, command)

    assert result.exit_code == 9
    assert seen == [24 * 3600 if day else 300]


async def test_if_better_needs_answers_and_another_vector(moving: Wire) -> None:
    update = ("collections", "update", "Things", "--if-better")

    without = await run(moving, *update, "--default-vector", "new")
    same = await run(moving, *update, "--default-vector", "old", "--caption-field", "title")
    unnamed = await run(moving, *update)

    assert [each.exit_code for each in (without, same, unnamed)] == [2, 2, 2]
    assert "needs known answers" in without.output
    assert "there is nothing to compare old with" in same.output
    assert "name it" in unnamed.output


async def test_an_earlier_evaluation_is_compared_with_in_the_table_in_json_and_on_the_page(
    moving: Wire, tmp_path: Path
) -> None:
    earlier, page = tmp_path / "earlier.json", tmp_path / "page.html"
    evaluate = ("evaluate", "Things", "--system", "vector=old")
    earlier.write_text(json.dumps(printed(await run(moving, *evaluate, "--json"))))
    same = await run(moving, *evaluate, "--against", str(earlier))
    within = moving.store._objects["Things"]
    for id_ in IDS:
        within[id_].vectors = {**within[id_].vectors, "old": within[id_].vectors["new"]}
    for id_ in IDS[:20]:
        within[id_].vectors.pop("old")

    table = await run(moving, *evaluate, "--against", str(earlier), "--html", str(page))
    again = printed(await run(moving, *evaluate, "--against", str(earlier), "--json"))

    assert same.exit_code == 0, same.output
    assert "Compared with the evaluation of 20" in same.output
    assert not {"worse", "better"} & set(same.output.split())
    assert "60 queries are the same in both, and were compared one by one" in same.output
    assert "may be chance, or slight" in same.output
    (missing,) = (line for line in table.output.splitlines() if "without the vector" in line)
    assert "worse" in missing
    assert "0.00%" in missing
    assert "33.33%" in missing
    assert "of the same objects have another vector than before" in table.output
    html = page.read_text(encoding="utf-8")
    assert "40 queries are the same in both" in html
    assert "index recall, same queries" in html
    assert "Compared with the evaluation of 20" in html
    assert "same objects with another vector" in html
    changed = {each["kind"]: each for each in again["drift"]["changes"]}
    assert changed["CHANGE_KIND_SAME_OBJECTS"]["now"] == 1


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"kind": pb.CHANGE_KIND_RECALL, "real": True, "message": "m"}, "worse"),
        # The row of the same queries has the message.
        ({"kind": pb.CHANGE_KIND_RECALL, "real": True}, "worse"),
        ({"kind": pb.CHANGE_KIND_RECALL, "real": True, "before": 0.7}, "better"),
        ({"kind": pb.CHANGE_KIND_HUBS, "real": True}, "better"),
        ({"kind": pb.CHANGE_KIND_RECALL}, "may be chance, or slight"),
        ({"kind": pb.CHANGE_KIND_HUBS}, "may be chance"),
    ],
)
def test_each_difference_says_whether_it_is_worse_better_or_may_be_chance(change: dict[str, Any], verdict: str) -> None:
    changed = pb.Change(**{"before": 0.9, "now": 0.8, "chance": 0.001, **change})

    ((*_, said),) = drift_rows(pb.Drift(changes=[changed]))

    assert said == verdict


def test_the_explorer_calls_what_has_changed_as_the_command_does() -> None:
    page = (ROOT / "service/web/explorer/src/evaluating/drift.tsx").read_text(encoding="utf-8")

    assert [name for name in NAMES.values() if f'["{name}", ' not in page] == []


@pytest.mark.parametrize("content", ["", "[]", '{"objects": 3}', '{"report": {"format": "x"}}', '{"report": 1}'])
async def test_a_file_that_is_no_evaluation_is_refused(moving: Wire, tmp_path: Path, content: str) -> None:
    file = tmp_path / "earlier.json"
    file.write_text(content)

    result = await run(moving, "evaluate", "Things", "--against", str(file))

    assert result.exit_code == 2
    assert "has no report to compare with" in result.output


async def test_an_evaluation_of_another_vector_is_refused(moving: Wire, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(printed(await run(moving, "evaluate", "Things", "--system", "vector=old", "--json"))))

    result = await run(moving, "evaluate", "Things", "--system", "vector=new", "--against", str(earlier))

    assert result.exit_code == 1
    assert "has counts of none of the vectors new" in result.output
