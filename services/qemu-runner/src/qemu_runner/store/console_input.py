"""Bytes into a machine's serial port, through QEMU's console socket.

Nobody is connected between inputs: a runner that stands still or is killed then neither stalls the guest nor
costs a byte of its log. Each input has a connection of its own, ended in the one order that loses nothing:
our side is shut, QEMU reads to the end and closes, and until then what it sends is thrown away (the log has
it). QEMU takes one client at a time: the caller sends one input after the other.

Source: chardev/char-socket.c of QEMU; shutdown(2), unix(7).
"""

import asyncio
from pathlib import Path
from typing import Final

_READ_BYTES: Final = 65_536


class InputNotTakenError(Exception):
    """The guest did not read all of it in time, or QEMU is gone; what it had read stays read."""


async def send(path: Path, data: bytes, *, within_s: float) -> None:
    """Have the guest's serial port take `data`, all of it.

    Raises:
        InputNotTakenError: It has not within `within_s`.
    """
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=_READ_BYTES)
            try:
                writer.write(data)
                writer.write_eof()
                while await reader.read(_READ_BYTES):
                    pass
            finally:
                # Not waited for: a transport that cannot write any more closes by itself.
                writer.transport.abort()
    except (OSError, TimeoutError) as exc:
        raise InputNotTakenError(str(exc) or "time-out") from exc
