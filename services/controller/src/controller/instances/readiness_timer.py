"""Turning Ready to FALSE with READINESS_TIMEOUT at the moment when waiting is given up.

What it does for one instance costs the same whether there are ten or ten thousand.
"""

import asyncio
import heapq
import logging
from datetime import datetime, timedelta
from typing import Final

from controller.database import Database
from controller.domain.condition import READINESS_TIMEOUT, ConditionStatus, ConditionType
from controller.domain.instance import Instance
from controller.domain.machine import MachinePhase
from controller.instances.fleet import Fleet
from controller.instances.observations import Observations
from controller.operations import Clock

_log = logging.getLogger(__name__)

# Past the moment itself, so that the derivation that follows lies behind it.
_BEHIND: Final = timedelta(milliseconds=1)
_AGAIN: Final = timedelta(milliseconds=200)


class ReadinessTimer:
    """Knows when which instance gives up."""

    def __init__(self, database: Database, fleet: Fleet, observations: Observations, clock: Clock) -> None:
        self._database = database
        self._fleet = fleet
        self._observations = observations
        self._clock = clock
        self._due: dict[str, datetime] = {}
        # The same in order of time; an entry that is not what `_due` says is out of date.
        self._order: list[tuple[datetime, str]] = []
        self._changed = asyncio.Event()
        observations.on_observed(self._observed)

    async def run(self) -> None:
        """Work for ever."""
        while True:
            self._changed.clear()
            now = self._clock.now()
            due = self._taken_until(now)
            if due:
                try:
                    await self._observations.derive(due)
                except Exception:  # noqa: BLE001 - loops go on, logged
                    _log.exception("deriving conditions failed", extra={"instances": len(due)})
                    for instance_id in due:
                        # What was observed meanwhile knows better.
                        if instance_id not in self._due:
                            self._set(instance_id, now + _AGAIN)
            await self._until_due()

    def _taken_until(self, now: datetime) -> list[str]:
        """Return the instances that are due, and forget when they were."""
        taken = []
        while self._order and (self._order[0][0] <= now or self._is_out_of_date(*self._order[0])):
            at, instance_id = heapq.heappop(self._order)
            if not self._is_out_of_date(at, instance_id):
                del self._due[instance_id]
                taken.append(instance_id)
        return taken

    def _is_out_of_date(self, at: datetime, instance_id: str) -> bool:
        return self._due.get(instance_id) != at

    def _set(self, instance_id: str, at: datetime) -> None:
        if self._due.get(instance_id) != at:
            self._due[instance_id] = at
            heapq.heappush(self._order, (at, instance_id))

    async def _until_due(self) -> None:
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._changed.wait())]
        if self._order:
            first = self._order[0][0]
            delay_s = max(0.0, (first - self._clock.now()).total_seconds())
            waits.append(asyncio.ensure_future(self._clock.sleep(delay_s)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    def _observed(self, instance: Instance) -> None:
        due = self._gives_up_at(instance)
        if due is None:
            self._due.pop(instance.id, None)
            return
        earlier = not self._order or due + _BEHIND < self._order[0][0]
        self._set(instance.id, due + _BEHIND)
        if earlier:
            self._changed.set()

    def _gives_up_at(self, instance: Instance) -> datetime | None:
        machine, ready = instance.machine, instance.condition(ConditionType.READY)
        if machine is None or machine.phase is not MachinePhase.ACTIVE or ready is None:
            return None
        if ready.status is ConditionStatus.TRUE or ready.reason == READINESS_TIMEOUT:
            return None
        return instance.readiness.gives_up_at(machine, self._fleet.standing(instance.node).node.speed_factor)
