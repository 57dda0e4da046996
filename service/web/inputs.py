"""The strings of a request as inputs of an embedder: a text, an image as a data URL, or a text with one behind it."""

import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from embedders.contract import EmbedderSpec, ImageInput, Input, Modality, TextImageInput, TextInput, modality, refused
from embedders.texts import is_blank
from service.errors import InvalidRequest, Violations

WINDOW = 64 * 1024
"""Characters that are searched at a time, so that no text of megabytes keeps other threads waiting."""

AT_ONCE = 1024 * 1024
"""Characters of base64 that are decoded at a time, for the same reason; a multiple of 4."""

MAX_LINE = 76
"""The most characters of a line of base64 (RFC 2045): what the program base64 and MIME encoders write."""

_START = re.compile(r"\s{0,80}(?=data:image)", re.IGNORECASE)
_PARAMETERS = r"(?:;[\w.+-]{1,40}=[\w.+-]{1,40}){0,4}"
_IMAGE_URL = re.compile(rf"data:image/[\w.+-]{{1,40}}{_PARAMETERS};base64,", re.IGNORECASE | re.ASCII)
"""The form that is read."""

_COLON, _SEMICOLON, _COMMA = "(?::|%3A)", "(?:;|%3B)", r"(?:,|%2C|&#44;|\\u002c)"
_TYPE = r"(?:/|\\/|%2F)[\w.+-]{1,80}"
# Of up to 1,000 characters, and up to the next data URL, so that each character is looked at once.
_ANYTHING = rf"(?:(?!data{_COLON}).){{0,1000}}?"
_ANY_URL = re.compile(
    rf"data{_COLON}(?:"
    rf"(?P<kind>[\w.+=-]{{0,80}})(?:{_TYPE})?\s{{0,8}}(?={_SEMICOLON}){_ANYTHING}"
    rf"{_SEMICOLON}\s{{0,8}}base64\s{{0,8}}{_COMMA}(?=\s{{0,80}}(?:[A-Za-z0-9+/%\\_-]|\Z))"
    rf"|image{_TYPE}\s{{0,8}}(?:{_SEMICOLON}{_ANYTHING})?(?<!base64){_COMMA}(?=[^\s.\u2026]))",
    re.IGNORECASE | re.ASCII | re.DOTALL,
)
"""What is meant as a data URL, also as HTML, JSON and URLs write it: base64 of any kind, and images as they are."""

_LONGEST_URL = 1536
"""At least the characters that the pattern takes, so that a data URL is found that begins at a window's end."""

_PICTURE_LIKE = re.compile(r"\s*+(?:(?i:data:)|(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR)[A-Za-z0-9+/]{20,}+={0,2}\s*+$)")
"""A data URL, or base64 that begins like a PNG, JPEG, GIF or WebP file."""

_LINE = re.compile(rb"[^ \t\r\n]{1,%d}([ \t\r\n]{1,2})" % MAX_LINE)
_SPACES = b" \t\r\n"
_AS_TEXT = 'or set "modality" to "text" to embed its characters'
_PLACE = "send the text, a space or a line end, and one data URL at the end"
_BROKEN = (
    f"the image is not base64; use the standard alphabet, in one piece or in lines of at most {MAX_LINE} characters, "
    f"with nothing behind it. If there is a text, {_PLACE}"
)

_MISDECLARED: dict[Modality | None, str] = {
    Modality.IMAGE: "is not an image alone, as modality says; send data:image/png;base64,... and nothing else",
    Modality.TEXT_IMAGE: "is not a text with an image, as modality says; send the text, a space or a line end, and "
    "data:image/png;base64,...",
}


class _Unreadable(Exception):
    """What an input is, or is declared to be, cannot be embedded. The message contains nothing of it."""


class InputReader:
    """Reads the strings of requests.

    Args:
        strict_images: whether to refuse a text that looks like an image without its prefix. A NIM embeds it as text.
    """

    def __init__(self, *, strict_images: bool = False) -> None:
        self._strict_images = strict_images

    def read(
        self,
        items: Sequence[str],
        modalities: Sequence[Modality | None],
        spec: EmbedderSpec,
        *,
        truncate: bool,
        at_start: bool = False,
    ) -> list[Input]:
        """Return the inputs that strings stand for.

        Args:
            items: the strings.
            modalities: what each is declared to be; None where it is not declared.
            spec: of the embedder.
            truncate: whether texts may be cut.
            at_start: whether they are cut at their start instead of their end.

        Raises:
            InvalidRequest: some strings are not what they are declared to be, or the embedder cannot read them.
        """
        inputs: list[Input] = []
        violations = Violations()
        for at, (item, declared) in enumerate(zip(items, modalities, strict=True)):
            try:
                each = self._read_item(item, declared, spec)
                if not isinstance(each, ImageInput):
                    each = replace(each, truncate=truncate, at_start=at_start)
                inputs.append(each)
            except _Unreadable as error:
                violations.add(f"input[{at}]", str(error))
        if violations:
            # A cause would keep the inputs alive.
            raise InvalidRequest(violations) from None
        return inputs

    def _read_item(self, item: str, declared: Modality | None, spec: EmbedderSpec) -> Input:
        each = TextInput(item) if declared is Modality.TEXT else _sort(item)
        if declared not in (None, modality(each)):
            raise _Unreadable(_MISDECLARED[declared])
        if modality(each) not in spec.modalities:
            fix = "send them as two inputs" if Modality.IMAGE in spec.modalities else "leave the image out"
            raise _Unreadable(f"{refused(spec, each)}; {fix}, {_AS_TEXT}")
        if declared is None and isinstance(each, TextInput) and self._strict_images and _PICTURE_LIKE.match(item):
            raise _Unreadable(
                "looks like an image without its prefix, or a data URL of another kind, and would be embedded as a "
                f"text; send images as data:image/png;base64,... {_AS_TEXT}"
            )
        return each


def _sort(item: str) -> Input:
    """Return what a string stands for. A NIM tells it by the data URL: alone, or behind a text and white space."""
    if start := _START.match(item):
        begin = start.end()
    elif found := _find_url(item):
        begin = found.start()
        if found["kind"] is not None and found["kind"].lower() != "image":
            raise _Unreadable(f"holds a data URL that is not of an image by its media type; leave it out, {_AS_TEXT}")
    else:
        return TextInput(item)
    url = _IMAGE_URL.match(item, begin)
    if url is None:
        raise _Unreadable(
            f"{'begins like' if start else 'holds'} an image, whose form is data:image/png;base64,... or "
            f"data:image/jpeg;base64,...; send it so, {_AS_TEXT}"
        )
    text, packed = item[:begin], item[url.end() :]
    blank = _is_blank(text)
    if not (blank or text[-1].isspace()) or ":" in packed:
        raise _Unreadable(f"holds an image as a data URL where it is not read; {_PLACE}, {_AS_TEXT}")
    content = _decode(packed)
    return ImageInput(content) if blank else TextImageInput(text.rstrip(), content)


def _is_blank(text: str) -> bool:
    return all(is_blank(text[at : at + WINDOW]) for at in range(0, len(text), WINDOW))


def _find_url(item: str) -> re.Match[str] | None:
    for start in range(0, len(item), WINDOW):
        found = _ANY_URL.search(item, start, start + WINDOW + _LONGEST_URL)
        # One that begins behind the window is seen whole in the next.
        if found and found.start() < start + WINDOW:
            return found
    return None


def _decode(packed: str) -> bytes:
    """Return the bytes of base64, in one piece or in lines, with or without its padding."""
    try:
        compact = _pad(_join_lines(packed.encode("ascii").strip(_SPACES)))
        pieces = [binascii.a2b_base64(each, strict_mode=True) for each in _pieces(compact)]
    except ValueError:  # binascii.Error and UnicodeEncodeError, too
        raise _Unreadable(_BROKEN) from None
    # Padding ends base64, so it may stand in the last piece only.
    if any(len(each) != AT_ONCE // 4 * 3 for each in pieces[:-1]):
        raise _Unreadable(_BROKEN)
    return b"".join(pieces)


def _join_lines(packed: bytes) -> bytes:
    """Return base64 without the white space between its lines, of which all but the last have the same length.

    Raises:
        ValueError: there is white space at other places.
    """
    if not any(each in packed for each in _SPACES):
        return packed
    compact = b"".join(each.translate(None, _SPACES) for each in _pieces(packed))
    line = _LINE.match(packed)
    if line is None:
        raise ValueError("the first line is too long")
    step, end = line.end(), line.start(1)
    lines = np.frombuffer(packed, np.uint8)[: len(packed) // step * step].reshape(-1, step)
    if len(packed) - len(compact) != lines[:, end:].size or (lines[:, end:] != lines[0, end:]).any():
        raise ValueError("white space stands inside of lines")
    return compact


def _pad(packed: bytes) -> bytes:
    """Return base64 with its padding, which some encoders leave out.

    Raises:
        ValueError: it has another padding.
    """
    padding = len(packed) - len(packed.rstrip(b"="))
    if padding and (padding > 2 or len(packed) % 4):  # noqa: PLR2004
        raise ValueError("the padding is too long or too short")
    return packed + b"=" * (-len(packed) % 4)


def _pieces(packed: bytes) -> Iterator[bytes]:
    return (packed[at : at + AT_ONCE] for at in range(0, len(packed), AT_ONCE))
