"""Tells by the kernel's table of unix sockets whether vm-host shares this process's network namespace.

The table lists the sockets of one network namespace, under the paths that they were bound to, while the
files of the sockets are seen by everybody who mounts them. It needs no privilege, and no pid: in containers
vm-host's is not ours to know. Only those that listen count: the server's end of a connection is of its
*client's* namespace and has the server's path too.

Source: proc_pid_net(5), /proc/net/unix; Linux `unix_stream_connect`, which makes that end.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_TABLE: Final = Path("/proc/self/net/unix")
_FLAGS_COLUMN: Final = 3
_PATH_COLUMN: Final = 7
_ACCEPTS: Final = 1 << 16  # __SO_ACCEPTCON


class ProcVmHostNamespace:
    """vm-hosts and this process.

    Args:
        sockets: Paths that vm-hosts listen on.
        table: The kernel's table.
    """

    def __init__(self, sockets: Iterable[Path], table: Path = _TABLE) -> None:
        self._sockets = frozenset(str(path) for path in sockets)
        self._table = table

    async def is_shared(self) -> bool:
        """Tell whether one of the sockets is of this process's network namespace."""
        table = await asyncio.to_thread(self._table.read_bytes)
        return not self._sockets.isdisjoint(listening_paths(table))


def listening_paths(table: bytes) -> frozenset[str]:
    """Give the paths of listening sockets in the table."""
    # A path may hold spaces, and anything else that is a byte.
    rows = (line.split(maxsplit=_PATH_COLUMN) for line in table.splitlines()[1:])
    return frozenset(
        row[_PATH_COLUMN].decode("utf-8", "surrogateescape")
        for row in rows
        if len(row) > _PATH_COLUMN and int(row[_FLAGS_COLUMN], 16) & _ACCEPTS
    )
