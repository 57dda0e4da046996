"""What a NIM answers: embeddings, models, health, metadata, version; and OpenAPI and metrics beside it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from importlib.metadata import version
from urllib.parse import quote

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from embedders.contract import Embedder, Embedding, EmbedOptions, Input, Priority, Purpose
from embedders.errors import InputRejected
from service.core.embedder_pool import EmbedderPool
from service.errors import InvalidRequest, rejection
from service.settings import AuthSettings, WebSettings
from service.web import wire as nim_endpoint
from service.web.bounds import WebBounds
from service.web.caller import BodyReader, WhileConnected
from service.web.calls import OTHER
from service.web.openapi import openapi_document
from service.web.refusals import JSON, Refused
from service.web.wire import EmbeddingsRequest, RequestReader, RequestRefused

EMBEDDER_HEADER = "vecgate-embedder"
SPACE_HEADER = "vecgate-space"
PRINTABLE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
MODELS = "/v1/models/"
API_VERSION = "1.0.0"
"""Of the endpoint as OpenAPI describes it."""

READ_IN_THREAD_BYTES = 256 * 1024
"""Longer bodies are read in a thread: pictures by the megabyte would keep everybody else waiting, over gRPC too."""

READY_AGAIN_S = 5
"""Seconds until whoever found this server not ready may ask again."""

OPTIONS = {
    None: EmbedOptions(),
    "query": EmbedOptions(Purpose.QUERY),
    "passage": EmbedOptions(Purpose.DOCUMENT, Priority.BULK),
}

Handler = Callable[[Request], Awaitable[Response]]


class Endpoint:
    """The routes. Any number of requests may be answered at the same time.

    Attributes:
        draining: whether health says not ready, whatever the embedders say.
        router: the ASGI application.
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
        routes: list[tuple[str, str, Handler]] = [
            ("POST", "/v1/embeddings", self.create_embeddings),
            ("GET", "/v1/health/live", self.get_live),
            ("GET", "/v1/health/ready", self.get_ready),
            ("GET", "/v1/models", self.list_models),
            ("GET", MODELS + "{model:path}", self.get_model),
            ("GET", "/v1/metadata", self.get_metadata),
            ("GET", "/v1/version", self.get_version),
            ("GET", "/openapi.json", self.get_openapi),
            ("GET", "/metrics", self.get_metrics),
        ]
        self.router = Router(
            [Route(path, handler, methods=[method]) for method, path, handler in routes], redirect_slashes=False
        )
        self._paths = frozenset(path for _, path, _ in routes)

    def name_path(self, path: str) -> str:
        """Return a path as a route's, without what a caller put into it."""
        if path in self._paths:
            return path
        return MODELS + "{model}" if path.startswith(MODELS) else OTHER

    async def create_embeddings(self, request: Request) -> Response:
        """Embed the inputs of a request."""
        async with self._bodies.read(request) as body:
            return await self._embed(request, body)

    async def _embed(self, request: Request, body: bytes) -> Response:
        try:
            wanted, inputs = (
                await asyncio.to_thread(self._read, body) if len(body) > READ_IN_THREAD_BYTES else self._read(body)
            )
        except RequestRefused as error:
            raise _refused(error) from error
        asked = self._embedder_of(wanted)
        async with WhileConnected(request.receive):
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
        answer = nim_endpoint.write_embeddings(
            asked.spec.model, inputs, embeddings, packed=wanted.encoding_format == "base64"
        )
        headers = {EMBEDDER_HEADER: quote(spec.name, PRINTABLE), SPACE_HEADER: quote(spec.space, PRINTABLE)}
        return Response(answer, headers=headers, media_type=JSON)

    async def get_live(self, request: Request) -> Response:
        """Say that the process answers."""
        del request
        return _health("live", "Vecgate answers")

    async def get_ready(self, request: Request) -> Response:
        """Say whether an embedder works."""
        del request
        fault = None if self._embedders.working else self._embedders.fault(self._embedders.default)
        if self.draining:
            fault = "it is about to end"
        if fault is not None:
            answer = _health("not ready", f"not ready: {fault}", HTTPStatus.SERVICE_UNAVAILABLE)
            answer.headers["retry-after"] = str(READY_AGAIN_S)
            return answer
        return _health("ready", "Vecgate is ready")

    async def list_models(self, request: Request) -> Response:
        """List the models of all embedders."""
        del request
        return _json({"object": "list", "data": [self._describe(each) for each in self._by_model().values()]})

    async def get_model(self, request: Request) -> Response:
        """Describe a model."""
        return _json(self._describe(self._find(request.path_params["model"])))

    async def get_metadata(self, request: Request) -> Response:
        """Say what this server is, in a NIM's words."""
        del request
        return _json(
            {
                "version": self._release,
                "modelInfo": [{"shortName": model, "modelUrl": ""} for model in self._by_model()],
                "assetInfo": [],
                "licenseInfo": {"name": "Apache-2.0", "path": "", "url": "", "size": 0, "sha": "", "content": ""},
            }
        )

    async def get_version(self, request: Request) -> Response:
        """Say the release and the version of the endpoint."""
        del request
        return _json({"release": self._release, "api": API_VERSION})

    async def get_openapi(self, request: Request) -> Response:
        """Describe the endpoint."""
        del request
        models = {model: each.spec.dimension for model, each in self._by_model().items()}
        return _json(openapi_document(self._settings, self._access, models, API_VERSION))

    async def get_metrics(self, request: Request) -> Response:
        """Show the process's metrics to Prometheus."""
        del request
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    def _read(self, body: bytes) -> tuple[EmbeddingsRequest, list[Input]]:
        wanted = self._reader.read(body)
        return wanted, self._reader.read_inputs(wanted)

    def _embedder_of(self, wanted: EmbeddingsRequest) -> Embedder:
        embedder = self._find(wanted.model)
        dimension = embedder.spec.dimension
        # A NIM's may be unknown until it has answered.
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


def _health(status: str, message: str, code: HTTPStatus = HTTPStatus.OK) -> Response:
    return _json({"object": "health.response", "status": status, "message": message}, code)


def _json(value: object, code: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(orjson.dumps(value), code, media_type=JSON)
