"""What the server and the processes that run a model send each other.

A message is its length and a pickle, over a Unix socket in a folder that only this user can enter. A process greets who
connects with Facts; then it answers each Job with an Answer of the same number.
"""

import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedders.contract import EmbedderSpec, Priority, TextInput
from embedders.errors import EmbedderError, InputRejected
from embedders.images.pixels import Place
from embedders.images.scaling import Scaling

HEADER = struct.Struct("<Q")
"""In front of each message: its bytes."""

FAREWELL = b"."
"""What the owner of the processes sends before it closes its connection to one of them; one that is killed cannot."""

ORDER = {Priority.INTERACTIVE: 0, Priority.BULK: 1}
"""Whose jobs go first."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to know of a model.

    Attributes:
        spec: what the embedder says of itself.
        form: how texts are cleaned before they are tokenised; see embedders.cleaning.
        scaling: how pictures are scaled.
        devices: where the model runs.
        held_bytes: what it takes on a device: its weights, and its CUDA graphs.
        cores: threads that compute if one process works alone.
        processes: how many processes serve it.
        last_end: how the process before this one ended, in words; empty if there was none.
    """

    spec: EmbedderSpec
    form: str
    scaling: Scaling
    devices: tuple[str, ...]
    held_bytes: int
    cores: int
    processes: int = 1
    last_end: str = ""


@dataclass(frozen=True, slots=True)
class CleanedText:
    """A text that has been checked and cleaned elsewhere, because that took long.

    Attributes:
        text: what is left of it.
        source: the text's input, without its text.
        was_cut: whether it was cut to the bound on bytes.
    """

    text: str
    source: TextInput
    was_cut: bool


@dataclass(frozen=True, slots=True)
class Pixels:
    """Where the pixels of pictures are; see embedders.images.pixels.opened.

    Attributes:
        place: of the memory.
        slots: their numbers, one for each picture.
    """

    place: Place
    slots: tuple[int, ...]


Content = Sequence[TextInput | CleanedText] | Pixels
"""What a job is about."""


@dataclass(frozen=True, slots=True)
class Job:
    """Inputs of one kind to embed in one batch.

    Attributes:
        number: of the job, for its connection.
        urgency: jobs with a lower one go first.
        content: the inputs.
        alone: whether the other processes have nothing to do, so that this one may use all cores.
    """

    number: int
    urgency: int
    content: Content
    alone: bool = True


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for a job any more: if it has not begun, it need not. It is answered either way."""

    number: int


Row = InputRejected | tuple[int | None, bool]
"""Why there is no vector for an input, or the count of its tokens (None for a picture) and whether it was cut."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of a job.

    Attributes:
        number: of the job.
        rows: one for each input.
        vectors: of the inputs that have one, in their order: float32, shape (vectors, dimension).
        error: why the job failed as a whole; then there are no rows.
    """

    number: int
    rows: list[Row] = field(default_factory=list)
    vectors: NDArray[np.float32] | None = None
    error: EmbedderError | None = None


def packed(message: Any) -> bytes:
    """Return a message as it is sent."""
    content = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(content)) + content


class Messages:
    """Puts messages together from the pieces in which they arrive."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._received = bytearray()

    def add(self, piece: bytes) -> list[Any]:
        """Take a piece, and return the messages that are complete."""
        received, messages, at = self._received, [], 0
        received += piece
        while len(received) - at >= HEADER.size:
            end = at + HEADER.size + HEADER.unpack_from(received, at)[0]
            if len(received) < end:
                break
            messages.append(pickle.loads(memoryview(received)[at + HEADER.size : end]))  # noqa: S301 -- from our own process
            at = end
        del received[:at]
        return messages
