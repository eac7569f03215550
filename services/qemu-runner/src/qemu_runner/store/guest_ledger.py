"""What of ours lies in one machine's guest, written down before it is put there.

A file each in a directory of the machine's: whoever dies in the middle of a transfer, be it this service, the
host or the guest, leaves it, and the next life of both removes what it names (ADR 121).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from qemu_runner.domain.leftover import Leftover, leftover_in, leftover_of
from qemu_runner.store.files import disk_errors, replace_file
from qemu_runner.store.threads import in_thread

LEDGER: Final = "in-guest"
_MAX_BYTES: Final = 64 * 1024


class Entry:
    """One thing of ours, while somebody works with it.

    Attributes:
        gone: Whether it is certain that nothing of it lies in the guest.
    """

    def __init__(self, directory: Path, leftover: Leftover) -> None:
        self._directory = directory
        self._leftover = leftover
        self.gone = False

    @property
    def path(self) -> str:
        """Where it lies in the guest."""
        return self._leftover.path

    async def opened(self, handle: int) -> None:
        """Write down that the agent has it open.

        Raises:
            DiskFullError: There is no room to write it down.
        """
        self._leftover = replace(self._leftover, handles=(*self._leftover.handles, handle))
        await in_thread(_write, self._directory, self._leftover)


class GuestLedger:
    """The entries of one machine.

    Args:
        directory: Theirs alone; made with the first one.
        left_behind: Called when something may have been left in the guest.
    """

    def __init__(self, directory: Path, left_behind: Callable[[], None]) -> None:
        self._directory = directory
        self._left_behind = left_behind
        self._busy: set[str] = set()

    @asynccontextmanager
    async def entry(self, directory: str, *, is_program: bool = False) -> AsyncIterator[Entry]:
        """Yield a new entry in a directory of the guest; it is written down when this begins.

        It is forgotten at the end if it is `gone` then.

        Args:
            directory: Of the guest.
            is_program: Whether it is of a streamed program.

        Raises:
            DiskFullError: There is no room to write it down.
        """
        leftover = leftover_in(directory, is_program=is_program)
        self._busy.add(leftover.token)
        entry = Entry(self._directory, leftover)
        try:
            await in_thread(_write, self._directory, leftover)
            yield entry
        finally:
            if entry.gone:
                await self.forget(leftover)
            self._busy.discard(leftover.token)
            if not entry.gone:
                self._left_behind()

    async def left(self) -> tuple[Leftover, ...]:
        """Return what nobody works with any more and may lie in the guest."""
        return tuple(one for one in await in_thread(_read, self._directory) if one.token not in self._busy)

    async def closed(self, leftover: Leftover) -> None:
        """Write down that none of its handles is its own any more.

        Raises:
            DiskFullError: There is no room to write it down.
        """
        await in_thread(_write, self._directory, replace(leftover, handles=()))

    async def forget(self, leftover: Leftover) -> None:
        """Strike an entry out."""
        await in_thread((self._directory / leftover.token).unlink, missing_ok=True)


def _write(directory: Path, leftover: Leftover) -> None:
    with disk_errors(directory):
        directory.mkdir(mode=0o700, exist_ok=True)
    replace_file(directory / leftover.token, leftover.text().encode())


def _read(directory: Path) -> list[Leftover]:
    if not directory.is_dir():
        return []
    found = []
    for path in directory.iterdir():
        leftover = leftover_of(_text_of(path))
        if leftover is not None and leftover.token == path.name:
            found.append(leftover)
    return found


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        # Struck out meanwhile.
        return ""
