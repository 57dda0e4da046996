"""A call that came over HTTP, as gRPC's handlers see it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import Context as Variables
from typing import Any, NoReturn, cast

import grpc
import structlog
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from google.rpc import status_pb2
from grpc_status import rpc_status

from service.access import calling_account
from service.error_table import log_failure, to_status
from service.errors import InvalidRequest, MessageTooLarge, Violation
from service.process.log import new_request_id
from service.rpc.connect.errors import connect_code, connect_error, grpc_code, protocol_fault
from service.rpc.connect.json_messages import JsonMessage, JsonMessages
from service.rpc.server.standard_services import Context, MethodHandler

DETAILS = "grpc-status-details-bin"
END = object()

Metadata = Sequence[tuple[str, str]]
Request = bytes | JsonMessage


class HttpCall:
    """The context of a call. Its handler runs in its own task, as in gRPC.

    The handler asks for the request before it is read. So a caller without a key is refused first.

    Args:
        path: of the method.
        metadata: of the call.
        peer: the caller's address.
        json: reads requests in JSON.
        max_request_bytes: of one message.
        rpc_system: the protocol's name in traces.
        timeout_s: seconds until the caller stops waiting; None if they have not said.
    """

    def __init__(
        self,
        path: str,
        metadata: Metadata,
        peer: str,
        *,
        json: JsonMessages,
        max_request_bytes: int,
        rpc_system: str,
        timeout_s: float | None,
    ) -> None:
        self.path = path
        self.rpc_system = rpc_system
        self._metadata = metadata
        self._peer = peer
        self._json = json
        self._max_request_bytes = max_request_bytes
        self._deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        loop = asyncio.get_running_loop()
        self._asked: asyncio.Future[None] = loop.create_future()
        self._requests: asyncio.Future[AsyncIterator[Request]] = loop.create_future()
        self._task: asyncio.Task[bytes | None] | None = None
        self._serialize: Callable[[Any], bytes] | None = None
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._room = asyncio.Semaphore(1)
        self._trailing: Metadata = ()
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._status: status_pb2.Status | None = None
        self._callbacks: list[Callable[[Context], None]] = []

    # What the handler calls.

    def invocation_metadata(self) -> Metadata:
        """Return the call's metadata."""
        return self._metadata

    def peer(self) -> str:
        """Return the caller's address."""
        return self._peer

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller stops waiting; None if they have not said."""
        return None if self._deadline_s is None else max(0.0, self._deadline_s - time.monotonic())

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Set what the caller is told beside the response."""
        self._trailing = metadata

    def trailing_metadata(self) -> Metadata:
        """Return what the caller is told beside the response."""
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status code."""
        self._code = code

    def code(self) -> grpc.StatusCode | None:
        """Return the status code; None while there is none."""
        return self._code

    def set_details(self, details: str) -> None:
        """Set the status's message."""
        self._details = details

    def details(self) -> str:
        """Return the status's message."""
        return self._details

    def add_done_callback(self, callback: "Callable[[Context], None]") -> None:
        """Call this when the response has been sent."""
        self._callbacks.append(callback)

    def cancelled(self) -> bool:
        """Return whether the call was cancelled."""
        return self._task is not None and self._task.cancelled()

    def done(self) -> bool:
        """Return whether the handler has ended."""
        return self._task is not None and self._task.done()

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """End the call with an error."""
        self._code, self._details = code, details
        self._trailing = (*self._trailing, *trailing_metadata)
        raise grpc.aio.AbortError

    async def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with an error that has details."""
        packed = dict(status.trailing_metadata).get(DETAILS)
        self._status = None if packed is None else status_pb2.Status.FromString(packed)
        await self.abort(status.code, status.details)

    async def read(self) -> Any:
        """Return the next request as bytes; grpc.aio.EOF behind the last.

        Raises:
            InvalidRequest: it breaks the protocol, or its JSON is not that of the method's message.
            MessageTooLarge: it has too many bytes.
            TimeoutError: it has not arrived in time.
        """
        if not self._asked.done():
            self._asked.set_result(None)
        try:
            request = await anext(await self._requests, grpc.aio.EOF)
        except ConnectError as error:
            return await self._refuse(error)
        if isinstance(request, JsonMessage):
            try:
                return await self._json.read(request)
            except InvalidRequest:
                # Refused requests count, too: the server has received them.
                calling_account.get().receive(len(request.content))
                raise
        return request

    async def _refuse(self, error: ConnectError) -> NoReturn:
        """Raise our own error for one that the protocol has found in a request."""
        match error.code:
            case Code.RESOURCE_EXHAUSTED:
                most = self._max_request_bytes
                raise MessageTooLarge(f"the request has more than {most} bytes, the most that a message may have")
            case Code.INVALID_ARGUMENT:
                raise InvalidRequest([Violation("", error.message)])
            case Code.DEADLINE_EXCEEDED:
                raise TimeoutError
            case Code.UNIMPLEMENTED | Code.INTERNAL:
                request_id = structlog.contextvars.get_contextvars().get("request_id", "")
                status = protocol_fault(error.code, error.message, request_id)
                await self.abort_with_status(rpc_status.to_status(status))
            case _:
                await self.abort(grpc_code(error.code), error.message)

    async def write(self, message: Any) -> None:
        """Send a response of a stream; wait until the one before it was taken."""
        await self._room.acquire()
        self._answers.put_nowait(message if self._serialize is None else self._serialize(message))

    # What the application calls.

    @property
    def asks(self) -> bool:
        """Whether the handler waits for a request that nobody has given yet."""
        return self._asked.done() and not self._requests.done() and not self.done()

    async def start(self, handler: "MethodHandler") -> None:
        """Start the handler, and wait until it asks for a request or ends."""
        self._serialize = handler.response_serializer
        self._task = asyncio.create_task(_serve(handler, self), context=Variables())
        self._task.add_done_callback(self._end)
        # Unlike an await of it, this does not cancel it with the caller's deadline.
        await asyncio.wait({self._asked})

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call this when the handler ends."""
        assert self._task is not None
        self._task.add_done_callback(lambda _: callback())

    def give(self, requests: AsyncIterator[Request]) -> None:
        """Give the handler its requests."""
        if not self._requests.done():
            self._requests.set_result(requests)

    async def answer(self) -> bytes:
        """Wait for the response of a method that has one.

        Raises:
            ConnectError: the call failed.
        """
        assert self._task is not None
        await asyncio.wait({self._task})
        self.raise_failure()
        answer = self._task.result()
        assert answer is not None
        return answer

    async def answers(self) -> AsyncIterator[bytes]:
        """Yield the responses of a stream.

        Raises:
            ConnectError: the call failed.
        """
        while (answer := await self._answers.get()) is not END:
            yield answer
            self._room.release()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise the error of a handler that has ended with one.

        Raises:
            ConnectError: with the details of the error.
        """
        if self._status is not None:
            raise connect_error(self._status)
        if self._code is not None and self._code is not grpc.StatusCode.OK:
            raise ConnectError(connect_code(self._code), self._details)
        if self.cancelled():
            raise ConnectError(Code.CANCELED, "the call was cancelled")

    async def fail(self, error: Exception) -> None:
        """Tell the handler why its request does not come, or end it; and wait for its end."""
        if self._task is None:
            return
        gone = isinstance(error, ConnectError) and error.code is Code.CANCELED
        if self.asks and not gone:
            self._requests.set_exception(error)
        else:
            self._task.cancel()
        await asyncio.wait({self._task})

    async def close(self) -> None:
        """End the handler if it still runs. Its response has been sent, or never will be. Repeating it is harmless."""
        try:
            if self._task is not None and not self._task.done():
                self._task.cancel()
                await asyncio.wait({self._task})
        finally:
            while self._callbacks:
                self._callbacks.pop(0)(cast("Context", self))

    def _end(self, task: "asyncio.Task[bytes | None]") -> None:
        if not self._asked.done():
            self._asked.set_result(None)
        self._answers.put_nowait(END)
        if not task.cancelled():
            task.exception()  # Nobody else asks for it.


async def _serve(handler: "MethodHandler", call: HttpCall) -> bytes | None:
    """Run a handler; return its response, or None if it has written responses."""
    try:
        return await _run(handler, call)
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # noqa: BLE001  # every error becomes a status
        # Of health or reflection: the interceptor has made a status of those of other methods.
        request_id = new_request_id()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        log_failure(error, call.path)
        await call.abort_with_status(rpc_status.to_status(to_status(error, request_id)))


async def _run(handler: "MethodHandler", call: HttpCall) -> bytes | None:
    """Run a handler as gRPC would."""
    context = cast("Context", call)
    parse = handler.request_deserializer or _unchanged
    answer: Any
    if handler.request_streaming:
        method: Any = handler.stream_stream or handler.stream_unary
        answer = method(_all(call, parse), context)
    else:
        method = handler.unary_stream or handler.unary_unary
        answer = method(parse(await call.read()), context)
    if hasattr(answer, "__aiter__"):
        async for each in answer:
            await call.write(each)
        return None
    answer = await answer
    return None if handler.response_streaming else cast("bytes", (handler.response_serializer or _unchanged)(answer))


async def _all(call: HttpCall, parse: Callable[[bytes], Any]) -> AsyncIterator[Any]:
    while (content := await call.read()) is not grpc.aio.EOF:
        yield parse(content)


def _unchanged(content: Any) -> Any:
    return content
