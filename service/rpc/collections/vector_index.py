"""Vector indexes and their quantizers, in requests and in responses."""

from service.domain import Distance, Quantizer, VectorIndex
from service.errors import Violations
from service.rpc.collections.parameters import parse_parameters
from service.weaviate_names import parameters_to_pb
from vecgate.v1 import vector_index_pb2 as pb

QUANTIZERS = {"hnsw": ("rq", "bq", "pq", "sq", "none"), "flat": ("rq", "bq", "none"), "hfresh": ("rq",)}
BITS = {"hnsw": (1, 4, 8), "flat": (1, 8), "hfresh": (1,)}
FLAT_ONLY = {"rq": ("cache",), "bq": ("cache", "rescore_limit")}
HFRESH_DISTANCES = (None, Distance.COSINE, Distance.L2_SQUARED)
DISTANCES = {distance: pb.Distance.Value(f"DISTANCE_{distance.name}") for distance in Distance}
DISTANCES_FROM_PB = {number: distance for distance, number in DISTANCES.items()}
INDEX_TYPES = frozenset(field.name for field in pb.VectorIndex.DESCRIPTOR.oneofs_by_name["type"].fields)
QUANTIZER_TYPES = frozenset(field.name for field in pb.Quantizer.DESCRIPTOR.oneofs_by_name["type"].fields)


def parse_index(
    violations: Violations, message: pb.VectorIndex, path: str, default: str
) -> tuple[VectorIndex, Distance | None]:
    """Return an index, with an empty type where the request sets none, and its distance.

    Args:
        violations: where to note what is wrong.
        message: the index.
        path: where it is in the request.
        default: the type of an index that sets none; empty where it is not known.
    """
    given = message.WhichOneof("type") or ""
    type_ = given or default
    parameters = parse_parameters(violations, getattr(message, given), f"{path}.{given}") if given else {}
    distance = DISTANCES_FROM_PB.get(message.distance)
    known = message.distance == pb.DISTANCE_UNSPECIFIED or distance is not None
    violations.require(known, f"{path}.distance", f"{message.distance} is not a Distance that this server knows")
    fits = type_ != "hfresh" or distance in HFRESH_DISTANCES
    violations.require(fits, f"{path}.distance", "hfresh supports cosine and l2-squared only")
    quantizer = flat_quantizer = None
    if message.HasField("quantizer"):
        kind = "hnsw" if type_ == "dynamic" else type_
        quantizer = _parse_quantizer(violations, message.quantizer, kind, f"{path}.quantizer")
    if message.dynamic.HasField("flat_quantizer"):
        where = f"{path}.dynamic.flat_quantizer"
        flat_quantizer = _parse_quantizer(violations, message.dynamic.flat_quantizer, "flat", where)
    return VectorIndex(given, parameters, quantizer, flat_quantizer), distance


def _parse_quantizer(violations: Violations, message: pb.Quantizer, index: str, path: str) -> Quantizer | None:
    type_ = message.WhichOneof("type")
    if type_ is None:
        violations.add(path, "is empty; set one of rq, bq, pq, sq and none")
        return None
    given = getattr(message, type_)
    quantizer = Quantizer(type_, parse_parameters(violations, given, f"{path}.{type_}"))
    if not index:
        return quantizer
    if type_ not in QUANTIZERS[index]:
        allowed = " or ".join(QUANTIZERS[index])
        violations.add(f"{path}.{type_}", f"an index of type {index} does not support it; give {allowed}")
        return quantizer
    if type_ == "rq" and message.rq.HasField("bits"):
        fits, bits = message.rq.bits in BITS[index], " or ".join(map(str, BITS[index]))
        violations.require(fits, f"{path}.rq.bits", f"is {message.rq.bits}; {index} supports {bits}")
    if index != "flat":
        for name in FLAT_ONLY.get(type_, ()):
            set_ = given.HasField(name)
            violations.require(not set_, f"{path}.{type_}.{name}", "is a parameter of flat indexes only")
    return quantizer


def index_to_pb(index: VectorIndex, distance: Distance | None, message: pb.VectorIndex) -> None:
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


def _quantizer_to_pb(quantizer: Quantizer | None, message: pb.Quantizer) -> None:
    if quantizer is not None and quantizer.type in QUANTIZER_TYPES:
        inner = getattr(message, quantizer.type)
        inner.SetInParent()
        parameters_to_pb(quantizer.parameters, inner)
