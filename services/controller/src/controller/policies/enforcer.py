"""The one timer of all policies: driven by the times that are stored, woken by changes, never polling.

It owns what is due when, in memory; a controller that starts makes it anew from the rows. Waits are measured
by the monotonic clock, so that a clock that is set neither hastens nor delays them; only an `expireTime` is
a moment of the wall clock.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.enforcement import Decision, Deed, Reached, decide
from controller.domain.instance import Instance
from controller.domain.restarting import RestartRules
from controller.instances.observations import Observations
from controller.operations import Clock, Event, Feed
from controller.policies.agenda import Agenda, Key
from controller.policies.filing import Filing, Outcome
from controller.records import instance_rows

_log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.2
_CHUNK: Final = 200
_FIRST_RETRY_S: Final = 1.0
_MOST_RETRY_S: Final = 60.0
# A wall clock that is set does not wake anybody: how late an expireTime may be noticed after that.
_LOOK_AT_THE_WALL_S: Final = 60.0


class _Matter(StrEnum):
    EXPIRE = "expire"
    RESTART = "restart"
    STABLE = "stable"
    RETRY = "retry"


class Enforcer:
    """Carries out the policies of every instance when they are due."""

    def __init__(self, database: Database, filing: Filing, clock: Clock, rules: RestartRules) -> None:
        self._database = database
        self._filing = filing
        self._clock = clock
        self._rules = rules
        self._waits = Agenda()
        self._moments = Agenda()
        self._watched: set[str] = set()
        self._away: set[str] = set()
        self._retry_s: dict[str, float] = {}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    def follow(self, feed: Feed, observations: Observations) -> None:
        """Be told of every change, and of machines whose runner is back."""
        feed.on_event(self._told)
        observations.on_observed(self._observed)

    async def run(self) -> None:
        """Work for ever."""
        loaded = False
        while True:
            self._wake.clear()
            try:
                if not loaded:
                    self._changed.update(await self._database.read(instance_rows.timed))
                    loaded = True
                await self._round()
            except Exception:  # noqa: BLE001 - loops go on, logged
                _log.exception("carrying out policies failed")
                await self._clock.sleep(_PAUSE_S)
            else:
                await self._until_due()

    async def _round(self) -> None:
        """Attend to everybody who has changed or is due."""
        self._changed |= self._waits.pop_due(self._clock.monotonic())
        self._changed |= self._moments.pop_due(self._clock.now().timestamp())
        while self._changed:
            chunk = list(islice(self._changed, _CHUNK))

            def read(conn: Connection, ids: list[str] = chunk) -> dict[str, Instance]:
                return instance_rows.among(conn, ids)

            # Taken off before they are read: what changes after that brings them here again.
            self._changed.difference_update(chunk)
            try:
                found = await self._database.read(read)
            except BaseException:
                self._changed.update(chunk)
                raise
            for instance_id in chunk:
                await self._attend(instance_id, found.get(instance_id))

    async def _attend(self, instance_id: str, instance: Instance | None) -> None:
        if instance is None or not instance.timed:
            self._forget(instance_id)
            return
        self._watched.add(instance_id)
        self._arm(instance)
        decision = self._decide(instance)
        if decision is None:
            self._settle(instance_id)
            return
        try:
            await self._carry_out(instance, decision)
        except Exception:  # noqa: BLE001 - the others have their turn, and this one again later
            _log.exception("a policy was not carried out", extra={"instance": instance_id})
            self._try_again(instance_id)

    async def _carry_out(self, instance: Instance, decision: Decision) -> None:
        if decision.deed is Deed.FORGET:
            await self._filing.forget_restarts(instance.id, self._decide)
            return
        outcome = await self._filing.carry_out(instance.id, self._decide)
        if outcome is Outcome.AWAY:
            self._away.add(instance.id)
            self._try_again(instance.id)
            return
        if outcome is Outcome.DONE:
            extra = {"instance": instance.name, "deed": decision.deed.value, "reason": decision.reason}
            _log.info("policy carried out", extra=extra)
        self._settle(instance.id)

    def _decide(self, instance: Instance) -> Decision | None:
        elapsed = self._clock.monotonic()
        reached = Reached(
            restart=self._waits.reached(Key(instance.id, _Matter.RESTART), elapsed),
            stable=self._waits.reached(Key(instance.id, _Matter.STABLE), elapsed),
        )
        return decide(instance, self._clock.now(), reached)

    def _arm(self, instance: Instance) -> None:
        restarts, expire_time = instance.restarts, instance.policies.expire_time
        if expire_time is None:
            self._moments.drop(Key(instance.id, _Matter.EXPIRE))
        else:
            self._moments.put(Key(instance.id, _Matter.EXPIRE), expire_time, expire_time.timestamp())
        self._wait(Key(instance.id, _Matter.RESTART), restarts.next_time)
        since = restarts.running_since if restarts.count else None
        stable = None if since is None else since + timedelta(seconds=self._rules.reset_s)
        self._wait(Key(instance.id, _Matter.STABLE), stable)

    def _wait(self, key: Key, until: datetime | None) -> None:
        if until is None:
            self._waits.drop(key)
            return
        left_s = max(0.0, (until - self._clock.now()).total_seconds())
        self._waits.put(key, until, self._clock.monotonic() + left_s)

    def _try_again(self, instance_id: str) -> None:
        delay_s = self._retry_s.get(instance_id, _FIRST_RETRY_S)
        self._retry_s[instance_id] = min(2 * delay_s, _MOST_RETRY_S)
        self._waits.put(Key(instance_id, _Matter.RETRY), None, self._clock.monotonic() + delay_s)

    def _settle(self, instance_id: str) -> None:
        self._away.discard(instance_id)
        self._retry_s.pop(instance_id, None)
        self._waits.drop(Key(instance_id, _Matter.RETRY))

    def _forget(self, instance_id: str) -> None:
        self._watched.discard(instance_id)
        self._settle(instance_id)
        for matter in _Matter:
            self._waits.drop(Key(instance_id, matter))
            self._moments.drop(Key(instance_id, matter))

    async def _until_due(self) -> None:
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._wake.wait())]
        delay_s = self._delay_s()
        if delay_s is not None:
            waits.append(asyncio.ensure_future(self._clock.sleep(delay_s)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    def _delay_s(self) -> float | None:
        """Return how long nobody is due; None: for ever, as far as is known."""
        delays = []
        if (wait := self._waits.first()) is not None:
            delays.append(wait - self._clock.monotonic())
        if (moment := self._moments.first()) is not None:
            delays.append(min(moment - self._clock.now().timestamp(), _LOOK_AT_THE_WALL_S))
        return max(0.0, min(delays)) if delays else None

    def _told(self, event: Event) -> None:
        subject = event.subject
        if subject is None:
            return
        if subject in self._watched:
            concerned = event.type.startswith("instance.") or event.type == "operation.finished"
        else:
            concerned = event.type.startswith("instance.") and _is_timed(event.data.get("resource") or {})
        if concerned:
            self._mark([subject])

    def _observed(self, instance: Instance) -> None:
        if instance.id in self._away:
            self._mark([instance.id])

    def _mark(self, ids: Iterable[str]) -> None:
        self._changed.update(ids)
        self._wake.set()


def _is_timed(document: Mapping[str, Any]) -> bool:
    """Whether a policy of the instance, as its event shows it, waits for a moment."""
    status = document.get("status") or {}
    return "expireTime" in document or "nextRestartTime" in status or bool(status.get("restartCount"))
