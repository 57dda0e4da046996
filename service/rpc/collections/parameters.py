"""Parameters in a request: of indexes, quantizers, replication, sharding and the inverted index, and their bounds."""

from collections.abc import Collection
from typing import Any

from google.protobuf.message import Message

from service.errors import Violations
from service.weaviate_names import parameters_from_pb

MOST_INT32, MOST_INT64 = 2**31 - 1, 2**63 - 1

BOUNDS: dict[str, tuple[float, float]] = {
    "HnswIndex.ef_construction": (4, MOST_INT32),
    "HnswIndex.max_connections": (4, 2047),
    "HnswIndex.ef": (-1, MOST_INT32),
    "HnswIndex.dynamic_ef_min": (1, MOST_INT32),
    "HnswIndex.dynamic_ef_max": (1, MOST_INT32),
    "HnswIndex.dynamic_ef_factor": (1, MOST_INT32),
    "HnswIndex.vector_cache_max_objects": (0, MOST_INT64),
    "HnswIndex.flat_search_cutoff": (0, MOST_INT32),
    "HnswIndex.cleanup_interval_seconds": (0, MOST_INT32),
    "FlatIndex.vector_cache_max_objects": (0, MOST_INT64),
    "DynamicIndex.threshold": (1, MOST_INT64),
    "HfreshIndex.max_posting_size_kb": (8, 1024),
    "HfreshIndex.replicas": (1, 10),
    "HfreshIndex.search_probe": (1, MOST_INT32),
    "RotationalQuantizer.rescore_limit": (-1, MOST_INT32),
    "BinaryQuantizer.rescore_limit": (-1, MOST_INT32),
    "ScalarQuantizer.rescore_limit": (-1, MOST_INT32),
    "ScalarQuantizer.training_limit": (1, MOST_INT32),
    "ProductQuantizer.segments": (0, MOST_INT32),
    "ProductQuantizer.centroids": (2, 256),
    "ProductQuantizer.training_limit": (1, MOST_INT32),
    "ReplicationConfig.factor": (1, MOST_INT32),
    "ShardingConfig.desired_count": (1, MOST_INT32),
    "ShardingConfig.virtual_per_physical": (1, MOST_INT32),
    "InvertedIndexConfig.cleanup_interval_seconds": (0, MOST_INT32),
    # A hundred years; Weaviate counts nanoseconds in 64 bits.
    "ObjectTtlConfig.default_ttl_seconds": (-3_155_760_000, 3_155_760_000),
    "Bm25Config.b": (0, 1),
    "Bm25Config.k1": (0, 1e6),
}
"""The least and the most of a field."""


def parse_parameters(violations: Violations, message: Message, path: str, only: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields that are set by Weaviate's names, and note every one that is out of its bounds.

    Args:
        violations: where to note.
        message: the parameters.
        path: where the message is in its request.
        only: Weaviate's names of the fields to return; empty for all.
    """

    def check(where: str, field: Any, value: Any) -> None:
        name = f"{field.containing_type.name}.{field.name}"
        if field.enum_type is not None:
            known = value in field.enum_type.values_by_number
            violations.require(known, where, f"{value} is not a value of {field.enum_type.name} that this server knows")
        elif name in BOUNDS:
            least, most = BOUNDS[name]
            # NaN fails this comparison, too.
            violations.require(least <= value <= most, where, f"is {value}; give {least:g} to {most:.10g}")
            violations.require(name != "HnswIndex.ef" or value, where, "is 0; give at least 1, or -1")

    return parameters_from_pb(message, only, path=path, check=check)
