"""OpenTelemetry: one provider a process, W3C context, spans that link to work begun earlier."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from qcontroller.settings.v1.settings_pb2 import TelemetrySettings


@contextmanager
def telemetry(service: str, settings: TelemetrySettings) -> Iterator[TracerProvider]:
    """Install the process's tracer provider; on leaving, send what is still buffered.

    Spans are made in any case, so that logs and problems carry trace ids; they are exported only where
    `settings` names an endpoint.
    """
    provider = TracerProvider(
        resource=Resource.create({"service.name": service, "service.namespace": "qcontroller"})
    )
    if settings.otlp_endpoint:
        exporter = OTLPSpanExporter(
            endpoint=settings.otlp_endpoint, insecure=settings.otlp_endpoint.startswith("http:"), timeout=5
        )
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=500))
    trace.set_tracer_provider(provider)
    try:
        yield provider
    finally:
        provider.shutdown()


def current_traceparent() -> str:
    """Return the current span as a W3C traceparent, or "" outside any span."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


def context_of(traceparent: str) -> Context:
    """Return the context to start a span in that continues the trace of `traceparent`."""
    return propagate.extract({"traceparent": traceparent} if traceparent else {}, context=Context())


def links_of(traceparent: str) -> list[trace.Link]:
    """Return the link to the span of `traceparent`; none if it is empty or unreadable."""
    span_context = trace.get_current_span(context_of(traceparent)).get_span_context()
    return [trace.Link(span_context)] if span_context.is_valid else []


def trace_id_of(traceparent: str) -> str:
    """Return the 32 hex digits of `traceparent`'s trace, or ""."""
    span_context = trace.get_current_span(context_of(traceparent)).get_span_context()
    return trace.format_trace_id(span_context.trace_id) if span_context.is_valid else ""
