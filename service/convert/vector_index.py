"""CollectionService: indexes and quantizers."""

from service.convert.parameters import parameters_from_pb, parameters_to_pb
from service.domain import Distance, Quantizer, VectorIndex
from vecgate.v1 import collection_service_pb2 as collection_pb

__all__ = ["DISTANCES_FROM_PB", "index_from_pb", "index_to_pb"]

DISTANCES = {distance: collection_pb.Distance.Value(f"DISTANCE_{distance.name}") for distance in Distance}
DISTANCES_FROM_PB = {number: distance for distance, number in DISTANCES.items()}
INDEX_TYPES = frozenset(field.name for field in collection_pb.VectorIndex.DESCRIPTOR.oneofs_by_name["type"].fields)
QUANTIZER_TYPES = frozenset(field.name for field in collection_pb.Quantizer.DESCRIPTOR.oneofs_by_name["type"].fields)


def index_from_pb(message: collection_pb.VectorIndex) -> VectorIndex:
    """Return an index; its type is empty where none is set."""
    type_ = message.WhichOneof("type") or ""
    return VectorIndex(
        type_,
        parameters_from_pb(getattr(message, type_)) if type_ else {},
        _quantizer_from_pb(message.quantizer),
        _quantizer_from_pb(message.dynamic.flat_quantizer) if type_ == "dynamic" else None,
    )


def index_to_pb(index: VectorIndex, distance: Distance | None, message: collection_pb.VectorIndex) -> None:
    """Set an index; of a type that this version does not know only the distance."""
    if distance is not None:
        message.distance = DISTANCES[distance]
    if index.type not in INDEX_TYPES:
        return
    inner = getattr(message, index.type)
    inner.SetInParent()
    parameters_to_pb(index.parameters, inner)
    _quantizer_to_pb(index.quantizer, message.quantizer)
    if index.type == "dynamic":
        _quantizer_to_pb(index.flat_quantizer, message.dynamic.flat_quantizer)


def _quantizer_from_pb(message: collection_pb.Quantizer) -> Quantizer | None:
    type_ = message.WhichOneof("type")
    return Quantizer(type_, parameters_from_pb(getattr(message, type_))) if type_ else None


def _quantizer_to_pb(quantizer: Quantizer | None, message: collection_pb.Quantizer) -> None:
    if quantizer is not None and quantizer.type in QUANTIZER_TYPES:
        inner = getattr(message, quantizer.type)
        inner.SetInParent()
        parameters_to_pb(quantizer.parameters, inner)
