"""Everything that an embedder raises.

EmbedderError
  InputRejected                 one input is at fault; its neighbours are not
    TextTooLong
    ImageEmpty
    ImageTooLarge
    ImageUndecodable
  EmbedderUnavailable           the backend does not answer: try again
  EmbedderOverloaded            this process's queue is full: try again
  EmbedderRateLimited           the backend limits its callers: try again later
  CredentialRejected            the backend refuses the key
    CallerKeyRejected           the key is not this server's but came with the call, or should have
  ModelGone                     the backend does not serve the model (any more)
  AnswerInvalid                 the backend answered, but not with a valid set of vectors
  ModelUnusable                 a local model cannot be loaded
  SpaceDisproved                an embedder is not of the space that it is declared to be of
"""

import copy
from typing import Self


class EmbedderError(Exception):
    """Parent of all. The message is for the caller: it holds no secret and no content of an input."""

    def anew(self) -> Self:
        """Return an equal error for one more caller, to whose traceback nobody else adds."""
        own = copy.copy(self)
        own.__cause__ = self
        return own


class InputRejected(EmbedderError):
    """An input breaks a rule. The message names the rule, the bound and the fix."""


class TextTooLong(InputRejected):
    """A text has more bytes or tokens than allowed."""


class ImageEmpty(InputRejected):
    """An image has no bytes."""


class ImageTooLarge(InputRejected):
    """An image has more bytes or pixels than allowed."""


class ImageUndecodable(InputRejected):
    """The bytes are no picture of a supported format, or it is broken or cut short."""


class EmbedderUnavailable(EmbedderError):
    """The backend does not answer.

    Attributes:
        retry_after_s: when to try again, in seconds.
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EmbedderOverloaded(EmbedderUnavailable):
    """This process has as much waiting work for the embedder as it may hold."""


class EmbedderRateLimited(EmbedderUnavailable):
    """The backend answered that it has had too many calls."""


class CredentialRejected(EmbedderError):
    """The backend refuses the key that this server sends."""


class CallerKeyRejected(CredentialRejected):
    """The backend refuses the key that a caller brought, or wants one where only callers have any.

    Calls with other keys are none the worse for it.
    """


class ModelGone(EmbedderError):
    """The backend says that it does not serve the model."""


class AnswerInvalid(EmbedderError):
    """The backend's answer has another count, dimension or form than asked for, or values that are no unit vectors."""


class ModelUnusable(EmbedderError):
    """A local model cannot be loaded: its files are missing, broken, or not what the settings say."""


class SpaceDisproved(EmbedderError):
    """An embedder's vectors of the probe are not those of the space that it is declared to be of."""
