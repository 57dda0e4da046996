"""What every backend checks of a text, and the tokens that a CLIP model reads of it."""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

from embedders.errors import InputRejected, TextTooLong
from embedders.spec import InputLimits

__all__ = ["BytePairTokens", "Tokens", "check_text"]

_CACHED_WORDS = 16_384
_LONGEST_CACHED = 64
"""Bytes of a word that is kept: callers choose the words, and must not choose how much memory they take."""

_COUNTED_BYTES = 4096
"""Bytes behind the tokens that are read whose tokens are counted exactly; of what is behind them, a bound is enough."""

_WORD_END = "</w>"


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


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a text without start and end.

    Attributes:
        ids: the first ones; without any where only the count was asked for and is too high.
        count: of the whole text.
        exact: whether `count` is the number itself; else the text has that many tokens or more.
    """

    ids: list[int]
    count: int
    exact: bool = True


class BytePairTokens:
    """The tokens of open_clip's SimpleTokenizer, at a cost that is bounded for every text. Threads may share it.

    Its tokens are equal to the tokenizer's own. That one takes seconds for an unbroken run of some thousand letters,
    because it searches the whole word anew for every merge, and keeps every word that it ever saw. Here:

    - A word's merges are done in the same order, from a heap: in n log n for n bytes. The tokenizer takes the pair with
      the lowest rank and merges it wherever it occurs, from left to right, before it looks for the next pair. So does
      `_merge`: the heap is ordered by rank and place, no two pairs have one rank, and the pairs that a merge makes wait
      until all of its rank are done. An entry whose pair is no more has another rank or none at its place: symbols only
      grow, so no pair comes back.
    - Words do not influence one another, so reading may end with the word that gives the last token asked for.
    - Too many tokens are seen without merging: a token spells at most `longest` bytes, the length of the longest entry
      of the vocabulary; every byte of a word belongs to exactly one token of this word; so a word of n bytes has at
      least ceil(n / longest) tokens, and at least 1.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Read the tables of an open_clip.SimpleTokenizer."""
        self._tokenizer = tokenizer
        self._encoder: dict[str, int] = tokenizer.encoder
        self._ranks: dict[tuple[str, str], int] = tokenizer.bpe_ranks
        special = [tokenizer.decoder[each] for each in tokenizer.all_special_ids]
        self._special = {each: (self._encoder[each],) for each in special}
        self.longest = max(len(each.removesuffix(_WORD_END)) for each in self._encoder if each not in self._special)
        self._merge_cached = lru_cache(_CACHED_WORDS)(self._merge)

    def read(self, text: str, bound: int, *, cut: bool) -> Tokens:
        """Return the tokens of a text that `check_text` let pass.

        Args:
            text: as it was sent.
            bound: tokens that are wanted.
            cut: whether the first tokens are wanted of a text that has more of them.

        Raises:
            InputRejected: the tokenizer cannot read the text.
        """
        words = self._words(text)
        ids: list[int] = []
        for word in words:
            if len(ids) + self._least(word) > bound and not cut:
                return self._count(chain([word], words), len(ids))
            ids += self._word(word)
            if len(ids) > bound:
                counted = self._count(words, len(ids))
                return Tokens(ids[:bound], counted.count, counted.exact)
        return Tokens(ids, len(ids))

    def _count(self, words: Iterable[str], count: int) -> Tokens:
        """Count the tokens of words on top of a count, exactly as long as the words are short together."""
        size = 0
        for word in words:
            size += len(word)
            count += len(self._word(word)) if size <= _COUNTED_BYTES else self._least(word)
        return Tokens([], count, size <= _COUNTED_BYTES)

    def _words(self, text: str) -> Iterator[str]:
        """Yield the words of a text, each byte as the letter that stands for it."""
        letters = self._tokenizer.byte_encoder
        try:
            cleaned = self._tokenizer.clean_fn(text)
        except Exception as error:
            # A character reference with thousands of digits is an example.
            raise InputRejected("the text cannot be read by the model's tokenizer; send plain text") from error
        for found in self._tokenizer.pat.finditer(cleaned):
            yield "".join(letters[byte] for byte in found[0].encode())

    def _least(self, word: str) -> int:
        return 1 if word in self._special else -(-len(word) // self.longest)

    def _word(self, word: str) -> tuple[int, ...]:
        if word in self._special:
            return self._special[word]
        return self._merge_cached(word) if len(word) <= _LONGEST_CACHED else self._merge(word)

    def _merge(self, word: str) -> tuple[int, ...]:
        symbols: list[str | None] = [*word[:-1], word[-1] + _WORD_END]
        last = len(symbols) - 1
        # Of a symbol: where the next one and the one before it are; merged symbols stay where their first letter was.
        after, before = [*range(1, last + 1), -1], [-1, *range(last)]
        waiting = [(rank, at) for at in range(last) if (rank := self._rank(symbols, at, at + 1)) is not None]
        heapq.heapify(waiting)
        while waiting:
            rank = waiting[0][0]
            merged = []
            while waiting and waiting[0][0] == rank:
                _, at = heapq.heappop(waiting)
                right = after[at]
                if self._rank(symbols, at, right) != rank:
                    continue
                symbols[at] = f"{symbols[at]}{symbols[right]}"
                symbols[right] = None
                after[at] = after[right]
                if after[at] >= 0:
                    before[after[at]] = at
                merged.append(at)
            for place in merged:
                for left in (before[place], place):
                    if left >= 0 and (new := self._rank(symbols, left, after[left])) is not None:
                        heapq.heappush(waiting, (new, left))
        return tuple(self._encoder[each] for each in symbols if each is not None)

    def _rank(self, symbols: list[str | None], left: int, right: int) -> int | None:
        one, other = symbols[left], symbols[right]
        return None if right < 0 or one is None or other is None else self._ranks.get((one, other))
