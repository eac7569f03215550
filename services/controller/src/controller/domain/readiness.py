"""The contract after which an instance is Ready."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from controller.domain.machine import Machine

# A host that is slower than this is not waited for longer still.
_SLOWEST = 0.05


class Probe(StrEnum):
    """What must hold."""

    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class Readiness:
    """All `probes` must hold within `deadline_s` of full speed after the guest began to boot."""

    probes: tuple[Probe, ...] = (Probe.AGENT,)
    deadline_s: float = 180.0

    def gives_up_at(self, machine: Machine, speed_factor: float) -> datetime | None:
        """Return when waiting is given up on a host of that speed; None while nothing was started."""
        begun = machine.boot_time or machine.start_time
        if begun is None:
            return None
        return begun + timedelta(seconds=self.deadline_s / min(1.0, max(_SLOWEST, speed_factor)))

    def missing(self, machine: Machine) -> tuple[Probe, ...]:
        """Return the probes that do not hold."""
        return tuple(probe for probe in self.probes if not _holds(probe, machine))


def _holds(probe: Probe, machine: Machine) -> bool:
    match probe:
        case Probe.AGENT:
            return machine.agent_connected
