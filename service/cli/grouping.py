"""Groups of near-duplicates among the objects of a collection, found by one search for each object."""

from collections import defaultdict, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike

from vecgate.client import Client, Object
from vecgate.client.searching import SearchOptions
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import vector_index_pb2 as index_pb
from vecgate.v1.filter_pb2 import Filter

NEIGHBOURS = 20
"""Nearest objects that are compared with each object."""

IN_FLIGHT = 8
"""Searches at the same time."""

MARGIN = 0.02
"""By how much the distance that an index measures may be off, as indexes compress vectors."""


@dataclass(frozen=True, slots=True)
class Member:
    """An object of a group: its id, its name, and the cosine of it and the nearest other one."""

    id: str
    name: str
    cosine: float


@dataclass(slots=True)
class Found:
    """What was found.

    Attributes:
        seen: how many objects were looked up.
        without_vector: how many others lack the vector.
        groups: near-duplicates, the largest groups first.
    """

    seen: int = 0
    without_vector: int = 0
    groups: list[list[Member]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Question:
    """What is looked for.

    Attributes:
        collection: the collection.
        vector: the named vector that is compared.
        min_cosine: the least cosine of near-duplicates.
        naming: the property that says what an object is; empty for none.
        filters: which objects count; None for all.
        tenant: whose they are.
    """

    collection: collection_pb.Collection
    vector: collection_pb.VectorConfig
    min_cosine: float
    naming: str
    filters: Filter | None
    tenant: str

    def search_options(self) -> SearchOptions:
        """Return what narrows a search for the neighbours of an object."""
        options = SearchOptions(
            limit=NEIGHBOURS,
            filters=self.filters,
            target_vector=self.vector.name,
            return_properties=self.returned,
            return_vectors=self.vector.name,
            tenant=self.tenant,
        )
        if self.vector.index.distance in {index_pb.DISTANCE_UNSPECIFIED, index_pb.DISTANCE_COSINE}:
            options["distance"] = 1 - self.min_cosine + MARGIN
        return options

    @property
    def returned(self) -> Sequence[str]:
        """The properties to return of each object; none named would mean all."""
        return [self.naming] if self.naming else []


def find_groups(client: Client, question: Question, limit: int) -> Found:
    """Return the groups of near-duplicates among the first objects of a collection.

    One search for each object, a few at the same time. Only the ids and names of near-duplicates are kept in memory.

    Args:
        client: the connection; threads share it.
        question: what is looked for.
        limit: objects to look up; 0 for all.

    Raises:
        VecgateError: a call failed.
    """
    found, links = Found(), _Links()
    listed = client.list_objects(
        question.collection.name,
        filters=question.filters,
        page_size=100,
        return_properties=question.returned,
        return_vectors=question.vector.name,
        tenant=question.tenant,
    )
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        sent: deque[Future[list[tuple[Object, Object, float]]]] = deque()

        def join() -> None:
            for one, other, cosine in sent.popleft().result():
                links.join(_as_member(one, question, cosine), _as_member(other, question, cosine))

        for each in islice(listed, limit or None):
            if question.vector.name not in each.vectors:
                found.without_vector += 1
                continue
            found.seen += 1
            sent.append(threads.submit(_neighbours, client, question, each))
            if len(sent) == 2 * IN_FLIGHT:
                join()
        while sent:
            join()
    found.groups = links.groups()
    return found


def _neighbours(client: Client, question: Question, object_: Object) -> list[tuple[Object, Object, float]]:
    """Return an object with each of its near-duplicates, and the cosine of the two."""
    own = object_.vectors[question.vector.name]
    hits = client.search(question.collection.name, vector=own, **question.search_options()).hits
    others = [each.object for each in hits if each.object.id != object_.id]
    pairs = ((each, _cosine(own, each.vectors[question.vector.name])) for each in others)
    return [(object_, each, cosine) for each, cosine in pairs if cosine >= question.min_cosine]


def _cosine(one: ArrayLike, other: ArrayLike) -> float:
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


class _Links:
    """Groups of objects that are near another one of their group: a forest, each tree a group."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}
        self._parents: dict[str, str] = {}

    def join(self, *members: Member) -> None:
        """Put objects into one group."""
        roots = []
        for each in members:
            before = self._members.get(each.id)
            if before is None or before.cosine < each.cosine:
                self._members[each.id] = each
            roots.append(self._root(each.id))
        for root in roots[1:]:
            self._parents[self._root(root)] = self._root(roots[0])

    def groups(self) -> list[list[Member]]:
        """Return all groups, the largest first; in each the names in order."""
        groups: defaultdict[str, list[Member]] = defaultdict(list)
        for id_, each in self._members.items():
            groups[self._root(id_)].append(each)
        ordered = (sorted(each, key=lambda member: (member.name, member.id)) for each in groups.values())
        return sorted(ordered, key=lambda group: (-len(group), group[0].name, group[0].id))

    def _root(self, id_: str) -> str:
        while (parent := self._parents.setdefault(id_, id_)) != id_:
            self._parents[id_] = self._parents[parent]
            id_ = self._parents[id_]
        return id_


def _as_member(object_: Object, question: Question, cosine: float) -> Member:
    return Member(object_.id, str(object_.properties.get(question.naming) or ""), cosine)
