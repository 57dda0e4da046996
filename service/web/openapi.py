"""The OpenAPI document of the endpoint."""

from typing import Any

from service.settings import AuthSettings, WebSettings
from service.web.models import Models
from service.web.wire import CHOICES

A_TEXT = {
    "type": "string",
    "minLength": 1,
    "description": "a text; an image as data:image/{png,jpeg,...};base64,...; or, for models that read both as one "
    "input, a text, a space or a line end, and such an image",
}
ERROR_STATUSES = {
    "400": "the request is not valid HTTP or JSON, or an input cannot be embedded",
    "401": "the API key is missing or unknown",
    "403": "the client of this key lacks the permission",
    "404": "there is no such path, or no model to describe",
    "405": "the path needs another method",
    "408": "the request did not arrive in time",
    "409": "the embedder's vectors belong to another space",
    "413": "the body is too large",
    "415": "the body is compressed",
    "422": "the body breaks the schema, or asks for a model, a dimension or a modality that this server does not have",
    "424": "the embedder's backend refuses this server",
    "429": "the client has used up its quota, or the embedder's backend limits the rate",
    "431": "the request line and headers are too large",
    "500": "an internal error of this server or of the embedder's backend",
    "503": "the embedder does not answer, or its queue is full",
    "504": "the request timed out",
}
"""All statuses that the error table and HTTP's own rules lead to."""

RETRY_AFTER = {"retry-after": {"description": "seconds to wait", "schema": {"type": "string", "pattern": "^[0-9]+$"}}}


def openapi_document(settings: WebSettings, access: AuthSettings, models: Models, version: str) -> dict[str, Any]:
    """Return the document for a server with these settings and models."""
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Vecgate, as a NIM",
            "version": version,
            "description": "Embeds texts and images into unit vectors, as an embedding NIM does.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": settings.path_prefix or "/"}],
        "paths": _paths(models),
        "components": {
            "schemas": {
                "EmbeddingsRequest": _request_schema(settings, models),
                "Embeddings": EMBEDDINGS,
                "Error": ERROR,
                "Health": _object(object={"const": "health.response"}, status=STRING, message=STRING),
                "Model": MODEL,
                "Models": _object(object={"const": "list"}, data=_list(_ref("Model"))),
                "Metadata": METADATA,
                "Manifest": MANIFEST,
                "License": LICENSE,
                "Version": _object(release=STRING, api=STRING),
            }
        },
    }
    if access.clients_file is not None:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        health, metrics = ("/v1/health/live", "/v1/health/ready"), ("/metrics",)
        for path in (*(health if access.open_health else ()), *(metrics if access.open_metrics else ())):
            document["paths"][path]["get"]["security"] = []
    return document


def _paths(models: Models) -> dict[str, Any]:
    return {
        "/v1/embeddings": {
            "post": {
                "operationId": "createEmbeddings",
                "summary": "Embed texts and images",
                "requestBody": {"required": True, "content": _content("EmbeddingsRequest")},
                "responses": {"200": _answer("the vectors, in the order of the inputs", "Embeddings")} | _errors(),
            }
        },
        "/v1/models": _get("listModels", "List the models", "Models"),
        "/v1/models/{model}": {
            "parameters": [
                {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": models.names()}}
            ],
            **_get("getModel", "Describe a model", "Model"),
        },
        "/v1/health/live": _get("getLive", "Whether the process answers", "Health"),
        "/v1/health/ready": _get(
            "getReady",
            "Whether an embedder works",
            "Health",
            **{"503": _answer("it does not, or this server is shutting down", "Health") | {"headers": RETRY_AFTER}},
        ),
        "/v1/metadata": _get("getMetadata", "What this server is", "Metadata"),
        "/v1/manifest": _get("getManifest", "What the models are made of", "Manifest"),
        "/v1/license": _get("getLicense", "The license of this server", "License"),
        "/v1/version": _get("getVersion", "Its release", "Version"),
        "/openapi.json": _get("getOpenapi", "This document", None),
        "/metrics": {
            "get": {
                "operationId": "getMetrics",
                "summary": "Metrics for Prometheus",
                "responses": {
                    "200": {
                        "description": "the text format",
                        "content": {"text/plain": {"schema": {"type": "string"}}},
                    }
                }
                | _errors(),
            }
        },
    }


def _get(operation: str, summary: str, schema: str | None, **more: Any) -> dict[str, Any]:
    answer = _answer(summary, schema) if schema else _described(summary, {"type": "object"})
    return {"get": {"operationId": operation, "summary": summary, "responses": {"200": answer} | _errors() | more}}


def _errors() -> dict[str, Any]:
    errors = {status: _answer(text, "Error") for status, text in ERROR_STATUSES.items()}
    for status in ("429", "503"):
        errors[status]["headers"] = RETRY_AFTER
    return errors


def _answer(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": _content(schema)}


def _described(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _content(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(schema)}}


def _ref(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _choice(field: str) -> dict[str, Any]:
    return {"enum": [*CHOICES[field], None]}


def _request_schema(settings: WebSettings, models: Models) -> dict[str, Any]:
    many = {"type": "array", "items": A_TEXT, "minItems": 1, "maxItems": settings.max_inputs}
    kinds = {"enum": list(CHOICES["modality"])}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["input", "model"],
        "properties": {
            "input": {"oneOf": [A_TEXT, many]},
            "model": {
                "type": "string",
                "enum": models.names(),
                "description": "a model, the id of a space, or an embedder; -query or -passage behind it stands for "
                "input_type",
            },
            "encoding_format": _choice("encoding_format")
            | {"default": "float", "description": "lists of numbers, or base64 of little-endian float32"},
            "embedding_type": _choice("embedding_type")
            | {"default": "float", "description": "the type of a vector's values"},
            "dimensions": {
                "enum": [*sorted(models.dimensions()), None],
                "description": "the dimension of an embedder of the model; that of the preferred one if not given",
            },
            "user": {"type": ["string", "null"], "description": "ignored"},
            "input_type": _choice("input_type")
            | {"description": "what the vectors are for; query if not given. Models with one role for both ignore it"},
            "truncate": _choice("truncate")
            | {
                "default": "END",
                "description": "whether a text that is too long for the model is truncated at its end or at its start, "
                "or refused. Local models and nvclip cut nothing at its start",
            },
            "modality": {
                "oneOf": [
                    _choice("modality"),
                    {"type": "array", "items": kinds, "minItems": 1, "maxItems": settings.max_inputs},
                ],
                "description": "what the inputs are: one value for all, or one for each. If not given, the data URLs "
                "in them tell it; text embeds the characters of a data URL",
            },
        },
    }


STRING = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
VECTOR = {
    "oneOf": [
        {"type": "array", "items": {"type": "number"}},
        {"type": "string", "contentEncoding": "base64", "description": "little-endian float32"},
    ]
}
EMBEDDINGS = _object(
    object={"const": "list"},
    data=_list(_object(object={"const": "embedding"}, index=COUNT, embedding=VECTOR)),
    model=STRING,
    usage=_object(num_images=COUNT, prompt_tokens=COUNT, total_tokens=COUNT),
)
ERROR = _object(
    message=STRING,
    detail=STRING,
    title=STRING,
    status={"type": "integer", "minimum": 400, "maximum": 599},
    requestId=STRING,
    error=_object(message=STRING, type=STRING, param={"type": ["string", "null"]}, code=STRING),
)
MODEL = _object(
    id=STRING,
    object={"const": "model"},
    created=COUNT,
    owned_by=STRING,
    root=STRING,
    embedder=STRING,
    space=STRING,
    dimension=COUNT,
)
NULL_OR_COUNT = {"type": ["integer", "null"], "minimum": 0}
LICENSE = _object(name=STRING, path=STRING, url=STRING, type={"const": "file"}, size=COUNT, sha=STRING, content=STRING)
MANIFEST = _object(
    object={"const": "manifest"},
    release=STRING,
    models=_list(
        {
            "allOf": [
                _ref("Model"),
                _object(
                    modalities=_list({"enum": list(CHOICES["modality"])}),
                    max_text_tokens=NULL_OR_COUNT,
                    weights_sha256={"type": ["string", "null"]},
                ),
            ]
        }
    ),
)
METADATA = _object(
    version=STRING,
    modelInfo=_list(_object(shortName=STRING, modelUrl=STRING)),
    assetInfo=_list(STRING),
    licenseInfo=_ref("License"),
)
