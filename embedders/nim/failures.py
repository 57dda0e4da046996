"""What the refusals and failures of a NIM mean, whatever it was asked."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from http import HTTPStatus
from itertools import takewhile

from embedders.errors import (
    AnswerInvalid,
    CallerKeyRejected,
    CredentialRejected,
    EmbedderError,
    EmbedderRateLimited,
    EmbedderUnavailable,
    ModelGone,
)
from embedders.nim.connection import Answer
from embedders.nim.retries import PASSING

INFERENCE_FAILED = HTTPStatus.INTERNAL_SERVER_ERROR
"""The NIM's documented answer when inference fails, because of an input or of the NIM itself."""

INPUT_AT_FAULT = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        INFERENCE_FAILED,
    }
)
"""Statuses that reject an input, if a canary shows that the NIM accepts others."""

MAX_REFUSAL_LENGTH = 200

_KEY_PART = 8
"""So many characters of a key's beginning are taken for the key, or for what is left of it."""

_MAX_DEPTH = 4

_KEY_AT_FAULT = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN})


class NimFailures(ABC):
    """Maps the failures of one NIM to errors.

    Args:
        api_key: this server's, which no message may show.
        keyless: whether only callers have keys.
    """

    def __init__(self, api_key: str | None, *, keyless: bool) -> None:
        self._api_key = api_key
        self._keyless = keyless

    @property
    @abstractmethod
    def model(self) -> str:
        """The name of the model that the NIM is to serve."""

    @property
    def serves(self) -> str:
        """What the NIM lists instead of the model, in words; empty if it lists the model or nothing."""
        return ""

    def of(self, answer: Answer, key: str | None) -> EmbedderError:
        """Return the error for an answer that is not about an input; `key` is the caller's."""
        message = f"the NIM answered with status {answer.status}"
        wait_s = answer.retry_after_s or 1.0
        if answer.status in _KEY_AT_FAULT:
            return self._of_key(answer, key, message)
        if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return ModelGone(f"{message}: it does not serve the model {self.model}{self.serves}")
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return EmbedderRateLimited(f"{message}: too many calls", retry_after_s=wait_s)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in PASSING:
            return EmbedderUnavailable(message, retry_after_s=wait_s)
        return AnswerInvalid(f"{message}, which a NIM never sends; check base_url")

    def _of_key(self, answer: Answer, key: str | None, message: str) -> EmbedderError:
        what = "no credits are left for" if answer.status == HTTPStatus.PAYMENT_REQUIRED else "it rejects"
        if key is not None:
            return CallerKeyRejected(f"{message}: {what} the key that came with the call; send a valid one")
        if self._keyless:
            return CallerKeyRejected(f"{message}: it requires a key, and this server has none; send one with the call")
        return CredentialRejected(f"{message}: {what} this server's key; set a valid one")

    def of_all(self, answer: Answer, what: str, key: str | None) -> EmbedderError:
        """Return the error when the NIM rejects a canary. Its message cannot quote a caller's input.

        Args:
            answer: the NIM's.
            what: the canary in words, such as "text".
            key: the caller's.
        """
        if answer.status == INFERENCE_FAILED:
            return self.of(answer, key)
        words = read_refusal(answer.body, secrets=[each for each in (key, self._api_key) if each])
        message = f"the NIM rejects even a plain {what} with status {answer.status}"
        if words:
            message += f' and says "{words}"'
        if re.search(r"\bdegraded\b", words, re.IGNORECASE):
            return EmbedderUnavailable(message)
        return self._of_misfit(message, words)

    def _of_misfit(self, message: str, words: str, check: str = "") -> EmbedderError:
        """Return the error of a NIM that works and rejects a canary: it is not what the settings say.

        Args:
            message: what happened.
            words: what the NIM says.
            check: what else to check.
        """
        message += f"; check that it serves the model {self.model}{check}"
        return ModelGone(message) if re.search(r"\bmodel\b", words, re.IGNORECASE) else AnswerInvalid(message)


def read_refusal(body: bytes, *, secrets: Sequence[str] = ()) -> str:
    """Return a refusal's message, detail or title, shortened; empty if there is none.

    It may quote the request, so it must not be shown to other callers.

    Args:
        body: of the answer.
        secrets: keys that are cut out, also where the NIM gives only their beginning.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    words = _words(answer)
    printable = "".join(each if each.isprintable() else " " for each in words)
    words = " ".join(printable.split())
    # Before the words are shortened: a key that is cut in two would not be found.
    for secret in secrets:
        words = words.replace(secret, "...")
    for secret in secrets:
        words = _without(words, secret)
    return words[:MAX_REFUSAL_LENGTH]


def _without(words: str, secret: str) -> str:
    """Return words with "..." for each part of them with which a secret begins."""
    kept: list[str] = []
    # More of them fill all that is shown.
    while (at := words.find(secret[:_KEY_PART])) >= 0 and 3 * len(kept) <= MAX_REFUSAL_LENGTH:
        kept.append(f"{words[:at]}...")
        same = takewhile(lambda pair: pair[0] == pair[1], zip(words[at:], secret, strict=False))
        words = words[at + sum(1 for _ in same) :]
    return "".join((*kept, words))


def _words(answer: object, depth: int = 0) -> str:
    # FastAPI's detail is a list of objects with msg and loc, NVIDIA's gateway has title and detail, OpenAI has error.
    match answer:
        case str():
            return answer
        case list() if depth < _MAX_DEPTH:
            return "; ".join(filter(None, (_words(each, depth + 1) for each in answer[:3])))
        case {"msg": str() as message, "loc": list() as where}:
            return f"{'.'.join(map(str, where[:5]))}: {message}"
        case dict() if depth < _MAX_DEPTH:
            found = (_words(answer.get(key), depth + 1) for key in ("message", "detail", "error", "msg", "title"))
            return next(filter(None, found), "")
    return ""
