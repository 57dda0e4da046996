"""Pages of an answer: where the next one begins, and how much one of them holds."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from typing import TypeVar
from uuid import UUID

from google.protobuf.message import Message

from service.errors import Violations
from vecgate.v1 import object_service_pb2 as object_pb

CLIENTS_TAKE_BYTES = 4 * 1024 * 1024
"""The longest answer that gRPC clients of every language take, unless they are told otherwise."""

FRAME_BYTES = 16
"""Bytes before a message in its list. Two frames have room for a page token."""

SEAL_BYTES = 6
ID_BYTES = 16
OFFSET_BYTES = 4

Item = TypeVar("Item", bound=Message)
Paged = object_pb.ListObjectsRequest | object_pb.BackfillVectorsRequest | object_pb.CountMissingVectorsRequest


def as_many_as_fit(messages: Iterable[Item], most_bytes: int, frame_bytes: int) -> list[Item]:
    """Return the first messages, as many as an answer of so many bytes has room for, but at least one.

    One that fits in no answer is returned all the same, so that gRPC refuses it.
    """
    fitting: list[Item] = []
    room = most_bytes - 2 * frame_bytes
    for each in messages:
        room -= each.ByteSize() + frame_bytes
        if fitting and room < 0:
            break
        fitting.append(each)
    return fitting


def page_token(request: Paged, position: UUID | int) -> str:
    """Return the token of the page behind the object of an id, or behind so many objects."""
    place = position.bytes if isinstance(position, UUID) else position.to_bytes(OFFSET_BYTES, "big")
    return urlsafe_b64encode(_seal(request) + place).decode("ascii").rstrip("=")


def parse_page_token(violations: Violations, request: Paged, *, by_id: bool) -> UUID | int:
    """Return where the page of a request begins: behind the object of an id, or behind so many objects.

    Args:
        violations: where to note a token that does not belong to the request; the page is then the first one.
        request: the request.
        by_id: whether its pages begin behind ids.
    """
    if not request.page_token:
        return 0
    try:
        token = urlsafe_b64decode(request.page_token + "=" * (-len(request.page_token) % 4))
    except ValueError:
        token = b""
    seal, place = token[:SEAL_BYTES], token[SEAL_BYTES:]
    if seal == _seal(request) and len(place) == (ID_BYTES if by_id else OFFSET_BYTES):
        return UUID(bytes=place) if by_id else int.from_bytes(place, "big")
    message = (
        "is not a token of this request; send it with the collection, tenant, filters and sort of the request that "
        "returned it, or leave it empty to begin with the first object, also after an alias was switched"
    )
    violations.add("page_token", message)
    return 0


def _seal(request: Paged) -> bytes:
    """Return the part of a token that binds it to its request: a digest of what the request lists."""
    digest = hashlib.sha256(f"{request.DESCRIPTOR.name}\0{request.collection}\0{request.scope.tenant}".encode())
    if isinstance(request, object_pb.ListObjectsRequest):
        listed = object_pb.ListObjectsRequest(sort=request.sort)
        if request.HasField("filters"):
            listed.filters.CopyFrom(request.filters)
        digest.update(listed.SerializeToString(deterministic=True))
    return digest.digest()[:SEAL_BYTES]
