"""Keeps the last address that was given in a small file.

Losing it only begins the turn anew, so it is not synced, and what cannot be read counts as nothing.
"""

import asyncio
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path


class TurnFile:
    """A file with one address.

    Args:
        path: The file; its directory is made when needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def last(self) -> IPv4Address | None:
        return await asyncio.to_thread(self._read)

    async def remember(self, address: IPv4Address) -> None:
        await asyncio.to_thread(self._write, address)

    def _read(self) -> IPv4Address | None:
        try:
            return IPv4Address(self._path.read_text(encoding="ascii").strip())
        except (FileNotFoundError, AddressValueError, UnicodeDecodeError):
            return None

    def _write(self, address: IPv4Address) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_suffix(".new")
        beside.write_text(f"{address}\n", encoding="ascii")
        beside.replace(self._path)
