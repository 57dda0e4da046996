"""The tokens that a model reads are open_clip's own, and no text makes reading them slow or large."""

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedders.cleaning import clean
from embedders.clip.tokenizers import BytePairTokens, Tokens


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    import open_clip

    return open_clip.SimpleTokenizer()


@pytest.fixture(scope="module")
def tokens(tokenizer: Any) -> BytePairTokens:
    return BytePairTokens(tokenizer)


RUN = "".join(random.Random(5).choices("abcdefghij", k=32_768))
PIECES = st.one_of(
    st.text(max_size=40),
    st.text("abcdeorst", max_size=200),
    st.text("aA", max_size=300),
    st.sampled_from(
        ["<start_of_text>", "<END_OF_TEXT>", "&amp;lt;b&amp;gt;", "&#x1F600;", "'s", "n't", "Ã©", "ﬁ", "\u200d"]
    ),
    st.text("😂😍👩👧\u200d\ufe0f🏽", max_size=80),
    st.text("e\u0301\u0302\u0489", max_size=80),
    st.builds(lambda word, times: word * times, st.text(min_size=1, max_size=5), st.integers(1, 80)),
)
TEXTS = st.lists(PIECES, max_size=8).map(" ".join)


SCRIPTS = (
    "etaoinshrdlu",
    "ETAOINSHRDLU",
    "0123456789",
    "àéîõüßçñøœ",
    "абвгдежзиклмн",
    "αβγδεζηθικλ",
    "אבגדהוזחט",
    "ابتثجحخدذ",
    "कखगघचछजटा्",
    "日本語東京都大阪",
    "한국어서울부산",
    "กขคงจฉั้",
    "😂😍👩👧‍️🏽",
    "!?.,;:'\"()[]{}<>@#$%^&*-_=+/\\|~`",
)
PHRASES = (
    "a photo of a dog", "it's they're we've I'm you'll he'd don't", "<start_of_text>", "<end_of_text>", "&amp;lt;b&gt;",
    "&#x1F600;", "Ã©", "ﬁ", "\t\n", "e\u0301\u0302", "http://example.org/a?b=c&d=1", "3.14", "UPPER lower",
)  # fmt: skip


def corpus(size: int) -> Iterator[str]:
    """Yield texts of words, runs and phrases in many scripts, the same ones each time."""
    dice = random.Random(20_000)
    for _ in range(size):
        parts = []
        for _ in range(dice.randint(1, 4)):
            letters = dice.choice(SCRIPTS)
            word = "".join(dice.choices(letters, k=dice.randint(1, 12)))
            parts.append(dice.choice((word, word, word * dice.randint(1, 4), dice.choice(PHRASES))))
        yield dice.choice((" ", " ", "", "  ")).join(parts)


def test_20_000_texts_have_open_clip_s_tokens(tokenizer: Any, tokens: BytePairTokens) -> None:
    texts = set(corpus(23_000))

    different = [
        text for text in texts if tokens.read(clean(text, "lower"), 10_000, cut=True).ids != tokenizer.encode(text)
    ]

    assert len(texts) >= 20_000
    assert different == []


@settings(max_examples=400)
@given(text=TEXTS, bound=st.integers(1, 100), cut=st.booleans())
def test_tokens_and_count_are_those_of_open_clip(
    tokenizer: Any, tokens: BytePairTokens, text: str, bound: int, *, cut: bool
) -> None:
    expected = tokenizer.encode(text)

    read = tokens.read(clean(text, "lower"), bound, cut=cut)

    assert (read.count > bound) == (len(expected) > bound)
    assert read.count == len(expected) if read.exact else read.count <= len(expected)
    if cut or len(expected) <= bound:
        assert read.ids == expected[:bound]


@settings(max_examples=200)
@given(word=st.text("abcdefghijklmnopqrstuvwxyz", min_size=65, max_size=700))
def test_long_words_have_open_clip_s_tokens(tokenizer: Any, tokens: BytePairTokens, word: str) -> None:
    assert tokens.read(word, 10_000, cut=True) == Tokens(tokenizer.encode(word), len(tokenizer.encode(word)))


@pytest.mark.parametrize("word", ["a", "ab", "aab", "haha", "lol", "zzx", "thinkbigsundaywithmarsha", "!", "?!", "😂"])
def test_repeated_patterns_have_open_clip_s_tokens(tokenizer: Any, tokens: BytePairTokens, word: str) -> None:
    for times in (1, 2, 3, 50, 101):
        text = word * times
        assert tokens.read(clean(text, "lower"), 10_000, cut=True).ids == tokenizer.encode(text)


def test_every_entry_of_the_vocabulary_is_read_as_open_clip_reads_it(tokenizer: Any, tokens: BytePairTokens) -> None:
    entries = [tokenizer.decode([each]).strip() for each in range(0, len(tokenizer.encoder), 7)]
    for text in entries:
        assert tokens.read(clean(text, "lower"), 1000, cut=True).ids == tokenizer.encode(text)


@settings(max_examples=200)
@given(text=TEXTS)
def test_a_token_spells_at_most_the_bytes_that_the_bound_rests_on(
    tokenizer: Any, tokens: BytePairTokens, text: str
) -> None:
    cleaned = tokenizer.clean_fn(text)
    for word in tokenizer.pat.findall(cleaned):
        if word not in {"<start_of_text>", "<end_of_text>"}:
            assert len(tokenizer.encode(word)) >= -(-len(word.encode()) // tokens.longest)


def test_a_special_token_in_a_text_is_one_token(tokenizer: Any, tokens: BytePairTokens) -> None:
    text = "a <end_of_text> b <START_OF_TEXT>"
    assert tokens.read(clean(text, "lower"), 77, cut=False).ids == tokenizer.encode(text)
    assert tokenizer.eot_token_id in tokens.read(clean(text, "lower"), 77, cut=False).ids


def test_short_overlong_texts_are_counted_exactly(tokens: BytePairTokens) -> None:
    assert tokens.read("cat " * 100, 75, cut=False) == Tokens([], 100)
    assert tokens.read("cat " * 100, 75, cut=True).count == 100


def test_a_long_run_of_letters_is_too_long_by_a_bound_that_says_so(tokens: BytePairTokens) -> None:
    read = tokens.read("a" * 1_000_000, 75, cut=False)

    assert not read.exact
    assert 75 < read.count == 1_000_000 // tokens.longest


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(
    "text",
    [RUN, "a" * 32_768, "ab" * 16_384, "é" * 16_384, "!" * 32_768, "a " * 16_384, "&amp;" * 6_500, "e\u0301" * 10_000],
    ids=lambda text: repr(text[:6]),
)
def test_32_kib_cost_less_than_a_second(tokens: BytePairTokens, text: str, *, cut: bool) -> None:
    # open_clip needs 3 s for the first one; here it is some 0.1 s, and the bound leaves room for a busy machine.
    begin = time.process_time()
    read = tokens.read(clean(text, "lower"), 75, cut=cut)
    assert time.process_time() - begin < 2
    assert read.count > 75
    assert len(read.ids) == (75 if cut else len(read.ids))


def test_words_that_callers_make_up_do_not_stay_in_memory(tokenizer: Any, tokens: BytePairTokens) -> None:
    before = len(tokenizer.cache)
    for number in range(50):
        tokens.read(f"{'x' * 100}{number:b}", 75, cut=True)
    assert len(tokenizer.cache) == before
    assert tokens._merge_cached.cache_info().maxsize is not None
