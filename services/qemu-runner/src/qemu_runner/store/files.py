"""Writing files so that a crash leaves the old contents or the new ones, never half of either.

Blocks: called in threads only. A full disk is told apart from every other fault here.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from qemu_runner.errors import DiskFullError

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Translate the errors of a full disk.

    Raises:
        DiskFullError: The block met one.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in _FULL:
            raise DiskFullError(str(path)) from exc
        raise


def replace_file(path: Path, data: bytes, *, mode: int = 0o600, uid: int = -1, gid: int = -1) -> None:
    """Write `data` to a new file and put it in the place of `path`; durable when this returns.

    Raises:
        DiskFullError: There is no room; `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with disk_errors(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                if (uid, gid) != (-1, -1):
                    os.fchown(file.fileno(), uid, gid)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make names in the directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
