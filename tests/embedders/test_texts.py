"""What every backend asks of a text: something to be seen, and no more bytes than the bound or, cut, as many."""

import resource
import sys
import unicodedata

import pytest
import regex

from embedders.contract import InputLimits
from embedders.errors import InputRejected, TextTooLong
from embedders.texts import check_text, is_blank
from service.app import raise_file_limit

LIMITS = InputLimits(max_text_bytes=10)
VISIBLE = "a1!é東🙂\u0301\u0600\ue000\ufffd"


def test_what_cannot_be_seen_is_blank_wherever_unicode_says_so() -> None:
    ignorable = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{White_Space}\p{Noncharacter_Code_Point}]")
    unseen = [
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if (unicodedata.category(character) in ("Cc", "Zs", "Zl", "Zp") or ignorable.match(character))
        and not "\ud800" <= character <= "\udfff"
        and ord(character) & 0xFFFE != 0xFFFE
    ]

    assert len(unseen) > 4000
    assert [hex(ord(character)) for character in unseen if not is_blank(character)] == []
    assert is_blank("".join(unseen))
    assert is_blank("")


@pytest.mark.parametrize("character", VISIBLE)
def test_one_character_that_can_be_seen_is_enough(character: str) -> None:
    assert not is_blank(f"\ufeff \0{character}\u200b")


@pytest.mark.parametrize(
    ("text", "left"),
    [("a" * 10, "a" * 10), ("a" * 11, "a" * 10), ("é" * 6, "é" * 5), ("aé" * 4, "aé" * 3 + "a"), ("🙂" * 3, "🙂" * 2)],
)
def test_a_text_that_may_be_cut_ends_with_a_whole_character_within_the_bound(text: str, left: str) -> None:
    assert check_text(text, LIMITS, truncate=True) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [("a" * 10 + "b", "a" * 9 + "b"), ("é" * 6, "é" * 5), ("éa" * 4, "a" + "éa" * 3), ("🙂" * 3, "🙂" * 2)],
)
def test_a_text_that_is_cut_at_its_start_begins_with_a_whole_character(text: str, left: str) -> None:
    assert check_text(text, LIMITS, truncate=True, at_start=True) == left


@pytest.mark.parametrize("text", ["a" * 11, "é" * 6, "🙂" * 3])
def test_a_text_that_may_not_be_cut_is_refused_beyond_the_bound(text: str) -> None:
    with pytest.raises(TextTooLong, match=r"the limit is 10 bytes; send a shorter text or allow truncation"):
        check_text(text, LIMITS, truncate=False)


@pytest.mark.parametrize("text", ["a" * 321, "é" * 161])
def test_even_a_text_that_may_be_cut_has_a_bound(text: str) -> None:
    with pytest.raises(TextTooLong, match=r"the limit is 320 bytes; send a shorter text$"):
        check_text(text, LIMITS, truncate=True)


@pytest.mark.parametrize("text", [" " * 10 + "a", "\ufeff" * 4 + "a"])
def test_a_text_of_which_nothing_is_left_to_be_seen_is_blank(text: str) -> None:
    with pytest.raises(InputRejected, match="blank"):
        check_text(text, LIMITS, truncate=True)


def test_the_limit_of_open_files_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1000, hard), hard))
    try:
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
