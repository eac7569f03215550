"""Pause, resume and reset: what holds afterwards is what counts, however often it is asked."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from qemu_runner.errors import MachineStateError, VmHostUnavailableError
from qemu_runner.service.live import Live
from qemu_runner.service.machines import Machine, Machines

WAITING: Final = frozenset({"paused", "io-error"})
"""Run states in which a guest stands still and goes on with `cont`, nothing lost."""


class Power:
    """Moves running machines.

    Args:
        machines: The machines.
    """

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    async def pause(self, machine: Machine) -> None:
        """Make the guest stand still.

        Raises:
            MachineStateError: It does not run.
            MonitorError: QEMU did not do it.
        """
        await self._move(machine, command="stop", begin=frozenset({"running"}), goal="paused")

    async def resume(self, machine: Machine) -> None:
        """Make a paused guest go on, or one that QEMU stopped because the host's disk was full.

        Raises:
            MachineStateError: It is neither paused nor running.
            MonitorError: QEMU did not do it.
        """
        await self._move(machine, command="cont", begin=WAITING, goal="running")

    async def reset(self, machine: Machine, request_id: str) -> None:
        """Press the reset button once for each request id.

        Raises:
            MachineStateError: It does not run.
            MonitorError: QEMU did not do it.
        """
        record = machine.require()
        live = _live(machine)
        if request_id and record.reset_request == request_id:
            return
        state = await live.session.run_state()
        if state not in {"running", "paused", "guest-panicked"}:
            raise MachineStateError(machine.machine_id, state, "only a running machine can be reset")
        # Recorded first: of the two ways to be cut off here, no reset is the harmless one.
        await self._machines.update(machine, lambda now: replace(now, reset_request=request_id))
        await live.session.execute("system_reset")
        # QEMU answers before it resets: until it has told that the port is closed, a caller would take the
        # agent of the boot that has just ended for that of the new one.
        live.agent = replace(live.agent, connected=False, since=datetime.now(UTC))
        self._machines.tell(machine)

    async def _move(self, machine: Machine, *, command: str, begin: frozenset[str], goal: str) -> None:
        machine.require()
        live = _live(machine)
        state = await live.session.run_state()
        if state in begin:
            # QMP's `stop` pauses.
            await live.session.execute(command)
            state = await live.session.run_state()
        if state != goal:
            raise MachineStateError(machine.machine_id, state, f"it cannot become {goal}")
        live.run_state = state
        self._machines.tell(machine)


def _live(machine: Machine) -> Live:
    if machine.run is None:
        raise MachineStateError(machine.machine_id, "not running", "start it first")
    if machine.live is None:
        raise VmHostUnavailableError("QEMU's monitor is not connected")
    return machine.live
