"""Comparing what was observed with the state, and filing an operation where they disagree.

It moves nothing itself: the operation it files looks again, under a fence, and its end moves the state.
"""

import asyncio
import logging
from typing import Final

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.instance import Instance
from controller.domain.verdict import Observation, Verdict, judge
from controller.instances.observations import Observations
from controller.operations import (
    Clock,
    Engine,
    Event,
    Initiator,
    OperationsError,
    PublicState,
    Submission,
    SubmitRefused,
    require_idle,
)
from controller.records import instance_rows

_log = logging.getLogger(__name__)

_PAUSE_S: Final = 0.2
_AGAIN_FIRST_S: Final = 1.0
_AGAIN_MOST_S: Final = 60.0
_OBSERVE: Final = frozenset(kind.value for kind in Observation)


class _NothingToDo(Exception):  # noqa: N818 - an answer, not a fault
    """What was observed goes with the state."""


class Reconciler:
    """Judges every instance that was observed or that an operation has let go of."""

    def __init__(self, database: Database, engine: Engine, observations: Observations, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._engine = engine
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._doubtful: set[str] = set()
        self._failures: dict[str, int] = {}
        observations.on_observed(self._observed)
        observations.on_doubt(self._doubted)
        engine.feed.on_event(self._finished)

    async def run(self) -> None:
        """Work for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                instance_id = await self._queue.get()
                failures = self._failures.get(instance_id, 0)
                if failures:
                    # Its last look was refused: a full disk, say, is not asked in a circle.
                    tasks.create_task(self._reconcile_later(instance_id, failures))
                else:
                    await self._reconcile_or_requeue(instance_id)

    async def _reconcile_later(self, instance_id: str, failures: int) -> None:
        await self._clock.sleep(min(_AGAIN_MOST_S, _AGAIN_FIRST_S * 2.0 ** min(failures - 1, 10)))
        await self._reconcile_or_requeue(instance_id)

    async def _reconcile_or_requeue(self, instance_id: str) -> None:
        try:
            await self._reconcile(instance_id)
        except Exception:  # noqa: BLE001 - loops go on, logged
            # What has ended is not observed again by itself: an outage must not hide it.
            _log.exception("reconciling failed", extra={"instance": instance_id})
            self._queue.put_nowait(instance_id)
            await self._clock.sleep(_PAUSE_S)

    def _observed(self, instance: Instance) -> None:
        if _verdict(instance) is not None:
            self._queue.put_nowait(instance.id)

    def _doubted(self, instance: Instance) -> None:
        self._doubtful.add(instance.id)
        self._queue.put_nowait(instance.id)

    def _finished(self, event: Event) -> None:
        if event.type != "operation.finished" or event.subject is None:
            return
        if event.data.get("kind") in _OBSERVE and event.data.get("state") == PublicState.FAILED.value:
            self._failures[event.subject] = self._failures.get(event.subject, 0) + 1
        else:
            self._failures.pop(event.subject, None)
        self._queue.put_nowait(event.subject)

    async def _reconcile(self, instance_id: str) -> None:
        found = await self._database.read(lambda conn: instance_rows.find(conn, instance_id))
        doubtful = instance_id in self._doubtful
        if found is None or (_verdict(found) is None and not doubtful):
            self._doubtful.discard(instance_id)
            return

        def prepare(conn: Connection) -> Submission:
            require_idle(conn, instance_id)
            instance = instance_rows.find(conn, instance_id)
            verdict = None if instance is None else _verdict(instance)
            if instance is None or (verdict is None and not doubtful):
                raise _NothingToDo
            kind = Observation.AGAIN if verdict is None else verdict.observation
            return Submission(
                kind=kind.value,
                subject=instance.id,
                subject_name=instance.name,
                spec={"from": instance.state.value, "reason": "" if verdict is None else verdict.reason},
                initiator=Initiator.SYSTEM,
                requested_by="reconciler",
            )

        # Filed, or somebody else's operation looks for us: in doubt no longer.
        self._doubtful.discard(instance_id)
        try:
            await self._engine.submit(prepare)
        except (_NothingToDo, SubmitRefused):
            # An operation that holds the instance brings it here again when it ends.
            return
        except OperationsError:
            _log.exception("no operation was filed", extra={"instance": instance_id})


def _verdict(instance: Instance) -> Verdict | None:
    if instance.operation or instance.machine is None:
        return None
    return judge(instance.state, instance.machine)
