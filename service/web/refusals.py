"""What is wrong with a request, as an answer: HTTP's own refusals, and the error table's for everything else."""

import math
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from aiohttp import web

from service.error_table import message_for, reason_for, rule_for
from service.errors import InvalidRequest, ServiceError
from service.process.metrics import FAILURES
from service.web import wire

JSON = "application/json"
KINDS = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
"""OpenAI's types of errors beside invalid_request_error and server_error."""


class Refused(ServiceError):
    """A request breaks a rule of HTTP or of the endpoint for which gRPC has no code.

    Attributes:
        status: of the answer.
        reason: what is wrong, for programs.
        field: the part of the request that is wrong.
        headers: of the answer.
        closes: whether the connection ends with the answer.
    """

    def __init__(
        self,
        status: HTTPStatus,
        reason: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.field = field
        self.headers = dict(headers or {})
        self.closes = closes


def invalid_http(message: str = "this is not an HTTP/1.1 request") -> Refused:
    """Return the refusal of bytes that break HTTP."""
    return Refused(HTTPStatus.BAD_REQUEST, "INVALID_HTTP", message, closes=True)


def head_too_large(max_bytes: int) -> Refused:
    """Return the refusal of a request's line and headers."""
    return Refused(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "HEADERS_TOO_LARGE",
        f"the request's line and headers have more than {max_bytes} bytes",
        closes=True,
    )


def path_not_found() -> Refused:
    """Return the refusal of a path that no route has."""
    return Refused(
        HTTPStatus.NOT_FOUND,
        "PATH_NOT_FOUND",
        "there is nothing at this path; embeddings are at POST /v1/embeddings, and /openapi.json has the rest",
    )


def method_not_allowed(allowed: str) -> Refused:
    """Return the refusal of a method that a path does not take."""
    return Refused(
        HTTPStatus.METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", f"use {allowed} here", headers={"allow": allowed}
    )


def note_refusal(error: Refused) -> None:
    """Count what HTTP or the endpoint itself refuses, and let the request's line in the access log say it."""
    FAILURES.labels(error.reason, "caller").inc()
    structlog.contextvars.bind_contextvars(error=error.reason)


def answer_for(error: Exception, request_id: str) -> web.Response:
    """Return the answer to an exception in every form that clients of a NIM, OpenAI's and Weaviate's read."""
    if isinstance(error, Refused):
        status, message, field, headers, reason = error.status, str(error), error.field, error.headers, error.reason
    else:
        rule = rule_for(error)
        status, message, headers, reason = rule.http, message_for(error, request_id), {}, reason_for(error)
        # OpenAI's form names one field.
        field = error.violations[0].field or None if isinstance(error, InvalidRequest) else None
        if status == HTTPStatus.UNAUTHORIZED:
            headers = {"www-authenticate": "Bearer"}
        if rule.retry:
            headers = {"retry-after": str(max(1, math.ceil(getattr(error, "retry_after_s", 1.0))))}
    kind = KINDS.get(status, "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error")
    body = wire.write_error(status, message, kind=kind, code=reason.lower(), field=field, request_id=request_id)
    answer = web.Response(body=body, status=status, headers=headers, content_type=JSON)
    if isinstance(error, Refused) and error.closes:
        answer.force_close()
    return answer
