"""Makes texts from elsewhere harmless for a terminal: stored texts, names, servers' messages, file names."""

import re

# Characters that control a terminal instead of being shown: C0 with ESC, BEL and line ends, DEL, C1; line separators;
# changes of the direction of writing, which can make a text look like another one; surrogates.
_C0 = "\x00-\x1f"
_OTHERS = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_ANY = re.compile(f"[{_C0}{_OTHERS}]")
_IN_JSON = re.compile(f"[{_OTHERS}]")


def printable(text: str) -> str:
    r"""Return a text in one line, with every character that could control a terminal as an escape such as `\x1b`."""
    return _ANY.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def printable_json(text: str) -> str:
    r"""Return JSON of the same values, in which such characters are JSON's own escapes, such as `\u202e`."""
    # JSON escapes C0 itself, and has none of the others outside of strings.
    if text.isascii() and "\x7f" not in text:
        return text  # as nearly every line of the log
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
