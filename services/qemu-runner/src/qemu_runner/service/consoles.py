"""The consoles' logs as others read them: whole, in part, with times, and as they grow.

It never writes a log: QEMU does. Who reads slowly stalls nobody; who follows is one of a bounded number.
"""

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, aclosing, contextmanager
from datetime import UTC, datetime
from typing import Final

from qemu_runner.domain.console import ConsolePiece, Reading, TimeMark
from qemu_runner.domain.machine import MachineId
from qemu_runner.errors import ConsoleFollowersError, DiskFullError
from qemu_runner.store.console_log import ConsoleChunk, ConsoleLog
from qemu_runner.store.console_times import ConsoleTimes
from qemu_runner.store.file_growth import FileGrowth
from qemu_runner.store.machine_files import CONSOLE_LOG, CONSOLE_TIMES, MachineFiles

_LOG = logging.getLogger(__name__)
MOST_FOLLOWERS: Final = 16
MOST_FOLLOWERS_IN_ALL: Final = 256
HEARTBEAT_S: Final = 5.0
# Two times of one console are no closer: what a guest prints costs a bounded number of records.
_LEAST_INTERVAL_S: Final = 0.1
_TRIM_EVERY_BYTES: Final = 1024 * 1024


class Consoles:
    """The consoles of all machines.

    Args:
        files: Where their logs are.
        growth: Tells when one grows.
        limit_bytes: How much of each is kept.
    """

    def __init__(self, files: MachineFiles, growth: FileGrowth, limit_bytes: int) -> None:
        self._files = files
        self._growth = growth
        self._limit_bytes = limit_bytes
        self._consoles: weakref.WeakValueDictionary[MachineId, Console] = weakref.WeakValueDictionary()
        self._followers = 0

    def of(self, machine_id: MachineId) -> "Console":
        """Return the machine's console, whether it has a log or not: the same one while anybody has it."""
        console = self._consoles.get(machine_id)
        if console is None:
            directory = self._files.directory(machine_id)
            log = ConsoleLog(directory / CONSOLE_LOG, self._limit_bytes)
            times = ConsoleTimes(directory / CONSOLE_TIMES)
            console = self._consoles[machine_id] = Console(machine_id, log, times, self._growth, self)
        return console

    @contextmanager
    def seat(self, machine_id: MachineId, taken: int) -> Iterator[None]:
        """Have one more follow a console that `taken` follow already.

        Raises:
            ConsoleFollowersError: They are too many.
        """
        if taken >= MOST_FOLLOWERS:
            raise ConsoleFollowersError(machine_id, MOST_FOLLOWERS)
        if self._followers >= MOST_FOLLOWERS_IN_ALL:
            raise ConsoleFollowersError("", MOST_FOLLOWERS_IN_ALL)
        self._followers += 1
        try:
            yield
        finally:
            self._followers -= 1


class Console:
    """The console of one machine.

    Args:
        machine_id: Whose.
        log: What QEMU writes.
        times: When it had grown how far.
        growth: Tells when it grows.
        consoles: Counts who follows.
    """

    def __init__(
        self,
        machine_id: MachineId,
        log: ConsoleLog,
        times: ConsoleTimes,
        growth: FileGrowth,
        consoles: Consoles,
    ) -> None:
        self.machine_id = machine_id
        self.log = log
        self._times = times
        self._growth = growth
        self._consoles = consoles
        self._followers = 0
        self._noted: set[asyncio.Event] = set()
        # Whether somebody watches the log grow, so that no byte stays without its time.
        self._watched = False
        self._note_after = 0.0
        self._unkept = False
        self._trimmed_at = 0

    # -- by who watches it grow ------------------------------------------------------------------------------

    @contextmanager
    def growing(self) -> Iterator[asyncio.Event]:
        """Yield an event that is set when the log has grown; its reader clears it.

        Raises:
            FileNotFoundError: There is no log.
        """
        with self._growth.watching(self.log.path) as grown:
            try:
                yield grown
            finally:
                self._watched = False
                self._wake()

    async def resume(self, offset: int) -> int:
        """Begin to note times; return `offset`, or where the log begins by now if that is later."""
        size, written = await self.log.last_write()
        with self._keeping():
            await self._times.resume(size, written or datetime.now(UTC))
        self._watched = True
        self._wake()
        self._trimmed_at = await self.log.first_kept(offset)
        return self._trimmed_at

    async def note(self, end: int) -> float | None:
        """Note that the log has grown to `end` by now.

        Returns:
            Seconds after which to say so again, since it is too early; None: noted.
        """
        if end <= self._times.end:
            return None
        moment = asyncio.get_running_loop().time()
        if moment < self._note_after:
            return self._note_after - moment
        self._note_after = moment + _LEAST_INTERVAL_S
        first_kept = await self.log.first_kept(0)
        with self._keeping():
            await self._times.note(TimeMark(end, datetime.now(UTC)), first_kept)
        self._wake()
        return None

    async def trim(self, end: int) -> None:
        """Give back what is beyond the limit, where the log has grown by enough since the last time."""
        if end - self._trimmed_at > _TRIM_EVERY_BYTES:
            self._trimmed_at = end
            await self.log.trim()

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Bear a full disk: times are for people, and must not end what watches the machine."""
        try:
            yield
        except DiskFullError as exc:
            if not self._unkept:
                _LOG.warning("times not kept", extra={"machine": self.machine_id, "error": str(exc)})
            self._unkept = True
        else:
            self._unkept = False

    def _wake(self) -> None:
        for event in self._noted:
            event.set()

    # -- by everybody ----------------------------------------------------------------------------------------

    async def read(self, wanted: Reading) -> AsyncGenerator[ConsolePiece, None]:
        """Yield what is wanted of the log; at least one piece, which may be empty.

        What has been given back is skipped: the pieces' offsets tell. One that follows gets an empty piece
        every few seconds, and ends when the log is removed; without a log there is nothing to follow.

        Raises:
            ConsoleFollowersError: Too many follow.
        """
        if wanted.follow:
            # Closed at once, so that the place is free when the caller has gone.
            async with aclosing(self._follow(wanted)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        async for chunk in self.log.read(wanted.offset, wanted.length):
            yield await self._piece(chunk, with_times=wanted.timestamps)

    async def _follow(self, wanted: Reading) -> AsyncGenerator[ConsolePiece, None]:
        with ExitStack() as stack:
            stack.enter_context(self._consoles.seat(self.machine_id, self._followers))
            self._followers += 1
            stack.callback(self._leave)
            try:
                woken = stack.enter_context(self._growth.watching(self.log.path))
            except FileNotFoundError:
                yield ConsolePiece(0, b"", 0, 0)
                return
            # Times are noted a little later than bytes are written.
            self._noted.add(woken)
            stack.callback(self._noted.discard, woken)
            position = self.log.begin(wanted.offset, await self.log.size())
            until = position + wanted.length if wanted.length else None
            told = False
            while True:
                woken.clear()
                while position < (end := self._readable(wanted, await self.log.size(), until)):
                    chunk = await self.log.chunk(position, end - position)
                    if not chunk.data:
                        break
                    yield await self._piece(chunk, with_times=wanted.timestamps)
                    told, position = True, chunk.offset + len(chunk.data)
                if until is not None and position >= until:
                    return
                size, written = await self.log.last_write()
                if not told:
                    told = True
                    yield ConsolePiece(position, b"", size, await self.log.first_kept(0))
                if written is None:
                    return
                if not await _within(woken, HEARTBEAT_S):
                    yield ConsolePiece(position, b"", size, await self.log.first_kept(0))

    def _leave(self) -> None:
        self._followers -= 1

    def _readable(self, wanted: Reading, size: int, until: int | None) -> int:
        """Return up to where a follower may read: with times, no further than they are noted."""
        end = min(size, self._times.end) if wanted.timestamps and self._watched and not self._unkept else size
        return end if until is None else min(end, until)

    async def _piece(self, chunk: ConsoleChunk, *, with_times: bool) -> ConsolePiece:
        times: tuple[TimeMark, ...] = ()
        end = chunk.offset + len(chunk.data)
        if with_times and chunk.data:
            times = await self._times.between(chunk.offset, end)
            if not times or times[-1].end < end:
                _, written = await self.log.last_write()
                unseen = TimeMark(end, written or datetime.now(UTC), approximate=not self._watched)
                times = (*times, unseen)
        return ConsolePiece(chunk.offset, chunk.data, chunk.total_bytes, chunk.first_kept, times)


async def _within(event: asyncio.Event, time_s: float) -> bool:
    try:
        async with asyncio.timeout(time_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
