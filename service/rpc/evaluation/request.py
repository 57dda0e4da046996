"""EvaluateCollectionRequest: one walk checks it and makes the wishes of the domain."""

import math

from embedders.contract import TextInput
from service.core.evaluating.fields import MAX_FIELD_SAMPLE
from service.core.evaluating.suggesting import MAX_EF
from service.domain import (
    CaptionQueries,
    EvaluationWishes,
    ObjectQueries,
    System,
    TargetJoin,
    WrittenQueries,
    WrittenQuery,
)
from service.errors import MAX_VIOLATIONS, Violations, collecting
from service.rpc.embedding import input_from_pb
from service.rpc.shared.bounds import MAX_QUERIES
from service.rpc.shared.requests import parse_scope
from vecgate.v1 import evaluation_service_pb2 as pb

DEFAULT_LIMIT = 10
MAX_LIMIT = 100
DEFAULT_SAMPLE = 200
DEFAULT_OBJECTS = 1_000_000
MAX_OBJECTS = 10_000_000
"""Objects that exact search reads: ten million vectors of 1,024 values are 40 GB, some hours of reading."""
MIN_JOINED, MAX_JOINED = 2, 3
"""Named vectors that are searched together: of three, 66 weights are tried."""
DEFAULT_FIELD_SAMPLE = 1000
MAX_FIELD_WEIGHT = 1_000_000
"""What is small beside it still counts in float32."""
MAX_GAIN = 1000
MAX_HITS = 1_000_000
"""Hits of all systems together. Those of one system are kept until they are measured: about 10 MB of ids."""


def parse_evaluation(request: pb.EvaluateCollectionRequest) -> EvaluationWishes:
    """Return what to evaluate; names are not checked, which needs the collection, nor texts and images.

    Raises:
        InvalidRequest: with all violations.
    """
    with collecting() as violations:
        scope = parse_scope(violations, request)
        limit = request.limit or DEFAULT_LIMIT
        fits = 0 < limit <= MAX_LIMIT
        violations.require(fits, "limit", f"is {limit}; give 0 (for {DEFAULT_LIMIT}) to {MAX_LIMIT}")
        most = request.max_objects
        violations.require(
            0 <= most <= MAX_OBJECTS, "max_objects", f"is {most}; give 0 (for {DEFAULT_OBJECTS}) to {MAX_OBJECTS}"
        )
        wanted = request.wanted_recall if request.HasField("wanted_recall") else None
        # NaN is within no bounds.
        fits = wanted is None or 0 < wanted <= 1
        violations.require(fits, "wanted_recall", f"is {wanted}; give a number over 0 and up to 1")
        queries = _queries(request, violations)
        systems = tuple(
            parse_system(each, f"systems[{index}]", violations)
            for index, each in enumerate(request.systems or [pb.EvaluatedSystem()])
        )
        violations.require_unique([each.name for each in systems], "systems")
        count = len(queries.queries) if isinstance(queries, WrittenQueries) else queries.size
        hits = count * len(systems) * limit
        field_sample = request.field_sample_size
        fits = 0 <= field_sample <= MAX_FIELD_SAMPLE
        message = f"is {field_sample}; give 0 (for {DEFAULT_FIELD_SAMPLE}) to {MAX_FIELD_SAMPLE}"
        violations.require(fits, "field_sample_size", message)
        wishes = EvaluationWishes(
            request.collection,
            queries,
            systems,
            limit,
            skip_index_recall=request.skip_index_recall,
            max_objects=most or DEFAULT_OBJECTS,
            change_ef=request.allow_ef_change,
            wanted_recall=wanted,
            suggest_alpha=request.suggest_alpha,
            suggest_weights=request.suggest_weights,
            suggest_field_weights=request.suggest_field_weights,
            field_sample=field_sample or DEFAULT_FIELD_SAMPLE,
            scope=scope,
        )
        message = "does not go with weights of fields, which are tried among a sample; leave one of them out"
        violations.require(not (wishes.tries_fields and request.HasField("earlier")), "earlier", message)
        message = f"times queries and limit are {hits} hits, the most is {MAX_HITS}; give fewer of one of them"
        violations.require(hits <= MAX_HITS, "systems", message)
    return wishes


def _queries(
    request: pb.EvaluateCollectionRequest, violations: Violations
) -> ObjectQueries | CaptionQueries | WrittenQueries:
    match request.WhichOneof("query_set"):
        case "captions":
            violations.require(request.captions.property, "captions.property", "is required; name a text property")
            size = _size(request.captions.sample_size, "captions.sample_size", violations)
            return CaptionQueries(request.captions.property, size)
        case "queries":
            return _written(request.queries, violations)
        case "objects":
            return ObjectQueries(_size(request.objects.sample_size, "objects.sample_size", violations))
    violations.add("query_set", "is required; set objects, captions or queries")
    return ObjectQueries(1)


def _size(size: int, path: str, violations: Violations) -> int:
    fits = 0 <= size <= MAX_QUERIES
    violations.require(fits, path, f"is {size}; give 0 (for {DEFAULT_SAMPLE}) to {MAX_QUERIES}")
    return size or DEFAULT_SAMPLE


def _written(message: pb.WrittenQueries, violations: Violations) -> WrittenQueries:
    violations.require(message.queries, "queries.queries", "is empty; give at least one query")
    queries, seen = [], set()
    answered = sum(bool(each.answers) for each in message.queries)
    for index, each in enumerate(message.queries):
        path = f"queries.queries[{index}]"
        violations.require(each.id, f"{path}.id", "is required; give each query a name")
        violations.require(each.id not in seen, f"{path}.id", "occurs twice; give each query another one")
        seen.add(each.id)
        content = input_from_pb(each.input, truncate=True)
        if content is None:
            violations.add(f"{path}.input", "has no content; set text, image or text_image")
            content = TextInput("")
        if answered and not each.answers:
            violations.add(f"{path}.answers", "is empty, and other queries have answers; give some, or leave it out")
        answers = _answers(each, path, violations)
        field = {"text": ".text", "image": ".image.content", "text_image": ".text_image"}
        place = f"{path}.input" + field.get(each.input.WhichOneof("content") or "", "")
        queries.append(WrittenQuery(each.id, place, content, answers))
    return WrittenQueries(tuple(queries), message.answer_property)


def _answers(message: pb.WrittenQuery, path: str, violations: Violations) -> dict[str, int]:
    """Return the gains of a query's answers by name."""
    gains, wrong = {}, []
    for number, answer in enumerate(message.answers):
        name, gain = answer.name, answer.gain
        gains[name] = gain or 1
        if not name or not 0 <= gain <= MAX_GAIN:
            wrong.append(number)
    # There may be 20,000 of them, and words for each would hold the event loop.
    for number in wrong[:MAX_VIOLATIONS]:
        answer, where = message.answers[number], f"{path}.answers[{number}]"
        violations.require(answer.name, f"{where}.name", "is required; name an object or a value")
        fits = 0 <= answer.gain <= MAX_GAIN
        violations.require(fits, f"{where}.gain", f"is {answer.gain}; give 0 (for 1) to {MAX_GAIN}")
    violations.more += len(wrong[MAX_VIOLATIONS:])
    return gains


def parse_system(message: pb.EvaluatedSystem, path: str, violations: Violations) -> System:
    """Return a way to search; what breaks rules is added to the violations, with the path of the message."""
    alpha = message.alpha if message.HasField("alpha") else None
    ef = message.ef if message.HasField("ef") else None
    fits = alpha is None or 0 <= alpha <= 1
    violations.require(fits, f"{path}.alpha", f"is {message.alpha:g}; give 0 (words only) to 1 (vector only)")
    violations.require(ef is None or 0 < ef <= MAX_EF, f"{path}.ef", f"is {message.ef}; give 1 to {MAX_EF}")
    reads = message.rerank_property or message.rerank_image_property
    both = bool(message.reranker) == bool(reads)
    violations.require(both, f"{path}.reranker", "goes with rerank_property or rerank_image_property; give both")
    weights, join = _weights(message, path, violations)
    return System(
        message.name or _words(message),
        message.target_vector,
        # As it was written, not as the nearest float32.
        None if alpha is None else round(alpha, 6),
        ef,
        message.reranker,
        message.rerank_property,
        message.rerank_image_property,
        path,
        weights,
        join,
        _field_weights(message, path, violations),
    )


def _weights(
    message: pb.EvaluatedSystem, path: str, violations: Violations
) -> tuple[dict[str, float], TargetJoin | None]:
    """Return the weights of named vectors that are searched together, by their names in order, and how to join them."""
    given = message.target_weights
    if not given:
        rule = "goes with target_weights; leave it out"
        violations.require(not message.target_join, f"{path}.target_join", rule)
        return {}, None
    where = f"{path}.target_weights"
    fits = MIN_JOINED <= len(given) <= MAX_JOINED
    violations.require(fits, where, f"has {len(given)} vectors; give {MIN_JOINED} or {MAX_JOINED}")
    violations.require(all(map(math.isfinite, given.values())), where, "has a weight that is not finite")
    violations.require(not message.target_vector, where, "goes without target_vector; give one of the two")
    joins = {each.value: each for each in TargetJoin if each.weighted}
    join = joins.get(message.target_join or TargetJoin.MANUAL_WEIGHTS.value)
    rule = f"is no join by weights; give {' or '.join(f'TARGET_JOIN_{each.name}' for each in joins.values())}"
    violations.require(join is not None, f"{path}.target_join", rule)
    # As they were written, not as the nearest float32.
    weights = {name: round(weight, 6) for name, weight in sorted(given.items())}
    return weights, join


def _field_weights(message: pb.EvaluatedSystem, path: str, violations: Violations) -> dict[str, float]:
    """Return the weights of fields, by their names in order."""
    given, where = message.field_weights, f"{path}.field_weights"
    fits = all(0 <= each <= MAX_FIELD_WEIGHT for each in given.values())
    violations.require(fits, where, f"has a weight that is not a number from 0 to {MAX_FIELD_WEIGHT}")
    if not fits:
        return {}
    # As they were written, not as the nearest float32.
    weights = {name: round(weight, 6) for name, weight in sorted(given.items())}
    rule = "has no weight over 0, with 6 decimals; give at least one"
    violations.require(not weights or any(weights.values()), where, rule)
    return weights


def _words(message: pb.EvaluatedSystem) -> str:
    """Return words for what is set of a system."""
    parts = [message.target_vector]
    parts += [f"{name} {weight:g}" for name, weight in sorted(message.target_weights.items())]
    parts += [f"{name} {weight:g}" for name, weight in sorted(message.field_weights.items())]
    parts += [f"alpha {message.alpha:g}"] if message.HasField("alpha") else []
    parts += [f"ef {message.ef}"] if message.HasField("ef") else []
    parts += [message.reranker]
    return " ".join(filter(None, parts)) or "present"
