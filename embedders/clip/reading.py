"""Inputs as a model reads them: token ids and pixels. Any thread may read."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedders import images
from embedders.errors import ImageUndecodable, InputRejected, TextTooLong
from embedders.inputs import ImageInput, TextInput
from embedders.spec import InputLimits
from embedders.texts import check_text

__all__ = ["Picture", "Reader", "Text"]


@dataclass(frozen=True, slots=True)
class Text:
    """A text as the model reads it.

    Attributes:
        ids: token ids; without padding if the reader is `unpadded`.
        count: how many of them are no padding.
        truncated: whether some were cut off.
    """

    ids: list[int]
    count: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as the model reads it: a float32 tensor of shape (3, height, width)."""

    pixels: Any


class Reader:
    """Tokenises texts, decodes and scales images.

    Attributes:
        context_length: tokens that the model reads.
        tokenizer_kind: the class of the tokenizer.
        unpadded: whether texts come without padding, as only open_clip's own tokenizer gives them.
    """

    def __init__(
        self, tokenizer: Any, transform: Any, *, preprocessing: Mapping[str, Any], limits: InputLimits
    ) -> None:
        """Make one of open_clip's tokenizer, image transform and what it says of that."""
        import open_clip

        self._tokenizer = tokenizer
        self._tokenizer_lock = threading.Lock()
        self._transform = transform
        self._resize_mode = preprocessing["resize_mode"]
        self._limits = limits
        self.tokenizer_kind = type(tokenizer).__name__
        self.context_length: int = tokenizer.context_length
        self.unpadded: bool = isinstance(tokenizer, open_clip.SimpleTokenizer) and tokenizer.reduction_fn is None

    def texts(self, texts: Sequence[TextInput]) -> list[Text | InputRejected]:
        """Tokenise texts, and cut those that may be and have to."""
        return [self._text(each) for each in texts]

    def picture(self, image: ImageInput) -> Picture | InputRejected:
        """Decode an image and give it the model's size and scale."""
        try:
            decoded = images.decode(image.content, self._limits)
        except InputRejected as error:
            return error
        if self._resize_mode == "shortest":
            decoded = images.without_far_ends(decoded)
        try:
            return Picture(self._transform(decoded))
        except ValueError:
            return ImageUndecodable("the picture is too narrow to be scaled to what the model reads; crop it")

    def _text(self, each: TextInput) -> Text | InputRejected:
        try:
            check_text(each.text, self._limits)
        except InputRejected as error:
            return error
        ids, count = self._tokens(each.text)
        bound = self.context_length
        if count > bound and not each.truncate:
            return TextTooLong(f"the text has {count} tokens; the model reads {bound}; shorten it or allow truncation")
        return Text(ids, min(count, bound), truncated=count > bound)

    def _tokens(self, text: str) -> tuple[list[int], int]:
        """Return what open_clip's tokenizer returns, cut to the context length, and the count before that."""
        tokenizer, bound = self._tokenizer, self.context_length
        if self.unpadded:
            ids = [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]
            return (ids if len(ids) <= bound else [*ids[: bound - 1], tokenizer.eot_token_id]), len(ids)
        with self._tokenizer_lock:  # Hugging Face's keep the settings of the last call, and fail when two overlap
            whole = tokenizer.tokenizer(tokenizer.clean_fn(text), truncation=False).input_ids
            return tokenizer([text])[0].tolist(), len(whole)
