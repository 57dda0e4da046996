"""Spans by OpenTelemetry's API, at almost no cost while tracing is off.

Names and attributes follow OpenTelemetry's semantic conventions 1.44. No span holds what callers sent; errors are
recorded by class only, because their messages may quote it.
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
    """Set the tracer; None turns tracing off."""
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
    """Return a context manager that makes a span of its block, with the class of an error that leaves it.

    Args:
        name: of low cardinality.
        attributes: by semantic convention.
        kind: the span's kind.
        parent: from `incoming`; the current span by default.
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
                # A server's span fails by its answer, and an error may be the caller's fault.
                fail(made, type(error).__qualname__)
            raise


def fail(failed: Span, what: str) -> None:
    """Mark a span as failed; `what` is a class or a code, never a message."""
    failed.set_attribute("error.type", what)
    failed.set_status(Status(StatusCode.ERROR))


def incoming(carrier: Mapping[str, str]) -> Context:
    """Return the context in a caller's headers or metadata, empty if there is no valid one."""
    return PROPAGATION.extract(carrier, Context())


def outgoing() -> dict[str, str]:
    """Return the headers that propagate the current context; none while tracing is off."""
    carrier: dict[str, str] = {}
    if _tracer is not None:
        PROPAGATION.inject(carrier)
    return carrier


def here() -> Span | None:
    """Return the current span; None if there is none or tracing is off."""
    if _tracer is None:
        return None
    present = get_current_span()
    return present if present.get_span_context().is_valid else None


def trace_names(traced: Span) -> dict[str, str]:
    """Return the fields that tie log lines to a span's trace; empty if it has none."""
    if _tracer is None:
        return {}
    identity = traced.get_span_context()
    return {"trace_id": f"{identity.trace_id:032x}"} if identity.is_valid else {}


class SharedSpan:
    """The span of work that calls share: a child of the first call's span, linked with the spans of all."""

    def __init__(
        self, name: str, attributes: Mapping[str, AttributeValue], calls: Iterable[Span], task: TaskContext
    ) -> None:
        """Begin the span; the code that runs in the context `task` belongs to it."""
        assert _tracer is not None
        calls = list(dict.fromkeys(calls))
        # An unsampled parent would remove the batch from the traces of the others.
        parents = [each for each in calls if each.get_span_context().trace_flags.sampled]
        parent = set_span_in_context(parents[0], Context()) if parents else Context()
        links = [Link(each.get_span_context()) for each in calls]
        self._span = _tracer.start_span(name, parent, attributes=attributes, links=links)
        task.run(current.attach, set_span_in_context(self._span, Context()))
        for each in calls:
            each.add_link(self.context)

    @property
    def context(self) -> SpanContext:
        """The span's identity."""
        return self._span.get_span_context()

    def end(self, error: BaseException | None, attributes: Mapping[str, AttributeValue]) -> None:
        """End the span, with the class of the error, if any."""
        self._span.set_attributes(attributes)
        if error is not None:
            fail(self._span, type(error).__qualname__)
        self._span.end()
