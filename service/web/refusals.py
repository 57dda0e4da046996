"""What goes wrong with a request, as an answer: HTTP's own refusals, and the one table's for everything else."""

import math
from collections.abc import Mapping
from http import HTTPStatus

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.error_table import message_for, reason_for, rule_for
from service.errors import InvalidRequest, ServiceError
from service.process.metrics import FAILURES
from service.web import wire as nim_endpoint

JSON = "application/json"
KINDS = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
"""OpenAI's types of errors beside invalid_request_error and server_error."""


class CallerGone(ServiceError):
    """The caller closed its connection; nobody waits for an answer."""


class Refused(ServiceError):
    """A request breaks a rule of HTTP or of the endpoint, which gRPC has no word for.

    Attributes:
        status: of the answer.
        reason: what is wrong, for programs.
        field: what of the request is at fault.
        headers: of the answer.
    """

    def __init__(
        self,
        status: HTTPStatus,
        reason: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.field = field
        self.headers = dict(headers or {})


def reason_of(error: Exception) -> str:
    """Return the word for programs that says what went wrong."""
    return error.reason if isinstance(error, Refused) else reason_for(error)


def note_refusal(error: HTTPException | Refused) -> None:
    """Count what HTTP or the endpoint itself refuses, and let the request's line in the access log say it."""
    reason = reason_of(_from_router(error) if isinstance(error, HTTPException) else error)
    FAILURES.labels(reason, "caller").inc()
    structlog.contextvars.bind_contextvars(error=reason)


def answer_for(error: Exception, request_id: str) -> Response:
    """Return the answer that tells an exception in every form that clients of a NIM, OpenAI's and Weaviate's read."""
    if isinstance(error, HTTPException):
        error = _from_router(error)
    if isinstance(error, Refused):
        status, message, field, headers = error.status, str(error), error.field, error.headers
    else:
        rule = rule_for(error)
        status, message, headers = rule.http, message_for(error, request_id), {}
        # OpenAI's form names one.
        field = error.violations[0].field or None if isinstance(error, InvalidRequest) else None
        if status == HTTPStatus.UNAUTHORIZED:
            headers = {"www-authenticate": "Bearer"}
        if rule.retry:
            headers = {"retry-after": str(max(1, math.ceil(getattr(error, "retry_after_s", 1.0))))}
    kind = KINDS.get(status, "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error")
    body = nim_endpoint.write_error(
        status, message, kind=kind, code=reason_of(error).lower(), field=field, request_id=request_id
    )
    return Response(body, status, headers, JSON)


def _from_router(error: HTTPException) -> Refused:
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        return Refused(
            HTTPStatus.METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", f"use {allowed} here", headers={"allow": allowed}
        )
    return Refused(
        HTTPStatus.NOT_FOUND,
        "PATH_NOT_FOUND",
        "there is nothing at this path; embeddings are at POST /v1/embeddings, and /openapi.json has the rest",
    )
