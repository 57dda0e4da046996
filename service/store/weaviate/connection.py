"""The connection to Weaviate: keeps it up, ends the calls that it takes with it, and times and traces each call."""

import asyncio
import contextlib
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar

import grpc
import structlog
from opentelemetry.trace import SpanKind
from weaviate import WeaviateAsyncClient
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.config import GrpcConfig
from weaviate.connect import ConnectionParams, executor
from weaviate.connect.v4 import _ExpectedStatusCodes
from weaviate.exceptions import WeaviateStartUpError

from embedders.telemetry import tracing
from embedders.telemetry.timing import call_times
from service.errors import ServiceError, StoreUnavailable
from service.process.deadlines import Deadline, Deadlines
from service.process.metrics import STORE_FAILURES, STORE_SECONDS, STORE_UP
from service.settings import WeaviateSettings, read_secret
from service.settings.weaviate import Address
from service.store.weaviate.errors import translate

CHECK_INTERVAL_S = 0.5
"""A Weaviate that is down, or back, is noticed after this."""
CHECK_TIMEOUT_S = 3.0
CONNECT_TIMEOUT_S = 10.0
DRAIN_S = 1.0

_log = structlog.get_logger()


class Connection:
    """A client of Weaviate that is there only while Weaviate answers on both of its ports.

    Belongs to one event loop.
    """

    def __init__(self, settings: WeaviateSettings) -> None:
        """Remember where Weaviate is.

        Raises:
            InvalidSettings: the key file cannot be read.
        """
        self._settings = settings
        self._api_key = read_secret(settings.api_key, settings.api_key_file)
        self._client: WeaviateAsyncClient | None = None
        self._reason = "Weaviate is not connected"
        self._deadlines = Deadlines()
        self._calls: set[Deadline] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._disposals: set[asyncio.Task[None]] = set()
        self._cuts = 0
        self._counter: asyncio.Task[None] | None = None

    @property
    def cuts(self) -> int:
        """How often the gRPC connection to Weaviate was cut: what answers after a cut may be another process."""
        return self._cuts

    @property
    def available(self) -> bool:
        """Whether Weaviate answered when it was last asked."""
        return self._client is not None

    async def start(self) -> None:
        """Try to connect once, and go on watching and connecting in the background."""
        if self._watcher is None:
            STORE_UP.set(0)
            await self._check()
            self._watcher = asyncio.create_task(self._watch(), name="weaviate-watch")

    async def close(self) -> None:
        """End all calls and disconnect. May be called twice."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        self._disconnect("the server is stopping")
        await asyncio.gather(*self._disposals)

    @contextlib.contextmanager
    def call(self, collection: str = "") -> Iterator[WeaviateAsyncClient]:
        """Bound a call: in time, by Weaviate's life, and in what it raises.

        Args:
            collection: the name that the call is about, for errors.

        Raises:
            ServiceError: whatever the client raised, translated. The caller's time-outs and cancellation pass through.
        """
        client = self._client
        if client is None:
            raise StoreUnavailable(self._reason)
        limit = self._deadlines.after(self._settings.timeout_s)
        try:
            with limit:
                self._calls.add(limit)
                try:
                    yield client
                finally:
                    self._calls.discard(limit)
        except Exception as error:
            if client is not self._client:
                raise StoreUnavailable(self._reason) from error
            if isinstance(error, ServiceError):
                raise
            if isinstance(error, TimeoutError) and limit.expired:
                message = f"Weaviate did not answer within {self._settings.timeout_s:g} s"
                raise StoreUnavailable(message) from error
            raise translate(error, collection) from error

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            await self._check()

    async def _check(self) -> None:
        try:
            if self._client is None:
                await self._connect()
            elif not await self._answers(self._client):
                self._disconnect("Weaviate does not answer")
        except Exception:  # noqa: BLE001 -- the watch must outlive everything that Weaviate does
            _log.exception("weaviate check failed")

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                # Making a client costs milliseconds of this thread, knocking first costs nothing.
                await _knock(self._settings.http)
                await _knock(self._settings.grpc)
                self._client = await self._make_client()
                self._counter = asyncio.create_task(self._count_cuts(self._client), name="weaviate-cuts")
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is tried again
            reason = self._describe(error)
            if reason != self._reason:
                _log.warning("weaviate unavailable", reason=reason)
            self._reason = reason
        else:
            STORE_UP.set(1)
            _log.info("weaviate connected", address=self._describe_address())

    async def _make_client(self) -> WeaviateAsyncClient:
        client = _new_client(self._settings, self._api_key)
        hand_on_traces(client)
        try:
            await client.connect()
            _send_once(client)
            await _probe(client)
        except BaseException:
            await client.close()
            raise
        return client

    async def _count_cuts(self, client: WeaviateAsyncClient) -> None:
        channel: Any = client._connection._grpc_channel  # noqa: SLF001
        while True:
            state = channel.get_state()
            await channel.wait_for_state_change(state)
            self._cuts += state is grpc.ChannelConnectivity.READY

    async def _answers(self, client: WeaviateAsyncClient) -> bool:
        began = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(CHECK_TIMEOUT_S):
                    await _probe(client)
            except Exception:  # noqa: BLE001 -- every failure of the probe means the same
                # A connection that the server closed for being idle fails once, too.
                if time.monotonic() - began > CHECK_TIMEOUT_S or await self._unreachable():
                    return False
            else:
                return True
            await asyncio.sleep(0.1)

    async def _unreachable(self) -> bool:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await _knock(self._settings.http)
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    def _disconnect(self, reason: str) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        assert self._counter is not None
        self._counter.cancel()
        self._cuts += 1
        self._reason = reason
        STORE_UP.set(0)
        log = _log.info if self._watcher is None else _log.warning
        log("weaviate disconnected", reason=reason, calls_ended=len(self._calls))
        for limit in self._calls:
            if not limit.expired:
                limit.expire()
        # Apart from the watcher, which may be cancelled at any time.
        disposal = asyncio.create_task(self._dispose(client, set(self._calls)), name="weaviate-dispose")
        self._disposals.add(disposal)
        disposal.add_done_callback(self._disposals.discard)

    async def _dispose(self, client: WeaviateAsyncClient, calls: set[Deadline]) -> None:
        # Closing a channel cancels its calls, which they could not tell from their caller's cancellation.
        loop = asyncio.get_running_loop()
        end = loop.time() + DRAIN_S
        while not calls.isdisjoint(self._calls) and loop.time() < end:  # noqa: ASYNC110 -- it takes a turn of the loop
            await asyncio.sleep(0.001)
        with contextlib.suppress(Exception):
            await client.close()

    def _describe(self, error: Exception) -> str:
        if isinstance(error, OSError | TimeoutError):
            return f"Weaviate does not answer at {self._describe_address()}"
        if isinstance(error, WeaviateStartUpError) and "version" in error.message:
            return error.message
        return str(translate(error))

    def _describe_address(self) -> str:
        return f"{self._settings.http} and {self._settings.grpc}"


def _new_client(settings: WeaviateSettings, api_key: str | None) -> WeaviateAsyncClient:
    return WeaviateAsyncClient(
        connection_params=ConnectionParams.from_params(*settings.http, *settings.grpc),
        auth_client_secret=Auth.api_key(api_key) if api_key else None,
        additional_config=AdditionalConfig(
            timeout=Timeout(query=settings.timeout_s, insert=settings.timeout_s, init=CHECK_TIMEOUT_S),
            grpc_config=GrpcConfig(
                channel_options=[
                    ("grpc.initial_reconnect_backoff_ms", 100),
                    ("grpc.max_reconnect_backoff_ms", 500),
                    # A new client must not inherit the back-off of the one before.
                    ("grpc.use_local_subchannel_pool", 1),
                    # HTTP ignores the environment's proxies as well.
                    ("grpc.enable_http_proxy", 0),
                ]
            ),
        ),
        # They would ask the package index for a newer client.
        skip_init_checks=True,
    )


def _send_once(client: WeaviateAsyncClient) -> None:
    """Keep a connected client from sending a write again by itself when its connection is cut.

    The first attempt may have stored objects without entries in the indexes of their vectors, and the second would
    enter none: the writer has to know.
    """
    stub: Any = client._connection.grpc_stub  # noqa: SLF001
    send = stub.BatchObjects

    async def send_once(*arguments: Any, **named: Any) -> Any:
        try:
            return await send(*arguments, **named)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            # The client repeats what gRPC calls unavailable, and nothing else.
            raise StoreUnavailable("Weaviate became unavailable during a write") from error

    stub.BatchObjects = send_once


async def read_json(client: Any, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
    """Return what Weaviate's REST interface says under a path, through a client or a handle on a collection.

    The client's own parsers raise for types and indexes of a schema that are newer than the client, and change an
    object's values of types that this version does not handle.
    """
    answer = client._connection.get(  # noqa: SLF001
        path,
        params=dict(parameters or {}),
        error_msg="read",
        status_codes=_ExpectedStatusCodes(ok_in=[200], error="read"),
    )
    return (await executor.aresult(answer)).json()


async def _probe(client: WeaviateAsyncClient) -> None:
    # The client's is_ready prints failures to standard output and leaves out gRPC.
    connection = client._connection  # noqa: SLF001
    ready = connection.get(
        "/.well-known/ready",
        error_msg="Weaviate is not ready",
        status_codes=_ExpectedStatusCodes(ok_in=[200], error="ready"),
    )
    await executor.aresult(ready)
    ping = connection._ping_grpc("async")  # noqa: SLF001
    assert ping is not None
    await ping


async def _knock(address: Address) -> None:
    _, writer = await asyncio.open_connection(address.host, address.port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


Store = TypeVar("Store", bound=type)

LIFE = frozenset({"start", "close"})


def measured(store: Store) -> Store:
    """Time every operation of a store's class: its public coroutine functions but for those of its life."""
    for name, function in list(vars(store).items()):
        if not name.startswith("_") and name not in LIFE and inspect.iscoroutinefunction(function):
            setattr(store, name, _timed(name, function))
    return store


def hand_on_traces(client: WeaviateAsyncClient) -> None:
    """Let a client that is not connected yet send the present trace along with each of its calls."""
    connection: Any = client._connection  # noqa: SLF001  # it offers headers for its whole life, and none for one call
    own_headers, make_client = connection.grpc_headers, connection._make_client  # noqa: SLF001

    def grpc_headers() -> tuple[tuple[str, str], ...] | None:
        headers: tuple[tuple[str, str], ...] | None = own_headers()
        return (*(headers or ()), *tracing.outgoing().items()) or None

    def make_http_client(colour: str) -> Any:
        made = make_client(colour)
        made.event_hooks["request"].append(_add_headers)
        return made

    connection.grpc_headers, connection._make_client = grpc_headers, make_http_client  # noqa: SLF001


async def _add_headers(request: Any) -> None:
    request.headers.update(tracing.outgoing())


def _timed(operation: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    seconds, failures = STORE_SECONDS.labels(operation), STORE_FAILURES.labels(operation)

    @functools.wraps(function)
    async def timed(*arguments: Any, **named: Any) -> Any:
        began_s = time.perf_counter()
        try:
            if not tracing.active():
                return await function(*arguments, **named)
            with tracing.span(operation, _attributes(operation, arguments), kind=SpanKind.CLIENT):
                return await function(*arguments, **named)
        except StoreUnavailable:
            failures.inc()
            raise
        finally:
            took_s = time.perf_counter() - began_s
            seconds.observe(took_s)
            if (times := call_times()) is not None:
                times.store_s += took_s

    return timed


def _attributes(operation: str, arguments: tuple[Any, ...]) -> dict[str, str]:
    """Return a span's attributes; the first argument after the store is a collection, as a name or whole."""
    attributes = {"db.system.name": "weaviate", "db.operation.name": operation}
    subject = arguments[1] if len(arguments) > 1 else None
    name = subject if isinstance(subject, str) else getattr(subject, "name", None)
    return attributes | {"db.collection.name": name} if name else attributes
