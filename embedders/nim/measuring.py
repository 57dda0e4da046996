"""What a request to a NIM leaves in the metrics and in its caller's trace."""

from collections.abc import Awaitable
from http import HTTPStatus

from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue

from embedders.nim.connection import Answer
from embedders.telemetry import tracing
from embedders.telemetry.metrics import NIM_ANSWERS, NIM_RETRIES


async def measure(asked: Awaitable[Answer], *, embedder: str, host: str, method: str, path: str, tries: int) -> Answer:
    """Return a request's answer, counted and traced.

    Args:
        asked: the request, not sent yet.
        embedder: the name of the embedder that sends it.
        host: of the NIM.
        method: HTTP's.
        path: behind the base URL.
        tries: requests before it for the same inputs.
    """
    status = "none"
    attributes: dict[str, AttributeValue] = {"http.request.method": method, "server.address": host}
    if tries:
        NIM_RETRIES.labels(embedder).inc()
        attributes["http.request.resend_count"] = tries
    try:
        with tracing.span(f"{method} {path}", attributes, kind=SpanKind.CLIENT) as span:
            answer = await asked
            status = f"{answer.status // 100}xx"
            span.set_attribute("http.response.status_code", answer.status)
            if answer.status >= HTTPStatus.BAD_REQUEST:
                tracing.fail(span, str(answer.status))
            return answer
    finally:
        NIM_ANSWERS.labels(embedder, status).inc()
