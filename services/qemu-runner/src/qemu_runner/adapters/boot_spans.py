"""Phases of a boot as spans of the trace that started the machine, with the guest's own times."""

from datetime import datetime

from opentelemetry import trace
from servicekit.telemetry import context_of, links_of

from qemu_runner.domain.boot import ReachedPhase
from qemu_runner.domain.record import MachineRecord, Run

_TRACER = trace.get_tracer(__name__)


def emit_phase(record: MachineRecord, run: Run, phase: ReachedPhase) -> None:
    """Send a phase as the span `boot <phase>`."""
    span = _TRACER.start_span(
        f"boot {phase.name}",
        context=context_of(run.traceparent),
        links=links_of(run.traceparent),
        start_time=_nanoseconds(phase.start_time),
        attributes={
            "qcontroller.instance.id": record.machine_id,
            "qcontroller.instance.name": record.spec.name,
            "qcontroller.boot.phase": phase.name,
            "qcontroller.accelerator": run.accelerator,
        },
    )
    span.end(end_time=_nanoseconds(phase.end_time))


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1000
