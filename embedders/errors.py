"""Everything that an embedder raises.

EmbedderError
  InputRejected                 one input is invalid; the others are not affected
    TextTooLong
    ImageEmpty
    ImageTooLarge
    ImageUndecodable
  EmbedderUnavailable           the backend does not answer: try again
  EmbedderOverloaded            this process's queue is full: try again
  EmbedderRateLimited           the backend's rate limit is reached: try again later
  CredentialRejected            the backend rejects the key
    CallerKeyRejected           the key came with the call, or should have, and is not this server's
  ModelGone                     the backend does not serve the model, or no longer
  AnswerInvalid                 the backend answered, but not with a valid set of vectors
  ModelUnusable                 a model cannot be used with these settings and files
  SpaceDisproved                an embedder does not have the space that it is declared to have
"""

import copy
from typing import Self


class EmbedderError(Exception):
    """Base class of all. The message is for the caller: it holds no secret and no content of an input."""

    def for_caller(self) -> Self:
        """Return a copy for one more caller, with a traceback that no other caller adds to."""
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
    """The bytes are not a picture of a supported format, or the picture is broken or cut short."""


class EmbedderUnavailable(EmbedderError):
    """The backend does not answer.

    Attributes:
        retry_after_s: when to try again, in seconds.
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EmbedderOverloaded(EmbedderUnavailable):
    """The embedder's queue in this process is full."""


class EmbedderRateLimited(EmbedderUnavailable):
    """The backend answered that its rate limit is reached."""


class CredentialRejected(EmbedderError):
    """The backend rejects the key that this server sends."""


class CallerKeyRejected(CredentialRejected):
    """The backend rejects the caller's key, or requires one where only callers have keys.

    Calls with other keys are not affected.
    """


class ModelGone(EmbedderError):
    """The backend says that it does not serve the model."""


class AnswerInvalid(EmbedderError):
    """The backend's answer has the wrong count, dimension or form, or its vectors are not of unit length."""


class ModelUnusable(EmbedderError):
    """A model cannot be used.

    A local one's files are missing, broken, or do not match the settings; or the settings do not tell which of a NIM's
    models to use, or do not fit it.
    """


class SpaceDisproved(EmbedderError):
    """An embedder's vectors of the probe differ from those of its declared space."""
