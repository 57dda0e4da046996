"""The figures of the model card: what finds what, by style."""

from collections.abc import Callable

import numpy as np
import torch
from concepts import Concept
from numpy.typing import NDArray
from torch import Tensor

Encode = Callable[[list[str]], Tensor]


def evaluate_style(
    concepts: list[Concept],
    vectors: Tensor,
    labels: NDArray[np.int64],
    others: tuple[Tensor, NDArray[np.int64]],
    encode: Encode,
    unseen: dict[str, set[int]],
) -> dict[str, float]:
    """Return the figures of one style.

    Args:
        concepts: all concepts.
        vectors: the style's picture vectors, shape (n, 1024), unit length.
        labels: their concepts, shape (n,).
        others: the other styles' picture vectors and concepts, to be found by a picture of this style.
        encode: texts to vectors, shape (texts, 1024), unit length.
        unseen: words that are no caption of any concept, each with the concepts that it fits.
    """
    here = {int(label) for label in labels}
    names = encode([concepts[label].name for label in labels])
    ranks = (names @ vectors.T).argsort(dim=1, descending=True).numpy()
    found = labels[ranks] == labels[:, None]
    tags = sorted({tag for label in here for tag in concepts[label].tags})
    owners = {tag: {label for label in here if tag in concepts[label].tags} for tag in tags}
    nearest = (vectors @ others[0].T).argsort(dim=1, descending=True)[:, :10].numpy()
    known = np.isin(labels, others[1])
    return {
        "name recall@1": float(found[:, :1].any(1).mean()),
        "name recall@10": float(found[:, :10].any(1).mean()),
        "tag hit@10": _hits(encode, owners, vectors, labels),
        "unseen word hit@10": _hits(encode, {w: o & here for w, o in unseen.items() if o & here}, vectors, labels),
        "picture recall@10": float((others[1][nearest] == labels[:, None]).any(1)[known].mean()),
    }


def _hits(encode: Encode, owners: dict[str, set[int]], vectors: Tensor, labels: NDArray[np.int64]) -> float:
    """Return the share of words of which a fitting picture is among the first ten."""
    if not owners:
        return float("nan")
    words = list(owners)
    first = labels[(encode(words) @ vectors.T).topk(10, dim=1).indices.numpy()]
    return float(np.mean([bool(owners[word] & set(row)) for word, row in zip(words, first, strict=True)]))


def report(figures: dict[str, dict[str, float]]) -> str:
    """Return figures by style as a Markdown table."""
    columns = list(next(iter(figures.values())))
    rows = [f"| style | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    rows += [f"| {style} | {' | '.join(f'{row[c]:.3f}' for c in columns)} |" for style, row in figures.items()]
    return "\n".join(rows)


def rank(encode: Encode, query: str, vectors: Tensor, names: list[str], count: int = 5) -> list[str]:
    """Return the names of the pictures nearest to a query."""
    with torch.inference_mode():
        first = (encode([query]) @ vectors.T).squeeze(0).topk(count).indices
    return [names[int(place)] for place in first]
