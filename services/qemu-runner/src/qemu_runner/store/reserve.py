"""Room that is kept back, so that a machine can be stopped and deleted on a full disk.

Nothing may be done to a machine before its fence is durable, and a full disk is when somebody most wants
to delete one. So a file holds some blocks that records of known machines get when there are no others;
new machines never do. Blocks: called in threads only.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SIZE_BYTES: Final = 512 * 1024
STEP_BYTES: Final = 64 * 1024
"""Given up at a time: room for a record, its temporary file and their directory."""


class Reserve:
    """The file that holds the room.

    Args:
        path: Where it lies, on the file system of the records.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def fill(self) -> None:
        """Hold all of it again, as far as there is room; harmless when there is none."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(descriptor).st_size < SIZE_BYTES:
                    os.posix_fallocate(descriptor, 0, SIZE_BYTES)
            finally:
                os.close(descriptor)

    def spend(self) -> bool:
        """Give some of it up; False if nothing is left."""
        try:
            left = self._path.stat().st_size
            os.truncate(self._path, max(0, left - STEP_BYTES))
        except FileNotFoundError:
            return False
        return left > 0
