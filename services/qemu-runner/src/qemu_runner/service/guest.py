"""The ways to the guests of running machines, and programs run in them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Final

from qemu_runner.domain.guest_program import Output, Program, ProgramEnd
from qemu_runner.domain.machine import MachineId
from qemu_runner.errors import (
    GuestAgentUnavailableError,
    MachineNotFoundError,
    MachineStateError,
    SpecFault,
    SpecInvalidError,
)
from qemu_runner.guest_agent.client import ExecResult, GuestAgent
from qemu_runner.guest_agent.streaming import run
from qemu_runner.service.machines import Machine, Machines

_MAX_TIMEOUT_S: Final = 3600.0
_SLACK_S: Final = 15.0


class Guests:
    """The guests of all machines.

    Args:
        machines: The machines.
    """

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    async def execute(
        self,
        machine_id: MachineId,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        stdin: bytes,
        timeout_s: float,
    ) -> ExecResult:
        """Run a program in the guest and wait for its end.

        Raises:
            SpecInvalidError: There is no program in `argv`, or the time is out of bounds.
            MachineNotFoundError: There is no such machine.
            MachineStateError: It does not run.
            GuestError: The agent does not answer, the program is missing or does not end.
        """
        _check(argv, timeout_s)
        _, agent = self.reach(machine_id)
        async with bounded(timeout_s + _SLACK_S):
            return await agent.execute(argv, env, stdin, timeout_s)

    async def stream(
        self, machine_id: MachineId, program: Program
    ) -> AsyncGenerator[Output | ProgramEnd, None]:
        """Run a program in the guest and tell what it writes while it runs (see `streaming.run`).

        Raises:
            As for `execute`.
        """
        _check(program.argv, program.timeout_s)
        _, agent = self.reach(machine_id)
        async with aclosing(run(agent, program)) as parts:
            async for part in parts:
                yield part

    def reach(self, machine_id: MachineId) -> tuple[Machine, GuestAgent]:
        """Return the machine and the way to its guest's agent.

        Raises:
            MachineNotFoundError: There is no such machine.
            MachineStateError: It does not run, or stands still.
            GuestAgentUnavailableError: Nobody listens in the guest.
        """
        machine = self._machines.find(machine_id)
        if machine is None or machine.record is None:
            raise MachineNotFoundError(machine_id)
        if machine.run is None:
            raise MachineStateError(machine_id, "not running", "start it first")
        live = machine.live
        if live is not None and live.run_state == "paused":
            raise MachineStateError(machine_id, "paused", "resume it first")
        if live is None or live.guest is None:
            raise GuestAgentUnavailableError("the guest has not opened its channel, or nobody listens there")
        return machine, live.guest


def _check(argv: tuple[str, ...], timeout_s: float) -> None:
    if not argv or not argv[0]:
        raise SpecInvalidError((SpecFault("/argv", "names no program."),))
    if not 0 < timeout_s <= _MAX_TIMEOUT_S:
        raise SpecInvalidError((SpecFault("/timeout", f"must be above 0 and at most {_MAX_TIMEOUT_S:g}s."),))


@asynccontextmanager
async def bounded(most_s: float) -> AsyncIterator[None]:
    """Give up what a guest is asked after `most_s`.

    Above the client's own deadlines, which do not count waiting for the turn: nothing may hang here whatever
    the guest does.

    Raises:
        GuestAgentUnavailableError: The time is over.
    """
    try:
        async with asyncio.timeout(most_s):
            yield
    except TimeoutError as exc:
        raise GuestAgentUnavailableError("it stopped answering") from exc
