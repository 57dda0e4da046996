"""What a search looks for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from service.domain import Blend, Keywords


@dataclass(frozen=True, slots=True)
class Move:
    """Shift a query by the mean of objects' vectors and of the mean of concepts' vectors; force 0 does nothing."""

    force: float
    concepts: tuple[str, ...] = ()
    objects: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class NearText:
    """Look for what is near to texts; of several, to the mean of their vectors, moved to and then away if asked."""

    concepts: tuple[str, ...]
    truncate: bool = False
    move_to: Move | None = None
    move_away: Move | None = None

    def moves(self) -> list[tuple[str, Move]]:
        """Return the moves by their names in the request, in the order in which they are done."""
        pairs = (("move_to", self.move_to), ("move_away", self.move_away))
        # One of no force is left out, as Weaviate does.
        return [(name, move) for name, move in pairs if move is not None and move.force > 0]


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
        by_target: instead of both, one for each named vector.
    """

    data: bytes = b""
    space: str = ""
    by_target: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NearObject:
    """Look for what is near to an object of the collection."""

    id: UUID


@dataclass(frozen=True, slots=True)
class NearInputs:
    """Look for what is near to several things in one: texts, pictures, vectors and objects, each with its weight."""

    inputs: tuple[tuple[str | NearImage | NearVector | NearObject, float], ...]
    truncate: bool = False


Near = NearText | NearImage | NearVector | NearInputs
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

    @property
    def words_only(self) -> bool:
        """Whether the vector side counts for nothing."""
        return self.blend.alpha == 0 and self.blend.max_vector_distance is None


Query = Near | NearObject | Hybrid | Keywords | None
"""What to look for; None lists objects."""
