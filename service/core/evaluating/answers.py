"""Which of the known answers a collection has: no search finds the others, whatever it is worth."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from uuid import UUID

from service.core.evaluating.exact import every_object
from service.core.evaluating.queries import QuerySet
from service.core.evaluating.task import Stage, Task
from service.domain import ReturnFields
from service.errors import InvalidRequest, Violation
from service.store.base import Store

LOOKED_UP_AT_ONCE = 500
"""Ids of objects that are looked up at a time."""

LOOKED_THROUGH = 10_000
"""Objects that are read to look for values of a property where an evaluation reads no vectors, give or take a page."""


@dataclass(frozen=True, slots=True)
class Lacking:
    """Known answers that a collection lacks.

    Attributes:
        answers: how many known answers there are, each counted once.
        missing: how many of them the collection lacks.
        example: one of these; empty if there are none.
        queries: how many queries have no answer in the collection.
        among: how many objects were looked through, of which alone this holds; None for all.
        objects: for each of the others the first object that it names.
    """

    answers: int
    missing: int
    example: str
    queries: int
    among: int | None = None
    objects: Mapping[str, UUID] = field(default_factory=dict)


async def lacking_answers(store: Store, task: Task, queries: QuerySet, most: int, total: int) -> Lacking:
    """Return which known answers a collection lacks.

    Args:
        store: where objects are.
        task: the evaluation.
        queries: the queries.
        most: how many objects may be read to look for values of a property, give or take a page.
        total: how many objects there are.

    Raises:
        InvalidRequest: it lacks all of them.
        StoreUnavailable: the store failed.
    """
    wanted = {name for each in queries.queries for name in each.answers}
    objects: dict[str, UUID] = {}
    found = (
        _values(store, task, queries.answer_property, min(most, total))
        if queries.answer_property
        else _ids(store, task, wanted)
    )
    read = 0
    async with aclosing(found):
        async for count, names in found:
            for name in wanted & names.keys():
                objects.setdefault(name, names[name])
            read += count
            if len(objects) == len(wanted) or (queries.answer_property and read >= most):
                break
    left = wanted - objects.keys()
    lacking = Lacking(
        len(wanted),
        len(left),
        min(left, default=""),
        sum(left.issuperset(each.answers) for each in queries.queries),
        among=read if queries.answer_property and most <= read < total else None,
        objects=objects,
    )
    if lacking.missing == lacking.answers and lacking.among is None:
        kind = f"values of {queries.answer_property!r}" if queries.answer_property else "ids of its objects"
        message = (
            f"has {lacking.answers} answers, none of which is in the collection, such as {lacking.example[:40]!r}, so "
            f"nothing could be found; give {kind}"
        )
        raise InvalidRequest([Violation("queries", message)])
    return lacking


async def _ids(store: Store, task: Task, wanted: set[str]) -> AsyncGenerator[tuple[int, dict[str, UUID]]]:
    """Yield which of some objects are there by their names, and how many were asked for."""
    ids = sorted(wanted)
    for start in range(0, len(ids), LOOKED_UP_AT_ONCE):
        some = [UUID(each) for each in ids[start : start + LOOKED_UP_AT_ONCE]]
        found = await store.get_objects(task.collection.name, some, ReturnFields(), task.scope)
        yield len(some), {str(each): each for each in found}


async def _values(store: Store, task: Task, property_: str, total: int) -> AsyncGenerator[tuple[int, dict[str, UUID]]]:
    """Yield an object for each value of a property, page by page, and how many objects were read for them.

    A filter would not do: it compares words of texts, and needs an index.
    """
    read = 0
    async for page in every_object(store, task.collection.name, ReturnFields([property_]), task.scope):
        read += len(page)
        await task.tell(Stage.READING, read, max(read, total))
        yield (
            len(page),
            {
                str(each.properties[property_]): each.id
                for each in reversed(page)
                if each.properties.get(property_) is not None
            },
        )
