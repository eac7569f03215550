"""Reading instances, and waiting for a condition of one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from controller.database import Database
from controller.domain.condition import ConditionStatus, ConditionType
from controller.domain.console import ConsoleWish
from controller.domain.fault import Fault
from controller.domain.instance import Instance
from controller.domain.lifecycle import InstanceState
from controller.errors import InstanceNotFound, PeerError, RequestInvalid, WaitTimeout
from controller.instances.fleet import Fleet
from controller.instances.submitting import conflict
from controller.operations import Clock, Event, Feed
from controller.records import instance_rows
from controller.records.instance_pages import InstanceFilter, InstancePage, page

MAX_WAIT_S: Final = 600.0
_CONSOLE_TAIL_BYTES: Final = 2000
_CONSOLE_S: Final = 5.0
_HOPELESS: Final = frozenset({InstanceState.STOPPED, InstanceState.FAILED, InstanceState.DELETING})


class Queries:
    """Answers questions about instances."""

    def __init__(self, database: Database, fleet: Fleet, feed: Feed, clock: Clock) -> None:
        self._database = database
        self._fleet = fleet
        self._clock = clock
        self._waiters: dict[str, set[asyncio.Event]] = {}
        feed.on_event(self._changed)

    async def get(self, name: str) -> Instance:
        """Return an instance.

        Raises:
            InstanceNotFound: There is none of this name.
        """
        found = await self._database.read(lambda conn: instance_rows.find_by_name(conn, name))
        if found is None:
            raise InstanceNotFound(name)
        return found

    async def list(self, chosen: InstanceFilter, page_size: int, page_token: str) -> InstancePage:
        """Return a page.

        Raises:
            PageTokenForeign: The token does not belong to this list.
        """
        return await self._database.read(lambda conn: page(conn, chosen, page_size, page_token))

    async def wait(self, name: str, kind: str, timeout_s: float) -> Instance:
        """Return the instance as soon as the condition is true.

        Raises:
            RequestInvalid: There is no such condition.
            InstanceNotFound: There is no such instance, or it is deleted meanwhile.
            InstanceStateConflict: It cannot become true.
            WaitTimeout: It did not become true in time.
        """
        instance = await self.get(name)
        if kind not in set(ConditionType):
            known = ", ".join(ConditionType)
            raise RequestInvalid([Fault("/query/condition", f"must be one of {known}")])
        give_up_at = self._clock.monotonic() + timeout_s
        with self.news_of(instance.id) as told:
            while True:
                # Cleared before the read: a change that the read misses sets it again.
                told.clear()
                instance = await self.get(name)
                if _holds(instance, kind):
                    return instance
                if instance.state in _HOPELESS:
                    raise conflict(instance, f"Waiting for {kind}")
                left_s = give_up_at - self._clock.monotonic()
                if left_s <= 0:
                    raise await self._timed_out(instance, kind)
                await self.told_within(told, left_s)

    async def console_tail(self, instance: Instance) -> str:
        """Return the last lines that the guest printed; empty where the runner cannot tell."""
        try:
            async with asyncio.timeout(_CONSOLE_S):
                runner = self._fleet.reachable_runner(instance.node)
                console = runner.read_console(instance.id, ConsoleWish(-_CONSOLE_TAIL_BYTES))
                chunks = [chunk.chunk async for chunk in console]
        except (PeerError, TimeoutError):
            return ""
        return b"".join(chunks).decode("utf-8", "replace")

    async def told_within(self, told: asyncio.Event, left_s: float) -> None:
        """Wait until `told` is set, at most `left_s` by the controller's clock."""
        tasks = [asyncio.ensure_future(told.wait()), asyncio.ensure_future(self._clock.sleep(left_s))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    @contextmanager
    def news_of(self, instance_id: str) -> Iterator[asyncio.Event]:
        """Yield what is set whenever the instance has changed; its reader clears it."""
        told = asyncio.Event()
        waiting = self._waiters.setdefault(instance_id, set())
        waiting.add(told)
        try:
            yield told
        finally:
            waiting.discard(told)
            if not waiting and self._waiters.get(instance_id) is waiting:
                del self._waiters[instance_id]

    async def _timed_out(self, instance: Instance, kind: str) -> WaitTimeout:
        condition = instance.condition(kind)
        reason, evidence = ("NotObserved", "") if condition is None else (condition.reason, condition.message)
        return WaitTimeout(instance.name, kind, reason, evidence, await self.console_tail(instance))

    def _changed(self, event: Event) -> None:
        for told in self._waiters.get(event.subject or "", ()):
            told.set()


def _holds(instance: Instance, kind: str) -> bool:
    condition = instance.condition(kind)
    return condition is not None and condition.status is ConditionStatus.TRUE
