"""Statuses as the real server makes them, without its code."""

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2


def failure(
    code: grpc.StatusCode,
    reason: str = "",
    message: str = "it failed",
    *,
    violations: tuple[tuple[str, str, str], ...] = (),
    retry_after_s: int | None = None,
    request_id: str = "",
    metadata: dict[str, str] | None = None,
) -> status_pb2.Status:
    """Return a status with the details that the real server gives."""
    status = status_pb2.Status(code=code.value[0], message=message)
    details: list[Message] = []
    if reason:
        details.append(error_details_pb2.ErrorInfo(reason=reason, domain="vecgate", metadata=metadata or {}))
    if violations:
        listed = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=text, reason=why)
            for field, text, why in violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=listed))
    if retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = retry_after_s
        details.append(retry)
    if request_id:
        details.append(error_details_pb2.RequestInfo(request_id=request_id))
    for detail in details:
        status.details.add().Pack(detail)
    return status
