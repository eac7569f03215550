"""Reading consoles' logs, and following them for as long as their instance exists.

A runner that goes away ends its stream; offsets make it go on where it stood, and nothing is lost in between.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from controller.domain.console import ConsoleChunk, ConsoleWish
from controller.domain.instance import Instance
from controller.errors import InstanceNotFound, PeerAway, PeerRefused
from controller.instances.fleet import Fleet
from controller.instances.queries import Queries
from controller.operations import Clock

_HEARTBEAT_S: Final = 5.0
_RETRY_S: Final = 1.0
_NOT_MADE: Final = "MACHINE_NOT_FOUND"
# Who follows is told when the runner has been away for so long.
AWAY_S: Final = 60.0


class ConsoleReading:
    """Passes on the log of an instance's console."""

    def __init__(self, queries: Queries, fleet: Fleet, clock: Clock) -> None:
        self._queries = queries
        self._fleet = fleet
        self._clock = clock

    async def read(self, name: str, wish: ConsoleWish) -> AsyncGenerator[ConsoleChunk, None]:
        """Yield what is wanted of the log; of a machine that was never started, nothing.

        One that follows goes on over stops, starts and restarts of the runner, gets an empty chunk at least
        every few seconds, and ends when the instance is deleted.

        Raises:
            InstanceNotFound: There is no such instance.
            PeerError: The runner refuses, or is away: at the beginning, or for a minute.
        """
        instance = await self._queries.get(name)
        if not wish.follow:
            try:
                async with aclosing(self._chunks(instance, wish)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except PeerRefused as exc:
                if exc.reason != _NOT_MADE:
                    raise
                yield ConsoleChunk(b"", 0, 0)
            return
        with self._queries.news_of(instance.id) as told:
            following = _Following(wish)
            while True:
                # Cleared before anything is looked at: a change that is missed sets it again.
                told.clear()
                pause_s = _HEARTBEAT_S
                try:
                    async with aclosing(self._chunks(instance, following.rest)) as chunks:
                        async for chunk in chunks:
                            following.passed(chunk, self._clock.monotonic())
                            yield chunk
                except PeerAway:
                    if following.away_for(self._clock.monotonic()) >= AWAY_S:
                        raise
                    pause_s = _RETRY_S
                except PeerRefused as exc:
                    # Not made yet, or not any more.
                    if exc.reason != _NOT_MADE:
                        raise
                    following.seen(self._clock.monotonic())
                if following.complete or not await self._is_there(name, instance.id):
                    return
                # At the first turn too: where there is no log yet, a caller learns that it follows one.
                yield following.nothing
                await self._queries.told_within(told, pause_s)

    def _chunks(self, instance: Instance, wish: ConsoleWish) -> AsyncGenerator[ConsoleChunk, None]:
        return self._fleet.reachable_runner(instance.node).read_console(instance.id, wish)

    async def _is_there(self, name: str, instance_id: str) -> bool:
        try:
            return (await self._queries.get(name)).id == instance_id
        except InstanceNotFound:
            return False


class _Following:
    """How far one has followed."""

    def __init__(self, wish: ConsoleWish) -> None:
        self.rest = wish
        self.complete = False
        self.nothing = ConsoleChunk(b"", max(0, wish.offset), 0)
        self._heard: float | None = None

    def passed(self, chunk: ConsoleChunk, moment: float) -> None:
        """Take note of a chunk that is handed on at `moment`."""
        self.seen(moment)
        end = chunk.offset + len(chunk.chunk)
        # What was given back counts as passed.
        passed = end - self.rest.offset if self.rest.offset >= 0 else len(chunk.chunk)
        left = self.rest.length - passed if self.rest.length else 0
        self.complete = bool(self.rest.length) and left <= 0
        self.rest = replace(self.rest, offset=end, length=max(0, left))
        self.nothing = replace(chunk, chunk=b"", offset=end, times=())

    def seen(self, moment: float) -> None:
        """Take note that the runner answers."""
        self._heard = moment

    def away_for(self, moment: float) -> float:
        """Return how long the runner has not answered, seconds; for ever if it never has."""
        return float("inf") if self._heard is None else moment - self._heard
