"""Queries as messages."""

from collections.abc import Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from vecgate.client.values import encode_vector, image_to_pb
from vecgate.v1 import search_service_pb2 as pb

__all__ = ["set_query"]


def set_query(
    request: pb.SearchObjectsRequest,
    *,
    text: str | Sequence[str] | None,
    image: bytes | Path | None,
    vector: ArrayLike | None,
    vector_space: str,
    truncate: bool,
) -> None:
    """Set what a request looks for.

    Raises:
        ValueError: more than one of text, image and vector is given.
    """
    if sum(query is not None for query in (text, image, vector)) > 1:
        raise ValueError("give one of text, image and vector")
    if text is not None:
        request.near_text.concepts.extend([text] if isinstance(text, str) else text)
        request.near_text.truncate = truncate
    elif image is not None:
        request.near_image.image.CopyFrom(image_to_pb(image))
    elif vector is not None:
        request.near_vector.CopyFrom(pb.NearVector(vector=encode_vector(vector), space=vector_space))
