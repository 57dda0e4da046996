"""SearchService: queries and hits."""

from service.convert.filter import filter_from_pb
from service.convert.object import object_to_pb
from service.core.searching import NearImage, NearText, NearVector, Query, ReturnNames
from service.domain import Hit, SearchOptions
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import search_service_pb2 as search_pb

__all__ = ["hit_to_pb", "options_from_pb", "query_from_pb", "return_names"]


def query_from_pb(request: search_pb.SearchObjectsRequest) -> Query:
    """Return what a search looks for."""
    match request.WhichOneof("query"):
        case "near_text":
            return NearText(tuple(request.near_text.concepts), request.near_text.truncate)
        case "near_image":
            return NearImage(request.near_image.image.content)
        case "near_vector":
            return NearVector(request.near_vector.vector.data, request.near_vector.space)
    return None


def options_from_pb(request: search_pb.SearchObjectsRequest) -> SearchOptions:
    """Return what narrows a search."""
    return SearchOptions(filters=filter_from_pb(request.filters) if request.HasField("filters") else None)


def return_names(request: search_pb.SearchObjectsRequest | object_pb.GetObjectRequest) -> ReturnNames:
    """Return which fields a caller asked for."""
    return ReturnNames(tuple(request.return_properties), tuple(request.return_images), tuple(request.return_vectors))


def hit_to_pb(hit: Hit) -> search_pb.Hit:
    """Return a hit."""
    return search_pb.Hit(object=object_to_pb(hit.object), distance=hit.distance, certainty=hit.certainty)
