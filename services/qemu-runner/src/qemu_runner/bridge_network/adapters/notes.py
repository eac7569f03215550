"""Keeps short notes in small files of the runner's directory.

Losing one costs little, so they are not synced, and what cannot be read counts as nothing.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from qemu_runner.bridge_network.errors import NotesError


class FileNotes:
    """A directory with one file for each note.

    Args:
        directory: Made when needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def read(self, name: str) -> tuple[str, ...]:
        try:
            return await asyncio.to_thread(self._read, name)
        except OSError as error:
            raise NotesError(f"note {name}", error.strerror or str(error)) from error

    async def write(self, name: str, lines: Sequence[str]) -> None:
        try:
            await asyncio.to_thread(self._write, name, lines)
        except OSError as error:
            raise NotesError(f"note {name}", error.strerror or str(error)) from error

    def _read(self, name: str) -> tuple[str, ...]:
        try:
            return tuple((self._directory / name).read_text(encoding="ascii").splitlines())
        except (FileNotFoundError, UnicodeDecodeError):
            return ()

    def _write(self, name: str, lines: Sequence[str]) -> None:
        path = self._directory / name
        if not lines:
            path.unlink(missing_ok=True)
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        beside = self._directory / f"{name}.new"
        beside.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        beside.replace(path)
