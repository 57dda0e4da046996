"""How open_clip's tokenizers clean a text before they split it.

ftfy repairs a text until nothing changes, so that a few KiB of nested character references ("&amp;amp;amp;"), nested
escape sequences or repeated mojibake take seconds or minutes. `is_slow` finds the texts for which this cannot be
excluded; those are cleaned by a decoder's process (embedders.images.decoders), within a bound of CPU time, because pure
Python in a thread would block the event loop and the model.
"""

import html
import re
import string
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

_PLAIN_AT_MOST = 4096
"""Characters of a plain text that is never slow."""

_OTHER_AT_MOST = 512
"""Characters of another text that is not slow if ftfy needs only a few rounds for it."""

_LINES_AT_MOST = 16
"""Lines of such a text; ftfy repairs each one separately."""

_PLAIN = re.compile(r"[\t\n\f\r -%'-~]*")
"""Text that ftfy and html.unescape leave unchanged, except for line ends, which are white space either way."""

_LINE = re.compile(r"[^\n]*\n|[^\n]+")

_AWKWARD = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f-\x9f\u206a-\u206f\ufeff\uff06\uffe0-\uffef\ufff9-\uffff]")
"""Characters that ftfy removes or replaces, which may need another round: controls, and some of double width."""

_REFERENCE_ENDS = re.compile("[;\u037e\uff1b]")
"""Ends of character references, and characters that are replaced by one."""

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _canonicalize(text: str) -> str:
    return _single_spaced(text.replace("_", " ").translate(_NO_PUNCTUATION).lower())


def _single_spaced(text: str) -> str:
    return " ".join(text.split())


FORMS: Final[dict[str, Callable[[str], str]]] = {
    "canonicalize": _canonicalize,
    "lower": lambda text: _single_spaced(text).lower(),
    "whitespace": _single_spaced,
}
"""The last step of cleaning, by open_clip's name for it."""


def clean(text: str, form: str) -> str:
    """Return exactly the result of open_clip's cleaning function of that name.

    Raises:
        ValueError: the text holds a character reference with thousands of digits.
    """
    if not _PLAIN.fullmatch(text):
        text = html.unescape(html.unescape("".join(_repair(text))))
    return FORMS[form](text)


def _repair(text: str) -> Iterator[str]:
    """Yield the lines of a text as ftfy.fix_text repairs them, skipping plain ones, on which it spends most time."""
    import ftfy

    config = ftfy.TextFixerConfig(explain=False)
    for line in _LINE.findall(text):
        if "<" in line:  # the text may be HTML from here on, and keeps its references
            config = config._replace(unescape_html=False)
        yield line if _PLAIN.fullmatch(line) else ftfy.fix_text_segment(line, config)


def is_slow(text: str) -> bool:
    """Return whether cleaning a text may take more than a few milliseconds.

    False is proven: the text is short, holds nothing that ftfy removes and no complete character reference, and is not
    mojibake after the other replacements; so ftfy ends after two or three rounds.
    """
    from ftfy.badness import is_bad
    from ftfy.fixes import fix_character_width, fix_latin_ligatures

    if _PLAIN.fullmatch(text, 0, _PLAIN_AT_MOST + 1):
        return len(text) > _PLAIN_AT_MOST
    if len(text) > _OTHER_AT_MOST or text.count("\n") > _LINES_AT_MOST or _AWKWARD.search(text):
        return True
    if "&" in text and _REFERENCE_ENDS.search(text):
        return True
    return is_bad(unicodedata.normalize("NFC", fix_character_width(fix_latin_ligatures(text))))
