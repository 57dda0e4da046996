"""SearchObjectsRequest: one walk checks it and makes the search of the domain."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from embedders.contract import ImageInput, TextImageInput, TextInput
from embedders.texts import is_blank
from service.domain import (
    Blend,
    Fusion,
    GroupBy,
    Hybrid,
    Keywords,
    Move,
    Near,
    NearObject,
    OwnVector,
    Part,
    Query,
    Rerank,
    Reranking,
    Search,
    SearchOptions,
    TargetChoice,
    TargetJoin,
    WeightedField,
)
from service.errors import InvalidRequest, Violations
from service.rpc.shared.bounds import RequestLimits
from service.rpc.shared.filters import parse_filter
from service.rpc.shared.requests import check_id, output_from_pb, parse_scope
from vecgate.v1 import search_service_pb2 as pb

DEFAULT_LIMIT = 10
DEFAULT_RERANKED_HITS = 50
"""The same for every page: pages that were sorted with more hits than others would repeat and lose some."""
MAX_RERANKED_HITS = 512
"""As many as a reranking NIM takes in one request."""
BLANK_QUERY = "is blank; give the text that the reranker compares with"
NEAR = frozenset({"near_text", "near_image", "near_vector", "near_object", "near_inputs"})
ONE_OF_QUERIES = "one of near_text, near_image, near_vector, near_object, near_inputs, hybrid and bm25"
NEED_ALL = {pb.KEYWORD_OPERATOR_UNSPECIFIED: None, pb.KEYWORD_OPERATOR_OR: False, pb.KEYWORD_OPERATOR_AND: True}


def parse_search(request: pb.SearchObjectsRequest, limits: RequestLimits) -> Search:
    """Return the search of a request; names are not checked, which needs the collection, nor texts, images and vectors.

    Raises:
        InvalidRequest: with all violations.
    """
    violations, most = Violations(), limits.max_hits
    require, walk = violations.require, _Walk(request, limits, violations)
    returned, scope = output_from_pb(request.output), parse_scope(violations, request)
    limit, offset = request.limit or min(DEFAULT_LIMIT, most), request.offset
    require(limit >= 0, "limit", f"is {limit}; give 0 (for {DEFAULT_LIMIT}) to {most}")
    require(offset >= 0, "offset", f"is {offset}; give 0 or more")
    reach = limit + offset
    require(reach <= most, "limit", f"with offset is {reach}; this server returns the first {most} hits")
    options, targets, query = walk.options(), walk.targets(), walk.query()
    reranking = walk.reranking() if request.rerank.reranker else None
    if violations:
        raise InvalidRequest(violations)
    return Search(request.collection, query, limit, offset, targets, returned, options, scope, reranking)


@dataclass(frozen=True, slots=True)
class _Walk:
    """One walk through a request. What it returns for a part with a violation is of no use."""

    request: pb.SearchObjectsRequest
    limits: RequestLimits
    violations: Violations

    def options(self) -> SearchOptions:
        request, require = self.request, self.violations.require
        query = request.WhichOneof("query")
        filters = None
        if request.HasField("filters"):
            filters = parse_filter(request.filters, self.limits, self.violations)
        self._check_thresholds(query)
        explained = query in ("bm25", "hybrid") or not request.return_explain_score
        require(explained, "return_explain_score", "goes with bm25 and hybrid only; leave it out")
        require(request.auto_limit >= 0, "auto_limit", f"is {request.auto_limit}; give 0 (for none) or more")
        return SearchOptions(
            filters=filters,
            certainty=request.certainty if request.HasField("certainty") else None,
            distance=request.distance if request.HasField("distance") else None,
            auto_limit=request.auto_limit,
            group_by=self._group_by() if request.HasField("group_by") else None,
            rerank=self._rerank() if request.HasField("rerank") and not request.rerank.reranker else None,
            times=request.return_times,
            explain_score=request.return_explain_score,
        )

    def _check_thresholds(self, query: str | None) -> None:
        request, require = self.request, self.violations.require
        certain, distant = request.HasField("certainty"), request.HasField("distance")
        if not (certain or distant):
            return
        require(not (certain and distant), "certainty", "cannot be combined with distance; give one of them")
        near = query in NEAR
        require(near or not certain, "certainty", "goes with near_* queries only")
        require(near or not distant, "distance", "goes with near_* queries only")
        single = len(request.target_vectors) < 2  # noqa: PLR2004 -- two make several
        require(single or not certain, "certainty", "goes with one target vector only; give distance")
        # NaN is within no bounds.
        require(not certain or 0 <= request.certainty <= 1, "certainty", f"is {request.certainty:g}; give 0 to 1")
        require(not math.isnan(request.distance), "distance", "is not a number")

    def _group_by(self) -> GroupBy:
        request, group, require = self.request, self.request.group_by, self.violations.require
        require(group.property, "group_by.property", "is required; name a property")
        for name in ("number_of_groups", "objects_per_group"):
            count = getattr(group, name)
            require(count > 0, f"group_by.{name}", f"is {count}; give 1 or more")
        hits, most = group.number_of_groups * group.objects_per_group, self.limits.max_hits
        require(hits <= most, "group_by", f"asks for {hits} hits; this server returns at most {most}")
        for name in ("return_times", "return_explain_score"):
            require(not getattr(request, name), name, "cannot be combined with group_by; leave one of them out")
        return GroupBy(group.property, group.number_of_groups, group.objects_per_group)

    def _rerank(self) -> Rerank:
        """Return how the store's reranker sorts the hits."""
        rerank, require = self.request.rerank, self.violations.require
        require(rerank.property, "rerank.property", "is required; name a property")
        require(not is_blank(rerank.query), "rerank.query", BLANK_QUERY)
        for name in ("image_property", "limit", "keep_order_on_failure"):
            only = "goes with rerank.reranker only; name a reranker of this server, or leave this out"
            require(not getattr(rerank, name), f"rerank.{name}", only)
        return Rerank(rerank.property, rerank.query)

    def reranking(self) -> Reranking:
        """Return how a reranker of this server sorts the hits."""
        request, rerank, require = self.request, self.request.rerank, self.violations.require
        most = min(MAX_RERANKED_HITS, self.limits.max_hits)
        require(
            rerank.property or rerank.image_property, "rerank", "names nothing to read; set property or image_property"
        )
        require(not is_blank(rerank.query), "rerank.query", BLANK_QUERY)
        require(0 <= rerank.limit <= most, "rerank.limit", f"is {rerank.limit}; give 1 to {most}, or 0 for the default")
        grouped = request.HasField("group_by")
        require(not grouped, "rerank.reranker", "cannot be combined with group_by; leave one of them out")
        return Reranking(
            rerank.reranker,
            rerank.query,
            rerank.property,
            rerank.image_property,
            rerank.limit or min(DEFAULT_RERANKED_HITS, most),
            rerank.keep_order_on_failure,
        )

    def targets(self) -> TargetChoice:
        request, require = self.request, self.violations.require
        names, join, weights = request.target_vectors, request.target_join, request.target_weights
        if not (names or join or weights):
            return TargetChoice()
        searched = request.WhichOneof("query") not in (None, "bm25")
        require(searched or not names, "target_vectors", "goes with near_* and hybrid only; leave it out")
        seen: set[str] = set()
        for index, name in enumerate(names):
            path = f"target_vectors[{index}]"
            require(name, path, "is empty; name a vector")
            require(name not in seen, path, f"{name!r} is there twice; name each vector once")
            seen.add(name)
        known = join in pb.TargetJoin.values()
        require(known, "target_join", f"{join} is not a TargetJoin of this version")
        require(not join or len(names) > 1, "target_join", "goes with several target vectors only; leave it out")
        chosen = TargetJoin(join) if join and known else None
        if chosen is not None and chosen.weighted:
            counted = len(weights) == len(names)
            require(counted, "target_weights", f"has {len(weights)} weights; give one for each target vector")
        else:
            require(not weights, "target_weights", "goes with joins by weights only; leave it out")
        for index, weight in enumerate(weights):
            require(math.isfinite(weight), f"target_weights[{index}]", f"is {weight:g}; give a finite number")
        return TargetChoice(tuple(names), chosen, tuple(weights))

    def query(self) -> Query:
        request = self.request
        match request.WhichOneof("query"):
            case None:
                self.violations.add("query", f"is required; set {ONE_OF_QUERIES}, or list objects with ListObjects")
                return Keywords("")
            case "near_object":
                path = "near_object.id"
                return NearObject(path, check_id(self.violations, request.near_object.id, path))
            case "bm25":
                return self._keywords(request.bm25, "bm25")
            case "hybrid":
                return self._hybrid(request.hybrid)
            case field:
                return self._near(request, field, field)

    def _near(self, message: pb.SearchObjectsRequest | pb.Hybrid, field: str, path: str) -> Near:
        match field:
            case "near_text":
                return self._near_text(message.near_text, path)
            case "near_image":
                has_image = message.near_image.HasField("image")
                self.violations.require(has_image, f"{path}.image", "is required")
                image = ImageInput(message.near_image.image.content)
                return Near(path, (Part(f"{path}.image.content", image),))
            case "near_vector":
                return Near(path, (Part(path, self._own_vectors(message.near_vector, path)),))
        inputs, path, truncate = message.near_inputs.inputs, f"{path}.inputs", message.near_inputs.truncate
        self.violations.require_count(len(inputs), self.limits.max_inputs, path, "inputs")
        parts = [
            self._part(each, f"{path}[{index}]", truncate=truncate)
            for index, each in enumerate(inputs[: self.limits.max_inputs])
        ]
        return Near(path, tuple(parts), scaled=True)

    def _near_text(self, near: pb.NearText, path: str) -> Near:
        concepts = self._texts(near.concepts, f"{path}.concepts", "texts", truncate=near.truncate)
        moves = []
        for name, most, sign in (("move_to", 1, 1), ("move_away", math.inf, -1)):
            if near.HasField(name):  # type: ignore[arg-type]  # one of two literals
                moved = self._move(getattr(near, name), most, sign, f"{path}.{name}", truncate=near.truncate)
                # Weaviate leaves out a move without force, too.
                moves += [moved] if moved.share else []
        return Near(f"{path}.concepts", concepts, tuple(moves))

    def _move(self, move: pb.Move, most: float, sign: int, path: str, *, truncate: bool) -> Move:
        require = self.violations.require
        bounds = "0 to 1" if most == 1 else "a finite number of 0 or more"
        fits = math.isfinite(move.force) and 0 <= move.force <= most
        require(fits, f"{path}.force", f"is {move.force:g}; give {bounds}")
        require(move.concepts or move.objects, path, "is empty; give concepts or objects")
        texts: tuple[Part, ...] = ()
        if move.concepts:
            texts = self._texts(move.concepts, f"{path}.concepts", "concepts", truncate=truncate)
        if move.objects:
            self.violations.require_count(len(move.objects), self.limits.max_inputs, f"{path}.objects", "objects")
        ids = enumerate(move.objects[: self.limits.max_inputs])
        objects = [self._object(text, f"{path}.objects[{index}]") for index, text in ids]
        return Move(path, sign * move.force / 2, (*texts, *objects))

    def _texts(self, texts: Sequence[str], path: str, what: str, *, truncate: bool) -> tuple[Part, ...]:
        parts = tuple(Part(f"{path}[{index}]", TextInput(text, truncate)) for index, text in enumerate(texts))
        self.violations.require_count(len(texts), self.limits.max_inputs, path, what)
        return parts

    def _object(self, text: str, path: str, weight: float = 1.0) -> Part:
        return Part(path, check_id(self.violations, text, path), weight)

    def _part(self, each: pb.WeightedInput, path: str, *, truncate: bool) -> Part:
        weight = each.weight if each.HasField("weight") else 1.0
        part = Part(path, TextInput(""))
        match each.WhichOneof("content"):
            case "text":
                part = Part(f"{path}.text", TextInput(each.text, truncate), weight)
            case "image":
                part = Part(f"{path}.image.content", ImageInput(each.image.content), weight)
            case "text_image":
                pair, where = each.text_image, f"{path}.text_image"
                self.violations.require(pair.HasField("image"), f"{where}.image", "is required")
                part = Part(where, TextImageInput(pair.text, pair.image.content, truncate), weight)
            case "near_vector":
                own, where = each.near_vector, f"{path}.near_vector"
                message = "goes with near_vector and hybrid.near_vector only; give vector"
                self.violations.require(not own.target_vectors, f"{where}.target_vectors", message)
                self.violations.require(own.HasField("vector"), f"{where}.vector", "is required")
                part = Part(where, _own_vector(own, where), weight)
            case "near_object":
                part = self._object(each.near_object.id, f"{path}.near_object.id", weight)
            case None:
                self.violations.add(path, "is empty; set text, image, text_image, near_vector or near_object")
        self.violations.require(0 < weight < math.inf, f"{path}.weight", f"is {weight:g}; give a finite number above 0")
        return part

    def _own_vectors(self, near: pb.NearVector, path: str) -> OwnVector:
        """Return the vector to search with, or one for each of the request's target vectors."""
        require, by_target = self.violations.require, near.target_vectors
        if not by_target:
            require(near.HasField("vector"), f"{path}.vector", "is required")
            return _own_vector(near, path)
        alone = not near.HasField("vector") and not near.space
        require(alone, f"{path}.vector", "cannot be combined with target_vectors; leave it and space out")
        given = sorted(by_target)
        same = given == sorted(self.request.target_vectors)
        message = f"has vectors for {given}; give one for each of the request's target_vectors"
        require(same, f"{path}.target_vectors", message)
        vectors = {name: OwnVector(f'{path}.target_vectors["{name}"].data', by_target[name].data) for name in given}
        return OwnVector(path, b"", by_target=vectors)

    def _keywords(self, bm25: pb.Bm25, path: str) -> Keywords:
        require, least = self.violations.require, bm25.minimum_match
        require(not is_blank(bm25.query), f"{path}.query", "is blank; give the words to look for")
        known = bm25.operator in NEED_ALL
        require(known, f"{path}.operator", f"{bm25.operator} is not a KeywordOperator of this version")
        require(least >= 0, f"{path}.minimum_match", f"is {least}; give 0 or more")
        counted = not least or bm25.operator == pb.KEYWORD_OPERATOR_OR
        require(counted, f"{path}.minimum_match", "goes with KEYWORD_OPERATOR_OR only; set it or leave this out")
        for index, each in enumerate(bm25.properties):
            where = f"{path}.properties[{index}]"
            require(each.name, f"{where}.name", "is required; name a property")
            require(each.weight >= 0, f"{where}.weight", f"is {each.weight}; give 1 or more, or 0 for 1")
        properties = tuple(WeightedField(each.name, each.weight or 1) for each in bm25.properties)
        return Keywords(bm25.query, properties, NEED_ALL.get(bm25.operator), least, path)

    def _hybrid(self, hybrid: pb.Hybrid) -> Hybrid:
        require = self.violations.require
        side, alpha = hybrid.WhichOneof("vector_side"), hybrid.alpha if hybrid.HasField("alpha") else None
        keywords = None
        if hybrid.HasField("bm25"):
            keywords = self._keywords(hybrid.bm25, "hybrid.bm25")
        else:
            require(side, "hybrid", "is empty; set bm25, or one of near_text, near_image, near_vector and near_inputs")
            require(alpha in (None, 1), "hybrid.alpha", "is 1 without bm25; set bm25 or leave this out")
        if side:
            near = self._near(hybrid, side, f"hybrid.{side}")
        else:
            words = Part("hybrid.bm25.query", TextInput(hybrid.bm25.query, hybrid.truncate))
            near = Near(words.path, (words,))
        # NaN is within no bounds.
        fits = alpha is None or 0 <= alpha <= 1
        require(fits, "hybrid.alpha", f"is {hybrid.alpha:g}; give 0 (words only) to 1 (vector only)")
        fusion, farthest = hybrid.fusion_type, hybrid.max_vector_distance
        known = fusion in pb.FusionType.values()
        require(known, "hybrid.fusion_type", f"{fusion} is not a FusionType of this version")
        require(not math.isnan(farthest), "hybrid.max_vector_distance", "is not a number")
        blend = Blend(
            keywords,
            alpha,
            Fusion(fusion) if fusion and known else None,
            farthest if hybrid.HasField("max_vector_distance") else None,
        )
        return Hybrid(blend, near)


def _own_vector(near: pb.NearVector, path: str) -> OwnVector:
    return OwnVector(f"{path}.vector.data", near.vector.data, near.space)
