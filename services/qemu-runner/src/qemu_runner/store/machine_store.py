"""machines/<id>/machine.json and tombstones/<id>: what is durably known of machines.

Owns the two directories' names and the files that hold records and fences. It never removes a machine's
other files, and never a directory that it does not know.
"""

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from qemu_runner.domain.machine import MachineId, parse_machine_id
from qemu_runner.domain.record import MachineRecord
from qemu_runner.errors import DiskFullError
from qemu_runner.store.files import replace_file
from qemu_runner.store.record_codec import RecordUnreadableError, decode_record, encode_record
from qemu_runner.store.reserve import Reserve
from qemu_runner.store.threads import in_thread

_LOG = logging.getLogger(__name__)
RECORD_NAME = "machine.json"


@dataclass(frozen=True, slots=True)
class MachineDirectory:
    """What the file system tells of one machine's directory.

    Attributes:
        name: Its name: the machine's id.
        written: When its record, or else it itself, was last written.
        disk_bytes: What its files occupy; a base that is shared with others counts nowhere.
        fault: Why its record cannot be read; empty if it can.
    """

    name: str
    written: datetime
    disk_bytes: int
    fault: str


class MachineStore:
    """Reads and writes records below the runner's state directory."""

    def __init__(self, state_dir: Path) -> None:
        self._machines = state_dir / "machines"
        self._tombstones = state_dir / "tombstones"
        self._reserve = Reserve(state_dir / "reserve")

    async def create(self) -> None:
        """Make the directories.

        Machines run as uids of their own, which must pass through to their own directory and may
        list nothing.
        """
        await in_thread(self._create)

    async def load(self) -> list[MachineRecord]:
        """Read all records; a directory that holds none is left alone."""
        return await in_thread(self._load)

    async def save(self, record: MachineRecord, *, first: bool = False) -> None:
        """Write `record`, durably; its directory must exist.

        Args:
            record: The record.
            first: Whether the machine is new; then it gets nothing of the reserve.

        Raises:
            DiskFullError: There is no room; the record before is still there.
        """
        path = self._machines / record.machine_id / RECORD_NAME
        await in_thread(self._replace, path, encode_record(record).encode(), reserved=not first)

    async def tombstone(self, machine_id: MachineId) -> int:
        """Return the highest fence that is known of a machine without a directory; 0 if none is."""
        return await in_thread(self._read_tombstone, machine_id)

    async def bury(self, machine_id: MachineId, fence: int, *, leaving: bool = False) -> None:
        """Keep the fence of a machine that has no directory, or is about to lose it.

        Args:
            machine_id: Whose.
            fence: The fence.
            leaving: Whether the machine is being deleted; then there is room in the reserve.

        Raises:
            DiskFullError: There is no room.
        """
        path = self._tombstones / machine_id
        await in_thread(self._replace, path, f"{fence}\n".encode(), reserved=leaving)

    async def unbury(self, machine_id: MachineId) -> None:
        """Remove the tombstone of a machine whose record holds the fence again."""
        await in_thread((self._tombstones / machine_id).unlink, missing_ok=True)

    async def replenish(self) -> None:
        """Fill the reserve again: there may be room now."""
        await in_thread(self._reserve.fill)

    async def is_foreign(self, machine_id: MachineId) -> bool:
        """Tell whether a machine without a readable record has files all the same.

        What a crash left before the first record was written (hidden files) does not count.
        """
        return await in_thread(self._is_foreign, machine_id)

    async def foreign(self) -> list[MachineId]:
        """Return the machines that have files and no readable record."""
        return await in_thread(self._foreign)

    async def unknown(self) -> list[Path]:
        """Return the entries of machines/ that hold no readable record."""
        return await in_thread(self._unknown)

    async def describe(self, claimed: frozenset[str]) -> list[MachineDirectory]:
        """Return what there is of machines that are not `claimed`; what vanishes meanwhile is left out."""
        return await in_thread(self._describe, claimed)

    def _describe(self, claimed: frozenset[str]) -> list[MachineDirectory]:
        found = []
        for path in sorted(self._machines.iterdir()):
            if path.name not in claimed:
                with suppress(FileNotFoundError, NotADirectoryError, ValueError):
                    parse_machine_id(path.name)
                    found.append(_describe(path))
        # What a crash left before the first record was written is nobody's machine.
        return [each for each in found if not each.fault or self._is_foreign(MachineId(each.name))]

    def _create(self) -> None:
        for path, mode in ((self._machines, 0o711), (self._tombstones, 0o700)):
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)
        self._reserve.fill()

    def _replace(self, path: Path, data: bytes, *, reserved: bool) -> None:
        while True:
            try:
                return replace_file(path, data)
            except DiskFullError:
                if not reserved or not self._reserve.spend():
                    raise
                _LOG.warning("disk full: a record is written into the reserve", extra={"path": str(path)})

    def _load(self) -> list[MachineRecord]:
        return [record for path in sorted(self._machines.iterdir()) if (record := _read(path)) is not None]

    def _unknown(self) -> list[Path]:
        return [path for path in sorted(self._machines.iterdir()) if _read(path) is None]

    def _is_foreign(self, machine_id: MachineId) -> bool:
        path = self._machines / machine_id
        return path.exists() and (
            not path.is_dir() or any(not entry.name.startswith(".") for entry in path.iterdir())
        )

    def _foreign(self) -> list[MachineId]:
        found = []
        for path in self._unknown():
            with suppress(ValueError):
                found.append(parse_machine_id(path.name))
        return [machine_id for machine_id in found if self._is_foreign(machine_id)]

    def _read_tombstone(self, machine_id: MachineId) -> int:
        try:
            return int((self._tombstones / machine_id).read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0


def _describe(directory: Path) -> MachineDirectory:
    record, fault = directory / RECORD_NAME, ""
    try:
        if _decoded(directory).machine_id != directory.name:
            fault = "it is the record of another machine"
    except FileNotFoundError:
        fault = "there is no machine.json"
    except (RecordUnreadableError, OSError, ValueError) as exc:
        fault = str(exc)
    written = (record if record.exists() else directory).stat().st_mtime
    occupied = 0
    for entry in directory.iterdir():
        with suppress(FileNotFoundError):
            status = entry.lstat()
            if status.st_nlink == 1:
                occupied += status.st_blocks * 512
    return MachineDirectory(directory.name, datetime.fromtimestamp(written, UTC), occupied, fault)


def _decoded(directory: Path) -> MachineRecord:
    return decode_record((directory / RECORD_NAME).read_text(encoding="utf-8"))


def _read(directory: Path) -> MachineRecord | None:
    try:
        parse_machine_id(directory.name)
        record = _decoded(directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (RecordUnreadableError, OSError, ValueError) as exc:
        _LOG.error("machine record unreadable", extra={"directory": str(directory), "error": str(exc)})
        return None
    return record if record.machine_id == directory.name else None
