"""What can be said of a request to EmbeddingService by itself."""

from service.validation.violations import RequestLimits, Violations, check_count
from vecgate.v1 import embedding_service_pb2 as embedding_pb

__all__ = ["check_embed_inputs"]

# Each call of values() makes a list.
PURPOSES = frozenset(embedding_pb.Purpose.values())
PRIORITIES = frozenset(embedding_pb.Priority.values())


def check_embed_inputs(request: embedding_pb.EmbedInputsRequest, limits: RequestLimits) -> None:
    """Check an EmbedInputsRequest, but for its inputs, which fail alone.

    Raises:
        InvalidRequest: with all violations.
    """
    violations = Violations()
    check_count(violations, len(request.inputs), limits.max_inputs, "inputs", "inputs")
    known = request.purpose in PURPOSES
    violations.require(known, "purpose", f"{request.purpose} is no Purpose that this server knows")
    known = request.priority in PRIORITIES
    violations.require(known, "priority", f"{request.priority} is no Priority that this server knows")
    violations.raise_if_any()
