"""Whether an evaluation fits its collection and this server."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from uuid import UUID

from service.access import Permission, calling_account, check_permission
from service.core.embedder_pool import EmbedderPool
from service.core.evaluating.drift import Report, named_system
from service.core.evaluating.queries import query_digest
from service.core.evaluating.truth import VectorCounts
from service.core.reranker_pool import RerankerPool
from service.core.searching.checks import check_keywords, default_target
from service.core.searching.reranking import check_reranking
from service.domain import (
    CaptionQueries,
    Collection,
    DataType,
    EvaluationWishes,
    Keywords,
    NamedVector,
    ObjectQueries,
    Reranking,
    System,
    WrittenQueries,
    WrittenQuery,
    some_of,
    unknown_property,
    unknown_vector,
)
from service.errors import Violation, Violations, collecting, noting

NAMING = frozenset({DataType.TEXT, DataType.INT, DataType.UUID})
"""Types of properties whose values can name answers."""

MAX_SUGGESTED_FIELDS = 3
"""Fields whose best weights are looked for: of three, 66 weights are tried, and of four 286."""

QUERIES_PATH = {ObjectQueries: "objects", CaptionQueries: "captions", WrittenQueries: "queries"}


def check_reader(wishes: EvaluationWishes) -> None:
    """Check that the caller may read what an evaluation shows of stored objects.

    Raises:
        PermissionDenied: the client may not search, and would read captions, or learn values by answers that fit.
    """
    queries = wishes.queries
    if isinstance(queries, CaptionQueries) or (isinstance(queries, WrittenQueries) and queries.answer_property):
        what = "evaluate with captions or values of stored objects"
        check_permission(calling_account.get().client, frozenset({Permission.SEARCH}), what)


def check_wishes(
    collection: Collection, wishes: EvaluationWishes, embedders: EmbedderPool, rerankers: RerankerPool
) -> list[NamedVector]:
    """Check an evaluation, and return the named vector of each system.

    Raises:
        InvalidRequest: something does not fit; all violations are listed.
        RerankerNotFound: this server has no such reranker.
    """
    targets = []
    with collecting() as violations:
        violations.extend(_query_faults(collection, wishes))
        for each in wishes.systems:
            with noting(violations):
                targets.append(_target(collection, each, embedders))
                _check_system(collection, wishes, each, targets[-1], violations)
        if wishes.tries_fields:
            if len(targets) == len(wishes.systems):
                _check_fields(collection, wishes, targets, violations)
            return targets
        for each in wishes.systems:
            _check_weights(collection, wishes, each, violations)
            _check_words(collection, wishes, each, rerankers, violations)
        if wishes.wanted_recall is not None and targets:
            _check_ef(wishes, targets[0], "wanted_recall", violations)
        if wishes.suggest_alpha:
            answered = _answered(wishes)
            violations.require(answered, "suggest_alpha", "needs queries whose answers are known")
            trial = System("", alpha=0.5, path="suggest_alpha")
            _check_words(collection, wishes, trial, rerankers, violations)
        _check_first(wishes, violations)
        measured = wishes.index_recall or _answered(wishes)
        path = QUERIES_PATH[type(wishes.queries)]
        violations.require(measured, path, "have no known answers, and index recall is left out: nothing is measured")
    return targets


def check_earlier(
    collection: Collection, wishes: EvaluationWishes, targets: Sequence[NamedVector], earlier: Report
) -> None:
    """Check that an evaluation can be compared with an earlier one.

    There may be so many queries that this takes longer than the event loop may be kept.

    Args:
        collection: the collection.
        wishes: what fits it, with ids as with_ids writes them.
        targets: the named vector of each system.
        earlier: what to compare it with.

    Raises:
        InvalidRequest: that was of something else; all violations are listed.
    """
    query_set = QUERIES_PATH[type(wishes.queries)]
    pairs = {
        "collection": (earlier.collection, collection.name),
        "tenant": (earlier.tenant, wishes.scope.tenant),
        "query_set": (earlier.query_set, query_set),
        "limit": (earlier.limit, wishes.limit),
    }
    with collecting() as violations:
        for name, (before, now) in pairs.items():
            message = f"is {before!r}, and here it is {now!r}; only evaluations of the same can be compared"
            violations.require(before == now, f"earlier.{name}", message)
        message = (
            "is of other queries; give the same ones with the same answers in the same order, or leave the comparison "
            "out"
        )
        same = query_set != earlier.query_set or query_digest(wishes.queries) == earlier.query_digest
        violations.require(same, "earlier.query_digest", message)
        for system, target in zip(wishes.systems, targets, strict=True):
            if system.name in earlier.systems:
                _check_same(earlier.systems[system.name].system, named_system(system, target), violations)
        message = "is compared by all vectors; do not leave the index recall out"
        violations.require(wishes.index_recall, "earlier", message)
        now = {each.name: each.space_id for each in targets}
        both = [name for name in now if name in earlier.vectors]
        message = (
            f"has counts of none of the vectors {', '.join(now)}; let a system of both evaluations search one of them "
            "alone, with the index recall"
        )
        violations.require(both, "earlier.vectors", message)
        for name in both:
            space = earlier.vectors[name].space
            message = (
                f"has vector {name!r} in space {space!r}, and its space is {now[name]!r} now; vectors of different "
                "spaces cannot be compared. Take today's evaluation for later comparisons"
            )
            violations.require(space == now[name], "earlier.vectors", message)


def _check_same(before: System, now: System, violations: Violations) -> None:
    """Check that a system is set as one of the same name was before."""
    names = [each.name for each in fields(System) if getattr(before, each.name) != getattr(now, each.name)]
    differing = ", ".join(f"{name} {getattr(before, name)!r}, here {getattr(now, name)!r}" for name in names)
    message = f"has system {now.name!r} with {differing}; set it as before, or give it another name"
    violations.require(before == now, "earlier.systems", message)


def check_lengths(earlier: Report, counts: Mapping[str, VectorCounts]) -> None:
    """Check that vectors have as many values as those of an earlier evaluation.

    Raises:
        InvalidRequest: they have not.
    """
    with collecting() as violations:
        for name, today in counts.items():
            before = earlier.vectors.get(name)
            if before is not None and before.summary is not None and today.summary is not None:
                old, new = len(before.summary.centre), len(today.summary.centre)
                message = (
                    f"has {old} values in vector {name!r}, and it has {new} now; take today's evaluation for later "
                    "comparisons"
                )
                violations.require(old == new, "earlier.vectors", message)


def with_ids(collection: Collection, wishes: EvaluationWishes) -> EvaluationWishes:
    """Return an evaluation whose answers are written as those of hits are, where they are UUIDs.

    There may be so many answers that this takes longer than the event loop may be kept.

    Args:
        collection: the collection.
        wishes: what fits it.

    Raises:
        InvalidRequest: answers are no UUIDs, and so could not be found; the queries that have such are listed.
    """
    written = wishes.queries
    if not isinstance(written, WrittenQueries):
        return wishes
    name = written.answer_property
    property_ = collection.find_property(name) if name else None
    if property_ is not None and property_.data_type is not DataType.UUID:
        return wishes
    what = f"values of {name!r} are UUIDs" if name else "ids of objects are UUIDs; or set answer_property"
    with collecting() as violations:
        read = tuple(
            _with_ids(each, f"queries.queries[{index}].answers", what, violations)
            for index, each in enumerate(written.queries)
        )
    return replace(wishes, queries=replace(written, queries=read))


def _with_ids(query: WrittenQuery, path: str, what: str, violations: Violations) -> WrittenQuery:
    answers, wrong = {}, []
    for name, gain in query.answers.items():
        try:
            answers[str(UUID(name))] = gain
        except ValueError:
            wrong.append(name)
    if wrong:
        violations.add(
            path, f"has {len(wrong)} names that are no UUIDs, such as {wrong[0][:40]!r}; {what}", "INVALID_ID"
        )
    return replace(query, answers=answers)


def measures_index(wishes: EvaluationWishes, system: System) -> bool:
    """Return whether a system's index is compared with exact search: not where words or a reranker decide, too."""
    return wishes.index_recall and system.alpha is None and not system.reranker and not system.weights


def _answered(wishes: EvaluationWishes) -> bool:
    match wishes.queries:
        case CaptionQueries():
            return True
        case WrittenQueries(queries):
            return bool(queries[0].answers)
    return False


def _query_faults(collection: Collection, wishes: EvaluationWishes) -> Iterator[Violation]:
    match wishes.queries:
        case CaptionQueries(name):
            yield from _property_faults(collection, name, "captions.property", frozenset({DataType.TEXT}))
        case WrittenQueries(answer_property=name) if name:
            yield from _property_faults(collection, name, "queries.answer_property", NAMING)


def _property_faults(collection: Collection, name: str, path: str, types: frozenset[DataType]) -> Iterator[Violation]:
    fitting = [each.name for each in collection.properties if each.data_type in types]
    if collection.find_property(name) is None:
        yield unknown_property(collection, path, fitting)
    elif name not in fitting:
        kinds = " or ".join(sorted(each.value for each in types))
        yield Violation(path, f"is not of type {kinds}; choose among: {', '.join(fitting)}", "INVALID_PROPERTY")


def _target(collection: Collection, system: System, embedders: EmbedderPool) -> NamedVector:
    if system.weights:
        # The others are checked beside it.
        first = collection.find_vector(next(iter(system.weights)))
        return collection.vectors[0] if first is None else first
    if not system.vector:
        return default_target(collection, embedders.default_vector(collection))
    found = collection.find_vector(system.vector)
    with collecting() as violations:
        if found is None:
            violations.append(unknown_vector(collection, f"{system.path}.target_vector"))
    assert found is not None
    return found


def _check_system(
    collection: Collection, wishes: EvaluationWishes, system: System, target: NamedVector, violations: Violations
) -> None:
    usable = target.distance is not None and not target.multi
    message = f"named vector {target.name!r} of collection {collection.name!r} cannot be searched by this version"
    violations.require(usable, f"{system.path}.target_vector", message)
    if system.ef is not None and not wishes.tries_fields:
        _check_ef(wishes, target, f"{system.path}.ef", violations)


def _check_weights(collection: Collection, wishes: EvaluationWishes, system: System, violations: Violations) -> None:
    """Check the named vectors of a system that are searched together."""
    if not system.weights:
        return
    path = f"{system.path}.target_weights"
    violations.require(_answered(wishes), path, "needs queries whose answers are known")
    violations.require(system.ef is None, f"{system.path}.ef", "is of one index; give a system with one target_vector")
    for name in system.weights:
        found = collection.find_vector(name)
        if found is None:
            violations.append(unknown_vector(collection, path))
        else:
            usable = found.distance is not None and not found.multi
            violations.require(usable, path, f"has {name!r}, which cannot be searched by this version")


def _check_first(wishes: EvaluationWishes, violations: Violations) -> None:
    """Check that what is suggested goes with the first system."""
    several = bool(wishes.systems[0].weights)
    violations.require(
        several or not wishes.suggest_weights, "suggest_weights", "needs target_weights in the first system"
    )
    for name, wanted in (("wanted_recall", wishes.wanted_recall is not None), ("suggest_alpha", wishes.suggest_alpha)):
        violations.require(not (wanted and several), name, "needs one target_vector in the first system")


def _check_fields(
    collection: Collection, wishes: EvaluationWishes, targets: Sequence[NamedVector], violations: Violations
) -> None:
    """Check that other weights of an object's fields can be tried."""
    target, first, require = targets[0], wishes.systems[0].path, violations.require
    if (reason := _why_no_weights(collection, target)) is not None:
        violations.add(f"{first}.target_vector", f"is {target.name!r}, {reason}")
        return
    names = target.field_names
    for name, wanted in (
        ("wanted_recall", wishes.wanted_recall is not None),
        ("suggest_alpha", wishes.suggest_alpha),
        ("suggest_weights", wishes.suggest_weights),
    ):
        require(not wanted, name, "does not go with weights of fields; evaluate it by itself")
    message = "have no known answers, which weights of fields need; give captions, or queries with answers"
    require(_answered(wishes), QUERIES_PATH[type(wishes.queries)], message)
    if isinstance(wishes.queries, CaptionQueries) and wishes.queries.property in names:
        message = "is one of the fields whose weights are tried, so more of it would always win; name another property"
        violations.add("captions.property", message)
    fits = not wishes.suggest_field_weights or len(names) <= MAX_SUGGESTED_FIELDS
    message = f"needs a vector of up to {MAX_SUGGESTED_FIELDS} fields, and {target.name!r} has {len(names)}"
    require(fits, "suggest_field_weights", message)
    for each, other in zip(wishes.systems, targets, strict=False):
        given = each.alpha is not None or each.ef is not None or each.reranker or each.weights
        message = "sets more than target_vector and field_weights; weights of fields are tried by the vector alone"
        require(not given, each.path, message)
        message = f"is another vector than {target.name!r}, the first one; weights are tried of one at a time"
        require(other.name == target.name, f"{each.path}.target_vector", message)
        given_names = each.field_weights.keys() or set(names)
        missing = some_of(name for name in names if name not in given_names)
        unknown = some_of(name for name in given_names if name not in names)
        message = (
            f"give a weight to each field of {target.name!r} and to no other; missing: {missing}; other: {unknown}"
        )
        require(set(given_names) == set(names), f"{each.path}.field_weights", message)


def _why_no_weights(collection: Collection, target: NamedVector) -> str | None:
    """Return why other weights of the fields of a named vector cannot be tried; None if they can."""
    hashes = [each.name for each in target.image_fields if each.name in collection.hashes]
    if target.joint:
        return "whose model reads all fields together as one input, so they have no weights"
    if len(target.field_names) < 2:  # noqa: PLR2004 -- one field alone is the whole vector
        has = f"only the field {target.field_names[0]!r}" if target.field_names else "no fields"
        return f"which has {has}; weights need two fields or more"
    lists = [
        each.name
        for each in target.text_fields
        if (found := collection.find_property(each.name)) is not None and found.data_type is DataType.TEXT_ARRAY
    ]
    if target.native and lists:
        return f"a native vector, which takes no weights with a text array such as {lists[0]!r}"
    if hashes:
        return f"and of its field {hashes[0]!r} only hashes are stored, so its images cannot be embedded again"
    return None


def _check_ef(wishes: EvaluationWishes, target: NamedVector, path: str, violations: Violations) -> None:
    hnsw = target.index.type == "hnsw"
    violations.require(hnsw, path, f"needs an HNSW index, and that of {target.name!r} is {target.index.type}")
    message = (
        "changes the ef of the index for all searches while it is measured; set allow_ef_change if they may notice that"
    )
    violations.require(wishes.change_ef, path, message)
    violations.require(wishes.index_recall, path, "is judged by the index recall; do not leave that out")


def _check_words(
    collection: Collection, wishes: EvaluationWishes, system: System, rerankers: RerankerPool, violations: Violations
) -> None:
    """Check what needs the words of queries."""
    if system.alpha is None and not system.reranker:
        return
    if not _worded(wishes):
        message = "needs queries with words: captions, or queries that are texts"
        violations.add(f"{system.path}.{'reranker' if system.reranker else 'alpha'}", message)
    if system.alpha is not None:
        keywords = Keywords("", path=f"{system.path}.alpha")
        check_keywords(collection, keywords, violations, needed=system.alpha != 1)
    if system.reranker:
        spec = rerankers.get(system.reranker).spec
        found = Violations()
        reranking = Reranking(system.reranker, "", system.rerank_property, system.rerank_image_property)
        check_reranking(collection, reranking, spec, found)
        for each in found:
            where = each.field.replace("rerank.", f"{system.path}.rerank_")
            violations.append(Violation(where, each.description, each.reason))


def _worded(wishes: EvaluationWishes) -> bool:
    match wishes.queries:
        case ObjectQueries():
            return False
        case WrittenQueries(queries):
            return all(getattr(each.content, "text", "") for each in queries)
    return True
