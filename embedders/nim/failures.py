"""What a NIM's answers other than 200 mean, and what its callers are told of them."""

import re
from http import HTTPStatus

from embedders.contract import Modality
from embedders.errors import (
    AnswerInvalid,
    CallerKeyRejected,
    CredentialRejected,
    EmbedderError,
    EmbedderRateLimited,
    EmbedderUnavailable,
    InputRejected,
    ModelGone,
)
from embedders.nim import wire
from embedders.nim.connection import Answer
from embedders.nim.inputs import Item
from embedders.nim.profiles import NimProfile

INFERENCE_FAILED = HTTPStatus.INTERNAL_SERVER_ERROR
"""The NIM's own documented answer when inference fails, which may be an input's fault or its own."""

INPUT_AT_FAULT = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        INFERENCE_FAILED,
    }
)
"""What a NIM answers to an input that it cannot embed, if an input of ours shows that it can embed others."""

PASSING = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)

_KEY_AT_FAULT = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.PAYMENT_REQUIRED, HTTPStatus.FORBIDDEN})


class NimFailures:
    """Words the failures of one NIM.

    Args:
        model: the model's name.
        profile: what the NIM is taken for.
        api_key: this server's own, which no message shows.
        keyless: whether it is for the callers to bring keys, because this server has none.
    """

    def __init__(self, model: str, profile: NimProfile, api_key: str | None, *, keyless: bool) -> None:
        self._model = model
        self._profile = profile
        self._api_key = api_key
        self._keyless = keyless

    def of(self, answer: Answer, key: str | None) -> EmbedderError:
        """Return what to raise for an answer that no input is to blame for; `key` is the caller's."""
        message = f"the NIM answered with status {answer.status}"
        wait_s = answer.retry_after_s or 1.0
        if answer.status in _KEY_AT_FAULT:
            return self._of_key(answer, key, message)
        if answer.status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return ModelGone(f"{message}: it does not serve the model {self._model}")
        if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            return EmbedderRateLimited(f"{message}: too many calls", retry_after_s=wait_s)
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in PASSING:
            return EmbedderUnavailable(message, retry_after_s=wait_s)
        return AnswerInvalid(f"{message}, which is none that a NIM gives; check its address")

    def _of_key(self, answer: Answer, key: str | None, message: str) -> EmbedderError:
        what = "no credits are left for" if answer.status == HTTPStatus.PAYMENT_REQUIRED else "it refuses"
        if key is not None:
            return CallerKeyRejected(f"{message}: {what} the key that came with the call; send a valid one")
        if self._keyless:
            return CallerKeyRejected(f"{message}: it wants a key, and this server has none; send one with the call")
        return CredentialRejected(f"{message}: {what} this server's key; set a valid one")

    def of_all(self, answer: Answer, modality: Modality, key: str | None) -> EmbedderError:
        """Return what to raise when the NIM refuses an input of ours. Its words can hold nothing of any caller's."""
        if answer.status == INFERENCE_FAILED:
            return self.of(answer, key)
        words = wire.read_refusal(answer.body)
        for secret in filter(None, (key, self._api_key)):
            words = words.replace(secret, "...")
        message = f"the NIM refuses even a plain {modality.value} with status {answer.status}"
        if words:
            message += f' and says "{words}"'
        if re.search(r"\bdegraded\b", words, re.IGNORECASE):
            return EmbedderUnavailable(message)
        message += f"; check that it serves the model {self._model} and is of profile {self._profile.name}"
        if re.search(r"\bmodel\b", words, re.IGNORECASE):
            return ModelGone(message)
        return AnswerInvalid(message)

    def of_input(self, item: Item, answer: Answer) -> InputRejected:
        """Return what is wrong with an input that the NIM cannot embed, though it can others."""
        if answer.status == INFERENCE_FAILED:
            return InputRejected(
                f"the NIM fails on the input with status {answer.status}, and not on others; send another one"
            )
        if item.modality is Modality.IMAGE:
            fix = "send a smaller JPEG or PNG image"
        else:
            bound = self._profile.max_text_tokens
            fix = "send a shorter text" + (f"; the model reads {bound} tokens" if bound else "")
            fix += ", or let it be truncated" if item.kind.truncate == "NONE" else ""
        return InputRejected(f"the NIM refuses the input with status {answer.status}; {fix}")
