"""Files into guests and out of them."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from qemu_runner.domain.guest_file import FileEnd, FileWish, GuestFile
from qemu_runner.domain.machine import MachineId, is_digest
from qemu_runner.errors import GuestFileTruncatedError, SpecFault, SpecInvalidError
from qemu_runner.guest_agent import files
from qemu_runner.service.guest import Guests

_MODE: Final = re.compile(r"[0-7]{3,4}")
_OWNER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?")
_MAX_PATH: Final = 4096
_IDLE_S: Final = 90.0


class GuestTransfers:
    """Moves files.

    Args:
        guests: The guests.
    """

    def __init__(self, guests: Guests) -> None:
        self._guests = guests

    async def pull(self, machine_id: MachineId, path: str) -> AsyncGenerator[GuestFile | bytes, None]:
        """Yield what the file is, then its bytes (see `files.pull`).

        Raises:
            SpecInvalidError: The path is none.
            MachineNotFoundError, MachineStateError, GuestError: As of `Guests.reach`, or what the guest says.
        """
        if faults := _path_faults(path):
            raise SpecInvalidError(faults)
        _, agent = self._guests.reach(machine_id)
        async with aclosing(files.pull(agent, path)) as parts:
            async for part in parts:
                yield part

    async def push(
        self, machine_id: MachineId, wish: FileWish, parts: AsyncIterator[bytes | FileEnd]
    ) -> GuestFile:
        """Put a file in its place, whole or not at all (see `files.push`).

        Raises:
            SpecInvalidError: The wish has faults.
            MachineNotFoundError, MachineStateError, GuestError: As of `Guests.reach`, or what the guest says.
        """
        if faults := _wish_faults(wish):
            raise SpecInvalidError(faults)
        _, agent = self._guests.reach(machine_id)
        return await files.push(agent, wish, _in_time(wish.path, parts))


async def _in_time(path: str, parts: AsyncIterator[bytes | FileEnd]) -> AsyncIterator[bytes | FileEnd]:
    """Yield parts that are at most 90 s apart: nobody may leave half a file behind by falling silent."""
    source = aiter(parts)
    while True:
        try:
            async with asyncio.timeout(_IDLE_S):
                part = await anext(source, None)
        except TimeoutError as exc:
            raise GuestFileTruncatedError(path) from exc
        if part is None:
            return
        yield part


def _path_faults(path: str) -> tuple[SpecFault, ...]:
    if not path.startswith("/") or path.endswith("/") or "\0" in path or len(path.encode()) > _MAX_PATH:
        return (
            SpecFault("/query/path", "must be an absolute path of a file, at most 4096 bytes without NUL."),
        )
    return ()


def _wish_faults(wish: FileWish) -> tuple[SpecFault, ...]:
    faults = list(_path_faults(wish.path))
    if wish.mode and not _MODE.fullmatch(wish.mode):
        faults.append(SpecFault("/query/mode", 'must be three or four octal digits, such as "0644".'))
    if wish.owner and not _OWNER.fullmatch(wish.owner):
        faults.append(SpecFault("/query/owner", 'must be "user" or "user:group", names or numbers.'))
    if wish.digest and not is_digest(wish.digest):
        faults.append(SpecFault("/query/digest", 'must be "sha256:" and 64 hex digits.'))
    return tuple(faults)
