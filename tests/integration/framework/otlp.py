"""An OTLP receiver for tests: keeps every span that a stack exports."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True, slots=True)
class Span:
    """What the tests ask of a span."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    start_ns: int
    end_ns: int
    attributes: dict[str, str]


@dataclass(slots=True)
class Receiver:
    """The spans received so far."""

    endpoint: str
    spans: list[Span] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of_trace(self, trace_id: str) -> list[Span]:
        """Return the spans of one trace."""
        with self.lock:
            return [span for span in self.spans if span.trace_id == trace_id]


class _Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        with self._receiver.lock:
            for resource in request.resource_spans:
                attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self._receiver.spans.extend(
                        _span(attributes["service.name"], span) for span in scope.spans
                    )
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Receive on a free port of 127.0.0.1 for the length of the context."""
    server = grpc.server(ThreadPoolExecutor(4))
    port = server.add_insecure_port("127.0.0.1:0")
    received = Receiver(f"http://127.0.0.1:{port}")
    register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    register(_Collector(received), server)
    server.start()
    try:
        yield received
    finally:
        server.stop(1).wait()


def _span(service: str, span: Any) -> Span:
    return Span(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=tuple(link.span_id.hex() for link in span.links),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes={a.key: a.value.string_value for a in span.attributes},
    )
