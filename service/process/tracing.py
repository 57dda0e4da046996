"""Starting and stopping tracing. What is sampled and where spans go is set by OpenTelemetry's variables (OTEL_*)."""

import asyncio
import os
from typing import TYPE_CHECKING

from embedders.telemetry.tracing import use_tracer
from service.settings import InvalidSettings, trace_collector

if TYPE_CHECKING:
    from service.process import spans


class Tracing:
    """Sends the spans of this process to a collector from its own thread. While a collector is down, spans are lost."""

    def __init__(self) -> None:
        """Begin tracing, if the environment names a collector.

        Raises:
            InvalidSettings: OpenTelemetry does not take its variables.
        """
        self._sending: spans.Sending | None = None
        if trace_collector(os.environ) is not None:
            try:
                # Here and not above: loading OpenTelemetry takes a twentieth of the start, and most have no collector.
                from service.process.spans import Sending  # noqa: PLC0415

                self._sending = Sending()
            except Exception as error:
                raise InvalidSettings(f"OpenTelemetry's variables (OTEL_*) cannot be used: {error}") from error
            use_tracer(self._sending.tracer)

    async def close(self) -> None:
        """Send what is left, within about a second, and stop tracing. May be called twice."""
        use_tracer(None)
        sending, self._sending = self._sending, None
        if sending is not None:
            await asyncio.to_thread(sending.close)
