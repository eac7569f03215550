"""One trace from the client's request to the agent's first answer, across all services."""

import secrets

import pytest
from framework import guests, otlp
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, document
from framework.stack import eventually, running_stack

PHASES = {"kernel", "userspace", "agent"}


@pytest.fixture(scope="module")
def launch_trace() -> list[otlp.Span]:
    """The spans of one launch that was sent with a traceparent of the client's own."""
    trace_id, client_span = secrets.token_hex(16), secrets.token_hex(8)
    with otlp.receiver() as receiver, running_stack("qc-otlp-", otlp_endpoint=receiver.endpoint) as stack:
        with BlockingApiClient(stack.base_url) as api:
            cloud = Cloud(stack, api)
            cloud.upload("tiny", guests.tiny())
            response = api.request(
                "POST",
                "/v1/instances",
                json={
                    "name": "traced-1",
                    "image": "tiny",
                    "vm": {"cpus": 1, "memory": "256M"},
                    "start": True,
                },
                headers={"traceparent": f"00-{trace_id}-{client_span}-01"},
            )
            assert response.status_code == 202, response.text
            assert document(response)["traceId"] == trace_id
            cloud.wait_ready("traced-1")
            eventually(
                lambda: (
                    {f"boot {phase}" for phase in PHASES}
                    <= {span.name for span in receiver.of_trace(trace_id)}
                ),
                "the boot phases are exported",
            )
            cloud.delete("traced-1")
        return receiver.of_trace(trace_id)


def test_the_trace_reaches_every_service(launch_trace: list[otlp.Span]) -> None:
    assert {span.service for span in launch_trace} >= {"gateway", "controller", "image-store", "qemu-runner"}


def test_every_span_hangs_on_the_clients_request(launch_trace: list[otlp.Span]) -> None:
    by_id = {span.span_id: span for span in launch_trace}
    roots = {span.parent_id for span in launch_trace if span.parent_id not in by_id}
    assert len(roots) == 1, [f"{s.service}: {s.name}" for s in launch_trace if s.parent_id not in by_id]


def test_the_work_after_the_answer_is_linked_to_the_request(launch_trace: list[otlp.Span]) -> None:
    (operation,) = [span for span in launch_trace if span.name == "operation launch"]
    assert operation.links
    steps = [span for span in launch_trace if span.parent_id == operation.span_id]
    assert len(steps) >= 3, "pin, prepare and start are steps of their own"


def test_boot_phases_are_spans_with_the_guests_times(launch_trace: list[otlp.Span]) -> None:
    phases = {span.name.removeprefix("boot "): span for span in launch_trace if span.name.startswith("boot ")}
    assert set(phases) >= PHASES
    assert phases["kernel"].start_ns < phases["userspace"].start_ns <= phases["agent"].start_ns
    assert all(span.end_ns >= span.start_ns for span in phases.values())


def test_requests_of_one_connection_are_traces_of_their_own(cloud: Cloud) -> None:
    cloud.upload("tiny", guests.tiny())  # a handler that pauses and resumes reading
    ids = {document(cloud.api.request("GET", "/v1/images/none"))["traceId"] for _ in range(3)}
    assert len(ids) == 3
