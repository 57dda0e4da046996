"""What all parts of an evaluation know: the collection, who asks, and how to tell them how far it is."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from service.domain import Collection, Scope


class Stage(Enum):
    """A part of an evaluation; the numbers are those of the API."""

    SAMPLING = 1
    EMBEDDING = 2
    READING = 3
    SEARCHING = 4


Tell = Callable[[Stage, int, int], Awaitable[None]]
"""Takes the stage, and how many of how many objects, inputs or searches are done."""


@dataclass(frozen=True, slots=True)
class Task:
    """One evaluation.

    Attributes:
        collection: what is evaluated, with its spaces.
        scope: whose objects, and how many replicas must answer.
        tell: tells the caller how far it is.
        api_key: the caller's own key for NIMs; None for this server's.
    """

    collection: Collection
    scope: Scope
    tell: Tell
    api_key: str | None = None
