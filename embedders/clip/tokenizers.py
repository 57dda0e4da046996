"""Tokenizers: open_clip's own, at a bounded cost, and those in files as Hugging Face's libraries write them.

Files are read from the model's folder alone.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import cachetools

from embedders.errors import ModelUnusable

SAMPLE = "A red Bicycle, 2 cars & a caf\u00e9\u2019s  <b>\u6771\u4eac</b>!"
"""A text that shows how a tokenizer cleans, splits and ends texts, which its vocabulary does not show."""

_SHARED = 8
"""Tokenizers that are kept for further models: more do not differ in one process."""

_CACHED_WORDS = 16_384
_LONGEST_CACHED = 64
"""Bytes of the longest cached word: callers choose the words, and must not choose the memory that they take."""

_COUNTED_BYTES = 4096
"""Bytes after the wanted tokens within which further tokens are counted; the rest is ignored."""

_WORD_END = "</w>"


def load_tokenizer(source: str) -> Any:
    """Return the tokenizer of a model; `source` is open_clip's word for where its configuration is.

    Raises:
        ModelUnusable: a package or a file is missing, or a file is broken.
    """
    import open_clip

    text = open_clip.get_model_config(source)["text_cfg"]
    if not text.get("hf_tokenizer_name"):
        return _own_tokenizer(source, text)
    try:
        # A model's configuration may not decide that code of its folder is run.
        return open_clip.get_tokenizer(source, trust_remote_code=False)
    except ModuleNotFoundError as error:
        raise ModelUnusable(
            f"the model's tokenizer needs packages that are not installed ({error.name}): pip install 'vecgate[clip]'"
        ) from error
    except Exception as error:  # missing or broken files may raise any error in the libraries
        fix = (
            "put tokenizer.json, or what else its publisher has, and tokenizer_config.json into the model's folder"
            if source.startswith("local-dir:")
            else "set its model to a folder with them, as `vecgate weights fetch` makes it"
        )
        raise ModelUnusable(
            f"the files of the tokenizer {text['hf_tokenizer_name']} are missing or broken: {fix}; "
            "nothing is downloaded"
        ) from error


def _alike(_: str, text: Mapping[str, Any]) -> str:
    return json.dumps([text.get("context_length"), text.get("tokenizer_kwargs")], sort_keys=True)


# Models share it, which nobody changes: its tables take 22 MB, and what BytePairTokens makes of them 12 MB more.
@cachetools.cached(cachetools.LRUCache(_SHARED), key=_alike)
def _own_tokenizer(source: str, text: Mapping[str, Any]) -> Any:
    """Return open_clip's own tokenizer, made as a model's configuration says."""
    import open_clip

    del text
    return open_clip.get_tokenizer(source)


def tokens_digest(tokenizer: Any) -> str | None:
    """Return a SHA-256 in hex of a tokenizer's vocabulary and of its tokens of SAMPLE; None without a vocabulary."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:
        return None
    known = [sorted(inner.get_vocab().items()), tokenizer([SAMPLE])[0].tolist()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a text without start and end.

    Attributes:
        ids: the first ones; empty if the text may not be cut and has too many.
        count: of the whole text.
        exact: whether `count` is exact; if not, the text has that many tokens or more.
    """

    ids: list[int]
    count: int
    exact: bool = True


@lru_cache(_SHARED)
def byte_pair_tokens(tokenizer: Any) -> "BytePairTokens":
    """Return the tokens of an open_clip.SimpleTokenizer, the same for all models that share it."""
    return BytePairTokens(tokenizer)


class BytePairTokens:
    """The tokens of open_clip's SimpleTokenizer, at a bounded cost for each text. Threads may share it.

    SimpleTokenizer takes seconds for an unbroken run of a few thousand letters, because each merge searches the whole
    word again, and it caches every word. Here:

    - Hugging Face's tokenizers merge a word, in n log n for n bytes, in the same order: the pair with the lowest rank
      first, and of equal ones the leftmost.
    - Words are independent, so reading may stop at the word with the last wanted token.
    - Too many tokens are detected without merging: a token spells at most `longest` bytes, the length of the longest
      entry of the vocabulary, so a word of n bytes has at least ceil(n / longest) tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Read the tables of an open_clip.SimpleTokenizer."""
        from tokenizers.models import BPE

        self._letters: dict[int, str] = tokenizer.byte_encoder
        self._pattern = tokenizer.pat
        merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
        # Without a cache: a cache of ids is faster than one of its objects.
        self._merges = BPE(tokenizer.encoder, merges, cache_capacity=0, end_of_word_suffix=_WORD_END)
        self._special = {tokenizer.decoder[each]: (each,) for each in tokenizer.all_special_ids}
        self.longest = max(len(each.removesuffix(_WORD_END)) for each in tokenizer.encoder if each not in self._special)
        self._merge_cached = lru_cache(_CACHED_WORDS)(self._merge)

    def read(self, cleaned: str, bound: int, *, cut: bool) -> Tokens:
        """Return the tokens of a text.

        Args:
            cleaned: the text, as embedders.cleaning leaves it.
            bound: the most tokens to return.
            cut: whether to return the first tokens of a text that has more.
        """
        words = self._words(cleaned)
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
        """Add the tokens of words to a count; exact unless the words are long."""
        size = 0
        for word in words:
            size += len(word)
            if size > _COUNTED_BYTES:
                return Tokens([], count + self._least(word), exact=False)
            count += len(self._word(word))
        return Tokens([], count)

    def _words(self, cleaned: str) -> Iterator[str]:
        """Yield the words of a text, each byte as the letter that stands for it."""
        for found in self._pattern.finditer(cleaned):
            yield "".join(self._letters[byte] for byte in found[0].encode())

    def _least(self, word: str) -> int:
        return 1 if word in self._special else -(-len(word) // self.longest)

    def _word(self, word: str) -> tuple[int, ...]:
        if word in self._special:
            return self._special[word]
        return self._merge_cached(word) if len(word) <= _LONGEST_CACHED else self._merge(word)

    def _merge(self, word: str) -> tuple[int, ...]:
        return tuple(token.id for token in self._merges.tokenize(word))
