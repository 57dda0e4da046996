"""Errors in the form of Connect and gRPC-Web."""

import base64
from typing import Any

import grpc
import orjson
from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from google.protobuf import json_format
from google.rpc import status_pb2
from protobuf import wkt

from service.error_table import to_status
from service.errors import InvalidRequest, Violation

PREFIX = "type.googleapis.com/"
CODES = {each.value[0]: each for each in grpc.StatusCode}


class _Detail(ErrorDetail):
    """A detail that is shown as JSON, too: pages and curl have no descriptors.

    Args:
        type_url: of the message.
        content: the message's bytes.
        shown: the message as JSON.
    """

    def __init__(self, type_url: str, content: bytes, shown: dict[str, Any]) -> None:
        super().__init__(wkt.Any(type_url=type_url, value=content))
        self.shown = shown

    def value(self, kind: Any = None, /) -> Any:
        """Return the message as JSON."""
        return wkt.Struct.from_python(self.shown) if kind is None else super().value(kind)


def connect_error(status: status_pb2.Status) -> ConnectError:
    """Return a status as an error that the library writes in each protocol's own form."""
    return ConnectError(connect_code(CODES[status.code]), status.message, _details(status))


def _details(status: status_pb2.Status) -> list[_Detail]:
    details = []
    for packed in status.details:
        shown = json_format.MessageToDict(packed)
        shown.pop("@type")
        details.append(_Detail(packed.type_url, packed.value, shown))
    return details


def refusal(error: Exception) -> ConnectError:
    """Return an error of the table that ended a call before it began."""
    return connect_error(to_status(error, ""))


def connect_code(code: grpc.StatusCode) -> Code:
    """Return a gRPC code as Connect's."""
    return Code.CANCELED if code is grpc.StatusCode.CANCELLED else Code[code.name]


def grpc_code(code: Code) -> grpc.StatusCode:
    """Return Connect's code as gRPC's."""
    return grpc.StatusCode.CANCELLED if code is Code.CANCELED else grpc.StatusCode[code.name]


def protocol_fault(code: Code, message: str, request_id: str = "") -> status_pb2.Status:
    """Return the status of a request that breaks its protocol, with the protocol's code and the API's details."""
    status = to_status(InvalidRequest([Violation("", message)]), request_id)
    status.code = grpc_code(code).value[0]
    return status


def error_body(code: Code, message: str) -> bytes:
    """Return Connect's JSON for a request that no protocol can be told of."""
    details = [
        {
            "type": each.type_name,
            "value": base64.b64encode(each.message_bytes).decode().rstrip("="),
            "debug": each.shown,
        }
        for each in _details(protocol_fault(code, message))
    ]
    return orjson.dumps({"code": code.value, "message": message, "details": details})
