"""Reports of what guests are doing: their agents' words, and QEMU's of their balloons."""

from dataclasses import replace
from typing import Final

from qemu_runner.domain.argv import BALLOON_PATH
from qemu_runner.domain.guest_report import GuestMemory, GuestReport
from qemu_runner.domain.machine import MachineId
from qemu_runner.errors import GuestAgentRefusedError, MonitorError
from qemu_runner.guest_agent.report import balloon_memory, guest_report
from qemu_runner.service.guest import Guests, bounded
from qemu_runner.service.live import Live
from qemu_runner.service.machines import Machines

_MOST_S: Final = 20.0
_BALLOON_EVERY_S: Final = 10


class GuestReports:
    """Makes reports, each when it is asked for.

    Args:
        machines: The machines.
        guests: Their guests.
    """

    def __init__(self, machines: Machines, guests: Guests) -> None:
        self._machines = machines
        self._guests = guests

    async def read(self, machine_id: MachineId) -> GuestReport:
        """Ask the guest who it is and how it does; what is observed of the machine is renewed by it.

        Raises:
            MachineNotFoundError, MachineStateError, GuestError: As of `Guests.reach`, or it answers no more.
        """
        machine, agent = self._guests.reach(machine_id)
        live = machine.live
        if live is not None and live.frozen is not None:
            raise GuestAgentRefusedError("guest-info", "its filesystems are frozen; thaw them first")
        async with bounded(_MOST_S):
            report = await guest_report(agent, await _balloon(live) if live is not None else None)
        if live is not None and live.guest is agent:
            live.agent = replace(live.agent, info=report.info)
            self._machines.tell(machine)
        return report


async def _balloon(live: Live) -> GuestMemory | None:
    """Return the balloon's statistics, which begin to be gathered when somebody first asks."""
    try:
        if not live.balloon_tells:
            await live.session.execute(
                "qom-set",
                {
                    "path": BALLOON_PATH,
                    "property": "guest-stats-polling-interval",
                    "value": _BALLOON_EVERY_S,
                },
            )
            live.balloon_tells = True
        stats = await live.session.execute("qom-get", {"path": BALLOON_PATH, "property": "guest-stats"})
    except MonitorError:
        # A machine that was started before machines had balloons: the agent is asked instead.
        return None
    return balloon_memory(stats)
