"""AdminService: what this process is and does."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from service.core.status import ServerStatus
from vecgate.v1 import admin_service_pb2 as pb
from vecgate.v1 import admin_service_pb2_grpc as pb_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class AdminServicer(pb_grpc.AdminServiceServicer):
    """Answers AdminService.

    Args:
        look: returns what goes on at this moment.
    """

    def __init__(self, look: Callable[[], ServerStatus]) -> None:
        self._look = look

    async def GetServerStatus(self, request: pb.GetServerStatusRequest, context: Context) -> pb.GetServerStatusResponse:
        """Tell what waits, what runs and what is broken."""
        return status_to_pb(self._look())


def status_to_pb(status: ServerStatus) -> pb.GetServerStatusResponse:
    """Return what goes on at this moment."""
    return pb.GetServerStatusResponse(
        release=status.release,
        calls_in_flight=status.calls_in_flight,
        http_requests_in_flight=status.http_requests_in_flight,
        store_available=status.store_available,
        embedders=[
            pb.EmbedderStatus(
                name=each.name,
                fault=each.fault or "",
                breaker_open=each.breaker_open,
                queued_inputs=each.queued_inputs,
                queued_bytes=each.queued_bytes,
                oldest_wait=_duration(each.oldest_wait_s),
                running_batches=each.running_batches,
            )
            for each in status.embedders
        ],
        clients=[
            pb.ClientStatus(
                name=each.name,
                inputs_in_flight=each.inputs_in_flight,
                retry_delay=_duration(each.retry_after_s) if each.retry_after_s else None,
            )
            for each in status.clients
        ],
    )


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message
