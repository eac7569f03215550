"""The one timer of all policies: driven by the times that are stored, woken by changes, never polling.

It owns what is due when, in memory; a controller that starts makes it anew from the rows. Waits are measured
by the monotonic clock, so that a clock that is set neither hastens nor delays them; only an `expireTime` is
a moment of the wall clock. A lease begins anew with the controller: nobody could renew it before.
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
from controller.domain.lease import Lease
from controller.domain.restarting import RestartRules
from controller.instances.observations import Observations
from controller.operations import Clock, Event, Feed
from controller.policies.agenda import Agenda, Key
from controller.policies.filing import Filing, Outcome
from controller.records import instance_rows
from controller.records.lease_rows import begin_anew

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
    LEASE = "lease"
    PURGE = "purge"
    RETRY = "retry"


class Enforcer:
    """Carries out the policies of every instance when they are due."""

    def __init__(
        self, database: Database, filing: Filing, clock: Clock, rules: RestartRules, *, purge_after_s: float
    ) -> None:
        """Delete an instance `purge_after_s` after its lease was lost."""
        self._database = database
        self._filing = filing
        self._clock = clock
        self._rules = rules
        self._purge_after = timedelta(seconds=purge_after_s)
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
                    await self._load()
                    loaded = True
                await self._round()
            except Exception:  # noqa: BLE001 - loops go on, logged
                _log.exception("carrying out policies failed")
                await self._clock.sleep(_PAUSE_S)
            else:
                await self._until_due()

    def renewed(self, instance_id: str, lease: Lease) -> None:
        """Begin to wait anew for the end of a lease."""
        if instance_id in self._watched:
            self._arm_lease(instance_id, lease)

    async def _load(self) -> None:
        now = self._clock.now()
        await self._database.write(lambda conn: begin_anew(conn, now))
        self._changed.update(await self._database.read(instance_rows.timed))

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
        if decision.deed is Deed.LOSE:
            await self._filing.lose_lease(instance.id, self._decide, self._clock.now())
            _log.info("lease lost", extra={"instance": instance.name})
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

        def come(matter: _Matter, stamp: object) -> bool:
            return stamp is not None and self._waits.reached(Key(instance.id, matter), elapsed, stamp)

        lease = instance.lease
        reached = Reached(
            restart=come(_Matter.RESTART, instance.restarts.next_time),
            stable=come(_Matter.STABLE, self._stable_at(instance)),
            lease=come(_Matter.LEASE, None if lease is None else lease.beats),
            purge=come(_Matter.PURGE, self._purged_at(instance)),
        )
        return decide(instance, self._clock.now(), reached)

    def _arm(self, instance: Instance) -> None:
        expire_time = instance.policies.expire_time
        if expire_time is None:
            self._moments.drop(Key(instance.id, _Matter.EXPIRE))
        else:
            self._moments.put(Key(instance.id, _Matter.EXPIRE), expire_time, expire_time.timestamp())
        self._wait(Key(instance.id, _Matter.RESTART), instance.restarts.next_time)
        self._wait(Key(instance.id, _Matter.STABLE), self._stable_at(instance))
        self._wait(Key(instance.id, _Matter.PURGE), self._purged_at(instance))
        self._arm_lease(instance.id, instance.lease)

    def _arm_lease(self, instance_id: str, lease: Lease | None) -> None:
        key = Key(instance_id, _Matter.LEASE)
        if lease is None or lease.lost:
            self._waits.drop(key)
        else:
            self._waits.put(key, lease.beats, self._clock.monotonic() + lease.duration_s)

    def _stable_at(self, instance: Instance) -> datetime | None:
        since = instance.restarts.running_since if instance.restarts.count else None
        return None if since is None else since + timedelta(seconds=self._rules.reset_s)

    def _purged_at(self, instance: Instance) -> datetime | None:
        lost_time = None if instance.lease is None else instance.lease.lost_time
        return None if lost_time is None else lost_time + self._purge_after

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
    ends = "expireTime" in document or "lease" in document
    return ends or "nextRestartTime" in status or bool(status.get("restartCount"))
