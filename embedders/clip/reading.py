"""Texts as a model reads them: token ids. Any thread may read."""

import threading
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

from embedders.cleaning import FORMS, clean
from embedders.clip.messages import CleanedText
from embedders.clip.tokenizers import Tokens, byte_pair_tokens, tokens_digest
from embedders.contract import InputLimits, TextInput
from embedders.errors import InputRejected, TextTooLong
from embedders.texts import check_text, is_blank, unreadable


@dataclass(frozen=True, slots=True)
class Text:
    """A text as the model reads it.

    Attributes:
        ids: token ids; without padding if the reader is `unpadded`.
        count: how many of them are not padding.
        truncated: whether some were cut off.
    """

    ids: list[int]
    count: int
    truncated: bool


class Reader:
    """Tokenises texts.

    Attributes:
        limits: bounds on a text.
        context_length: tokens that the model reads.
        tokenizer_kind: the class of the tokenizer.
        tokens_digest: SHA-256 of what a tokenizer from files makes of texts; None for open_clip's own.
        form: how texts are cleaned before they are tokenised; see embedders.cleaning.
        unpadded: whether texts come without padding, as only open_clip's own tokenizer gives them.
    """

    def __init__(self, tokenizer: Any, *, limits: InputLimits) -> None:
        """Make one of open_clip's tokenizer."""
        import open_clip

        self._tokenizer = copy(tokenizer)
        self._tokenizer_lock = threading.Lock()
        self.limits = limits
        self.tokenizer_kind = type(tokenizer).__name__
        self.context_length: int = tokenizer.context_length
        self.unpadded: bool = isinstance(tokenizer, open_clip.SimpleTokenizer) and tokenizer.reduction_fn is None
        self.tokens_digest = None if self.unpadded else tokens_digest(tokenizer)
        self._byte_pairs = byte_pair_tokens(tokenizer) if self.unpadded else None
        self.form = _form_of(tokenizer)
        # What it gets has been cleaned; doing that twice would change it.
        self._tokenizer.clean_fn = str

    def texts(self, texts: Sequence[TextInput]) -> list[Text | InputRejected]:
        """Tokenise texts, and cut those that may be and have to."""
        return [self.text(each) for each in texts]

    def cleaned(self, each: CleanedText) -> Text | InputRejected:
        """Tokenise a text that was cleaned elsewhere."""
        try:
            return self._tokenize(each.source, each.text, was_cut=each.was_cut)
        except InputRejected as error:
            return error

    def text(self, each: TextInput) -> Text | InputRejected:
        """Read a text; one that `is_slow` may take minutes."""
        try:
            text = checked(each, self.limits)
            return self._tokenize(each, clean(text, self.form), was_cut=len(text) < len(each.text))
        except InputRejected as error:
            return error
        except ValueError:
            return unreadable()

    def _tokenize(self, each: TextInput, cleaned: str, *, was_cut: bool) -> Text:
        """Tokenise what was left of a text when it was checked, and then cleaned; cut it if that is allowed."""
        bound = self.context_length
        if is_blank(cleaned):
            raise InputRejected("nothing is left of the text after cleaning; send words")
        try:
            read = self._tokens(cleaned, cut=_may_be_cut(each))
        except Exception as error:  # a tokenizer from files may raise any error
            raise unreadable() from error
        if read.count > bound and not _may_be_cut(each):
            count = f"{read.count}" if read.exact else f"{read.count} or more"
            message = f"the text has {count} tokens; the model reads {bound}; shorten it or allow truncation"
            raise _too_long(each, message)
        return Text(read.ids, min(read.count, bound), read.count > bound or was_cut)

    def _tokens(self, cleaned: str, *, cut: bool) -> Tokens:
        """Return what open_clip's tokenizer returns, cut to the context length, and the count before that."""
        tokenizer, bound = self._tokenizer, self.context_length
        if self._byte_pairs is not None:
            inner = self._byte_pairs.read(cleaned, bound - 2, cut=cut)
            ids = [tokenizer.sot_token_id, *inner.ids, tokenizer.eot_token_id]
            return Tokens(ids, inner.count + 2, inner.exact)
        with self._tokenizer_lock:  # Hugging Face's keep the settings of the last call, and fail when two overlap
            whole = tokenizer.tokenizer(cleaned, truncation=False).input_ids
            return Tokens(tokenizer([cleaned])[0].tolist(), len(whole))


def checked(each: TextInput, limits: InputLimits) -> str:
    """Return what is to be cleaned of a text; see embedders.texts.check_text.

    Raises:
        InputRejected: the text is blank, no valid Unicode, or too long.
    """
    try:
        return check_text(each.text, limits, truncate=_may_be_cut(each))
    except TextTooLong as error:
        raise _too_long(each, str(error)) from error


def _may_be_cut(each: TextInput) -> bool:
    # Tokenizers cut at the end.
    return each.truncate and not each.at_start


def _too_long(each: TextInput, message: str) -> TextTooLong:
    return TextTooLong(f"{message} at its end: a local model cuts no text at its start" if each.at_start else message)


def _form_of(tokenizer: Any) -> str:
    """Return how a tokenizer cleans texts."""
    from open_clip.tokenizer import get_clean_fn

    return next(form for form in FORMS if get_clean_fn(form) is tokenizer.clean_fn)
