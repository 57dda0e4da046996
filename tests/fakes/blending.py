"""Keyword and hybrid searches in memory, as near to Weaviate's as tests of the service need."""

import re
from collections.abc import Sequence
from uuid import UUID

from service.domain import Blend, Hit, Keywords, StoredObject

WORD = re.compile(r"\w+")
DEFAULT_ALPHA = 0.75


def keyword_score(object_: StoredObject, keywords: Keywords) -> float:
    """Return how often an object has the words; 0 where it has too few of them."""
    weights = {each.name: each.weight for each in keywords.properties}
    wanted = set(WORD.findall(keywords.query.lower()))
    score, seen = 0.0, set()
    for name, value in object_.properties.items():
        if isinstance(value, str | list) and (not weights or name in weights):
            held = set(WORD.findall(str(value).lower())) & wanted
            seen |= held
            score += len(held) * weights.get(name, 1)
    needed = len(wanted) if keywords.need_all else keywords.minimum_match
    return score if len(seen) >= needed else 0.0


def blend_hits(near: Sequence[Hit], words: Sequence[Hit], blend: Blend) -> list[Hit]:
    """Join two lists by their scores, each scaled to 0 to 1."""
    alpha = 1.0 if blend.keywords is None else DEFAULT_ALPHA if blend.alpha is None else blend.alpha
    most = blend.max_vector_distance
    near_scores = {
        each.object.id: -(each.distance or 0.0) for each in near if most is None or (each.distance or 0.0) <= most
    }
    too_far = {each.object.id for each in near} - near_scores.keys()
    word_scores = {each.object.id: each.score or 0.0 for each in words if each.object.id not in too_far}
    totals: dict[UUID, float] = {}
    for share, scores in ((alpha, near_scores), (1 - alpha, word_scores)):
        low, high = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
        for id_, score in scores.items():
            scaled = (score - low) / (high - low) if high > low else 1.0
            totals[id_] = totals.get(id_, 0.0) + share * scaled
    objects = {each.object.id: each.object for each in (*near, *words)}
    kept = sorted((id_ for id_ in totals if totals[id_] > 0), key=lambda id_: (-totals[id_], id_))
    return [Hit(objects[id_], score=totals[id_]) for id_ in kept]
