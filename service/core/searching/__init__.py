"""Searching: the query is embedded in the space of the named vector that is searched."""

from service.core.searching.queries import (
    Hybrid,
    Move,
    Near,
    NearImage,
    NearInputs,
    NearObject,
    NearText,
    NearVector,
    Query,
)
from service.core.searching.searcher import ReturnNames, Searcher, SearchResult
from service.core.searching.targets import TargetChoice

__all__ = [
    "Hybrid",
    "Move",
    "Near",
    "NearImage",
    "NearInputs",
    "NearObject",
    "NearText",
    "NearVector",
    "Query",
    "ReturnNames",
    "SearchResult",
    "Searcher",
    "TargetChoice",
]
