"""Quotas where calls fail: what was refused has come in all the same."""

from pathlib import Path

from grpc import StatusCode

from tests.fakes.clients import let_in
from tests.wire.conftest import start_wire, stop_wire
from tests.wire.test_access import bearer, call
from vecgate.v1 import embedding_service_pb2 as pb


async def test_bytes_of_calls_that_a_client_may_not_make_count(tmp_path: Path) -> None:
    quota = "[clients.poor.quota]\nbytes_per_second = 10"
    wire = await start_wire(auth=let_in(tmp_path / "clients.toml", poor=f'permissions = ["search"]\n{quota}'))
    request = pb.EmbedInputsRequest(inputs=[{"text": "a" * 1000}])

    codes = []
    for _ in range(2):
        failure = await call(wire, "EmbeddingService/EmbedInputs", request, bearer("poor"))
        assert failure is not None
        codes.append(failure.code)
    await stop_wire(wire)

    assert codes == [StatusCode.PERMISSION_DENIED, StatusCode.RESOURCE_EXHAUSTED]
