"""Spans of operations and their link to the request that submitted them.

It owns the names of spans; it uses OpenTelemetry's API alone, so nothing happens without an SDK.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Link, Span, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from controller.operations.operation import Operation


@contextmanager
def operation_span(tracer: Tracer, operation: Operation) -> Iterator[Span]:
    """Open the span of one claim: in the request's trace, and linked to it since it outlives the request."""
    parent = TraceContextTextMapPropagator().extract({"traceparent": operation.traceparent})
    submitted = trace.get_current_span(parent).get_span_context()
    attributes: dict[str, str | int] = {
        "qcontroller.operation.id": operation.id,
        "qcontroller.operation.kind": operation.kind,
        "qcontroller.operation.attempt": operation.attempt,
        "qcontroller.operation.subject": operation.subject,
    }
    links = [Link(submitted)] if submitted.is_valid else []
    with tracer.start_as_current_span(
        f"operation {operation.kind}",
        context=parent,
        links=links,
        attributes=attributes,
        record_exception=False,
    ) as span:
        yield span
