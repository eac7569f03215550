"""console.times: when the console log had grown how far. Beside the log, bounded like it.

QEMU writes the log itself, without times; whoever follows its growth notes them here. The file is a row of
records of 16 bytes, each the end of what was there (doubled, plus 1 where the time is approximate) and a time
in microseconds since 1970, both little-endian. Ends only rise. A record that broke off is not read. Where the
file has grown to its bound, what the log has given back is dropped, and of the older rest every second one,
whose bytes then have the next one's time, approximately.
"""

import os
import struct
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

from qemu_runner.domain.console import TimeMark
from qemu_runner.store.files import disk_errors, replace_file
from qemu_runner.store.threads import in_thread

MOST_RECORDS: Final = 65_536
_RECORD: Final = struct.Struct("<QQ")
_PAGE_RECORDS: Final = 4096
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Kept as they are when older ones are thinned out.
_NEWEST_PART: Final = 4


class ConsoleTimes:
    """The times of one console log.

    Args:
        path: The file; it need not exist.
        most_records: How many it holds at most.

    Attributes:
        end: Of what has a time.
    """

    def __init__(self, path: Path, most_records: int = MOST_RECORDS) -> None:
        self.path = path
        self._most_records = most_records
        self.end = 0

    async def resume(self, size: int, written: datetime) -> None:
        """Begin to note times of a log that is `size` long and was written last at `written`.

        Raises:
            DiskFullError: What came unseen could not be given its time.
        """
        await in_thread(self._resume, size, written)

    async def note(self, mark: TimeMark, first_kept: int) -> None:
        """Note that the log has grown to the mark's end; of no use to anybody below `first_kept`.

        Raises:
            DiskFullError: It could not be kept.
        """
        await in_thread(self._note, mark, first_kept)

    async def between(self, begin: int, end: int) -> tuple[TimeMark, ...]:
        """Return the marks of these bytes, as far as there are: the last one may lie beyond `end`."""
        return await in_thread(self._between, begin, end)

    def _resume(self, size: int, written: datetime) -> None:
        marks = self._load(0)
        if any(later.end <= earlier.end for earlier, later in pairwise(marks)) or (
            marks and marks[-1].end > size
        ):
            # Of another log, or of none: better no times than wrong ones.
            marks = []
            self.path.unlink(missing_ok=True)
        self.end = marks[-1].end if marks else 0
        if size > self.end:
            self._append(TimeMark(size, written, approximate=True))

    def _note(self, mark: TimeMark, first_kept: int) -> None:
        if mark.end <= self.end:
            return
        if self._count() >= self._most_records:
            kept = _thinned([known for known in self._load(0) if known.end > first_kept], self._most_records)
            replace_file(self.path, b"".join(_encoded(known) for known in kept))
        self._append(mark)

    def _append(self, mark: TimeMark) -> None:
        with disk_errors(self.path):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Over what is left of a record that broke off.
                os.pwrite(descriptor, _encoded(mark), self._count() * _RECORD.size)
            finally:
                os.close(descriptor)
        self.end = mark.end

    def _between(self, begin: int, end: int) -> tuple[TimeMark, ...]:
        found: list[TimeMark] = []
        number = self._first_beyond(begin)
        while page := self._load(number, _PAGE_RECORDS):
            for mark in page:
                found.append(mark)
                if mark.end >= end:
                    return tuple(found)
            number += len(page)
        return tuple(found)

    def _first_beyond(self, offset: int) -> int:
        """Return the number of the first record whose end lies beyond `offset`."""
        low, high = 0, self._count()
        while low < high:
            middle = (low + high) // 2
            found = self._load(middle, 1)
            if found and found[0].end <= offset:
                low = middle + 1
            else:
                high = middle
        return low

    def _count(self) -> int:
        try:
            return self.path.stat().st_size // _RECORD.size
        except FileNotFoundError:
            return 0

    def _load(self, first: int, most: int = MOST_RECORDS) -> list[TimeMark]:
        try:
            with self.path.open("rb") as file:
                data = os.pread(file.fileno(), most * _RECORD.size, first * _RECORD.size)
        except FileNotFoundError:
            return []
        whole = len(data) // _RECORD.size * _RECORD.size
        return [_decoded(*fields) for fields in _RECORD.iter_unpack(data[:whole])]


def _thinned(marks: list[TimeMark], most: int) -> list[TimeMark]:
    """Return the marks, or some of them where more than half of the bound is left."""
    if len(marks) <= most // 2:
        return marks
    old = len(marks) - len(marks) // _NEWEST_PART
    # The later of two stays: bytes may be shown later than they came, never earlier.
    kept = [TimeMark(mark.end, mark.time, approximate=True) for mark in marks[1:old:2]]
    return kept + marks[len(kept) * 2 :]


def _encoded(mark: TimeMark) -> bytes:
    return _RECORD.pack(mark.end << 1 | mark.approximate, (mark.time - _EPOCH) // timedelta(microseconds=1))


def _decoded(end: int, time_us: int) -> TimeMark:
    return TimeMark(end >> 1, _EPOCH + timedelta(microseconds=min(time_us, 2**57)), bool(end & 1))
