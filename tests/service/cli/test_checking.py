"""`vecgate check`, against a server over a store in memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from click.testing import Result
from grpc import StatusCode
from prometheus_client import REGISTRY
from typer.testing import CliRunner

from service.cli import app, checking
from service.domain import StoredObject
from tests.service.conftest import Wire, start_wire, stop_wire
from vecgate.client import Client, VecgateError
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import evaluation_service_pb2 as pb

OWN_REPORT = "Pictures%20%28default%29.json"
"""What the last evaluation of the only vector of the collection is in."""
IDS = [UUID(int=number + 1) for number in range(60)]


@pytest.fixture
async def checked() -> AsyncIterator[Wire]:
    """A collection whose vectors are sound."""
    wire = await start_wire()
    await wire.create_pictures()
    within = wire.store._objects.setdefault("Pictures", {})
    for id_ in IDS:
        within[id_] = StoredObject(id_, vectors={"default": wire.embedder.vector(f"thing {id_}")})
    yield wire
    await stop_wire(wire)


async def run(wire: Wire, *arguments: str) -> Result:
    command = ["--address", f"127.0.0.1:{wire.server.port}", "check", *arguments]
    return await asyncio.to_thread(CliRunner().invoke, app, command)


def files(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


async def test_a_sound_collection_ends_with_0_and_leaves_its_evaluation_for_the_next_time(
    checked: Wire, tmp_path: Path
) -> None:
    first = await run(checked, "Pictures", "--reports", str(tmp_path))
    second = await run(checked, "Pictures", "--reports", str(tmp_path))

    assert [first.exit_code, second.exit_code] == [0, 0], first.output + second.output
    assert "Pictures: 60 objects, sound" in first.output
    assert files(tmp_path) == [OWN_REPORT]
    kept = json.loads((tmp_path / OWN_REPORT).read_text())
    assert kept["report"]["collection"] == "Pictures"
    assert len(kept["drift"]["changes"]) > 10


async def test_faults_end_with_4_and_are_named(checked: Wire) -> None:
    within = checked.store._objects["Pictures"]
    within[IDS[0]].vectors = {}

    result = await run(checked, "Pictures")

    assert result.exit_code == 4
    assert "Pictures: 60 objects, 1 faults" in result.output
    assert "1 of 60 objects lack it" in result.output


async def test_what_has_changed_since_the_last_time_is_a_fault_once(checked: Wire, tmp_path: Path) -> None:
    await run(checked, "Pictures", "--reports", str(tmp_path))
    random, within = np.random.default_rng(1), checked.store._objects["Pictures"]
    for id_ in IDS:
        vector = random.standard_normal(8).astype(np.float32)
        within[id_].vectors = {"default": vector / np.linalg.norm(vector)}

    changed = await run(checked, "Pictures", "--reports", str(tmp_path))
    after = await run(checked, "Pictures", "--reports", str(tmp_path))

    assert [changed.exit_code, after.exit_code] == [4, 0]
    assert "of the same objects have another vector than before" in changed.output


@pytest.mark.parametrize("content", ["", '{"report": {"format": 9, "vectors": [{"name": "default"}]}}'])
async def test_a_report_that_cannot_be_compared_is_named_once_and_replaced(
    checked: Wire, tmp_path: Path, content: str
) -> None:
    (tmp_path / OWN_REPORT).write_text(content)

    replaced = await run(checked, "Pictures", "--reports", str(tmp_path))
    after = await run(checked, "Pictures", "--reports", str(tmp_path))

    assert [replaced.exit_code, after.exit_code] == [4, 0]
    assert "today's takes its place" in replaced.output
    assert files(tmp_path) == [OWN_REPORT]


async def test_a_collection_that_cannot_be_evaluated_ends_with_1_after_the_others(checked: Wire) -> None:
    result = await run(checked, "Nowhere", "Pictures", "Pictures/some")

    assert result.exit_code == 1
    assert "Nowhere: COLLECTION_NOT_FOUND" in result.output
    assert "Pictures: 60 objects, sound" in result.output
    assert "Pictures/some: INVALID_INPUT: scope.tenant" in result.output


@pytest.fixture
async def several() -> AsyncIterator[Wire]:
    """A collection with three named vectors: all objects have the first one, the last object the second one."""
    wire = await start_wire()
    named = [{"name": each, "text_fields": [{"name": "title"}]} for each in ("all", "rare", "later")]
    properties = [{"name": "title", "data_type": "DATA_TYPE_TEXT"}]
    collection = {"name": "Pictures", "properties": properties, "vectors": named}
    await wire.collections.CreateCollection(collection_pb.CreateCollectionRequest(collection=collection))
    within = wire.store._objects.setdefault("Pictures", {})
    for id_ in IDS:
        vector = wire.embedder.vector(f"thing {id_}")
        within[id_] = StoredObject(id_, vectors={"all": vector} | ({"rare": vector} if id_ == IDS[-1] else {}))
    yield wire
    await stop_wire(wire)


async def test_of_several_named_vectors_each_is_checked_and_one_without_objects_is_no_fault(
    several: Wire, tmp_path: Path
) -> None:
    several.store.lost = {(IDS[-1], "rare")}

    result = await run(several, "Pictures", "--reports", str(tmp_path))
    several.store._objects["Pictures"].clear()
    empty = await run(several, "Pictures")

    assert result.exit_code == 4, result.output
    assert "Pictures (all): 60 objects, sound" in result.output
    assert "1 of 1 objects are not found by their own vectors" in result.output
    assert "Pictures (later): no object has this vector yet\n" in result.output
    assert "INVALID_INPUT" not in result.output
    assert sorted(files(tmp_path)) == ["Pictures%20%28all%29.json", "Pictures%20%28rare%29.json"]
    assert empty.exit_code == 1


def shown(vector: str, kind: str) -> float | None:
    """Return how many faults of a kind the metrics show of a named vector."""
    labels = {"collection": "Pictures", "tenant": "", "vector": vector, "kind": kind}
    return REGISTRY.get_sample_value("vecgate_evaluation_faults", labels)


async def test_faults_of_the_first_named_vector_stay_in_the_metrics_when_the_last_one_is_sound(
    several: Wire, tmp_path: Path
) -> None:
    for each in several.store._objects["Pictures"].values():
        each.vectors["rare"] = each.vectors["all"]
    await run(several, "Pictures", "--reports", str(tmp_path))
    for id_ in IDS[:20]:
        del several.store._objects["Pictures"][id_].vectors["all"]

    result = await run(several, "Pictures", "--reports", str(tmp_path))

    assert result.exit_code == 4
    assert "Pictures (all): 60 objects, 2 faults" in result.output
    assert "Pictures (rare): 60 objects, sound" in result.output
    kinds = ("VECTORS_MISSING", "DRIFT")
    assert [[shown(vector, kind) for kind in kinds] for vector in ("all", "rare")] == [[1, 1], [0, 0]]


async def test_a_named_vector_that_no_object_has_any_more_is_a_fault_until_one_has_it(
    several: Wire, tmp_path: Path
) -> None:
    last = several.store._objects["Pictures"][IDS[-1]]
    await run(several, "Pictures", "--reports", str(tmp_path))
    both, last.vectors = last.vectors, {"all": last.vectors["all"]}

    lost = [await run(several, "Pictures", "--reports", str(tmp_path)) for _ in range(2)]
    last.vectors = both
    back = await run(several, "Pictures", "--reports", str(tmp_path))

    assert [each.exit_code for each in lost] == [4, 4]
    assert "no object has it any more, and the collection had 60 objects" in lost[1].output
    assert "any more" not in back.output
    assert "Pictures%20%28rare%29.json if this was meant" in lost[1].output


async def test_a_collection_that_has_lost_all_objects_since_the_last_time_is_a_fault(
    checked: Wire, tmp_path: Path
) -> None:
    await run(checked, "Pictures", "--reports", str(tmp_path))
    checked.store._objects["Pictures"].clear()

    result = await run(checked, "Pictures", "--reports", str(tmp_path))

    assert result.exit_code == 4
    assert "no object has it any more" in result.output


async def test_a_second_named_vector_leaves_the_first_one_its_last_evaluation(checked: Wire, tmp_path: Path) -> None:
    await run(checked, "Pictures", "--reports", str(tmp_path))
    present = await checked.store.get_collection("Pictures")
    second = replace(present.vectors[0], name="second")
    await checked.store.update_collection(replace(present, vectors=(*present.vectors, second)))
    for id_ in IDS[:30]:
        del checked.store._objects["Pictures"][id_]

    changed = await run(checked, "Pictures", "--reports", str(tmp_path))

    assert changed.exit_code == 4, changed.output
    assert "the collection has 30 objects, and had 60" in changed.output
    assert "Pictures (second): no object has this vector yet" in changed.output
    assert files(tmp_path) == [OWN_REPORT]


async def test_faults_are_told_by_the_exit_code_also_where_another_collection_cannot_be_evaluated(
    checked: Wire,
) -> None:
    checked.store._objects["Pictures"][IDS[0]].vectors = {}

    assert (await run(checked, "Pictures", "Nowhere")).exit_code == 4


def test_no_server_ends_with_3() -> None:
    assert CliRunner().invoke(app, ["--address", "127.0.0.1:1", "check", "Pictures"]).exit_code == 3


async def test_a_report_that_cannot_be_read_or_written_ends_with_1_after_the_others(
    checked: Wire, tmp_path: Path
) -> None:
    await run(checked, "Pictures", "--reports", str(tmp_path))
    await checked.collections.CreateCollection(
        collection_pb.CreateCollectionRequest(collection={"name": "Other", "vectors": [{"name": "default"}]})
    )
    (tmp_path / "Other%20%28default%29.json").mkdir()
    unread = await run(checked, "Other", "Pictures", "--reports", str(tmp_path))
    (tmp_path / f".{OWN_REPORT}.new").mkdir()
    unwritten = await run(checked, "Pictures", "Elsewhere", "--reports", str(tmp_path))

    assert [unread.exit_code, unwritten.exit_code] == [1, 1]
    assert "Other: its report cannot be read or written" in unread.output
    assert "Pictures: 60 objects, sound" in unread.output
    assert "Pictures: its report cannot be read or written" in unwritten.output
    assert "Elsewhere: COLLECTION_NOT_FOUND" in unwritten.output


BUSY = VecgateError(StatusCode.UNAVAILABLE, "busy", reason="OVERLOADED", retry_after_s=3)


def answering(monkeypatch: pytest.MonkeyPatch, answers: Iterator[VecgateError | pb.Evaluation]) -> list[float]:
    """Let evaluations end so, one after the other, and return for how long the command waits between them."""
    waits: list[float] = []

    def evaluate(client: Client, request: pb.EvaluateCollectionRequest) -> pb.Evaluation:
        del client, request
        answer = next(answers)
        if isinstance(answer, VecgateError):
            raise answer
        return answer

    monkeypatch.setattr(Client, "get_collection", lambda *_: collection_pb.Collection())
    monkeypatch.setattr(checking, "run_evaluation", evaluate)
    monkeypatch.setattr(checking, "sleep", waits.append)
    return waits


def test_a_server_that_evaluates_something_else_is_waited_for_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = answering(monkeypatch, iter([BUSY, BUSY, pb.Evaluation(object_count=7)]))

    result = CliRunner().invoke(app, ["check", "Pictures"])

    assert result.exit_code == 0
    assert "7 objects, sound" in result.output
    assert result.output.count("busy with another evaluation") == 1
    assert waits == [3, 3]


def test_a_server_that_stays_busy_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "MAX_WAIT_S", 7)
    waits = answering(monkeypatch, chain(repeat(BUSY, 4), [pb.Evaluation(object_count=7)]))

    result = CliRunner().invoke(app, ["check", "Pictures", "Others"])

    assert result.exit_code == 1
    assert "Pictures: OVERLOADED" in result.output
    assert "Others: 7 objects, sound" in result.output
    assert waits == [3, 3, 3]
