"""The bounds of all requests in one table: elements of each list, and bytes of each string."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

from service.core.evaluating.summary import DIRECTIONS, MAX_SUMMARY_OBJECTS
from service.settings import LimitSettings

MAX_VALUES = 100_000
"""Values in the properties of all objects of a call: members of objects and items of lists, at any depth."""
MAX_OBJECT_VALUES = 10_000
"""Values in the properties of one object; an object with more fails alone."""
MAX_OBJECT_IMAGES = 1000
MAX_OBJECT_VECTORS = 100
"""An object with more images or vectors fails alone; a collection has at most so many properties and vectors."""
MAX_PROPERTIES_BYTES = 4 * 1024 * 1024
"""Bytes of one object's properties; an object with more fails alone."""

NAME_BYTES = 1024
"""Bytes of a string that the table does not name: names, ids, tokens."""
TEXT_BYTES = 1024 * 1024
"""Bytes of a text to embed. A text within this bound that is too long for the embedder fails alone."""
KEYWORDS_BYTES = 64 * 1024
IMAGE_BYTES = 32 * 1024 * 1024
"""Bytes of an image to embed, as for texts."""
URI_BYTES = 4 * 4096
"""Bytes of a URI of an image. One within this bound that is longer than 4096 characters fails alone."""
MAX_DIMENSION = 65_535
"""Weaviate's own bound."""
MAX_QUERIES = 1000
"""Queries of an evaluation: their values by 80 measures, of which a report has at most so many, are 320 kB."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds on one call; see the settings of the same names.

    Attributes:
        max_filter_depth: a filter is walked by recursion, and people write far flatter ones.
        max_filter_nodes: conditions, joins and listed values of a filter; Weaviate takes long for more.
    """

    max_inputs: int
    max_objects: int
    max_hits: int
    max_text_bytes: int
    max_image_bytes: int
    max_filter_depth: int = 16
    max_filter_nodes: int = 1000

    @classmethod
    def of(cls, settings: LimitSettings) -> Self:
        """Return the bounds that settings ask for."""
        return cls(**settings.model_dump(include={each.name for each in fields(cls)}))


class Bound(NamedTuple):
    """A maximum, and the ErrorReason of what exceeds it, without its prefix."""

    most: int
    reason: str = "INVALID_INPUT"


def list_bounds(limits: RequestLimits) -> Mapping[str, Bound]:
    """Return by message and field how many elements each list may have in a request, in all places together.

    A field that holds a Struct bounds the values in it.
    """
    inputs, objects = Bound(limits.max_inputs, "BATCH_TOO_LARGE"), Bound(limits.max_objects, "BATCH_TOO_LARGE")
    both_moves = Bound(2 * limits.max_inputs, "BATCH_TOO_LARGE")
    nodes = Bound(limits.max_filter_nodes)
    vectors, properties = Bound(100), Bound(1000)
    return {
        "EmbedInputsRequest.inputs": inputs,
        "Collection.properties": properties,
        "Property.nested_properties": properties,
        "Collection.vectors": vectors,
        "UpdateCollectionRequest.removed_vectors": vectors,
        "VectorConfig.image_fields": properties,
        "VectorConfig.text_fields": properties,
        "StopwordsConfig.additions": Bound(10_000),
        "StopwordsConfig.removals": Bound(10_000),
        "RerankerConfig.options": Bound(100),
        "FieldMask.paths": Bound(100),
        "CreateTenantsRequest.tenants": Bound(1000),
        "UpdateTenantsRequest.tenants": Bound(1000),
        "ListTenantsRequest.names": Bound(1000),
        "DeleteTenantsRequest.names": Bound(1000),
        "ImportObjectsRequest.objects": objects,
        "DataObject.properties": Bound(MAX_VALUES),
        "DataObject.images": Bound(10 * limits.max_objects),
        "DataObject.vectors": Bound(10 * limits.max_objects),
        "OutputFields.properties": properties,
        "OutputFields.images": properties,
        "OutputFields.vectors": vectors,
        "ListObjectsRequest.sort": Bound(100),
        "BackfillVectorsRequest.vectors": vectors,
        "SearchObjectsRequest.target_vectors": vectors,
        "SearchObjectsRequest.target_weights": vectors,
        "ProjectObjectsRequest.properties": Bound(20),
        "ProjectObjectsRequest.inputs": Bound(20, "BATCH_TOO_LARGE"),
        "EvaluateCollectionRequest.systems": Bound(20),
        "EvaluatedSystem.target_weights": Bound(120),
        "EvaluatedSystem.field_weights": Bound(400),
        "EvaluationReport.systems": Bound(20),
        "EvaluationReport.vectors": Bound(20),
        "SystemResult.measures": Bound(80),
        "WrittenQueries.queries": Bound(MAX_QUERIES, "BATCH_TOO_LARGE"),
        "WrittenQuery.answers": Bound(20_000),
        "NearVector.target_vectors": vectors,
        "NearText.concepts": inputs,
        "Move.concepts": both_moves,
        "Move.objects": both_moves,
        "NearInputs.inputs": inputs,
        "Bm25.properties": properties,
        "FilterList.filters": nodes,
        "Condition.references": nodes,
        "TextValues.values": nodes,
        "IntegerValues.values": nodes,
        "NumberValues.values": nodes,
        "BooleanValues.values": nodes,
    }


def string_bounds(limits: RequestLimits) -> Mapping[str, Bound]:
    """Return by message and field how many bytes each string or message may have, except names."""
    text = Bound(max(TEXT_BYTES, limits.max_text_bytes), "TEXT_TOO_LONG")
    keywords = Bound(max(KEYWORDS_BYTES, limits.max_text_bytes), "TEXT_TOO_LONG")
    return {
        "Input.text": text,
        "TextImage.text": text,
        "NearText.concepts": text,
        "Move.concepts": text,
        "WeightedInput.text": text,
        "Bm25.query": keywords,
        "Rerank.query": keywords,
        "Image.content": Bound(max(IMAGE_BYTES, limits.max_image_bytes), "IMAGE_TOO_LARGE"),
        "Image.uri": Bound(URI_BYTES, "IMAGE_URI_NOT_ALLOWED"),
        "Vector.data": Bound(4 * MAX_DIMENSION, "INVALID_VECTOR"),
        "EvaluationReport.query_digest": Bound(16),
        "EvaluationReport.query_digests": Bound(8 * MAX_QUERIES),
        "MeasuredEstimate.values": Bound(4 * MAX_QUERIES),
        "VectorSummary.centre": Bound(4 * MAX_DIMENSION),
        "VectorSummary.digests": Bound(8 * MAX_SUMMARY_OBJECTS),
        "VectorSummary.lengths": Bound(4 * MAX_SUMMARY_OBJECTS),
        "VectorSummary.projections": Bound(4 * MAX_SUMMARY_OBJECTS * DIRECTIONS),
        "Collection.description": Bound(KEYWORDS_BYTES),
        "Property.description": Bound(4096),
        "VectorConfig.base_url": Bound(4096),
        "RerankerConfig.options": Bound(KEYWORDS_BYTES),
        "FilterValue.text": Bound(16 * 1024),
        "TextValues.values": Bound(16 * 1024),
    }


def max_fields(limits: RequestLimits) -> int:
    """Return how many fields a request may have, including those of all messages in it."""
    return 5 * MAX_VALUES + 20 * (limits.max_objects + limits.max_inputs)
