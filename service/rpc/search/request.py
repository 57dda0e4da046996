"""SearchService: queries and hits."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from service.core.searching import (
    Hybrid,
    Move,
    Near,
    NearImage,
    NearInputs,
    NearObject,
    NearText,
    NearVector,
    Query,
    ReturnNames,
    TargetChoice,
)
from service.domain import Blend, Filter, Fusion, GroupBy, Hit, Keywords, Rerank, SearchOptions, SortBy, TargetJoin
from service.rpc.objects.messages import object_to_pb
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb

NEED_ALL: dict[int, bool | None] = {
    search_pb.KEYWORD_OPERATOR_UNSPECIFIED: None,
    search_pb.KEYWORD_OPERATOR_OR: False,
    search_pb.KEYWORD_OPERATOR_AND: True,
}


def query_from_pb(request: search_pb.SearchObjectsRequest) -> Query:
    """Return what a search looks for; its ids are UUIDs."""
    match request.WhichOneof("query"):
        case None:
            return None
        case "near_object":
            return NearObject(UUID(request.near_object.id))
        case "bm25":
            return _keywords_from_pb(request.bm25)
        case "hybrid":
            return _hybrid_from_pb(request.hybrid)
    return _near_from_pb(request, request.WhichOneof("query"))


def _near_from_pb(message: search_pb.SearchObjectsRequest | search_pb.Hybrid, field: str | None) -> Near | None:
    match field:
        case "near_text":
            text = message.near_text
            return NearText(
                tuple(text.concepts),
                text.truncate,
                _move_from_pb(text.move_to) if text.HasField("move_to") else None,
                _move_from_pb(text.move_away) if text.HasField("move_away") else None,
            )
        case "near_image":
            return NearImage(message.near_image.image.content)
        case "near_vector":
            return _near_vector_from_pb(message.near_vector)
        case "near_inputs":
            inputs = ((_content_from_pb(each), _weight_of(each)) for each in message.near_inputs.inputs)
            return NearInputs(tuple(inputs), message.near_inputs.truncate)
    return None


def _move_from_pb(message: search_pb.Move) -> Move:
    return Move(message.force, tuple(message.concepts), tuple(map(UUID, message.objects)))


def _near_vector_from_pb(message: search_pb.NearVector) -> NearVector:
    by_target = {name: each.data for name, each in message.target_vectors.items()}
    return NearVector(message.vector.data, message.space, by_target)


def _content_from_pb(message: search_pb.WeightedInput) -> str | NearImage | NearVector | NearObject:
    match message.WhichOneof("content"):
        case "image":
            return NearImage(message.image.content)
        case "near_vector":
            return _near_vector_from_pb(message.near_vector)
        case "near_object":
            return NearObject(UUID(message.near_object.id))
    return message.text


def _weight_of(message: search_pb.WeightedInput) -> float:
    return message.weight if message.HasField("weight") else 1.0


def _keywords_from_pb(message: search_pb.Bm25) -> Keywords:
    return Keywords(message.query, tuple(message.properties), NEED_ALL[message.operator], message.minimum_match)


def _hybrid_from_pb(message: search_pb.Hybrid) -> Hybrid:
    blend = Blend(
        _keywords_from_pb(message.bm25) if message.HasField("bm25") else None,
        message.alpha if message.HasField("alpha") else None,
        Fusion(message.fusion_type) if message.fusion_type else None,
        message.max_vector_distance if message.HasField("max_vector_distance") else None,
    )
    side = _near_from_pb(message, message.WhichOneof("vector_side"))
    return Hybrid(blend, side, message.truncate)


def options_from_pb(request: search_pb.SearchObjectsRequest, filters: Filter | None) -> SearchOptions:
    """Return what narrows a search; its ids are UUIDs."""
    return SearchOptions(
        filters=filters,
        certainty=request.certainty if request.HasField("certainty") else None,
        distance=request.distance if request.HasField("distance") else None,
        auto_limit=request.auto_limit,
        after=UUID(request.after) if request.after else None,
        sort=tuple(SortBy(each.property, each.descending) for each in request.sort),
        group_by=_group_by_from_pb(request.group_by) if request.HasField("group_by") else None,
        rerank=Rerank(request.rerank.property, request.rerank.query) if request.HasField("rerank") else None,
        times=request.return_times,
        explain_score=request.return_explain_score,
    )


def _group_by_from_pb(message: search_pb.GroupBy) -> GroupBy:
    return GroupBy(message.property, message.number_of_groups, message.objects_per_group)


def target_choice(request: search_pb.SearchObjectsRequest) -> TargetChoice:
    """Return which named vectors a caller wants searched."""
    join = TargetJoin(request.target_join) if request.target_join else None
    return TargetChoice(tuple(request.target_vectors), join, tuple(request.target_weights))


def return_names(
    request: search_pb.SearchObjectsRequest | object_pb.GetObjectRequest | object_pb.ListObjectsRequest,
) -> ReturnNames:
    """Return which fields a caller asked for."""
    return ReturnNames(tuple(request.return_properties), tuple(request.return_images), tuple(request.return_vectors))


def hit_to_pb(hit: Hit) -> search_pb.Hit:
    """Return a hit."""
    return search_pb.Hit(
        object=object_to_pb(hit.object),
        distance=hit.distance,
        certainty=hit.certainty,
        score=hit.score,
        creation_time=_time_to_pb(hit.created),
        update_time=_time_to_pb(hit.updated),
        explain_score=hit.explain_score,
        rerank_score=hit.rerank_score,
        group=hit.group.name if hit.group is not None else "",
    )


def _time_to_pb(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message


def groups_to_pb(hits: Iterable[Hit]) -> list[search_pb.Group]:
    """Return the groups of hits, in their order."""
    groups = dict.fromkeys(hit.group for hit in hits if hit.group is not None)
    return [
        search_pb.Group(
            name=each.name,
            object_count=each.object_count,
            min_distance=each.min_distance,
            max_distance=each.max_distance,
            rerank_score=each.rerank_score,
        )
        for each in groups
    ]
