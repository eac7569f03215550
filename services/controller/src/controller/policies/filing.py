"""The operations that policies file: the same kinds that users file, with `initiator: system`.

What is to be done is decided again in the transaction that files it, so that two controllers, or one that
looked too early, never act on what does not hold any more.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.enforcement import Decision, Deed
from controller.domain.instance import DesiredPower, Instance
from controller.domain.lifecycle import Event
from controller.domain.policy import Restarts
from controller.domain.restarting import begun
from controller.errors import PeerAway
from controller.instances.changes import Changes
from controller.instances.fleet import Fleet
from controller.operations import Engine, Initiator, Operation, Submission, SubmitRefused, Supersede
from controller.records import instance_rows
from controller.records.lease_rows import write_lease

# Beyond the guest's own time: quit, kill, and what comes after.
_MARGIN_S: Final = 120.0

Decide = Callable[[Instance], Decision | None]


class Outcome(StrEnum):
    """What became of a decision."""

    DONE = "done"
    # Nothing is to be done any more.
    OVER = "over"
    # An operation holds the instance: its end brings the instance here again.
    HELD = "held"
    # The runner is away.
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class FilingSettings:
    """How long a guest may take to power down, and an operation to end."""

    stop_timeout_s: float
    deadline_s: float


class _NothingToDo(Exception):  # noqa: N818 - an answer, not a fault
    """What was decided does not hold any more."""


class Filing:
    """Carries decisions out."""

    def __init__(
        self, database: Database, engine: Engine, fleet: Fleet, changes: Changes, settings: FilingSettings
    ) -> None:
        self._database = database
        self._engine = engine
        self._fleet = fleet
        self._changes = changes
        self._settings = settings

    async def carry_out(self, instance_id: str, decide: Decide) -> Outcome:
        """Do what `decide` says of the instance as it is in the transaction.

        Raises:
            OperationsError, DatabaseError: It cannot be filed at the moment.
        """
        try:
            await self._engine.submit(lambda conn: self._submission(conn, instance_id, decide))
        except _NothingToDo:
            return Outcome.OVER
        except PeerAway:
            return Outcome.AWAY
        except SubmitRefused:
            return Outcome.HELD
        return Outcome.DONE

    async def forget_restarts(self, instance_id: str, decide: Decide) -> None:
        """Count from nothing again, if `decide` still says so."""

        def work(conn: Connection) -> None:
            found = instance_rows.find(conn, instance_id)
            decision = None if found is None else decide(found)
            if found is not None and decision is not None and decision.deed is Deed.FORGET:
                since = found.restarts.running_since
                self._changes.save(conn, replace(found, restarts=Restarts(0, None, since)))

        await self._database.write(work)

    async def lose_lease(self, instance_id: str, decide: Decide, now: datetime) -> None:
        """Note that the lease has run out, if `decide` still says so; what follows is decided after that."""

        def work(conn: Connection) -> None:
            found = instance_rows.find(conn, instance_id)
            decision = None if found is None else decide(found)
            if found is None or found.lease is None or decision is None or decision.deed is not Deed.LOSE:
                return
            lost = replace(found, lease=found.lease.ran_out(now))
            write_lease(conn, lost.id, lost.lease)
            self._changes.save(conn, lost)

        await self._database.write(work)

    def _submission(self, conn: Connection, instance_id: str, decide: Decide) -> Submission:
        instance = instance_rows.find(conn, instance_id)
        decision = None if instance is None else decide(instance)
        if instance is None or decision is None:
            raise _NothingToDo
        self._fleet.reachable_runner(instance.node)
        spec: dict[str, Any] = {
            "from": instance.state.value,
            "reason": decision.reason,
            "message": decision.message,
        }
        match decision.deed:
            case Deed.START:
                return self._filed(instance, "start", spec, Event.START, DesiredPower.RUNNING)
            case Deed.STOP:
                spec |= {"force": False, "grace_s": self._settings.stop_timeout_s}
                return self._filed(instance, "stop", spec, Event.STOP, DesiredPower.STOPPED)
            case Deed.DELETE:
                spec |= {"force": True, "grace_s": 0.0}
                return self._filed(instance, "delete", spec, Event.FORCE_DELETE, DesiredPower.STOPPED)
            case Deed.FORGET | Deed.LOSE:
                raise _NothingToDo

    def _filed(
        self, instance: Instance, kind: str, spec: dict[str, Any], event: Event, power: DesiredPower
    ) -> Submission:
        def accepted(conn: Connection, operation: Operation) -> None:
            found = instance_rows.find(conn, operation.subject)
            if found is None:
                raise AssertionError("the instance was found in this transaction")
            restarts = begun(found).restarts if event is Event.START else Restarts()
            generation = found.generation + (found.desired_power is not power)
            moved = instance_rows.moved(found, event)
            wanted = replace(moved, desired_power=power, generation=generation, restarts=restarts)
            self._changes.save(conn, wanted, operation)

        return Submission(
            kind=kind,
            subject=instance.id,
            subject_name=instance.name,
            spec=spec,
            supersede=Supersede.ABANDON if event is Event.FORCE_DELETE else Supersede.NO,
            deadline_s=max(self._settings.deadline_s, float(spec.get("grace_s", 0.0)) + _MARGIN_S),
            initiator=Initiator.SYSTEM,
            requested_by="policies",
            accepted=accepted,
        )
