"""Checks of texts that all backends share."""

import re

from embedders.contract import InputLimits
from embedders.errors import InputRejected, TextTooLong

_ENCODED_AT_MOST = 4 * 1024 * 1024
"""The bytes of a longer text are not counted, which would block the event loop."""

_INVISIBLE = re.compile(
    "["
    r"\s"
    "\0-\x1f\x7f-\x9f"  # controls
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffc\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # ignorable by default
    "\u2800"  # a Braille cell without dots
    "\ufdd0-\ufdef\ufffe\uffff"  # no characters
    "]*"
)


def is_blank(text: str) -> bool:
    """Return whether a text has no visible character: only white space, controls, zero-width marks, or none."""
    return _INVISIBLE.fullmatch(text) is not None


def check_text(text: str, limits: InputLimits, *, truncate: bool, at_start: bool = False) -> str:
    """Reject a text that no backend can embed; return it, cut to limits.max_text_bytes if it may be cut.

    Args:
        text: the text.
        limits: its bounds.
        truncate: whether it may be cut.
        at_start: whether it is cut at its start instead of its end.

    Raises:
        InputRejected: the text is blank, or holds lone surrogates and so has no UTF-8 form.
        TextTooLong: it has more UTF-8 bytes than limits.max_text_bytes, or limits.max_cut_text_bytes if it may be cut.
    """
    bound = limits.max_cut_text_bytes if truncate else limits.max_text_bytes
    fix = f"the limit is {bound} bytes; send a shorter text" + ("" if truncate else " or allow truncation")
    if len(text) > max(bound, _ENCODED_AT_MOST):
        raise TextTooLong(f"the text has {len(text)} characters; {fix}")
    try:
        encoded = text.encode()
    except UnicodeEncodeError as error:
        raise InputRejected("the text holds a lone surrogate; send valid Unicode") from error
    if len(encoded) > bound:
        raise TextTooLong(f"the text has {len(encoded)} bytes; {fix}")
    if len(encoded) > limits.max_text_bytes:
        kept = encoded[-limits.max_text_bytes :] if at_start else encoded[: limits.max_text_bytes]
        text = kept.decode(errors="ignore")
    if is_blank(text):
        raise InputRejected("the text is blank; send at least one visible character")
    return text


def cut_text(text: str, max_bytes: int) -> str:
    """Return a text, or so much of its beginning as has max_bytes UTF-8 bytes at most; lone surrogates become "?"."""
    encoded = text[:max_bytes].encode(errors="replace")
    return encoded[:max_bytes].decode(errors="ignore")


def unreadable() -> InputRejected:
    """Return the error for a text that a model's tokenizer fails on."""
    # A character reference with thousands of digits is an example.
    return InputRejected("the text cannot be read by the model's tokenizer; send plain text")
