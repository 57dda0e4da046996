"""The routes of a NIM: embeddings, models, health, metadata, version; and those of OpenAPI and metrics."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from importlib.metadata import version
from urllib.parse import quote

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from embedders.contract import Embedder, Embedding, EmbedOptions, Input, Priority, Purpose
from embedders.errors import InputRejected
from service.core.embedder_pool import EmbedderPool
from service.errors import InvalidRequest, rejection
from service.settings import AuthSettings, WebSettings
from service.web.bounds import WebBounds
from service.web.exchange import BodyReader, Exchange
from service.web.openapi import openapi_document
from service.web.refusals import JSON, Refused, method_not_allowed
from service.web.wire import EmbeddingsRequest, RequestReader, RequestRefused, write_embeddings

EMBEDDER_HEADER = "vecgate-embedder"
SPACE_HEADER = "vecgate-space"
PRINTABLE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
MODELS = "/v1/models/"
OTHER = "(other)"
"""The name of all paths without a route."""

API_VERSION = "1.0.0"
"""The version of the endpoint in its OpenAPI document."""

READ_IN_THREAD_BYTES = 256 * 1024
"""Longer bodies are parsed in a thread: images of megabytes would delay all other requests, also over gRPC."""

READY_AGAIN_S = 5
"""Seconds after which a client may ask again whether this server is ready."""

OPTIONS = {
    None: EmbedOptions(),
    "query": EmbedOptions(Purpose.QUERY),
    "passage": EmbedOptions(Purpose.DOCUMENT, Priority.BULK),
}

Handler = Callable[[Exchange], Awaitable[web.Response]]


class Endpoint:
    """The routes. Any number of requests may be answered at the same time.

    Attributes:
        draining: whether to report not ready, whatever the state of the embedders.
        routes: the method and the handler of each path.
    """

    def __init__(self, settings: WebSettings, bounds: WebBounds, embedders: EmbedderPool, access: AuthSettings) -> None:
        self.draining = False
        self._settings = settings
        self._embedders = embedders
        self._access = access
        self._bodies = BodyReader(settings, bounds)
        self._reader = RequestReader(max_inputs=settings.max_inputs, strict_images=settings.strict_images)
        self._started = int(time.time())
        self._release = version("vecgate")
        self.routes: dict[str, tuple[str, Handler]] = {
            "/v1/embeddings": ("POST", self.create_embeddings),
            "/v1/health/live": ("GET", self.get_live),
            "/v1/health/ready": ("GET", self.get_ready),
            "/v1/models": ("GET", self.list_models),
            MODELS + "{model}": ("GET", self.get_model),
            "/v1/metadata": ("GET", self.get_metadata),
            "/v1/version": ("GET", self.get_version),
            "/openapi.json": ("GET", self.get_openapi),
            "/metrics": ("GET", self.get_metrics),
        }

    def name_path(self, path: str) -> str:
        """Return the route of a path, without anything that a caller chose."""
        if path in self.routes:
            return path
        return MODELS + "{model}" if path.startswith(MODELS) else OTHER

    def handler(self, exchange: Exchange) -> Handler:
        """Return the handler of a request.

        Raises:
            Refused: the path needs another method.
        """
        method, handler = self.routes[exchange.route]
        allowed = ("GET", "HEAD") if method == "GET" else (method,)
        if exchange.request.method not in allowed:
            raise method_not_allowed(", ".join(allowed))
        return handler

    async def create_embeddings(self, exchange: Exchange) -> web.Response:
        """Embed the inputs of a request."""
        async with self._bodies.read(exchange) as body:
            return await self._embed(body)

    async def _embed(self, body: bytes) -> web.Response:
        try:
            wanted, inputs = (
                await asyncio.to_thread(self._read, body) if len(body) > READ_IN_THREAD_BYTES else self._read(body)
            )
        except RequestRefused as error:
            raise _refused(error) from error
        asked = self._embedder_of(wanted)
        embedder, outcomes = await self._embedders.embed_with_first(
            self._embedders.of_space(asked.spec.space), inputs, OPTIONS[wanted.input_type]
        )
        rejected = [
            violation
            for at, outcome in enumerate(outcomes)
            if isinstance(outcome, InputRejected)
            for violation in rejection(outcome, f"input[{at}]").violations
        ]
        if rejected:
            raise InvalidRequest(rejected)
        embeddings = [each for each in outcomes if isinstance(each, Embedding)]
        spec = embedder.spec
        answer = write_embeddings(asked.spec.model, inputs, embeddings, packed=wanted.encoding_format == "base64")
        headers = {EMBEDDER_HEADER: quote(spec.name, PRINTABLE), SPACE_HEADER: quote(spec.space, PRINTABLE)}
        return web.Response(body=answer, headers=headers, content_type=JSON)

    async def get_live(self, exchange: Exchange) -> web.Response:
        """Report that the process answers."""
        del exchange
        return _health("live", "Vecgate answers")

    async def get_ready(self, exchange: Exchange) -> web.Response:
        """Report whether an embedder works."""
        del exchange
        fault = None if self._embedders.working else self._embedders.fault(self._embedders.default)
        if self.draining:
            fault = "it is shutting down"
        if fault is not None:
            answer = _health("not ready", f"not ready: {fault}", HTTPStatus.SERVICE_UNAVAILABLE)
            answer.headers["retry-after"] = str(READY_AGAIN_S)
            return answer
        return _health("ready", "Vecgate is ready")

    async def list_models(self, exchange: Exchange) -> web.Response:
        """List the models of all embedders."""
        del exchange
        return _json({"object": "list", "data": [self._describe(each) for each in self._by_model().values()]})

    async def get_model(self, exchange: Exchange) -> web.Response:
        """Describe a model."""
        return _json(self._describe(self._find(exchange.path.removeprefix(MODELS))))

    async def get_metadata(self, exchange: Exchange) -> web.Response:
        """Describe this server, in a NIM's form."""
        del exchange
        return _json(
            {
                "version": self._release,
                "modelInfo": [{"shortName": model, "modelUrl": ""} for model in self._by_model()],
                "assetInfo": [],
                "licenseInfo": {"name": "Apache-2.0", "path": "", "url": "", "size": 0, "sha": "", "content": ""},
            }
        )

    async def get_version(self, exchange: Exchange) -> web.Response:
        """Return the release and the version of the endpoint."""
        del exchange
        return _json({"release": self._release, "api": API_VERSION})

    async def get_openapi(self, exchange: Exchange) -> web.Response:
        """Describe the endpoint."""
        del exchange
        models = {model: each.spec.dimension for model, each in self._by_model().items()}
        return _json(openapi_document(self._settings, self._access, models, API_VERSION))

    async def get_metrics(self, exchange: Exchange) -> web.Response:
        """Return the process's metrics for Prometheus."""
        del exchange
        return web.Response(body=generate_latest(), headers={"content-type": CONTENT_TYPE_LATEST})

    def _read(self, body: bytes) -> tuple[EmbeddingsRequest, list[Input]]:
        wanted = self._reader.read(body)
        return wanted, self._reader.read_inputs(wanted)

    def _embedder_of(self, wanted: EmbeddingsRequest) -> Embedder:
        embedder = self._find(wanted.model)
        dimension = embedder.spec.dimension
        # The dimension of a NIM may be unknown until it has answered.
        if dimension and wanted.dimensions not in (None, dimension):
            raise _refused(
                RequestRefused(
                    f"is {wanted.dimensions}; {wanted.model} has {dimension}, which cannot be changed", "dimensions"
                )
            )
        return embedder

    def _find(self, model: str) -> Embedder:
        models = self._by_model()
        if model not in models:
            raise Refused(
                HTTPStatus.NOT_FOUND,
                "MODEL_NOT_FOUND",
                f"this server has no model {model[:200]!r}; it has: {', '.join(models)}",
                field="model",
            )
        return models[model]

    def _by_model(self) -> dict[str, Embedder]:
        """Return the preferred embedder of each model."""
        return {each.spec.model: each for each in reversed(self._embedders.all)}

    def _describe(self, embedder: Embedder) -> dict[str, object]:
        spec = embedder.spec
        return {
            "id": spec.model,
            "object": "model",
            "created": self._started,
            "owned_by": "vecgate",
            "root": spec.model,
            "embedder": spec.name,
            "space": spec.space,
            "dimension": spec.dimension,
        }


def _refused(error: RequestRefused) -> Refused:
    if not error.readable:
        return Refused(HTTPStatus.BAD_REQUEST, "INVALID_JSON", str(error))
    reason = "BATCH_TOO_LARGE" if error.too_many else "INVALID_INPUT"
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, reason, str(error), field=error.field)


def _health(status: str, message: str, code: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return _json({"object": "health.response", "status": status, "message": message}, code)


def _json(value: object, code: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=code, content_type=JSON)
