"""The errors that the client raises.

VecgateError        the server refused or failed; reason is the name of a vecgate.v1.ErrorReason without its prefix
  Unreachable       no Vecgate answers at the address
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One rule that a request breaks.

    Attributes:
        field: the field's path in the request, such as `inputs[3].image.content`.
        description: the rule and how to follow it.
        reason: the name of an ErrorReason without its prefix.
    """

    field: str
    description: str
    reason: str = ""


class VecgateError(Exception):
    """A call, or one item of it, failed.

    Attributes:
        code: the gRPC status code.
        reason: the name of an ErrorReason without its prefix, such as `COLLECTION_NOT_FOUND`; empty when the failure
            did not come from Vecgate itself.
        message: what happened, as text.
        metadata: values that belong to the reason, such as both spaces of an `EMBEDDING_SPACE_MISMATCH`.
        violations: every rule that the request breaks.
        retry_after_s: when to retry, in seconds; None if a retry does not help.
        request_id: the id to look up in the server's log; empty if the server gave none.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_s = retry_after_s
        self.request_id = request_id

    def __reduce__(self) -> tuple[Any, ...]:
        # So that the error can be copied, and pickled where one process hands it to another.
        return type(self), (self.code, self.message), self.__dict__

    def __str__(self) -> str:
        name = self.reason or self.code.name
        return f"{name}: {self.message}" if self.message else name


class Unreachable(VecgateError):
    """No Vecgate answers at the address, or its connection broke."""


def error_from_status(status: status_pb2.Status) -> VecgateError:
    """Return the error that a google.rpc.Status describes."""
    info, request = error_details_pb2.ErrorInfo(), error_details_pb2.RequestInfo()
    bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    retry_after_s = None
    for detail in status.details:
        for known in (info, request, bad):
            detail.Unpack(known)
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    # Every error of Vecgate has a reason, so one without a reason comes from the connection.
    kind = Unreachable if code is grpc.StatusCode.UNAVAILABLE and not info.reason else VecgateError
    return kind(
        code,
        status.message,
        reason=info.reason,
        metadata=info.metadata,
        violations=[FieldViolation(each.field, each.description, each.reason) for each in bad.field_violations],
        retry_after_s=retry_after_s,
        request_id=request.request_id,
    )


def error_from_rpc(error: grpc.RpcError) -> VecgateError:
    """Return the error that a failed call describes, blocking or of asyncio."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    status = status_pb2.Status(code=error.code().value[0], message=error.details() or "")
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.details.MergeFrom(status_pb2.Status.FromString(value).details)
    return error_from_status(status)
