"""Starting and stopping tracing. What is sampled and where spans go is set by OpenTelemetry's variables (OTEL_*)."""

import asyncio
import os
from importlib.metadata import version
from typing import TYPE_CHECKING

from embedders.telemetry.tracing import use_tracer
from service.settings import InvalidSettings, trace_collector

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


class Tracing:
    """Sends the spans of this process to a collector from its own thread. While a collector is down, spans are lost."""

    def __init__(self) -> None:
        """Begin tracing, if the environment names a collector.

        Raises:
            InvalidSettings: OpenTelemetry does not take its variables.
        """
        self._provider: TracerProvider | None = None
        if trace_collector(os.environ) is not None:
            try:
                self._provider = _send_spans()
            except Exception as error:
                raise InvalidSettings(f"OpenTelemetry's variables (OTEL_*) cannot be used: {error}") from error
            use_tracer(self._provider.get_tracer("vecgate", version("vecgate")))

    async def close(self) -> None:
        """Send what is left, within the exporter's timeout, and stop tracing. May be called twice."""
        use_tracer(None)
        provider, self._provider = self._provider, None
        if provider is not None:
            await asyncio.to_thread(provider.shutdown)


def _send_spans() -> "TracerProvider":
    # Here and not above: loading them takes a twentieth of the start, and most servers have no collector.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    ours = Resource.create({"service.version": version("vecgate"), "service.name": "vecgate"})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
