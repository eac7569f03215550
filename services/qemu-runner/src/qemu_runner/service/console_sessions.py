"""Who is attached to the consoles of this host's machines.

What is here is in memory only: when the runner ends, so do the sessions, and their clients come back at their
offsets. Nothing here keeps a machine from ending.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from qemu_runner.domain.console_talk import InputRefused, Refusal, Resize, Resized, ViewerWish, is_label
from qemu_runner.domain.machine import MachineId
from qemu_runner.errors import (
    ConsoleFullError,
    MachineNotFoundError,
    MachineStateError,
    SpecFault,
    SpecInvalidError,
)
from qemu_runner.service.console_roles import WriterRole
from qemu_runner.service.console_session import ConsoleSession
from qemu_runner.service.console_sizes import ConsoleSizes
from qemu_runner.service.consoles import Consoles
from qemu_runner.service.machines import Machine, Machines
from qemu_runner.store import console_input
from qemu_runner.store.console_log import ConsoleLog
from qemu_runner.store.file_growth import FileGrowth
from qemu_runner.store.machine_files import MachineFiles

_LOG = logging.getLogger(__name__)
MOST_VIEWERS_A_MACHINE: Final = 32
MOST_VIEWERS: Final = 256
_INPUT_S: Final = 10.0
_IMPATIENCE_S: Final = 0.2


class ConsoleSessions:
    """The sessions of all machines.

    Args:
        machines: The machines.
        files: Their files, of which one is the way into the serial port.
        consoles: Their logs.
        growth: Tells when a log grows.
        sizes: Tells guests the size of a viewer's window.
        input_s: How long a guest may take to read one input.
    """

    def __init__(
        self,
        machines: Machines,
        files: MachineFiles,
        consoles: Consoles,
        growth: FileGrowth,
        sizes: ConsoleSizes,
        *,
        input_s: float = _INPUT_S,
    ) -> None:
        self._machines = machines
        self._files = files
        self._consoles = consoles
        self._growth = growth
        self._sizes = sizes
        self._input_s = input_s
        self._lines: dict[MachineId, _Line] = {}
        self._numbers: Final = itertools.count(1)

    @property
    def viewers(self) -> int:
        """How many are attached."""
        return sum(len(line.sessions) for line in self._lines.values())

    @asynccontextmanager
    async def attach(self, machine_id: MachineId, wish: ViewerWish) -> AsyncIterator[ConsoleSession]:
        """Yield the session of a new viewer; it is detached with the block.

        Raises:
            SpecInvalidError: The label is none.
            MachineNotFoundError: There is no such machine.
            MachineStateError: It has no process.
            ConsoleFullError: So many are attached already.
        """
        if not is_label(wish.label):
            raise SpecInvalidError((SpecFault("/query/viewer", "must be at most 64 printable characters."),))
        machine = self._machines.find(machine_id)
        if machine is None or machine.record is None:
            raise MachineNotFoundError(machine_id)
        if machine.run is None:
            raise MachineStateError(machine_id, "not running", "start it first")
        if self.viewers >= MOST_VIEWERS:
            raise ConsoleFullError(MOST_VIEWERS, "consoles of this host")
        line = self._lines.get(machine_id)
        if line is None:
            line = self._lines[machine_id] = self._line(machine)
        if len(line.sessions) >= MOST_VIEWERS_A_MACHINE:
            raise ConsoleFullError(MOST_VIEWERS_A_MACHINE, "this console")
        session = ConsoleSession(line, self._growth, next(self._numbers), wish)
        line.sessions[session.number] = session
        session.begin()
        named = {"machine": machine_id, "viewer": session.number}
        _LOG.info("console attached", extra=named)
        try:
            yield session
        finally:
            _LOG.info("console detached", extra=named)
            line.sessions.pop(session.number)
            line.role.release(session.number)
            if not line.sessions and self._lines.get(machine_id) is line:
                del self._lines[machine_id]

    def _line(self, machine: Machine) -> "_Line":
        path = self._files.directory(machine.machine_id) / "console"
        return _Line(machine, self._consoles.of(machine.machine_id).log, path, self._sizes, self._input_s)


class _Line:
    """One machine's console: its viewers and the one that writes."""

    def __init__(
        self, machine: Machine, log: ConsoleLog, path: Path, sizes: ConsoleSizes, input_s: float
    ) -> None:
        self.machine = machine
        self.log = log
        self.sessions: dict[int, ConsoleSession] = {}
        self.role = WriterRole(self._role_changed)
        self._path = path
        self._sizes = sizes
        self._input_s = input_s
        # A guest that did not read is not waited for again until it does: what is behind it must not queue.
        self._patience_s = input_s
        self._sending = asyncio.Lock()

    async def send(self, data: bytes) -> InputRefused | None:
        live = self.machine.live
        state = "unknown" if live is None else live.run_state
        if state != "running":
            return InputRefused(Refusal.MACHINE_NOT_RUNNING, f"The machine's state is {state}.")
        async with self._sending:
            patience_s = self._patience_s
            try:
                await console_input.send(self._path, data, within_s=patience_s)
            except console_input.InputNotTakenError as exc:
                _LOG.info(
                    "console input not taken", extra={"machine": self.machine.machine_id, "error": str(exc)}
                )
                self._patience_s = min(self._input_s, _IMPATIENCE_S)
                return InputRefused(
                    Refusal.INPUT_NOT_TAKEN, f"The guest did not read all of it within {patience_s:g} s."
                )
            self._patience_s = self._input_s
        return None

    async def resize(self, number: int, size: Resize) -> Resized:
        holder = self.role.holder
        if holder is None or holder.number != number:
            return Resized(size, False, "Only the writer sets the size.")
        return await self._sizes.apply(self.machine, size)

    def _role_changed(self, loser: int | None) -> None:
        for number, session in self.sessions.items():
            session.role_changed(lost=number == loser)
