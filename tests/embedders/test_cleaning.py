"""Texts are cleaned as open_clip cleans them, and those that may take long are told from the others."""

import random
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedders.cleaning import FORMS, clean, is_slow
from embedders.errors import InputRejected
from embedders.images.decoders import Decoders

CAFE = "Il \u00e9tait un caf\u00e9\u2026 \u00ab\u00a0\u00c7a alors\u00a0!\u00bb dit-il. "
PIECES = st.one_of(
    st.text(max_size=60),
    st.text("ab &;#x123amplt\n\r\t<>", max_size=60),
    st.text("\u00c3\u0192\u00a2\u20ac\u2122\u00e9\u0153\u00a0 a\n", max_size=60),
    st.text("\x1b[1m;\0\x07\x85\x9f\ufeff\u200b", max_size=40),
    st.text("\uff21\uff06\uff1b\uff0c\ufb01\u2019\u201c\u0301\u0327A", max_size=40),
    st.sampled_from(["&amp;lt;", "&#x1F600;", "&notit;", "AT&T", "\u2028", "\r\n", "\u03a3", "\u0130", "_a_", "<b>"]),
    st.sampled_from([CAFE, CAFE.encode().decode("latin-1"), CAFE.encode().decode("cp1252", "replace")]),
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)
SLOW: dict[str, Callable[[int], str]] = {
    "nested references": lambda size: "&" + "amp;" * (size // 4),
    "nested decimal references": lambda size: "&" + "#38;" * (size // 4),
    "nested capitals": lambda size: "&" + "AMP;" * (size // 4),
    "references of double width": lambda size: "\uff06" + "amp;" * (size // 4),
    "repeated mojibake": lambda size: "\u00c3" + "\u0192" * (size // 2),
    "mojibake with marks": lambda size: "A\u0303" + "\u0192" * (size // 2),
    "mojibake behind controls": lambda size: "\u00c3" + "\ufeff\u0192" * (size // 5),
}


@pytest.mark.parametrize("form", sorted(FORMS))
@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
@example("&am\npamp;")
@example("\u0153\n")
@example("<b> &amp;amp; \n &amp;lt;")
@example("&amp;lt; \n <b> &amp;amp;")
def test_texts_are_cleaned_as_open_clip_cleans_them(form: str, text: str) -> None:
    from open_clip.tokenizer import get_clean_fn

    assert clean(text, form) == get_clean_fn(form)(text)


@pytest.mark.parametrize(
    "text",
    [
        "a red bicycle",
        "cats & dogs",
        "AT&T",
        CAFE,
        "\u6771\u4eac\uff0c\u5927\u962a",
        "it\u2019s \u201cfine\u201d",
        "\U0001f600",
        "a\n" * 2000,
    ],
)
def test_ordinary_texts_need_no_process_of_their_own(text: str) -> None:
    assert not is_slow(text)


@pytest.mark.parametrize("size", [100, 400, 2000, 32_000])
@pytest.mark.parametrize("make", SLOW.values(), ids=SLOW)
def test_texts_that_ftfy_goes_round_and_round_with_are_slow(make: Callable[[int], str], size: int) -> None:
    assert is_slow(make(size))


@pytest.mark.parametrize(
    "text", ["\u00e9\n" * 20, "\u00e9" * 600, "a" * 5000, "\u00c3" + "\uffe2" * 9, "\x1b[1m", "\0a", "a &lt; b"]
)
def test_texts_that_may_be_slow_for_all_that_is_known_are_slow(text: str) -> None:
    assert is_slow(text)


@settings(max_examples=600, deadline=None)
@given(text=TEXTS)
def test_what_is_not_slow_keeps_ftfy_for_three_rounds_at_most(text: str) -> None:
    import ftfy

    rounds = 0

    def count(line: str) -> str:
        nonlocal rounds
        rounds += 1
        return fix_encoding(line)

    if is_slow(text):
        return
    fix_encoding = ftfy.fix_encoding
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ftfy, "fix_encoding", count)
        clean(text, "lower")

    assert rounds <= 3 * (text.count("\n") + 1)


async def test_cleaning_gives_up_in_time_and_goes_on() -> None:
    decoders = Decoders(1)
    prose = "".join(
        random.Random(3).choices([CAFE, CAFE.encode().decode("latin-1"), "&eacute;t&eacute; ", "a\n"], k=400)
    )

    for make in SLOW.values():
        with pytest.raises(InputRejected, match=r"more than 0\.1 s: it holds nested HTML .* send plain text"):
            await decoders.clean(make(32_000), "lower")
        assert await decoders.clean("A caf\u00e9 &amp; a  BAR", "lower") == "a caf\u00e9 & a bar"
    assert await decoders.clean(prose[:32_000], "lower") == clean(prose[:32_000], "lower")

    await decoders.close()
