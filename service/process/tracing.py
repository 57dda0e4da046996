"""Tracing's beginning and end: which spans are kept, and where they go."""

import asyncio
from importlib.metadata import version
from pathlib import Path

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from embedders.telemetry.tracing import use_tracer
from service.settings import InvalidSettings, TracingSettings

EXPORT_TIMEOUT_S = 5


class Tracing:
    """Sends the spans of this process to a collector, in a thread of its own; a collector that is down costs spans."""

    def __init__(self, settings: TracingSettings) -> None:
        """Begin tracing, if the settings name a collector.

        Raises:
            InvalidSettings: the file of authorities cannot be read.
        """
        self._provider: TracerProvider | None = None
        if settings.endpoint is None:
            return
        secure = settings.endpoint.startswith("https:")
        exporter = OTLPSpanExporter(
            endpoint=settings.endpoint,
            insecure=not secure,
            credentials=grpc.ssl_channel_credentials(_read(settings.ca_file)) if secure else None,
            timeout=EXPORT_TIMEOUT_S,
        )
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource=Resource.create({"service.name": settings.service_name, "service.version": version("vecgate")}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        use_tracer(self._provider.get_tracer("vecgate", version("vecgate")))

    async def close(self) -> None:
        """Send what is left, for a few seconds at most, and trace no more. May be called twice."""
        use_tracer(None)
        provider, self._provider = self._provider, None
        if provider is not None:
            await asyncio.to_thread(provider.shutdown)


def _read(ca_file: Path | None) -> bytes | None:
    try:
        return None if ca_file is None else ca_file.read_bytes()
    except OSError as error:
        raise InvalidSettings(f"tracing.ca_file {ca_file} cannot be read: {error.strerror}") from error
