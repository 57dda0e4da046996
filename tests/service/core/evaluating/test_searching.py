"""What is kept of what a system finds."""

from uuid import UUID

from service.core.evaluating.queries import Query, QuerySet
from service.core.evaluating.searching import Run, _keep
from service.domain import Hit, NamedVector, Space, StoredObject, System

HITS = [Hit(StoredObject(UUID(int=row + 1), {"title": str(row)}), distance=row / 10) for row in range(9)]


def test_names_are_kept_only_where_answers_are_known_and_only_until_they_are_measured() -> None:
    query = Query("a")
    unknown = Run(System("a"), NamedVector("default", Space("s", 4, "m")), [0])
    known = Run(System("b"), unknown.target, [0])

    _keep(unknown, query, HITS, QuerySet([query], {}), 9)
    _keep(known, query, HITS, QuerySet([query], {}, answered=True, answer_property="title"), 9)

    assert unknown.names == []
    assert known.names == [[str(row) for row in range(9)]]
    known.forget(5)
    assert known.names == []
    assert known.ids == [[each.object.id for each in HITS[:5]]]
