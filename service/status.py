"""The one table from exceptions to gRPC statuses, and how a status is written."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from embedders import errors as embedder_errors
from service import errors
from vecgate.v1.error_reason_pb2 import ErrorReason

__all__ = ["DOMAIN", "TABLE", "Rule", "rule_for", "to_status"]

DOMAIN = "vecgate"
PREFIX = "ERROR_REASON_"


@dataclass(frozen=True, slots=True)
class Rule:
    """How an exception is told to callers.

    Attributes:
        code: the gRPC status code.
        reason: the ErrorReason.
        retry: whether the status carries RetryInfo with the exception's `retry_after_s`.
        blame: whose fault it is: "caller", "upstream" or "server"; it decides the log level.
    """

    code: grpc.StatusCode
    reason: "ErrorReason.ValueType"
    retry: bool = False
    blame: str = "caller"


def _rule(code: grpc.StatusCode, reason: str, *, retry: bool = False, blame: str = "caller") -> Rule:
    return Rule(code, ErrorReason.Value(PREFIX + reason), retry, blame)


Code = grpc.StatusCode

TABLE: dict[type[BaseException], Rule] = {
    errors.InvalidRequest: _rule(Code.INVALID_ARGUMENT, "INVALID_INPUT"),
    errors.EmbedderNotFound: _rule(Code.NOT_FOUND, "EMBEDDER_NOT_FOUND"),
    errors.CollectionNotFound: _rule(Code.NOT_FOUND, "COLLECTION_NOT_FOUND"),
    errors.ObjectNotFound: _rule(Code.NOT_FOUND, "OBJECT_NOT_FOUND"),
    errors.CollectionAlreadyExists: _rule(Code.ALREADY_EXISTS, "COLLECTION_ALREADY_EXISTS"),
    errors.SpaceMismatch: _rule(Code.FAILED_PRECONDITION, "EMBEDDING_SPACE_MISMATCH"),
    errors.CollectionNotBound: _rule(Code.FAILED_PRECONDITION, "COLLECTION_NOT_BOUND"),
    errors.StoreRejected: _rule(Code.FAILED_PRECONDITION, "STORE_REJECTED", blame="upstream"),
    errors.StoreUnavailable: _rule(Code.UNAVAILABLE, "STORE_UNAVAILABLE", retry=True, blame="upstream"),
    embedder_errors.EmbedderOverloaded: _rule(Code.UNAVAILABLE, "OVERLOADED", retry=True),
    embedder_errors.EmbedderRateLimited: _rule(
        Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED", retry=True, blame="upstream"
    ),
    embedder_errors.EmbedderUnavailable: _rule(Code.UNAVAILABLE, "EMBEDDER_UNAVAILABLE", retry=True, blame="upstream"),
    embedder_errors.CallerKeyRejected: _rule(Code.UNAUTHENTICATED, "UPSTREAM_KEY_REJECTED"),
    embedder_errors.CredentialRejected: _rule(Code.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED", blame="upstream"),
    embedder_errors.ModelGone: _rule(Code.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED", blame="upstream"),
    embedder_errors.SpaceDisproved: _rule(Code.FAILED_PRECONDITION, "EMBEDDER_MISCONFIGURED", blame="upstream"),
    embedder_errors.AnswerInvalid: _rule(Code.INTERNAL, "EMBEDDER_ANSWER_INVALID", blame="upstream"),
    TimeoutError: _rule(Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    BaseException: _rule(Code.INTERNAL, "INTERNAL", blame="server"),
}
"""The most specific class decides."""


def rule_for(error: BaseException) -> Rule:
    """Return the rule of an exception's most specific class in the table."""
    return next(TABLE[each] for each in type(error).__mro__ if each in TABLE)


def to_status(error: BaseException, request_id: str) -> status_pb2.Status:
    """Return an exception as a status with details; of an unexpected one, nothing but the request id is told."""
    rule = rule_for(error)
    if rule.blame == "server":
        message = f"internal error; the server's log has more under request id {request_id}"
    elif isinstance(error, TimeoutError):
        message = "the deadline passed before the call was done"
    else:
        message = str(error)
    code: int = rule.code.value[0]
    status = status_pb2.Status(code=code, message=message)
    for detail in _details(error, rule, request_id):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _details(error: BaseException, rule: Rule, request_id: str) -> Iterator[Message]:
    reason = ErrorReason.Name(rule.reason).removeprefix(PREFIX)
    metadata: dict[str, str] = {}
    match error:
        case errors.InvalidRequest():
            reasons = {violation.reason for violation in error.violations}
            reason = reasons.pop() if len(reasons) == 1 else reason
        case errors.SpaceMismatch():
            metadata = error.metadata
        case errors.NotFound() | errors.CollectionAlreadyExists():
            metadata = {"name": error.name}
    yield error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    if isinstance(error, errors.InvalidRequest):
        yield error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(
                    field=violation.field, description=violation.description, reason=violation.reason
                )
                for violation in error.violations
            ]
        )
    if rule.retry:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(timedelta(seconds=getattr(error, "retry_after_s", 1.0)))
        yield error_details_pb2.RetryInfo(retry_delay=delay)
    if request_id:
        yield error_details_pb2.RequestInfo(request_id=request_id)
