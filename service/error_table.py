"""The one table from exceptions to gRPC and HTTP statuses, and how a gRPC status is written."""

import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus

import grpc
import structlog
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from embedders import errors as embedder_errors
from service import errors
from service.process.metrics import FAILURES
from vecgate.v1.error_reason_pb2 import ErrorReason

log = structlog.get_logger(__name__)

DOMAIN = "vecgate"
MAX_MESSAGE_BYTES = 1000
MAX_VIOLATIONS_BYTES = 2000
MAX_NAME_BYTES = 400
PREFIX = "ERROR_REASON_"


@dataclass(frozen=True, slots=True)
class Rule:
    """How an exception is told to callers.

    Attributes:
        code: the gRPC status code.
        http: the HTTP status code.
        reason: the ErrorReason.
        retry: whether the status carries RetryInfo with the exception's `retry_after_s`.
        blame: whose fault it is: "caller", "upstream" or "server"; it decides the log level.
    """

    code: grpc.StatusCode
    http: HTTPStatus
    reason: "ErrorReason.ValueType"
    retry: bool = False
    blame: str = "caller"


Code = grpc.StatusCode

HTTP_STATUSES = {
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Code.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
    Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    Code.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""What a rule takes that says nothing else."""


def _rule(
    code: grpc.StatusCode, reason: str, *, http: int | None = None, retry: bool = False, blame: str = "caller"
) -> Rule:
    status = HTTP_STATUSES[code] if http is None else HTTPStatus(http)
    return Rule(code, status, ErrorReason.Value(PREFIX + reason), retry, blame)


TABLE: dict[type[BaseException], Rule] = {
    errors.InvalidRequest: _rule(Code.INVALID_ARGUMENT, "INVALID_INPUT"),
    errors.EmbedderNotFound: _rule(Code.NOT_FOUND, "EMBEDDER_NOT_FOUND"),
    errors.RerankerNotFound: _rule(Code.NOT_FOUND, "RERANKER_NOT_FOUND"),
    errors.CollectionNotFound: _rule(Code.NOT_FOUND, "COLLECTION_NOT_FOUND"),
    errors.AliasNotFound: _rule(Code.NOT_FOUND, "ALIAS_NOT_FOUND"),
    errors.TenantNotFound: _rule(Code.NOT_FOUND, "TENANT_NOT_FOUND"),
    errors.ObjectNotFound: _rule(Code.NOT_FOUND, "OBJECT_NOT_FOUND"),
    errors.CollectionAlreadyExists: _rule(Code.ALREADY_EXISTS, "COLLECTION_ALREADY_EXISTS"),
    errors.SpaceMismatch: _rule(Code.FAILED_PRECONDITION, "EMBEDDING_SPACE_MISMATCH"),
    errors.SpaceAmbiguous: _rule(Code.FAILED_PRECONDITION, "EMBEDDING_SPACE_MISMATCH"),
    errors.CollectionNotBound: _rule(Code.FAILED_PRECONDITION, "COLLECTION_NOT_BOUND"),
    errors.ImageNotStored: _rule(Code.FAILED_PRECONDITION, "IMAGE_NOT_STORED"),
    errors.BindingUnproven: _rule(Code.FAILED_PRECONDITION, "BINDING_UNPROVEN"),
    errors.CollectionChanged: _rule(Code.FAILED_PRECONDITION, "COLLECTION_CHANGED"),
    errors.PackageMissing: _rule(Code.FAILED_PRECONDITION, "PACKAGE_MISSING"),
    errors.ImageUriNotAllowed: _rule(Code.INVALID_ARGUMENT, "IMAGE_URI_NOT_ALLOWED"),
    errors.ImageNotServed: _rule(Code.FAILED_PRECONDITION, "IMAGE_NOT_SERVED", http=424, blame="upstream"),
    errors.ImageUnreachable: _rule(Code.UNAVAILABLE, "IMAGE_UNREACHABLE", retry=True, blame="upstream"),
    errors.CredentialsMissing: _rule(Code.UNAUTHENTICATED, "CREDENTIALS_MISSING"),
    errors.CredentialsInvalid: _rule(Code.UNAUTHENTICATED, "CREDENTIALS_INVALID"),
    errors.PermissionDenied: _rule(Code.PERMISSION_DENIED, "PERMISSION_DENIED"),
    errors.QuotaExceeded: _rule(Code.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED", retry=True),
    errors.StoreRejected: _rule(Code.FAILED_PRECONDITION, "STORE_REJECTED", http=424, blame="upstream"),
    errors.TenantInactive: _rule(Code.FAILED_PRECONDITION, "STORE_REJECTED"),
    errors.VectorRemoved: _rule(Code.INVALID_ARGUMENT, "UNKNOWN_VECTOR"),
    errors.StoreUnavailable: _rule(Code.UNAVAILABLE, "STORE_UNAVAILABLE", retry=True, blame="upstream"),
    errors.Overloaded: _rule(Code.UNAVAILABLE, "OVERLOADED", retry=True),
    errors.MessageTooLarge: _rule(Code.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE", http=413),
    embedder_errors.EmbedderOverloaded: _rule(Code.UNAVAILABLE, "OVERLOADED", retry=True),
    embedder_errors.EmbedderRateLimited: _rule(
        Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED", retry=True, blame="upstream"
    ),
    embedder_errors.EmbedderUnavailable: _rule(Code.UNAVAILABLE, "EMBEDDER_UNAVAILABLE", retry=True, blame="upstream"),
    embedder_errors.CallerKeyRejected: _rule(Code.UNAUTHENTICATED, "UPSTREAM_KEY_REJECTED"),
    embedder_errors.CredentialRejected: _rule(
        Code.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED", http=424, blame="upstream"
    ),
    embedder_errors.ModelGone: _rule(Code.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED", http=424, blame="upstream"),
    embedder_errors.ModelUnusable: _rule(
        Code.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED", http=424, blame="upstream"
    ),
    embedder_errors.SpaceDisproved: _rule(
        Code.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED", http=424, blame="upstream"
    ),
    embedder_errors.AnswerInvalid: _rule(Code.INTERNAL, "EMBEDDER_ANSWER_INVALID", blame="upstream"),
    TimeoutError: _rule(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    BaseException: _rule(Code.INTERNAL, "INTERNAL", blame="server"),
}
"""The most specific class decides."""

for _rule_of in TABLE.values():
    # A counter that appears with its first event has not increased for Prometheus.
    FAILURES.labels(ErrorReason.Name(_rule_of.reason).removeprefix(PREFIX), _rule_of.blame)


def rule_for(error: BaseException) -> Rule:
    """Return the rule of an exception's most specific class in the table."""
    return next(TABLE[each] for each in type(error).__mro__ if each in TABLE)


def message_for(error: BaseException, request_id: str) -> str:
    """Return an exception's message for callers; of an unexpected one, nothing but the request id is told."""
    if rule_for(error).blame == "server":
        return f"internal error; the server's log has more under request id {request_id}"
    if isinstance(error, TimeoutError):
        return "the deadline passed before the call was done"
    return str(error)


def reason_for(error: BaseException) -> str:
    """Return the name of an exception's ErrorReason, without the prefix: the violations' own if they share one."""
    if isinstance(error, errors.InvalidRequest):
        reasons = {violation.reason for violation in error.violations}
        if len(reasons) == 1:
            return reasons.pop()
    return ErrorReason.Name(rule_for(error).reason).removeprefix(PREFIX)


def log_failure(error: Exception, method: str) -> None:
    """Count and log why a call failed, as loud as whose fault it is, and never a caller's content.

    What a caller is refused for goes into the call's own line in the access log, so that a flood of refusals is cheap.
    The exception loses its traceback: through it, it would hold what the call was about until the collector of cycles
    comes, outside of all bounds on what calls may hold.
    """
    blame = rule_for(error).blame
    FAILURES.labels(reason_for(error), blame).inc()
    match blame:
        case "server":
            # The text of an unexpected exception may hold a caller's content, its place in the code does not.
            places = "".join(traceback.format_tb(error.__traceback__))
            log.error("call_failed", method=method, error=type(error).__qualname__, traceback=places)
        case "upstream":
            # What Weaviate says of an object that it refuses may repeat the object's content.
            detail = None if isinstance(error, errors.StoreRejected) else str(error)
            log.warning("call_failed", method=method, error=type(error).__qualname__, detail=detail)
        case _:
            structlog.contextvars.bind_contextvars(error=type(error).__qualname__)
    _forget_tracebacks(error)


def _forget_tracebacks(error: BaseException) -> None:
    """Let go of the frames that an exception, and those that led to it, came through."""
    left: list[BaseException | None] = [error]
    seen: set[int] = set()
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.__traceback__ = None
        left += (each.__cause__, each.__context__)
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions


def to_status(error: BaseException, request_id: str) -> status_pb2.Status:
    """Return an exception as a gRPC status with details, of a call or of one item.

    That of a call travels in the trailing metadata. Clients take 8 KiB of metadata by default, in which the message
    stands twice and details as base64; of a status that was longer they would show nothing but that it was.
    """
    rule = rule_for(error)
    code: int = rule.code.value[0]
    status = status_pb2.Status(code=code, message=_cut(message_for(error, request_id), MAX_MESSAGE_BYTES))
    for detail in _details(error, rule, request_id):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _bad_request(error: errors.InvalidRequest) -> error_details_pb2.BadRequest:
    """Return as many violations as have room, and how many others there are."""
    kept, size = error_details_pb2.BadRequest(), 0
    for number, each in enumerate(error.violations):
        field, description = _cut(each.field, MAX_NAME_BYTES), _cut(each.description, MAX_NAME_BYTES)
        violation = kept.FieldViolation(field=field, description=description, reason=each.reason)
        size += violation.ByteSize()
        if size > MAX_VIOLATIONS_BYTES:
            return _with_others(kept, len(error.violations) - number + error.more, each.reason)
        kept.field_violations.append(violation)
    return _with_others(kept, error.more, error.violations[-1].reason) if error.more else kept


def _with_others(kept: error_details_pb2.BadRequest, others: int, reason: str) -> error_details_pb2.BadRequest:
    kept.field_violations.add(description=f"and {others} more", reason=reason)
    return kept


def _cut(text: str, most: int) -> str:
    """Return a text, or so many bytes of its beginning."""
    # A character has a byte at least; what is beyond so many is not looked at.
    content = text[: most + 1].encode()
    return text if len(content) <= most else content[:most].decode(errors="ignore") + "..."


def _details(error: BaseException, rule: Rule, request_id: str) -> Iterator[Message]:
    metadata: dict[str, str] = {}
    match error:
        case errors.SpaceMismatch() | errors.ImageNotStored() | errors.BindingUnproven():
            metadata = error.metadata
        case errors.NotFound() | errors.CollectionAlreadyExists():
            metadata = {"name": error.name}
    metadata = {key: _cut(value, MAX_NAME_BYTES) for key, value in metadata.items()}
    yield error_details_pb2.ErrorInfo(reason=reason_for(error), domain=DOMAIN, metadata=metadata)
    if isinstance(error, errors.InvalidRequest):
        yield _bad_request(error)
    if isinstance(error, errors.QuotaExceeded):
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=f"client:{error.client}", description=str(error), quota_id=error.quota
        )
        yield error_details_pb2.QuotaFailure(violations=[violation])
    if rule.retry:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(timedelta(seconds=getattr(error, "retry_after_s", 1.0)))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if request_id:
        yield error_details_pb2.RequestInfo(request_id=request_id)
