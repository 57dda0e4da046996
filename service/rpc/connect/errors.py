"""Errors in the form of Connect and gRPC-Web."""

from typing import Any

import grpc
import orjson
from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from google.protobuf import json_format
from google.rpc import status_pb2
from protobuf import wkt

from service.error_table import to_status

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
        self._shown = wkt.Struct.from_python(shown)

    def value(self, kind: Any = None, /) -> Any:
        """Return the message as JSON."""
        return self._shown if kind is None else super().value(kind)


def connect_error(status: status_pb2.Status) -> ConnectError:
    """Return a status as an error that the library writes in each protocol's own form."""
    details = []
    for packed in status.details:
        shown = json_format.MessageToDict(packed)
        shown.pop("@type")
        details.append(_Detail(packed.type_url, packed.value, shown))
    return ConnectError(connect_code(CODES[status.code]), status.message, details)


def refusal(error: Exception) -> ConnectError:
    """Return an error of the table that ended a call before it began."""
    return connect_error(to_status(error, ""))


def connect_code(code: grpc.StatusCode) -> Code:
    """Return a gRPC code as Connect's."""
    return Code.CANCELED if code is grpc.StatusCode.CANCELLED else Code[code.name]


def grpc_code(code: Code) -> grpc.StatusCode:
    """Return Connect's code as gRPC's."""
    return grpc.StatusCode.CANCELLED if code is Code.CANCELED else grpc.StatusCode[code.name]


def error_body(code: Code, message: str) -> bytes:
    """Return Connect's JSON for a request that no protocol can be told of."""
    return orjson.dumps({"code": code.value, "message": message})
