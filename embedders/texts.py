"""Checks on texts that every backend shares."""

from embedders.errors import InputRejected, TextTooLong
from embedders.spec import InputLimits

__all__ = ["check_text"]


def check_text(text: str, limits: InputLimits) -> None:
    """Refuse a text that no backend can embed.

    Raises:
        InputRejected: the text is blank, or holds lone surrogates and so has no UTF-8 form.
        TextTooLong: it has more UTF-8 bytes than limits.max_text_bytes.
    """
    if not text or text.isspace():
        raise InputRejected("the text is blank; send at least one character that is not white space")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InputRejected("the text holds a lone surrogate; send valid Unicode") from error
    if size > limits.max_text_bytes:
        raise TextTooLong(f"the text has {size} bytes; the limit is {limits.max_text_bytes}; send a shorter text")
