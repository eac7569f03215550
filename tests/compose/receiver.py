"""An OTLP receiver in a container: prints trace, service and name of every span as a line of JSON."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans."""

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the contract's name
        """Print them."""
        for resource in request.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    line = {"trace": span.trace_id.hex(), "service": names["service.name"], "name": span.name}
                    print(json.dumps(line), flush=True)
        return trace_service_pb2.ExportTraceServiceResponse()


def main() -> None:
    """Serve until the container ends."""
    # One after the other: lines of two calls at the same time would mingle.
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port("0.0.0.0:4317")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
