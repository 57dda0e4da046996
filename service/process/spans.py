"""Spans on their way to a collector, by OpenTelemetry's SDK, which its own variables (OTEL_*) set."""

import threading
from collections.abc import Sequence
from importlib.metadata import version

import structlog
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

log = structlog.get_logger(__name__)

CLOSE_S = 1.0
"""Seconds that the last spans have. A collector that answers takes milliseconds; for one that does not answer, the SDK
would wait longer than the whole shutdown may take."""


class Sending:
    """Sends spans to the collector, from its own thread.

    Raises:
        ValueError: OpenTelemetry does not take its variables.

    Attributes:
        tracer: begins them.
    """

    def __init__(self) -> None:
        ours = Resource.create({"service.version": version("vecgate"), "service.name": "vecgate"})
        self._exporter = _Exporter()
        self._provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self.tracer = self._provider.get_tracer("vecgate", version("vecgate"))

    def close(self) -> None:
        """Send what is left, and say how many spans were lost since the start. Blocks for about CLOSE_S at most."""
        end = threading.Timer(CLOSE_S, self._exporter.shutdown)
        end.start()
        try:
            self._provider.shutdown()
        finally:
            end.cancel()
            end.join()
        if self._exporter.lost:
            log.warning("spans_lost", spans=self._exporter.lost, reason="the collector did not take them")


class _Exporter(SpanExporter):
    """Sends spans by OTLP until it is shut down, which also ends what it sends at the time.

    Attributes:
        lost: how many spans did not arrive.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._inner = OTLPSpanExporter()
        self._closed = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, and try again while the collector cannot be reached."""
        result = SpanExportResult.FAILURE if self._closed.is_set() else self._inner.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self.lost += len(spans)
        return result

    def shutdown(self) -> None:
        """Send nothing more. May be called twice."""
        if not self._closed.is_set():
            self._closed.set()
            self._inner.shutdown()
