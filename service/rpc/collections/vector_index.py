"""Vector indexes of a request and of an answer."""

from service.domain import Distance, Quantizer, VectorIndex
from service.rpc.collections.parameter_checks import check_parameters
from service.rpc.collections.parameters import parameters_from_pb, parameters_to_pb
from service.rpc.shared.violations import Violations
from vecgate.v1 import vector_index_pb2 as index_pb

QUANTIZERS = {"hnsw": ("rq", "bq", "pq", "sq", "none"), "flat": ("rq", "bq", "none"), "hfresh": ("rq",)}
BITS = {"hnsw": (1, 4, 8), "flat": (1, 8), "hfresh": (1,)}
HFRESH_DISTANCES = (
    index_pb.DISTANCE_UNSPECIFIED,
    index_pb.DISTANCE_COSINE,
    index_pb.DISTANCE_L2_SQUARED,
)


def check_index(violations: Violations, index: index_pb.VectorIndex, path: str, default: str) -> None:
    """Note what an index cannot be.

    Args:
        violations: where to.
        index: it.
        path: where it stands in the request.
        default: its type where none is set; empty where nobody knows.
    """
    check_parameters(violations, index, path)
    type_ = index.WhichOneof("type") or default
    if type_ == "hfresh":
        fits = index.distance in HFRESH_DISTANCES or index.distance not in index_pb.Distance.values()
        violations.require(fits, f"{path}.distance", "hfresh has cosine and l2-squared only")
    if index.HasField("quantizer"):
        kind = "hnsw" if type_ == "dynamic" else type_
        _check_quantizer(violations, index.quantizer, kind, f"{path}.quantizer")
    if type_ == "dynamic" and index.dynamic.HasField("flat_quantizer"):
        _check_quantizer(violations, index.dynamic.flat_quantizer, "flat", f"{path}.dynamic.flat_quantizer")


def _check_quantizer(violations: Violations, quantizer: index_pb.Quantizer, index: str, path: str) -> None:
    type_ = quantizer.WhichOneof("type")
    violations.require(type_, path, "is empty; set one of rq, bq, pq, sq and none")
    if not type_ or not index:
        return
    allowed = QUANTIZERS[index]
    if type_ not in allowed:
        violations.add(
            f"{path}.{type_}", f"an index of type {index} has no such quantizer; give {' or '.join(allowed)}"
        )
        return
    if type_ == "rq" and quantizer.rq.HasField("bits"):
        bits = " or ".join(map(str, BITS[index]))
        violations.require(
            quantizer.rq.bits in BITS[index], f"{path}.rq.bits", f"is {quantizer.rq.bits}; {index} takes {bits}"
        )
    if type_ in ("rq", "bq") and index != "flat":
        parameters = getattr(quantizer, type_)
        for name in ("cache",) if type_ == "rq" else ("cache", "rescore_limit"):
            given = parameters.HasField(name)
            violations.require(not given, f"{path}.{type_}.{name}", "is a parameter of flat indexes only")


DISTANCES = {distance: index_pb.Distance.Value(f"DISTANCE_{distance.name}") for distance in Distance}
DISTANCES_FROM_PB = {number: distance for distance, number in DISTANCES.items()}
INDEX_TYPES = frozenset(field.name for field in index_pb.VectorIndex.DESCRIPTOR.oneofs_by_name["type"].fields)
QUANTIZER_TYPES = frozenset(field.name for field in index_pb.Quantizer.DESCRIPTOR.oneofs_by_name["type"].fields)


def index_from_pb(message: index_pb.VectorIndex) -> VectorIndex:
    """Return an index; its type is empty where none is set."""
    type_ = message.WhichOneof("type") or ""
    return VectorIndex(
        type_,
        parameters_from_pb(getattr(message, type_)) if type_ else {},
        _quantizer_from_pb(message.quantizer),
        _quantizer_from_pb(message.dynamic.flat_quantizer) if type_ == "dynamic" else None,
    )


def index_to_pb(index: VectorIndex, distance: Distance | None, message: index_pb.VectorIndex) -> None:
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


def _quantizer_from_pb(message: index_pb.Quantizer) -> Quantizer | None:
    type_ = message.WhichOneof("type")
    return Quantizer(type_, parameters_from_pb(getattr(message, type_))) if type_ else None


def _quantizer_to_pb(quantizer: Quantizer | None, message: index_pb.Quantizer) -> None:
    if quantizer is not None and quantizer.type in QUANTIZER_TYPES:
        inner = getattr(message, quantizer.type)
        inner.SetInParent()
        parameters_to_pb(quantizer.parameters, inner)
