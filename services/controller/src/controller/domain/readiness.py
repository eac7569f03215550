"""The contract after which an instance is Ready."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.domain.machine import Machine, ProbeView
from controller.domain.probe import AGENT, Probe, ProbeKind

# A host that is slower than this is not waited for longer still.
_SLOWEST = 0.05
_NOTHING_SEEN = ProbeView(holds=False)


@dataclass(frozen=True, slots=True)
class Readiness:
    """All `probes` must hold within `deadline_s` of full speed after the guest began to boot."""

    probes: tuple[Probe, ...] = (AGENT,)
    deadline_s: float = 180.0

    def gives_up_at(self, machine: Machine, speed_factor: float) -> datetime | None:
        """Return when waiting is given up on a host of that speed; None while nothing was started."""
        begun = machine.boot_time or machine.start_time
        if begun is None:
            return None
        return begun + timedelta(seconds=self.deadline_s / min(1.0, max(_SLOWEST, speed_factor)))

    def missing(self, machine: Machine) -> tuple[str, ...]:
        """Return the probes that do not hold, each with what was seen of it last."""
        views = machine.probes if len(machine.probes) == len(self.probes) else ()
        standing = [
            (probe, views[index] if views else _NOTHING_SEEN) for index, probe in enumerate(self.probes)
        ]
        return tuple(_told(probe, view) for probe, view in standing if not _holds(probe, view, machine))


def _holds(probe: Probe, view: ProbeView, machine: Machine) -> bool:
    if probe.kind is ProbeKind.AGENT:
        # Known of every machine, also of one that was prepared before there were probes.
        return machine.agent_connected
    return view.holds


def _told(probe: Probe, view: ProbeView) -> str:
    return f"{probe} ({view.evidence})" if view.evidence else str(probe)
