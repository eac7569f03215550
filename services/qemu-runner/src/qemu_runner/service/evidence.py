"""What the host still knows of a machine: what it was started as, what it said, what was said of it.

Reading it changes nothing; what is not there is left out, and nothing of it is secret by intent. Each part is
the end of something longer.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from servicekit.logs import recent_lines

from qemu_runner.domain.machine import MachineId
from qemu_runner.service.machines import Machines
from qemu_runner.store.machine_files import CONSOLE_LOG, PASST_LOG, QEMU_ARGV, QEMU_LOG, MachineFiles
from qemu_runner.store.machine_store import RECORD_NAME

_MOST_BYTES: Final = 256 * 1024
_FILES: Final = (
    ("qemu-argv.json", QEMU_ARGV),
    ("qemu-stderr.log", QEMU_LOG),
    ("passt-stderr.log", PASST_LOG),
    ("console.log", CONSOLE_LOG),
    ("machine.json", RECORD_NAME),
)


@dataclass(frozen=True, slots=True)
class EvidenceFile:
    """One part; `content` is the end of it."""

    name: str
    content: bytes


class Evidence:
    """Collects.

    Args:
        machines: The machines.
        files: Their files.
    """

    def __init__(self, machines: Machines, files: MachineFiles) -> None:
        self._machines = machines
        self._files = files

    async def collect(self, machine_id: MachineId, trace_id: str) -> AsyncIterator[EvidenceFile]:
        """Yield every part that there is; of a machine that is gone, what this service still remembers."""
        for name, file in _FILES:
            content = await self._files.tail(machine_id, file, _MOST_BYTES)
            if content:
                yield EvidenceFile(name, content.encode())
        machine = self._machines.find(machine_id)
        said = [] if machine is None else machine.transcript.lines()
        for name, lines in (("qmp.jsonl", said), ("runner.log.jsonl", recent_lines(trace_id))):
            if lines:
                yield EvidenceFile(name, _joined(lines))


def _joined(lines: list[str]) -> bytes:
    """Return the lines, as many of the last ones as may be."""
    kept: list[str] = []
    left = _MOST_BYTES
    for line in reversed(lines):
        left -= len(line.encode()) + 1
        if left < 0:
            break
        kept.append(line)
    return "".join(f"{line}\n" for line in reversed(kept)).encode()
