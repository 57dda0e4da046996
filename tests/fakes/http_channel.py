"""A channel for gRPC's stubs that sends calls over HTTP, by connectrpc's client: tests of gRPC test these, too."""

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Sequence
from typing import Any

import grpc
from connectrpc.client import ConnectClient, ResponseMetadata
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from connectrpc.request import Headers
from google.protobuf import descriptor_pool, json_format
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from pyqwest import Client, HTTPTransport

WIRES = {
    "connect-json": (ProtocolType.CONNECT, "json"),
    "connect-binary": (ProtocolType.CONNECT, "proto"),
    "grpc-web": (ProtocolType.GRPC_WEB, "proto"),
    "grpc-web-json": (ProtocolType.GRPC_WEB, "json"),
}
"""The ways of a call over HTTP."""

Metadata = Sequence[tuple[str, str]]


class _Codec:
    """Messages of google.protobuf; a request of bytes is sent as it is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name

    def encode(self, message: Any) -> bytes:
        if isinstance(message, bytes):
            return message
        return json_format.MessageToJson(message).encode() if self._name == "json" else message.SerializeToString()

    def decode(self, data: bytes | bytearray, message_class: type[Any]) -> Any:
        if self._name == "json":
            return json_format.Parse(bytes(data), message_class())
        return message_class.FromString(bytes(data))


class HttpCall:
    """What a call returns: a response to await, or several to iterate over."""

    def __init__(self, run: Callable[["HttpCall"], Any]) -> None:
        self.trailing: list[tuple[str, str]] = []
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._is_cancelled = False
        self._task = asyncio.create_task(run(self))
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        # Nobody else may ask for the exception. The library's client makes one of its own of a cancellation.
        error = None if task.cancelled() else task.exception()
        code = error.code() if isinstance(error, grpc.aio.AioRpcError) else None
        self._is_cancelled = task.cancelled() or code is grpc.StatusCode.CANCELLED
        self._answers.put_nowait(None)

    def put(self, answer: Any) -> None:
        self._answers.put_nowait(answer)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._task.__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (answer := await self._answers.get()) is not None:
            yield answer
        await self._task

    def cancel(self) -> bool:
        return self._task.cancel()

    async def code(self) -> grpc.StatusCode:
        try:
            await self._task
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    def cancelled(self) -> bool:
        return self._is_cancelled

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        await asyncio.wait({self._task})
        return grpc.aio.Metadata(*self.trailing)


class HttpChannel:
    """A channel to a server's HTTP port.

    Args:
        url: of the port.
        wire: one of WIRES.
    """

    def __init__(self, url: str, wire: str) -> None:
        protocol, codec = WIRES[wire]
        self._transport = HTTPTransport()
        self._client = ConnectClient(
            url,
            codec=_Codec(codec),
            protocol=protocol,
            accept_compression=(),
            send_compression=None,
            http_client=Client(self._transport),
        )

    async def close(self) -> None:
        await self._client.close()
        await self._transport.aclose()

    def unary_unary(self, path: str, *_: Any, **options: Any) -> Callable[..., HttpCall]:
        return self._method(path, StreamType.UNARY, options.get("response_deserializer"))

    def unary_stream(self, path: str, *_: Any, **options: Any) -> Callable[..., HttpCall]:
        return self._method(path, StreamType.SERVER_STREAM, options.get("response_deserializer"))

    def stream_stream(self, path: str, *_: Any, **options: Any) -> Callable[..., HttpCall]:
        return self._method(path, StreamType.BIDI_STREAM, options.get("response_deserializer"))

    def _method(self, path: str, kind: StreamType, parse: Any) -> Callable[..., HttpCall]:
        found = descriptor_pool.Default().FindMethodByName(path.removeprefix("/").replace("/", "."))
        info = MethodInfo(
            name=found.name,
            service_name=found.containing_service.full_name,
            input=GetMessageClass(found.input_type),
            output=GetMessageClass(found.output_type),
            idempotency_level=IdempotencyLevel.UNKNOWN,
            stream_type=kind,
        )

        def call(request: Any, metadata: Metadata = (), timeout: float | None = None, **_: Any) -> HttpCall:
            headers = Headers(list(metadata))
            timeout_ms = None if timeout is None else round(timeout * 1000)

            async def run(made: HttpCall) -> Any:
                with ResponseMetadata() as response:
                    try:
                        if kind is StreamType.UNARY:
                            answer = await self._client.execute_unary(
                                request=request, method=info, headers=headers, timeout_ms=timeout_ms
                            )
                            return answer if parse else answer.SerializeToString()
                        stream = (
                            self._client.execute_server_stream(
                                request=request, method=info, headers=headers, timeout_ms=timeout_ms
                            )
                            if kind is StreamType.SERVER_STREAM
                            else self._client.execute_bidi_stream(
                                request=_all(request, info.input), method=info, headers=headers, timeout_ms=timeout_ms
                            )
                        )
                        async for each in stream:
                            made.put(each if parse else each.SerializeToString())
                    except ConnectError as error:
                        made.trailing = _metadata(response)
                        raise as_grpc(error, made.trailing) from None
                    finally:
                        made.trailing = _metadata(response)

            return HttpCall(run)

        return call


async def _all(requests: Iterable[Any], kind: type[Any]) -> AsyncIterator[Any]:
    for each in requests:
        yield kind.FromString(each) if isinstance(each, bytes) else each


def _metadata(response: ResponseMetadata) -> list[tuple[str, str]]:
    return [*(response.headers or Headers()).allitems(), *(response.trailers or Headers()).allitems()]


def as_grpc(error: ConnectError, metadata: Sequence[tuple[str, str]]) -> grpc.aio.AioRpcError:
    """Return an error as gRPC's client would raise it."""
    code = grpc.StatusCode.CANCELLED if error.code is Code.CANCELED else grpc.StatusCode[error.code.name]
    status = status_pb2.Status(code=code.value[0], message=error.message)
    for each in error.details:
        status.details.add(type_url=f"type.googleapis.com/{each.type_name}", value=each.message_bytes)
    kept = [each for each in metadata if each[0] != "grpc-status-details-bin"]
    trailing = [*kept, *([("grpc-status-details-bin", status.SerializeToString())] if error.details else [])]
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details=error.message)
