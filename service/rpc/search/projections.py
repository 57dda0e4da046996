"""ProjectObjects: its request becomes a projection of the domain, and a map its response."""

from collections.abc import Sequence
from typing import cast

import numpy as np
from google.protobuf import struct_pb2

from embedders.contract import TextInput
from service.core.pacing import Pace
from service.core.projecting.projector import ProjectionResult
from service.domain import Part, Projection, ProjectionMethod, PropertyValue
from service.errors import Violations, collecting
from service.rpc.embedding import input_from_pb
from service.rpc.shared.bounds import RequestLimits
from service.rpc.shared.filters import parse_filter
from service.rpc.shared.requests import embedder_to_pb, parse_scope
from vecgate.v1 import search_service_pb2 as pb

DEFAULT_SAMPLE = 2000
MAX_SAMPLE = 5000
METHODS: "dict[pb.ProjectionMethod.ValueType, ProjectionMethod]" = {
    pb.PROJECTION_METHOD_UNSPECIFIED: ProjectionMethod.PCA,
    pb.PROJECTION_METHOD_PCA: ProjectionMethod.PCA,
    pb.PROJECTION_METHOD_UMAP: ProjectionMethod.UMAP,
}
NUMBERS = {method: number for number, method in METHODS.items()}


def parse_projection(request: pb.ProjectObjectsRequest, limits: RequestLimits) -> Projection:
    """Return what to draw; names are not checked, which needs the collection, nor texts and images.

    Raises:
        InvalidRequest: with all violations.
    """
    filters, size = None, request.sample_size
    with collecting() as violations:
        scope = parse_scope(violations, request)
        fits = 0 <= size <= MAX_SAMPLE
        violations.require(fits, "sample_size", f"is {size}; give 0 (for {DEFAULT_SAMPLE}) to {MAX_SAMPLE}")
        method = METHODS.get(request.method)
        violations.require(method, "method", f"{request.method} is not a ProjectionMethod of this version")
        if request.HasField("filters"):
            filters = parse_filter(request.filters, limits, violations)
        for index, name in enumerate(request.properties):
            violations.require(name, f"properties[{index}]", "is empty; name a property")
        inputs = _parts(request, violations)
    assert method is not None
    properties = tuple(request.properties)
    size = size or DEFAULT_SAMPLE
    return Projection(request.collection, size, method, request.target_vector, filters, properties, inputs, scope)


def _parts(request: pb.ProjectObjectsRequest, violations: Violations) -> tuple[Part, ...]:
    parts = []
    for index, message in enumerate(request.inputs):
        path, content = f"inputs[{index}]", input_from_pb(message, truncate=request.truncate)
        if content is None:
            violations.add(path, "has no content; set text, image or text_image")
            content = TextInput("")
        field = {"text": ".text", "image": ".image.content", "text_image": ".text_image"}
        parts.append(Part(path + field.get(message.WhichOneof("content") or "", ""), content))
    return tuple(parts)


async def projection_to_pb(result: ProjectionResult) -> pb.ProjectObjectsResponse:
    """Return the response for a map."""
    drawn, target = result.map, result.map.target
    response = pb.ProjectObjectsResponse(
        embedder=None if result.embedder is None else embedder_to_pb(result.embedder),
        target_vector=target.name,
        space="" if target.space is None else target.space.id,
        coordinates=np.ascontiguousarray(drawn.points, "<f4").tobytes(),
        inputs=[pb.PlacedInput(x=each.x, y=each.y, nearest=each.nearest) for each in result.inputs],
        method=NUMBERS[result.method],
        explained_variance=drawn.explained or (),
        total_count=drawn.total,
        missing_count=drawn.missing,
    )
    pace = Pace()
    for each in drawn.ids:
        response.ids.append(str(each))
        await pace.step()
    for name, values in drawn.values.items():
        await _fill(response.properties.add(name=name), values, pace)
    return response


async def _fill(column: pb.PropertyValues, values: Sequence[PropertyValue], pace: Pace) -> None:
    for value in values:
        # ListValue.append does the same, in Python and in four times the time.
        message = column.values.values.add()
        match value:
            case None:
                message.null_value = struct_pb2.NULL_VALUE
            case str():
                message.string_value = value
            case bool():
                message.bool_value = value
            case int() | float():
                message.number_value = value
            case list():
                message.list_value.extend(cast("list[str]", value))
        await pace.step()
