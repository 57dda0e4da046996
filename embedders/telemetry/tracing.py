"""Spans, where tracing is on: OpenTelemetry's API, at next to no cost where it is off.

Names and attributes are those of OpenTelemetry's semantic conventions 1.44. No span holds what callers sent, and errors
are told by their class alone, because their words may repeat it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context as TaskContext

from opentelemetry import context as current
from opentelemetry.context import Context
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

PROPAGATION = TraceContextTextMapPropagator()
NOTHING: AbstractContextManager[Span] = nullcontext(INVALID_SPAN)

_tracer: Tracer | None = None


def use_tracer(tracer: Tracer | None) -> None:
    """Trace with a tracer from now on; None turns tracing off."""
    global _tracer  # noqa: PLW0603  # one process has one tracing, as it has one log
    _tracer = tracer


def active() -> bool:
    """Whether tracing is on."""
    return _tracer is not None


def span(
    name: str,
    attributes: Mapping[str, AttributeValue] | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: Context | None = None,
) -> AbstractContextManager[Span]:
    """Return what makes a span of the block inside; an error that leaves the block becomes the span's, by its class.

    Args:
        name: of few different ones.
        attributes: by semantic convention.
        kind: who is at the other end.
        parent: from `incoming`; the present span without it.
    """
    return NOTHING if _tracer is None else _record(_tracer, name, attributes, kind, parent)


@contextmanager
def _record(
    tracer: Tracer,
    name: str,
    attributes: Mapping[str, AttributeValue] | None,
    kind: SpanKind,
    parent: Context | None,
) -> Iterator[Span]:
    with tracer.start_as_current_span(
        name, parent, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as made:
        try:
            yield made
        except Exception as error:
            if kind is not SpanKind.SERVER:
                # What a server answers decides on its span, and an error may be the caller's own.
                fail(made, type(error).__qualname__)
            raise


def fail(failed: Span, what: str) -> None:
    """Mark a span as failed; `what` is a class or a code, never a message."""
    failed.set_attribute("error.type", what)
    failed.set_status(Status(StatusCode.ERROR))


def incoming(carrier: Mapping[str, str]) -> Context:
    """Return the context that a caller sent in its headers or metadata, empty if it sent none that can be read."""
    return PROPAGATION.extract(carrier, Context())


def outgoing() -> dict[str, str]:
    """Return the headers that hand the present context on; none where tracing is off."""
    carrier: dict[str, str] = {}
    if _tracer is not None:
        PROPAGATION.inject(carrier)
    return carrier


def here() -> Span | None:
    """Return the present span, None where there is none or tracing is off."""
    if _tracer is None:
        return None
    present = get_current_span()
    return present if present.get_span_context().is_valid else None


def trace_names(traced: Span) -> dict[str, str]:
    """Return what ties lines of the log to a span's trace; nothing where it has none."""
    identity = traced.get_span_context()
    return {"trace_id": f"{identity.trace_id:032x}"} if identity.is_valid else {}


class SharedSpan:
    """The span of work that calls share: a child of the first one's, with links between it and all of theirs."""

    def __init__(
        self, name: str, attributes: Mapping[str, AttributeValue], calls: Iterable[Span], task: TaskContext
    ) -> None:
        """Begin the span; what runs in the context `task` is a part of it."""
        assert _tracer is not None
        calls = list(dict.fromkeys(calls))
        # One that is not recorded would take the whole batch out of the traces of the others.
        parents = [each for each in calls if each.get_span_context().trace_flags.sampled]
        parent = set_span_in_context(parents[0], Context()) if parents else Context()
        links = [Link(each.get_span_context()) for each in calls]
        self._span = _tracer.start_span(name, parent, attributes=attributes, links=links)
        task.run(current.attach, set_span_in_context(self._span, Context()))
        for each in calls:
            each.add_link(self.context)

    @property
    def context(self) -> SpanContext:
        """The span's own identity."""
        return self._span.get_span_context()

    def end(self, error: BaseException | None, attributes: Mapping[str, AttributeValue]) -> None:
        """End the span; an error becomes its, by its class."""
        self._span.set_attributes(attributes)
        if error is not None:
            fail(self._span, type(error).__qualname__)
        self._span.end()
