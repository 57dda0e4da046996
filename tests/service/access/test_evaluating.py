"""An evaluation shows what is stored to those only who may search."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.fakes.clients import key_of, let_in
from tests.service.conftest import failure_of, start_wire, stop_wire
from vecgate.v1 import evaluation_service_pb2 as pb

BY_ID = [{"id": "a", "input": {"text": "a"}, "answers": [{"name": str(UUID(int=1))}]}]
BY_VALUE = [{"id": "a", "input": {"text": "a"}, "answers": [{"name": "secret"}]}]


@pytest.mark.parametrize(
    ("queries", "refused"),
    [
        ({"captions": {"property": "title"}}, True),
        ({"queries": {"queries": BY_VALUE, "answer_property": "title"}}, True),
        ({"queries": {"queries": BY_ID}}, False),
        ({"objects": {}}, False),
    ],
)
async def test_a_client_that_may_not_search_reads_nothing_by_evaluating(
    tmp_path: Path, queries: dict[str, Any], *, refused: bool
) -> None:
    auth = let_in(tmp_path / "clients.toml", admin='permissions = ["admin"]', both='permissions = ["admin", "search"]')
    wire = await start_wire(auth=auth)

    async def evaluate(client: str) -> None:
        request = pb.EvaluateCollectionRequest(collection="Missing", **queries)
        async for _ in wire.evaluation.EvaluateCollection(
            request, metadata=(("authorization", f"Bearer {key_of(client)}"),)
        ):
            pass

    reasons = [(await failure_of(evaluate(client))).reason for client in ("admin", "both")]
    await stop_wire(wire)

    assert reasons == ["PERMISSION_DENIED" if refused else "COLLECTION_NOT_FOUND", "COLLECTION_NOT_FOUND"]
