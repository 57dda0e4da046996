"""AdminService: ask core, convert."""

from collections.abc import Callable
from typing import Any

import grpc

from service.convert.status import status_to_pb
from service.core.status import ServerStatus
from vecgate.v1 import admin_service_pb2 as pb
from vecgate.v1 import admin_service_pb2_grpc as pb_grpc

__all__ = ["AdminServicer"]

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
