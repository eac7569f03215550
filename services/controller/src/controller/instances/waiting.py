"""Waiting for a condition: answered the moment it is true, or as soon as it cannot come true."""

import asyncio
import logging
from typing import Final

from controller.database import Database
from controller.domain.condition import Condition, ConditionStatus
from controller.domain.instance import Instance
from controller.domain.lifecycle import InstanceState, allowed
from controller.errors import InstanceNotFound, InstanceStateConflict, PeerError, WaitTimeout
from controller.instances.guests import Guests
from controller.operations import Clock, Event, Feed
from controller.records import instance_rows

_log = logging.getLogger(__name__)

# No operation is on its way from these to a running guest.
_HOPELESS: Final = frozenset({InstanceState.STOPPED, InstanceState.FAILED, InstanceState.DELETING})


class Waiting:
    """Knows who waits for which instance; the event feed wakes them."""

    def __init__(self, database: Database, feed: Feed, guests: Guests, clock: Clock) -> None:
        self._database = database
        self._guests = guests
        self._clock = clock
        self._waiters: dict[str, set[asyncio.Event]] = {}
        feed.on_event(self._told)

    async def wait(self, name: str, condition: str, timeout_s: float) -> Instance:
        """Return the instance when `condition` is true.

        Raises:
            InstanceNotFound: There is none of this name (any more).
            InstanceStateConflict: It is in a state in which the condition cannot come true.
            WaitTimeout: It was not true within `timeout_s`; carries the evidence.
        """
        instance = await self._find(name)
        told = asyncio.Event()
        waiters = self._waiters.setdefault(instance.id, set())
        waiters.add(told)
        give_up_at = self._clock.monotonic() + timeout_s
        try:
            while True:
                # Read after joining the waiters: a change is either in the row or still to be told.
                instance = await self._find(name)
                seen = instance.condition(condition)
                if seen is not None and seen.status is ConditionStatus.TRUE:
                    return instance
                if instance.state in _HOPELESS and not instance.operation:
                    verbs = [verb.value for verb in allowed(instance.state)]
                    raise InstanceStateConflict(name, instance.state.value, verbs, f"Waiting for {condition}")
                left_s = give_up_at - self._clock.monotonic()
                if left_s <= 0:
                    raise await self._timed_out(instance, condition, seen)
                try:
                    await asyncio.wait_for(told.wait(), left_s)
                except TimeoutError:
                    continue
                told.clear()
        finally:
            waiters.discard(told)
            if not waiters:
                self._waiters.pop(instance.id, None)

    async def _find(self, name: str) -> Instance:
        found = await self._database.read(lambda conn: instance_rows.find_by_name(conn, name))
        if found is None:
            raise InstanceNotFound(name)
        return found

    async def _timed_out(self, instance: Instance, condition: str, seen: Condition | None) -> WaitTimeout:
        try:
            console = await self._guests.console_tail(instance)
        except PeerError as exc:
            _log.info("no console for the evidence", extra={"instance": instance.name, "why": str(exc)})
            console = ""
        reason = seen.reason if seen is not None else "NotObserved"
        evidence = seen.message if seen is not None else ""
        return WaitTimeout(instance.name, condition, reason, evidence, console)

    def _told(self, event: Event) -> None:
        if event.subject is not None:
            for waiter in self._waiters.get(event.subject, ()):
                waiter.set()
