"""Queries as messages."""

from collections.abc import Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from vecgate.client.values import encode_vector, image_to_pb
from vecgate.v1 import search_service_pb2 as pb

__all__ = ["Query", "set_query"]

Query = pb.NearObject | pb.Bm25 | pb.Hybrid


def set_query(
    request: pb.SearchObjectsRequest,
    text: str | Sequence[str] | None,
    image: bytes | Path | None,
    vector: ArrayLike | None,
    vector_space: str,
    *,
    truncate: bool,
    query: Query | None,
    more: pb.SearchObjectsRequest | None,
) -> None:
    """Set what a request looks for, and the further fields that the caller built.

    Raises:
        ValueError: more than one of text, image, vector and query is given.
    """
    if sum(each is not None for each in (text, image, vector, query)) > 1:
        raise ValueError("give one of text, image, vector and query")
    if text is not None:
        request.near_text.concepts.extend([text] if isinstance(text, str) else text)
        request.near_text.truncate = truncate
    elif image is not None:
        request.near_image.image.CopyFrom(image_to_pb(image))
    elif isinstance(query, pb.NearObject):
        request.near_object.CopyFrom(query)
    elif isinstance(query, pb.Bm25):
        request.bm25.CopyFrom(query)
    elif isinstance(query, pb.Hybrid):
        request.hybrid.CopyFrom(query)
    elif vector is not None:
        request.near_vector.CopyFrom(pb.NearVector(vector=encode_vector(vector), space=vector_space))
    if more is not None:
        request.MergeFrom(more)
