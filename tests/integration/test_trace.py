"""One trace from the client's request to the agent's first answer, across all services."""

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from framework import guests, otlp
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, document
from framework.stack import eventually, running_stack

receives = pytest.mark.native("spans of containers go to a collector beside them, which tests/compose starts")

PHASES = ("kernel", "userspace", "agent")
STEPS = ("image", "machine", "power", "running")
INSTANCES = "qcontroller.controller.v1.InstanceService"
MACHINES = "qcontroller.runner.v1.MachineService"
_MARK = re.compile(r"^qcontroller-phase: (\w+) uptime=(\d+\.\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class LaunchTrace:
    """The spans of one launch, the client's own span above them, and what the guest printed."""

    client_span: str
    spans: list[otlp.Span]
    console: str

    def one(self, name: str, service: str, *, under: otlp.Span | None = None) -> otlp.Span:
        """Return the span of that name; there must be one only (below `under`, at any depth)."""
        found = [
            span
            for span in self.spans
            if (span.name, span.service) == (name, service) and (under is None or under in self.above(span))
        ]
        assert len(found) == 1, f"{service}: {name}: {len(found)} of\n{self}"
        return found[0]

    def above(self, span: otlp.Span) -> Iterator[otlp.Span]:
        """Yield what `span` hangs on, upwards."""
        by_id = {each.span_id: each for each in self.spans}
        while (found := by_id.get(span.parent_id)) is not None:
            yield (span := found)

    def below(self, span: otlp.Span) -> list[otlp.Span]:
        """Return what hangs on `span` itself, in order of time."""
        return sorted((s for s in self.spans if s.parent_id == span.span_id), key=lambda s: s.start_ns)

    def __str__(self) -> str:
        """Draw the tree."""
        known = {span.span_id for span in self.spans}
        lines: list[str] = []

        def draw(span: otlp.Span, depth: int) -> None:
            lines.append(f"{'  ' * depth}{span.service}: {span.name} {len(span.links) or ''}")
            for child in self.below(span):
                draw(child, depth + 1)

        for span in self.spans:
            if span.parent_id not in known:
                draw(span, 0)
        return "\n".join(lines)


@pytest.fixture(scope="module")
def launch() -> LaunchTrace:
    """One launch that was sent with a traceparent of the client's own."""
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
            console = api.request("GET", "/v1/instances/traced-1/console").text
            cloud.delete("traced-1")
        return LaunchTrace(client_span, receiver.of_trace(trace_id), console)


@receives
def test_the_trace_is_one_tree_below_the_clients_own_span(launch: LaunchTrace) -> None:
    known = {span.span_id for span in launch.spans}
    roots = [span for span in launch.spans if span.parent_id not in known]
    assert [(root.service, root.parent_id) for root in roots] == [("gateway", launch.client_span)], launch
    assert roots[0].name == "POST /v1/instances"
    assert {span.service for span in launch.spans} == {"gateway", "controller", "image-store", "qemu-runner"}


@receives
def test_the_operation_hangs_on_the_request_and_is_linked_to_it_since_it_outlives_it(
    launch: LaunchTrace,
) -> None:
    request = launch.one(f"/{INSTANCES}/LaunchInstance", "controller")
    assert [span.service for span in launch.above(request)] == ["gateway", "gateway"], launch
    operation = launch.one("operation launch", "controller")
    assert (operation.parent_id, operation.links) == (request.span_id, (request.span_id,))
    assert operation.end_ns > request.end_ns


@receives
def test_the_steps_are_the_operations_children_in_their_order(launch: LaunchTrace) -> None:
    steps = launch.below(launch.one("operation launch", "controller"))
    assert [step.name for step in steps] == [f"step {step}" for step in STEPS], launch
    for before, after in pairwise(steps):
        assert before.end_ns <= after.start_ns


@receives
def test_each_service_works_below_the_step_that_asked_it(launch: LaunchTrace) -> None:
    steps = {step: launch.one(f"step {step}", "controller") for step in STEPS}
    pin = [span for span in launch.spans if span.service == "image-store"]
    assert any(steps["image"] in launch.above(span) for span in pin), launch
    prepare = launch.one(f"/{MACHINES}/PrepareMachine", "qemu-runner", under=steps["machine"])
    assert any(prepare in launch.above(span) for span in pin), "the runner fetches the image for it"
    launch.one(f"/{MACHINES}/StartMachine", "qemu-runner", under=steps["power"])


@receives
def test_the_boot_hangs_on_the_step_that_began_it_and_outlives_the_operation(launch: LaunchTrace) -> None:
    power, operation = launch.one("step power", "controller"), launch.one("operation launch", "controller")
    phases = [launch.one(f"boot {phase}", "qemu-runner") for phase in PHASES]
    for phase in phases:
        assert (phase.parent_id, phase.links) == (power.span_id, (power.span_id,)), launch
        assert phase.start_ns >= power.start_ns
    assert phases[-1].end_ns > operation.end_ns
    for before, after in pairwise(phases):
        assert before.start_ns < before.end_ns <= after.start_ns


@receives
def test_the_phases_have_the_guests_own_times(launch: LaunchTrace) -> None:
    """It prints its uptime where a phase begins; the kernel's own begins at uptime 0."""
    printed = {phase: float(uptime) for phase, uptime in _MARK.findall(launch.console)}
    kernel, userspace, _ = (launch.one(f"boot {phase}", "qemu-runner") for phase in PHASES)
    began = [(end - kernel.start_ns) / 1e9 for end in (kernel.end_ns, userspace.end_ns)]
    assert began[0] == pytest.approx(printed["userspace"], abs=0.001), launch.console[-2000:]
    # A line that came through faster than the first one is dated by its arrival: earlier, never later.
    assert began[0] < began[1] < printed["agent"] + 0.001, launch.console[-2000:]


def test_requests_of_one_connection_are_traces_of_their_own(cloud: Cloud) -> None:
    cloud.upload("tiny", guests.tiny())  # a handler that pauses and resumes reading
    ids = {document(cloud.api.request("GET", "/v1/images/none"))["traceId"] for _ in range(3)}
    assert len(ids) == 3
