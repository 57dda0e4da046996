"""Bounds of the parameters of a collection: index, quantizer, replication, sharding, inverted index."""

from google.protobuf.message import Message

from service.rpc.shared.violations import Violations

MOST_INT32, MOST_INT64 = 2**31 - 1, 2**63 - 1

# By message and field: least and most.
BOUNDS: dict[tuple[str, str], tuple[float, float]] = {
    ("HnswIndex", "ef_construction"): (4, MOST_INT32),
    ("HnswIndex", "max_connections"): (4, 2047),
    ("HnswIndex", "ef"): (-1, MOST_INT32),
    ("HnswIndex", "dynamic_ef_min"): (1, MOST_INT32),
    ("HnswIndex", "dynamic_ef_max"): (1, MOST_INT32),
    ("HnswIndex", "dynamic_ef_factor"): (1, MOST_INT32),
    ("HnswIndex", "vector_cache_max_objects"): (0, MOST_INT64),
    ("HnswIndex", "flat_search_cutoff"): (0, MOST_INT32),
    ("HnswIndex", "cleanup_interval_seconds"): (0, MOST_INT32),
    ("FlatIndex", "vector_cache_max_objects"): (0, MOST_INT64),
    ("DynamicIndex", "threshold"): (1, MOST_INT64),
    ("HfreshIndex", "max_posting_size_kb"): (8, 1024),
    ("HfreshIndex", "replicas"): (1, 10),
    ("HfreshIndex", "search_probe"): (1, MOST_INT32),
    ("RotationalQuantizer", "rescore_limit"): (-1, MOST_INT32),
    ("BinaryQuantizer", "rescore_limit"): (-1, MOST_INT32),
    ("ScalarQuantizer", "rescore_limit"): (-1, MOST_INT32),
    ("ScalarQuantizer", "training_limit"): (1, MOST_INT32),
    ("ProductQuantizer", "segments"): (0, MOST_INT32),
    ("ProductQuantizer", "centroids"): (2, 256),
    ("ProductQuantizer", "training_limit"): (1, MOST_INT32),
    ("ReplicationConfig", "factor"): (1, MOST_INT32),
    ("ShardingConfig", "desired_count"): (1, MOST_INT32),
    ("ShardingConfig", "virtual_per_physical"): (1, MOST_INT32),
    ("InvertedIndexConfig", "cleanup_interval_seconds"): (0, MOST_INT32),
    ("Bm25Config", "b"): (0, 1),
    ("Bm25Config", "k1"): (0, 1e6),
}


def check_parameters(violations: Violations, message: Message, path: str) -> None:
    """Note every field that is set and out of its bounds, in messages within, too."""
    for field, value in message.ListFields():
        where = f"{path}.{field.name}"
        key = (message.DESCRIPTOR.name, field.name)
        if isinstance(value, Message):
            check_parameters(violations, value, where)
        elif field.enum_type is not None:
            known = value in field.enum_type.values_by_number
            violations.require(known, where, f"{value} is no {field.enum_type.name} that this server knows")
        elif key in BOUNDS:
            least, most = BOUNDS[key]
            # Comparing so refuses NaN too.
            violations.require(least <= value <= most, where, f"is {value}; give {least:g} to {most:.10g}")
            violations.require(key != ("HnswIndex", "ef") or value, where, "is 0; give at least 1, or -1")
