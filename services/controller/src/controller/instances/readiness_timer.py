"""Turning Ready to FALSE with READINESS_TIMEOUT at the moment when waiting is given up."""

import asyncio
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
        self._due: dict[str, tuple[datetime, str]] = {}
        self._changed = asyncio.Event()
        observations.on_observed(self._observed)

    async def run(self) -> None:
        """Work for ever."""
        while True:
            self._changed.clear()
            now = self._clock.now()
            due = {key: node for key, (at, node) in self._due.items() if at <= now}
            self._due = {key: entry for key, entry in self._due.items() if entry[0] > now}
            for node in set(due.values()):
                try:
                    await self._observations.derive_again(node)
                except Exception:  # noqa: BLE001 - loops go on, logged
                    _log.exception("deriving conditions failed", extra={"node": node})
                    again = {key: (now + _AGAIN, node) for key, on in due.items() if on == node}
                    # What was observed meanwhile knows better.
                    self._due = again | self._due
            await self._until_due()

    async def _until_due(self) -> None:
        waits: list[asyncio.Future[object]] = [asyncio.ensure_future(self._changed.wait())]
        if self._due:
            first = min(at for at, _ in self._due.values())
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
        else:
            self._due[instance.id] = (due + _BEHIND, instance.node)
        self._changed.set()

    def _gives_up_at(self, instance: Instance) -> datetime | None:
        machine, ready = instance.machine, instance.condition(ConditionType.READY)
        if machine is None or machine.phase is not MachinePhase.ACTIVE or ready is None:
            return None
        if ready.status is ConditionStatus.TRUE or ready.reason == READINESS_TIMEOUT:
            return None
        return instance.readiness.gives_up_at(machine, self._fleet.standing(instance.node).node.speed_factor)
