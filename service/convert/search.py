"""SearchService: queries and hits."""

from service.convert.filter import filter_from_pb
from service.convert.object import object_to_pb
from service.core.conformance import parse_id
from service.core.searching import Hybrid, Near, NearImage, NearObject, NearText, NearVector, Query, ReturnNames
from service.domain import Blend, Fusion, Hit, Keywords, SearchOptions, SortBy
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb

__all__ = ["hit_to_pb", "options_from_pb", "query_from_pb", "return_names"]

NEED_ALL: dict[int, bool | None] = {
    search_pb.KEYWORD_OPERATOR_UNSPECIFIED: None,
    search_pb.KEYWORD_OPERATOR_OR: False,
    search_pb.KEYWORD_OPERATOR_AND: True,
}


def query_from_pb(request: search_pb.SearchObjectsRequest) -> Query:
    """Return what a search looks for.

    Raises:
        InvalidRequest: an id is no UUID.
    """
    match request.WhichOneof("query"):
        case None:
            return None
        case "near_object":
            return NearObject(parse_id(request.near_object.id, "near_object.id"))
        case "bm25":
            return _keywords_from_pb(request.bm25)
        case "hybrid":
            return _hybrid_from_pb(request.hybrid)
    return _near_from_pb(request, request.WhichOneof("query"))


def _near_from_pb(message: search_pb.SearchObjectsRequest | search_pb.Hybrid, field: str | None) -> Near | None:
    match field:
        case "near_text":
            return NearText(tuple(message.near_text.concepts), message.near_text.truncate)
        case "near_image":
            return NearImage(message.near_image.image.content)
        case "near_vector":
            return NearVector(message.near_vector.vector.data, message.near_vector.space)
    return None


def _keywords_from_pb(message: search_pb.Bm25) -> Keywords:
    return Keywords(message.query, tuple(message.properties), NEED_ALL[message.operator], message.minimum_match)


def _hybrid_from_pb(message: search_pb.Hybrid) -> Hybrid:
    blend = Blend(
        _keywords_from_pb(message.bm25) if message.HasField("bm25") else None,
        message.alpha if message.HasField("alpha") else None,
        Fusion(message.fusion_type) if message.fusion_type else None,
        message.max_vector_distance if message.HasField("max_vector_distance") else None,
    )
    return Hybrid(blend, _near_from_pb(message, message.WhichOneof("vector_side")), message.truncate)


def options_from_pb(request: search_pb.SearchObjectsRequest) -> SearchOptions:
    """Return what narrows a search.

    Raises:
        InvalidRequest: an id is no UUID.
    """
    return SearchOptions(
        filters=filter_from_pb(request.filters) if request.HasField("filters") else None,
        certainty=request.certainty if request.HasField("certainty") else None,
        distance=request.distance if request.HasField("distance") else None,
        auto_limit=request.auto_limit,
        after=parse_id(request.after, "after") if request.after else None,
        sort=tuple(SortBy(each.property, each.descending) for each in request.sort),
    )


def return_names(
    request: search_pb.SearchObjectsRequest | object_pb.GetObjectRequest | object_pb.ListObjectsRequest,
) -> ReturnNames:
    """Return which fields a caller asked for."""
    return ReturnNames(tuple(request.return_properties), tuple(request.return_images), tuple(request.return_vectors))


def hit_to_pb(hit: Hit) -> search_pb.Hit:
    """Return a hit."""
    return search_pb.Hit(
        object=object_to_pb(hit.object), distance=hit.distance, certainty=hit.certainty, score=hit.score
    )
