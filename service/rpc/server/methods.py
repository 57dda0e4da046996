"""The methods that the server answers, for transports beside gRPC's own."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from service.rpc.server.standard_services import Continuation, MethodHandler


@dataclass(frozen=True, slots=True)
class _Details(grpc.HandlerCallDetails):
    """What interceptors see of a call before it begins."""

    method: str
    invocation_metadata: Any


class Methods:
    """Registers services with a gRPC server, and finds their handlers for calls that come another way.

    Args:
        server: where services are registered.
        interceptors: the server's own, which calls that come another way pass, too.

    Attributes:
        idle: set while no call that came another way is in flight.
    """

    def __init__(self, server: grpc.aio.Server, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        self.idle = asyncio.Event()
        self.idle.set()
        self._server = server
        self._services: list[grpc.GenericRpcHandler] = []
        self._in_flight = 0
        find: Continuation = self._registered
        for each in reversed(interceptors):
            find = partial(each.intercept_service, find)
        self._find = find

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Register services, as a gRPC server does."""
        self._services += handlers
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: "dict[str, MethodHandler]") -> None:
        """Register the methods of a service, as a gRPC server does."""
        self._server.add_registered_method_handlers(service, handlers)

    async def find(self, path: str, metadata: Sequence[tuple[str, str]]) -> "MethodHandler | None":
        """Return the handler of a call, as the interceptors give it to gRPC; None if there is no such method.

        Args:
            path: of the method, such as "/vecgate.v1.SearchService/SearchObjects".
            metadata: of the call, by lower-case name.
        """
        return await self._find(_Details(path, metadata))

    async def _registered(self, details: grpc.HandlerCallDetails) -> "MethodHandler | None":
        found = (each.service(details) for each in self._services)
        return next((each for each in found if each is not None), None)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Count a call while the block runs, so that the server does not end under it."""
        self._in_flight += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self.idle.set()
