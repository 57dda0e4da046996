"""Texts from elsewhere on a terminal."""

import json
import sys
import unicodedata

import pytest

from service.process.printable import printable, printable_json

CONTROLS = [
    each
    for each in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")
    or unicodedata.bidirectional(each) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    or each in "\u061c\u200e\u200f"
]


def test_nothing_that_controls_a_terminal_passes() -> None:
    for each in CONTROLS:
        shown = printable(f"a{each}b")
        assert shown.isascii()
        assert shown.isprintable()
        assert shown == f"a{each.encode('unicode_escape').decode()}b"


@pytest.mark.parametrize(
    "text", ["a cat", "Größe", "猫", "👩\u200d👩\u200d👧", "\u0646\u200c\u062e", "שלום", "[red]x[/red]", "\\x1b", ""]
)
def test_everything_else_stays_as_it_is(text: str) -> None:
    assert printable(text) == text == printable(printable(text))


def test_json_keeps_its_values_and_its_form() -> None:
    value = {f"name {each}": [each, {"in": f"a{each}b"}] for each in CONTROLS}
    for indent in (None, 2):
        written = json.dumps(value, indent=indent, ensure_ascii=False)

        shown = printable_json(written)

        assert json.loads(shown) == value
        assert not set(shown.replace("\n", "")) & set(CONTROLS)
