"""The routes of a NIM: embeddings, models, health, what the server is; and those of OpenAPI and metrics."""

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from importlib.metadata import distribution, version
from urllib.parse import quote

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from embedders.contract import Embedder, Embedding, EmbedOptions, Input, Priority, Purpose
from embedders.errors import InputRejected
from service.core.embedder_pool import EmbedderPool
from service.errors import InvalidRequest, rejection
from service.process.metrics import exposed
from service.settings import AuthSettings, WebSettings
from service.web.bounds import WebBounds
from service.web.exchange import BodyReader, Exchange, LongAnswer
from service.web.explorer.serving import Explorer
from service.web.inputs import InputReader
from service.web.models import Chosen, DimensionUnknown, Models, ModelUnknown
from service.web.openapi import openapi_document
from service.web.refusals import JSON, Refused, method_not_allowed
from service.web.wire import VALUES_AT_ONCE, EmbeddingsRequest, RequestReader, RequestRefused, write_embeddings

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

MANY_INPUTS = 64
"""Requests of more inputs are a bulk load, whose inputs wait behind those of searches. A search has a few."""

URGENCY = re.compile(r"(?:^|,)[ \t]*u=([0-7])[ \t]*(?=[,;]|$)")
LEAST_URGENCY = 5
"""From 0, the most urgent, to 7. Browsers give what a page fetches up to 4; 6 and 7 are background work."""

Handler = Callable[[Exchange], Awaitable[web.StreamResponse]]


class Endpoint:
    """The routes. Any number of requests may be answered at the same time.

    Attributes:
        bodies: bounds the bodies of all requests.
        draining: whether to report not ready, whatever the state of the embedders.
        routes: the method and the handler of each path.
        open_paths: those of the explorer's files, which anyone may have.
    """

    def __init__(self, settings: WebSettings, bounds: WebBounds, embedders: EmbedderPool, access: AuthSettings) -> None:
        self.draining = False
        self._settings = settings
        self._embedders = embedders
        self._access = access
        self.bodies = BodyReader(settings, bounds)
        self._models = Models(embedders)
        self._requests = RequestReader(max_inputs=settings.max_inputs)
        self._inputs = InputReader(strict_images=settings.strict_images)
        self._started = int(time.time())
        self._release = version("vecgate")
        self._license = _license()
        self.routes: dict[str, tuple[str, Handler]] = {
            "/v1/embeddings": ("POST", self.create_embeddings),
            "/v1/health/live": ("GET", self.get_live),
            "/v1/health/ready": ("GET", self.get_ready),
            "/v1/models": ("GET", self.list_models),
            MODELS + "{model}": ("GET", self.get_model),
            "/v1/metadata": ("GET", self.get_metadata),
            "/v1/manifest": ("GET", self.get_manifest),
            "/v1/license": ("GET", self.get_license),
            "/v1/version": ("GET", self.get_version),
            "/openapi.json": ("GET", self.get_openapi),
            "/metrics": ("GET", self.get_metrics),
        }
        self.open_paths: frozenset[str] = frozenset()
        if settings.explorer:
            self._add_explorer(settings.path_prefix)

    def _add_explorer(self, prefix: str) -> None:
        explorer = Explorer()
        routes: dict[str, tuple[str, Handler]] = dict.fromkeys(explorer.paths, ("GET", explorer.get_file))
        if prefix not in self.routes:
            # The index names its files relative to itself, so it needs the slash.
            routes |= {prefix: ("GET", _add_slash)} if prefix else {}
        self.routes |= routes
        self.open_paths = frozenset(routes)

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

    async def create_embeddings(self, exchange: Exchange) -> LongAnswer:
        """Embed the inputs of a request."""
        async with self.bodies.read(exchange) as body:
            pieces, embedder = await self._embed(body, urgent=_is_urgent(exchange.headers.get("priority", "")))
        self.bodies.hold(exchange, sum(map(len, pieces)))
        spec = embedder.spec
        headers = {EMBEDDER_HEADER: quote(spec.name, PRINTABLE), SPACE_HEADER: quote(spec.space, PRINTABLE)}
        return LongAnswer(pieces, headers=headers, content_type=JSON)

    async def _embed(self, body: bytes, *, urgent: bool) -> tuple[list[bytes], Embedder]:
        """Return the answer to a request and the embedder that made it."""
        wanted, chosen, inputs = await self._read(body)
        embedder, outcomes = await self._embedders.embed_with_first(
            chosen.embedders, inputs, _options(wanted, chosen, len(inputs), urgent=urgent)
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
        model, length = chosen.embedders[0].spec.model, len(embeddings[0].vector)
        if wanted.dimensions not in (None, length):
            # It was not known when the embedder was chosen.
            fault = RequestRefused(f"is {wanted.dimensions}; {model} has {length} on this server", "dimensions")
            raise _refused(fault)
        return await self._write(model, inputs, embeddings, wanted), embedder

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
        return _json({"object": "list", "data": [self._describe(*each) for each in self._models.listed().items()]})

    async def get_model(self, exchange: Exchange) -> web.Response:
        """Describe a model."""
        name = exchange.path.removeprefix(MODELS)
        try:
            chosen = self._models.choose(name)
        except ModelUnknown as error:
            raise _unknown(error, HTTPStatus.NOT_FOUND) from error
        return _json(self._describe(name, chosen.embedders[0]))

    async def get_metadata(self, exchange: Exchange) -> web.Response:
        """Describe this server, in a NIM's form."""
        del exchange
        return _json(
            {
                "version": self._release,
                "modelInfo": [{"shortName": model, "modelUrl": ""} for model in self._models.listed()],
                "assetInfo": [],
                "licenseInfo": self._license,
            }
        )

    async def get_manifest(self, exchange: Exchange) -> web.Response:
        """Describe what the models are made of."""
        del exchange
        models = [
            self._describe(name, each)
            | {
                "modalities": sorted(kind.value for kind in each.spec.modalities),
                "max_text_tokens": each.spec.max_text_tokens,
                "weights_sha256": each.spec.weights_digest,
            }
            for name, each in self._models.listed().items()
        ]
        return _json({"object": "manifest", "release": self._release, "models": models})

    async def get_license(self, exchange: Exchange) -> web.Response:
        """Return the license of this server, in a NIM's form."""
        del exchange
        return _json(self._license)

    async def get_version(self, exchange: Exchange) -> web.Response:
        """Return the release and the version of the endpoint."""
        del exchange
        return _json({"release": self._release, "api": API_VERSION})

    async def get_openapi(self, exchange: Exchange) -> web.Response:
        """Describe the endpoint."""
        del exchange
        return _json(openapi_document(self._settings, self._access, self._models, API_VERSION))

    async def get_metrics(self, exchange: Exchange) -> web.Response:
        """Return the server's metrics for Prometheus."""
        del exchange
        return web.Response(body=generate_latest(await exposed()), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _read(self, body: bytes) -> tuple[EmbeddingsRequest, Chosen, list[Input]]:
        """Return a request, the embedders that it asks for, and its inputs."""
        long = len(body) > READ_IN_THREAD_BYTES
        try:
            wanted = await asyncio.to_thread(self._requests.read, body) if long else self._requests.read(body)
            chosen = self._choose(wanted)
            inputs = (
                await asyncio.to_thread(self._read_inputs, wanted, chosen)
                if long
                else self._read_inputs(wanted, chosen)
            )
        except RequestRefused as error:
            raise _refused(error) from error
        except InvalidRequest as error:
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY, "INVALID_INPUT", str(error), field=error.violations[0].field
            ) from error
        except ModelUnknown as error:
            # Weaviate's module shows the text of a 422, and of a 404 the number only.
            raise _unknown(error, HTTPStatus.UNPROCESSABLE_ENTITY) from error
        return wanted, chosen, inputs

    def _choose(self, wanted: EmbeddingsRequest) -> Chosen:
        try:
            chosen = self._models.choose(wanted.model, wanted.dimensions)
        except DimensionUnknown as error:
            raise RequestRefused(str(error), "dimensions") from error
        if None not in (chosen.role, wanted.input_type) and chosen.role != wanted.input_type:
            raise RequestRefused(
                f"is {wanted.input_type}, but model ends with -{chosen.role}; say it once", "input_type"
            )
        spec = chosen.embedders[0].spec
        for at, modality in enumerate(wanted.modalities):
            if modality is not None and modality not in spec.modalities:
                read = " or ".join(sorted(each.value for each in spec.modalities))
                field = (
                    f"modality[{at}]" if isinstance(wanted.modality, list) and len(wanted.modality) > 1 else "modality"
                )
                raise RequestRefused(f"is {modality.value}, which {spec.model} does not read; it may be {read}", field)
        return chosen

    def _read_inputs(self, wanted: EmbeddingsRequest, chosen: Chosen) -> list[Input]:
        return self._inputs.read(
            wanted.items,
            wanted.modalities,
            chosen.embedders[0].spec,
            truncate=wanted.truncate != "NONE",
            at_start=wanted.truncate == "START",
        )

    async def _write(
        self, model: str, inputs: Sequence[Input], embeddings: Sequence[Embedding], wanted: EmbeddingsRequest
    ) -> list[bytes]:
        long = len(embeddings) * len(embeddings[0].vector) > VALUES_AT_ONCE
        packed = wanted.encoding_format == "base64"
        if long:
            return await asyncio.to_thread(write_embeddings, model, inputs, embeddings, packed=packed)
        return write_embeddings(model, inputs, embeddings, packed=packed)

    def _describe(self, name: str, embedder: Embedder) -> dict[str, object]:
        spec = embedder.spec
        return {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "vecgate",
            "root": spec.model,
            "embedder": spec.name,
            "space": spec.space,
            "dimension": spec.dimension,
        }


async def _add_slash(exchange: Exchange) -> web.Response:
    """Lead from the prefix to the page below it; relative, because a proxy in front may have a prefix, too."""
    location = exchange.path.rpartition("/")[2] + "/"
    return web.Response(status=HTTPStatus.PERMANENT_REDIRECT, headers={"location": location})


def _options(wanted: EmbeddingsRequest, chosen: Chosen, count: int, *, urgent: bool) -> EmbedOptions:
    passage = "passage" in (wanted.input_type, chosen.role)
    return EmbedOptions(
        Purpose.DOCUMENT if passage else Purpose.QUERY,
        Priority.BULK if passage or count > MANY_INPUTS or not urgent else Priority.INTERACTIVE,
    )


def _is_urgent(priority: str) -> bool:
    """Return whether somebody waits for a request, by its header Priority (RFC 9218); what is wrong is ignored."""
    urgencies = URGENCY.findall(priority)
    return not urgencies or int(urgencies[-1]) <= LEAST_URGENCY


def _unknown(error: ModelUnknown, status: HTTPStatus) -> Refused:
    return Refused(status, "MODEL_NOT_FOUND", str(error), field="model")


def _license() -> dict[str, object]:
    """Return the license of this server as a NIM does."""
    content = distribution("vecgate").read_text("licenses/LICENSE") or ""
    return {
        "name": "Apache-2.0",
        "path": "",
        "url": "https://www.apache.org/licenses/LICENSE-2.0",
        "type": "file",
        "size": len(content),
        "sha": hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest(),
        "content": content,
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
