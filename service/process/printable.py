"""Texts from elsewhere, made harmless for a terminal: stored texts, names, messages of servers, names of files."""

import re

# What makes a terminal do something instead of showing something: C0 with ESC, BEL and line ends, DEL, C1; line
# separators and what changes the direction of writing, by which a text can look like another one; halves of characters.
_C0 = "\x00-\x1f"
_OTHERS = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_ANY = re.compile(f"[{_C0}{_OTHERS}]")
_IN_JSON = re.compile(f"[{_OTHERS}]")


def printable(text: str) -> str:
    r"""Return a text in one line, with every character that could control a terminal as an escape such as `\x1b`."""
    return _ANY.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def printable_json(text: str) -> str:
    r"""Return JSON of the same values, in which such characters are JSON's own escapes, such as `\u202e`."""
    # JSON escapes C0 itself, and outside of strings it has nothing else.
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
