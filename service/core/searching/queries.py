"""What a search looks for."""

from dataclasses import dataclass
from uuid import UUID

from service.domain import Blend, Keywords

__all__ = ["Hybrid", "Near", "NearImage", "NearObject", "NearText", "NearVector", "Query"]


@dataclass(frozen=True, slots=True)
class NearText:
    """Look for what is near to texts; of several, to the mean of their vectors."""

    concepts: tuple[str, ...]
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class NearImage:
    """Look for what is near to an encoded picture."""

    content: bytes


@dataclass(frozen=True, slots=True)
class NearVector:
    """Look for what is near to a vector.

    Attributes:
        data: little-endian float32 bytes.
        space: the space that it comes from, or empty when the caller does not say.
    """

    data: bytes
    space: str = ""


@dataclass(frozen=True, slots=True)
class NearObject:
    """Look for what is near to an object of the collection."""

    id: UUID


Near = NearText | NearImage | NearVector
"""What can be made a vector."""


@dataclass(frozen=True, slots=True)
class Hybrid:
    """Look for what is near to something and for what has certain words.

    Attributes:
        blend: the words and how both are joined.
        near: the vector side; None for the text of the words.
        truncate: whether that text may be cut.
    """

    blend: Blend
    near: Near | None = None
    truncate: bool = False


Query = Near | NearObject | Hybrid | Keywords | None
"""What to look for; None lists objects."""
