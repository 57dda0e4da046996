"""The connection to Weaviate by itself; with a real one it is tested in tests/e2e."""

from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from weaviate.retry import _Retry

from service.errors import StoreUnavailable
from service.store.weaviate.connection import _send_once


def failing(code: grpc.StatusCode, sent: list[Any]) -> Any:
    """Return a client whose writes fail with a code, and count."""

    async def send(request: Any) -> None:
        sent.append(request)
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())

    return SimpleNamespace(_connection=SimpleNamespace(grpc_stub=SimpleNamespace(BatchObjects=send)))


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN])
async def test_the_client_sends_a_write_that_was_cut_off_no_second_time(code: grpc.StatusCode) -> None:
    sent: list[Any] = []
    client = failing(code, sent)
    _send_once(client)

    with pytest.raises((StoreUnavailable, grpc.aio.AioRpcError)) as caught:
        # As the client itself does.
        await _Retry(2).awith_exponential_backoff(0, "a write", client._connection.grpc_stub.BatchObjects, "request")

    assert sent == ["request"]
    assert (caught.type is StoreUnavailable) is (code is grpc.StatusCode.UNAVAILABLE)
