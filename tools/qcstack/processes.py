"""Processes named so that a recycled pid is never mistaken for one of ours, and found by what they were told.

Owns the reading of /proc. It must never end or signal a process that it was not asked for by identity.
"""

import os
import select
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A pid with the start time that makes it unique since boot (proc(5), field 22 of stat)."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """Return the identity of the process that has `pid` now.

        Raises:
            ProcessLookupError: There is none.
        """
        ticks = _start_ticks(pid)
        if ticks is None:
            raise ProcessLookupError(pid)
        return cls(pid, ticks)

    def alive(self) -> bool:
        """Tell whether this very process still runs (a zombie does not)."""
        return _start_ticks(self.pid) == self.start_ticks

    def signal(self, number: signal.Signals) -> bool:
        """Send `number` to this very process; tell whether it was there to get it."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # Between opening and sending the pid cannot be recycled: the descriptor holds the process.
            if not self.alive():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait until the process has ended; tell whether it has within `timeout_s` seconds."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive():
                return True
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(timeout_s * 1000))
        finally:
            os.close(descriptor)


def find(wanted: Mapping[str, Sequence[str]]) -> dict[str, list[ProcessId]]:
    """Return the caller's own processes whose arguments begin as wanted, by the names given to them.

    The program itself is not compared. A status file can be late, lost or of another boot: the process list
    never is. The oldest comes first: a child that has not executed its program yet shows its parent's words.
    """
    found: dict[str, list[ProcessId]] = {name: [] for name in wanted}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The identity first: whoever has the pid when the words are read has it still, or is not alive.
            process = ProcessId.of(int(entry.name))
            mine = entry.stat().st_uid == os.geteuid()
            words = [os.fsdecode(word) for word in (entry / "cmdline").read_bytes().split(b"\0")][1:]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        for name, beginning in wanted.items():
            if mine and words[: len(beginning)] == list(beginning) and process.alive():
                found[name].append(process)
    return {name: sorted(group, key=lambda process: process.start_ticks) for name, group in found.items()}


def _start_ticks(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name may hold anything, brackets too: what follows the last one is numeric.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])
