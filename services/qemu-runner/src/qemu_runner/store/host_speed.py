"""How fast this host's CPUs are, measured once and kept: what accelerators' ratios are multiplied by.

What is measured is CPU time of one thread, so that a host which is busy at that moment is not taken for a
slow one. The work is a compression: branches, tables and memory, in machine code that differs little
between releases.
"""

import json
import time
import zlib
from asyncio import Lock
from contextlib import suppress
from pathlib import Path
from typing import Final

from qemu_runner.errors import DiskFullError
from qemu_runner.store.files import replace_file
from qemu_runner.store.threads import in_thread

_FILE: Final = "speed.json"
# Of another work or reference: what is kept is measured anew.
_MEASURE: Final = 1
_ROUNDS: Final = 4
_LEVEL: Final = 6
_NUMBERS: Final = 32_768
REFERENCE_S: Final = 0.0156
"""What one round takes on the host where the accelerators' ratios were measured (an AMD EPYC)."""
_LEAST, _MOST = 0.05, 20.0


class HostSpeed:
    """The speed of this host.

    Args:
        state_dir: The runner's; the file lies in it.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _FILE
        self._lock = Lock()
        self._relative: float | None = None

    async def relative(self) -> float:
        """Return the speed, 1.0 being the reference's; measured where it is not known yet."""
        async with self._lock:
            if self._relative is None:
                self._relative = await in_thread(self._known_or_measured)
            return self._relative

    def _known_or_measured(self) -> float:
        try:
            document = json.loads(self._path.read_bytes())
            if document["measure"] == _MEASURE:
                return _bounded(float(document["relative"]))
        except (OSError, ValueError, KeyError, TypeError):
            # Not measured yet, or not by us: it costs little to measure.
            pass
        relative = measured()
        with suppress(DiskFullError, OSError):
            # A full disk costs another measurement, later.
            replace_file(self._path, json.dumps({"measure": _MEASURE, "relative": relative}).encode())
        return relative


def measured() -> float:
    """Return the speed of this thread's CPU, 1.0 being the reference's."""
    text = b"".join(b"%d " % (number * number % 9973) for number in range(_NUMBERS))
    best = min(_round_s(text) for _ in range(_ROUNDS))
    return _bounded(REFERENCE_S / best) if best > 0 else 1.0


def _round_s(text: bytes) -> float:
    begun = time.thread_time()
    zlib.compress(text, _LEVEL)
    return time.thread_time() - begun


def _bounded(relative: float) -> float:
    return min(max(relative, _LEAST), _MOST)
