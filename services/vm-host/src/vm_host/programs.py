"""Which programs may be spawned, and where they are.

Requests name a program by its base name; the path comes from the settings or from a fixed PATH, never
from a client or from the environment that vm-host was started in.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from vm_host.errors import Refusal, RefusedError

FIXED_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Programs:
    """The allowed programs by base name."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = {PurePosixPath(entry).name: entry for entry in allowed}

    def __iter__(self) -> Iterator[str]:
        """Yield the names, in the order of the settings."""
        return iter(self._allowed)

    def resolve(self, name: str) -> str:
        """Return the absolute path of a program; looked up each time, since it may be installed later.

        Raises:
            RefusedError: It is not allowed, or not there.
        """
        entry = self._allowed.get(name)
        if entry is None:
            allowed = ", ".join(self._allowed)
            raise RefusedError(Refusal.PROGRAM_NOT_ALLOWED, f"{name!r} is not one of {allowed}")
        found = shutil.which(entry, mode=os.F_OK | os.X_OK, path=FIXED_PATH)
        if found is None:
            raise RefusedError(Refusal.PROGRAM_UNAVAILABLE, f"{entry} is not installed")
        return found
