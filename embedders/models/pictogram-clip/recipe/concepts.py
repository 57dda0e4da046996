"""Concepts: one for each emoji, skin tones together, with its name, its tags and further keywords."""

import json
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from sources import folder_of


@dataclass(slots=True)
class Concept:
    """One concept.

    Attributes:
        code: its code points in upper-case hex with dashes, without variation selectors.
        name: emojibase's name.
        tags: emojibase's tags.
        keywords: further names and tags from emojilib.
        group: the number of emojibase's group, such as 3 for animals and nature.
    """

    code: str
    name: str
    tags: list[str] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)
    group: int = 0

    def captions(self) -> list[str]:
        """Return every text that names the concept, without repeats, the name first."""
        return list(dict.fromkeys([self.name, *self.tags, *self.keywords]))


def bare(code: str) -> str:
    """Return code points in the form of Concept.code."""
    return "-".join(point for point in code.upper().split("-") if point != "FE0F")


def slug(name: str) -> str:
    """Return a name in small letters and digits with dashes between the words."""
    letters = unicodedata.normalize("NFKD", name.replace("\u2019", "").replace("'", ""))
    plain = letters.encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def squash(name: str) -> str:
    """Return a name in small letters and digits only."""
    return slug(name).replace("-", "")


def load_concepts(cache: Path) -> list[Concept]:
    """Return all concepts in Unicode's order."""
    emojis = json.loads((folder_of(cache, "emojibase-data") / "en/data.json").read_text(encoding="utf-8"))
    library = json.loads((folder_of(cache, "emojilib") / "dist/emoji-en-US.json").read_text(encoding="utf-8"))
    keywords = {key.replace("\ufe0f", ""): value for key, value in library.items()}
    concepts = []
    for emoji in sorted(emojis, key=lambda each: each.get("order", 10_000)):
        if "group" not in emoji:
            continue  # Regional indicators and skin tones by themselves.
        extra = [word.replace("_", " ").strip() for word in keywords.get(emoji["emoji"].replace("\ufe0f", ""), [])]
        words = [word for word in extra if re.search("[a-z]{2}", word)]
        concepts.append(Concept(bare(emoji["hexcode"]), emoji["label"], emoji.get("tags", []), words, emoji["group"]))
    return concepts
