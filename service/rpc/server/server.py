"""The gRPC server: services, health, reflection, interceptors, bounds, and its end."""

import asyncio
import contextlib
import resource
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import cast

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from service.access import Authenticator
from service.core.collections.aliases import Aliases
from service.core.collections.collections import Collections
from service.core.collections.tenants import Tenants
from service.core.embedder_pool import EmbedderPool
from service.core.evaluating.evaluator import Evaluator
from service.core.objects.backfilling import Backfiller
from service.core.objects.importing import MAX_CHUNK_OBJECTS, Importer
from service.core.objects.missing import MissingVectors
from service.core.objects.objects import Objects
from service.core.objects.updating import Updater
from service.core.objects.writing import Settler, Writes
from service.core.pictures import NO_PICTURES, Pictures
from service.core.projecting.projector import Projector
from service.core.reranker_pool import RerankerPool
from service.core.searching.references import real_name
from service.core.searching.searcher import Searcher
from service.process.addresses import AddressTaken, check_address
from service.process.tls import Certificates, certificates_of
from service.rpc.admin import AdminServicer
from service.rpc.collections.servicer import CollectionServicer
from service.rpc.embedding import EmbeddingServicer
from service.rpc.evaluation.servicer import EvaluationServicer
from service.rpc.objects.servicer import ObjectServicer
from service.rpc.search.servicer import SearchServicer
from service.rpc.server.calls import MAX_RESPONSE_BYTES, CallInterceptor
from service.rpc.server.methods import Methods
from service.rpc.server.standard_services import SERVICES, AccessInterceptor, HealthReporter, add_reflection
from service.rpc.shared.bounds import MAX_VALUES, RequestLimits
from service.rpc.shared.requests import CallerKeys
from service.settings import AuthSettings, EmbedderSettings, ServerSettings
from service.store.base import Store
from vecgate.v1 import (
    admin_service_pb2_grpc,
    collection_service_pb2_grpc,
    embedding_service_pb2,
    embedding_service_pb2_grpc,
    evaluation_service_pb2_grpc,
    object_service_pb2_grpc,
    search_service_pb2_grpc,
)

LAST_ANSWERS_S = 1.0
MAX_HEADER_BYTES = 16 * 1024
"""Bytes of a call's metadata: room for any token. More is refused before the call begins."""
MAX_CONNECTIONS = 8192
"""A connection takes some tens of KiB."""
MAX_CONNECTION_IDLE_S = 300.0
"""A connection without calls is closed after this, also one that never had any; clients open it again."""
KEEPALIVE_S = 60.0
"""A silent client is pinged after this; one that is gone holds nothing KEEPALIVE_TIMEOUT_MS later."""
MIN_PING_INTERVAL_S = 60.0
"""A client that pings more often is disconnected."""
KEEPALIVE_TIMEOUT_MS = 20_000
HANDSHAKE_TIMEOUT_MS = 20_000
"""The longest that TLS and the start of HTTP/2 may take on a connection."""

EXCHANGE_S = 0.1
"""How long connections wait before and after gRPC exchanges its certificate, which takes a thousandth of that."""


class GrpcServer:
    """Serves the API of core over gRPC.

    Whether it will get its port is known when it is made, before anything else is started. It listens from `start` on:
    until then connections are refused, and nobody waits for an answer.

    Args:
        settings: address and bounds of the server.
        limits: bounds on what callers send.
        store: where objects are.
        embedders: what makes vectors.
        rerankers: what sorts the hits of searches again.
        authenticator: who may call; None lets everybody.
        embedding: what all embedders have in common; by default the settings' own defaults.
        allow_caller_keys: whether calls may bring their own key for the NIM.
        chunk_objects: objects in one write to the store.
        pictures: fetches images that calls or objects name by URI.

    Attributes:
        methods: what it answers, for other transports.

    Raises:
        InvalidSettings: the files for TLS cannot be used.
        AddressTaken: another program listens on the address, or the address is not one of this machine.
    """

    def __init__(
        self,
        settings: ServerSettings,
        limits: RequestLimits,
        *,
        store: Store,
        embedders: EmbedderPool,
        rerankers: RerankerPool | None = None,
        authenticator: Authenticator | None = None,
        embedding: EmbedderSettings | None = None,
        allow_caller_keys: bool = False,
        chunk_objects: int = MAX_CHUNK_OBJECTS,
        pictures: Pictures = NO_PICTURES,
    ) -> None:
        authenticator = authenticator or Authenticator(AuthSettings())
        self._settings = settings
        self._health = HealthReporter(store, embedders, max_watches=settings.max_calls)
        self._calls = CallInterceptor(settings, authenticator, limits, partial(real_name, store))
        interceptors = (self._calls, AccessInterceptor(authenticator, settings.max_calls))
        self._server = grpc.aio.server(interceptors=interceptors, options=_options(settings))
        self.methods = Methods(self._server, interceptors)
        services = cast("grpc.aio.Server", self.methods)
        if settings.workers == 1:
            check_address(settings)
        certificates = certificates_of(settings, settings.tls_client_ca_file, group="server")
        self._credentials = None if certificates is None else _credentials(certificates)
        self.port: int = settings.port
        rerankers = rerankers or RerankerPool()
        self._searcher = Searcher(store, embedders, rerankers)
        self._writes = Writes()
        self._settler = Settler(store, self._writes)
        self._projector = Projector(store, embedders, self._writes)
        self._evaluator = Evaluator(store, embedders, rerankers, pictures=pictures)
        keys = CallerKeys(allowed=allow_caller_keys)
        embedding_service_pb2_grpc.add_EmbeddingServiceServicer_to_server(
            EmbeddingServicer(embedders, rerankers, limits, _server_limits(settings, limits), keys, pictures=pictures),
            services,
        )
        collection_service_pb2_grpc.add_CollectionServiceServicer_to_server(
            CollectionServicer(Collections(store, embedders), Aliases(store), Tenants(store), embedders, keys=keys),
            services,
        )
        workers = _object_workers(store, embedders, self._writes, chunk_objects, pictures)
        object_service_pb2_grpc.add_ObjectServiceServicer_to_server(
            ObjectServicer(*workers, limits=limits, keys=keys, max_response_bytes=MAX_RESPONSE_BYTES), services
        )
        search_service_pb2_grpc.add_SearchServiceServicer_to_server(
            SearchServicer(self._searcher, self._projector, limits, keys, pictures=pictures), services
        )
        evaluation_service_pb2_grpc.add_EvaluationServiceServicer_to_server(
            EvaluationServicer(self._evaluator, keys, pictures=pictures), services
        )
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(
            AdminServicer(
                store, embedders, rerankers, authenticator, server=settings, embedding=embedding or EmbedderSettings()
            ),
            services,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, services)
        add_reflection((*SERVICES, health.SERVICE_NAME), services)

    def _take_port(self) -> int:
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            if self._credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, self._credentials)
        except RuntimeError as error:
            raise AddressTaken(self._settings) from error

    async def start(self) -> None:
        """Listen, answer calls, and report health.

        Raises:
            AddressTaken: another program has started to listen on the address.
        """
        self.port = self._take_port()
        await self._health.start()
        await self._settler.start()
        # gRPC cannot stop cleanly if its start is cancelled half-way; it takes a moment only.
        await asyncio.shield(self._server.start())

    async def stop(self) -> None:
        """Report NOT_SERVING, wait for load balancers to notice, let calls in flight finish, and stop."""
        await self._health.drain()
        await asyncio.sleep(self._settings.drain_delay_s)
        stopping = asyncio.create_task(self._server.stop(self._settings.drain_grace_s))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_grace_s):
                await self._calls.idle.wait()
        # Only health watches and reflection are left, which never end on their own.
        await asyncio.gather(stopping, self._server.stop(LAST_ANSWERS_S))
        # Calls over HTTP end with their own server, which stops at the same time.
        await self.methods.idle.wait()
        await self._settler.close()
        await self._searcher.close()
        self._calls.close()
        self._projector.close()
        # Writes and changes of indexes that were begun for callers that have left.
        await asyncio.gather(self._writes.close(), self._evaluator.close())


def _object_workers(
    store: Store, embedders: EmbedderPool, writes: Writes, chunk_objects: int, pictures: Pictures
) -> tuple[Importer, Updater, Backfiller, Objects, MissingVectors]:
    """Return what works on objects, in the order of ObjectServicer's arguments."""
    return (
        Importer(store, embedders, writes, max_chunk_objects=chunk_objects, pictures=pictures),
        Updater(store, embedders, writes, pictures=pictures),
        Backfiller(store, embedders, writes, page_size=chunk_objects, pictures=pictures),
        Objects(store, embedders, writes),
        MissingVectors(store, page_size=chunk_objects),
    )


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    def ms(seconds: float) -> int:
        return max(1, round(seconds * 1000))

    return [
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
        # Between the two bounds gRPC refuses calls at random; equal bounds make it predictable.
        ("grpc.max_metadata_size", MAX_HEADER_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_HEADER_BYTES),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
        ("grpc.max_allowed_incoming_connections", _max_connections()),
        ("grpc.max_connection_idle_ms", ms(MAX_CONNECTION_IDLE_S)),
        ("grpc.max_connection_age_ms", ms(settings.max_connection_age_s)),
        ("grpc.max_connection_age_grace_ms", ms(settings.max_call_s)),
        ("grpc.keepalive_time_ms", ms(KEEPALIVE_S)),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        # The time to wait for the response to a ping without other traffic, by default a minute.
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", ms(MIN_PING_INTERVAL_S)),
        # Two servers on one port would silently share its callers; only workers may.
        ("grpc.so_reuseport", int(settings.workers > 1)),
    ]


def _max_connections() -> int:
    """Return the most connections, which leaves files for the HTTP port, Weaviate and embedders."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if files < 0 else min(MAX_CONNECTIONS, max(1, files * 3 // 4))


def _server_limits(settings: ServerSettings, limits: RequestLimits) -> embedding_service_pb2.ServerLimits:
    """Return the limits that clients see."""
    return embedding_service_pb2.ServerLimits(
        max_request_bytes=settings.max_request_bytes,
        max_response_bytes=MAX_RESPONSE_BYTES,
        max_inputs=limits.max_inputs,
        max_objects=limits.max_objects,
        max_hits=limits.max_hits,
        max_values=MAX_VALUES,
    )


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Return credentials that read the files again for every new connection.

    Before each connection, gRPC asks for changes, in its own threads. When there is a change, it frees the old
    credentials without a lock, although another connection may be about to use them, and crashes. So other connections
    wait while gRPC exchanges the credentials.
    """
    used = certificates.contents()
    turn = threading.Lock()
    settled_s = 0.0

    def configuration() -> grpc.ServerCertificateConfiguration:
        cert, key, client_ca = used
        return grpc.ssl_server_certificate_configuration([(key, cert)], client_ca)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used, settled_s
        with turn:
            time.sleep(max(0.0, settled_s - time.monotonic()))
            if (latest := certificates.contents()) == used:
                return None
            time.sleep(EXCHANGE_S)
            used = latest
            settled_s = time.monotonic() + EXCHANGE_S
        return configuration()

    # The stubs do not allow None, which means no change.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", changed)
    return grpc.dynamic_ssl_server_credentials(
        configuration(), fetch, require_client_authentication=used[2] is not None
    )
