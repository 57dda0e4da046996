"""Keyword and hybrid searches as the client takes them."""

from typing import Any

from weaviate.classes.query import BM25Operator, HybridFusion

from service.domain import Blend, Fusion, Keywords

FUSIONS = {Fusion.RANKED: HybridFusion.RANKED, Fusion.RELATIVE_SCORE: HybridFusion.RELATIVE_SCORE}


def keywords_to_weaviate(keywords: Keywords) -> dict[str, Any]:
    """Return the arguments of the client's bm25."""
    return {
        "query": keywords.query,
        "query_properties": list(keywords.properties) or None,
        "operator": _operator(keywords),
    }


def blend_to_weaviate(blend: Blend) -> dict[str, Any]:
    """Return the arguments of the client's hybrid, but for the vector."""
    arguments: dict[str, Any] = {
        "query": None,
        "alpha": blend.alpha,
        "fusion_type": None if blend.fusion is None else FUSIONS[blend.fusion],
        "max_vector_distance": blend.max_vector_distance,
    }
    if blend.keywords is None:
        return arguments | {"alpha": 1.0}
    keywords = keywords_to_weaviate(blend.keywords)
    return arguments | {
        "query": keywords["query"],
        "query_properties": keywords["query_properties"],
        "bm25_operator": keywords["operator"],
    }


def _operator(keywords: Keywords) -> Any:
    if keywords.need_all is None:
        return None
    return BM25Operator.and_() if keywords.need_all else BM25Operator.or_(minimum_match=keywords.minimum_match)
