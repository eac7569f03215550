"""Tells a guest how large its viewer's window is.

A serial line carries no size. Where the guest's agent answers, `stty` sets that of the terminal on the line,
which also tells the program in the foreground. Best effort: the guest's word is passed on.
"""

import asyncio
from typing import Final

from qemu_runner.domain.arch import ARCHES
from qemu_runner.domain.console_talk import MAX_CELLS, Resize, Resized
from qemu_runner.errors import RunnerError
from qemu_runner.service.guest import Guests
from qemu_runner.service.machines import Machine

_STTY_S: Final = 5.0
_MAX_DETAIL: Final = 200


class ConsoleSizes:
    """Sizes of the terminals on machines' serial lines.

    Args:
        guests: The ways to their agents.
    """

    def __init__(self, guests: Guests) -> None:
        self._guests = guests

    async def apply(self, machine: Machine, size: Resize) -> Resized:
        """Set the size; whatever prevents it is told, not raised."""
        if not (0 < size.columns <= MAX_CELLS and 0 < size.rows <= MAX_CELLS):
            return Resized(size, False, f"Columns and rows are 1 to {MAX_CELLS}.")
        if machine.record is None:
            return Resized(size, False, "The machine is gone.")
        tty = ARCHES[machine.record.spec.arch].serial_tty
        argv = ("stty", "-F", tty, "cols", str(size.columns), "rows", str(size.rows))
        try:
            async with asyncio.timeout(2 * _STTY_S):
                result = await self._guests.execute(machine.machine_id, argv, {}, b"", _STTY_S)
        except TimeoutError:
            return Resized(size, False, "The guest agent is busy.")
        except RunnerError as exc:
            return Resized(size, False, str(exc)[:_MAX_DETAIL])
        if result.exit_code:
            said = result.stderr.decode(errors="replace").strip()[:_MAX_DETAIL]
            return Resized(size, False, f"The guest's stty failed: {said or result.exit_code}")
        return Resized(size, True)
