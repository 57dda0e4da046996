"""Checks of OpenTelemetry's own variables (OTEL_*), which its SDK reads and which set all of tracing."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
CERTIFICATES = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")
TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
COMPRESSIONS = ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")
BATCHES = {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": 512, "OTEL_BSP_MAX_QUEUE_SIZE": 2048}
"""The variables of how many spans are sent together and wait, with OpenTelemetry's defaults."""
COUNTS = {**BATCHES, "OTEL_BSP_SCHEDULE_DELAY": 5000, "OTEL_BSP_EXPORT_TIMEOUT": 30_000}


class Collector(NamedTuple):
    """Where spans are sent, and the variable that says so."""

    endpoint: str
    variable: str


def trace_collector(environment: Mapping[str, str]) -> Collector | None:
    """Return where spans are sent; None, the default, for nowhere."""
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    variable = _first(environment, ENDPOINTS)
    if variable is None or off or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    return Collector(environment[variable], variable)


def tracing_faults(environment: Mapping[str, str]) -> list[str]:
    """Return what is wrong with the variables of tracing, a line each, without endpoints: they may hold passwords."""
    collector = trace_collector(environment)
    if collector is None:
        return []
    faults = []
    if not _is_address(collector.endpoint):
        faults.append(f"{collector.variable}: must be http://HOST:PORT or https://HOST:PORT, without user and path")
    protocol = _first(environment, PROTOCOLS)
    if protocol is not None and environment[protocol] != "grpc":
        faults.append(f"{protocol}: must be grpc, the one protocol that Vecgate sends spans by")
    certificate = _first(environment, CERTIFICATES)
    if certificate is not None:
        try:
            Path(environment[certificate]).read_bytes()
        except OSError as error:
            faults.append(f"{certificate}: {environment[certificate]} cannot be read: {error.strerror}")
    # Of these, OpenTelemetry takes no empty ones.
    timeout = next((name for name in TIMEOUTS if name in environment), None)
    if timeout is not None and not _is_number(environment[timeout]):
        faults.append(f"{timeout}: must be a number of seconds, such as 10")
    compression = next((name for name in COMPRESSIONS if name in environment), None)
    if compression is not None and environment[compression].strip().lower() != "gzip":
        faults.append(f"{compression}: must be gzip; without it, spans are not compressed")
    return [*faults, *_count_faults(environment)]


def _count_faults(environment: Mapping[str, str]) -> Iterator[str]:
    counts = {}
    for name, usual in COUNTS.items():
        counts[name] = _count(environment.get(name, str(usual)))
        if counts[name] is None:
            yield f"{name}: must be a whole number above 0, such as {usual}"
    (one, batch), (other, queue) = ((name, counts[name]) for name in BATCHES)
    if batch is not None and queue is not None and batch > queue:
        yield f"{one}: is {batch}, and {other} is {queue}: lower the one or raise the other"


def _count(text: str) -> int | None:
    try:
        return count if (count := int(text)) > 0 else None
    except ValueError:
        return None


def _is_number(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """Return the first variable that is set; an empty one counts as not set."""
    return next((name for name in names if environment.get(name)), None)


def _is_address(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port is not None
    except ValueError:
        return False
    return usable and "@" not in parts.netloc and not (parts.path.strip("/") or parts.query or parts.fragment)
