"""How things are struck: processes, connections, the disk, the databases, the clock.

What lasts is over when its block is left: nothing of a strike outlives its cell but what it has done.
"""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from framework.stack import Stack, eventually
from qcstack.minio import MinioServer

from realcells.cells import Cell, How
from realcells.edges import Edges

_HOUR_S: Final = 3600.0
_LOCK_WITHIN_S: Final = 30.0
_SMALLEST: Final = 4096


class Strikes:
    """Strikes one stack.

    Args:
        stack: Its processes and files.
        edges: Its connections.
        minio: The bucket of its images.
        clock: The file that sets its clock.
    """

    def __init__(self, stack: Stack, edges: Edges, minio: MinioServer, clock: Path) -> None:
        self._stack = stack
        self._edges = edges
        self._minio = minio
        self._clock = clock

    def strike(self, cell: Cell, instance_id: Callable[[], str], lasting_s: float) -> None:
        """Wait until the holder stands still, strike, and let it go on; return when the strike is over.

        Args:
            cell: What is struck, and how; not one whose victim ends itself.
            instance_id: Tells whose QEMU is struck, if it is one's.
            lasting_s: How long lasts what passes.
        """
        with ExitStack() as over:
            with held(self._stack, cell.holder):
                lasts = self._struck(cell, instance_id, over)
                if lasts and cell.victim == cell.holder:
                    time.sleep(lasting_s)
            if cell.how is How.LOCKED:
                # Not before: the one that stood still may have been in the middle of a transaction.
                over.enter_context(_locked(self._database(cell.victim)))
            if lasts and cell.victim != cell.holder:
                time.sleep(lasting_s)

    def _struck(self, cell: Cell, instance_id: Callable[[], str], over: ExitStack) -> bool:
        """Strike; return whether it lasts."""
        match cell.how:
            case How.KILLED:
                self._kill(cell.victim, instance_id, over)
                return cell.victim == "MinIO"
            case How.FROZEN:
                self._freeze(cell, instance_id, over)
                return True
            case How.CUT:
                self._edges.cut(cell.victim)
                return False
            case How.FULL:
                over.enter_context(_full(self._stack.layout.state / "runner" / "filler"))
                return True
            case How.LOCKED:
                return True
            case How.FORWARD | How.BACK:
                step_s = _HOUR_S if cell.how is How.FORWARD else -_HOUR_S
                self._clock.write_text(str(step_s), encoding="utf-8")
                return False

    def set_clock_right(self) -> None:
        """Step it once more, back to what the host's says."""
        self._clock.unlink(missing_ok=True)

    def _kill(self, victim: str, instance_id: Callable[[], str], over: ExitStack) -> None:
        match victim:
            case "QEMU" | "dnsmasq":
                for pid in self._pids(victim, instance_id):
                    _send(pid, signal.SIGKILL)
            case "MinIO":
                self._minio.kill()
                over.callback(self._minio.start)
            case service:
                starts = self._stack.starts(service)
                self._stack.kill(service)
                eventually(lambda: self._stack.starts(service) > starts, f"{service} is started again")

    def _freeze(self, cell: Cell, instance_id: Callable[[], str], over: ExitStack) -> None:
        match cell.victim:
            case "QEMU" | "dnsmasq":
                for pid in self._pids(cell.victim, instance_id):
                    _send(pid, signal.SIGSTOP)
                    over.callback(_send, pid, signal.SIGCONT)
            case "MinIO":
                self._minio.freeze()
                over.callback(self._minio.thaw)
            case service if service != cell.holder:
                over.enter_context(self._stack.frozen(service))
            case _:
                # It stands still already.
                return

    def _pids(self, victim: str, instance_id: Callable[[], str]) -> list[int]:
        if victim == "QEMU":
            return self._stack.qemu_processes(instance_id())
        return _children(self._stack.process("qemu-runner").pid, "dnsmasq")

    def _database(self, name: str) -> Path:
        return self._stack.layout.state / name.removesuffix(".db") / name


@contextmanager
def held(stack: Stack, service: str) -> Iterator[None]:
    """Wait until a service stands still at its moment; let it go on when the block is left."""
    process = stack.process(service)
    eventually(lambda: _stands_still(process.pid), f"{service} has come to the moment")
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Hold the write lock, as a backup or an administrator's shell would."""
    connection = sqlite3.connect(database, timeout=_LOCK_WITHIN_S, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.rollback()
    finally:
        connection.close()


@contextmanager
def _full(filler: Path) -> Iterator[None]:
    """Leave no room on the file system."""
    with filler.open("wb") as file:
        taken, size = 0, 1 << 30
        while size >= _SMALLEST:
            try:
                os.posix_fallocate(file.fileno(), taken, size)
                taken += size
            except OSError:
                size //= 2
    try:
        yield
    finally:
        filler.unlink()


def _stands_still(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _children(parent: int, program: str) -> list[int]:
    found = []
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if Path(words[0].decode()).name.startswith(program):
            found.append(int(pid))
    return found
