"""The exclusive lock that keeps a second controller off a SQLite file.

It owns `<database>.lock`. The lock is the kernel's, so a killed process leaves none behind.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from controller.database.errors import DatabaseInUse, DatabaseUnsupported

# SQLite's WAL needs shared memory and byte-range locks that these do not give
# (https://www.sqlite.org/wal.html).
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "fuse.sshfs", "fuse.glusterfs", "afs", "lustre"}
)
_MOUNTINFO = Path("/proc/self/mountinfo")


def file_system_type(path: Path, mountinfo: str) -> str:
    """Return the type of the mount that `path` lies on, from the text of proc(5) `mountinfo`."""
    best, found = -1, ""
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        mount_point = fields.split()[4].encode().decode("unicode_escape")
        if path.is_relative_to(mount_point) and len(mount_point) >= best:
            best, found = len(mount_point), tail.split()[0]
    return found


class FileLock:
    """Holds the lock from `acquire` to `release`, which block: not for the event loop."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DatabaseInUse: If another process (or another `FileLock`) holds it.
            DatabaseUnsupported: On a network file system.
        """
        kind = file_system_type(self._path.parent.resolve(), _MOUNTINFO.read_text())
        if kind in _NETWORK_FILE_SYSTEMS:
            raise DatabaseUnsupported(f"{self._path.parent} is on {kind}; SQLite needs a local file system")
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(descriptor)
            raise DatabaseInUse(f"another process holds {self._path}") from exc
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would race with the next holder."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
