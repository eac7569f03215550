"""Every change of an instance's row, with its event, in the caller's transaction.

It keeps conditions in step with what they are derived from.
"""

import logging
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from controller.domain.condition import View, derive
from controller.domain.instance import Failure, Instance
from controller.domain.lifecycle import Event, IllegalTransition, next_state
from controller.domain.machine import Machine
from controller.domain.restarting import RestartRules, followed
from controller.instances.fleet import Fleet
from controller.operations import Clock, Operation, Outbox
from controller.records import instance_rows
from controller.records.documents import instance_document
from controller.records.instance_rows import Secrets

_log = logging.getLogger(__name__)


class Changes:
    """Writes instances; all methods run in a write transaction of the caller."""

    def __init__(self, fleet: Fleet, clock: Clock, rules: RestartRules) -> None:
        self._fleet = fleet
        self._rules = rules
        self._clock = clock
        self._outbox = Outbox(clock)

    def now(self) -> datetime:
        """Return the time that changes are dated by."""
        return self._clock.now()

    def add(self, conn: Connection, instance: Instance, secrets: Secrets) -> Instance:
        """Insert a new instance."""
        derived = self.derived(instance)
        instance_rows.add(conn, derived, secrets)
        self._tell(conn, "instance.created", derived, None)
        return derived

    def save(self, conn: Connection, instance: Instance, operation: Operation | None = None) -> Instance:
        """Write a changed instance and tell of it."""
        written = instance_rows.save(conn, self.derived(instance))
        self._tell(conn, "instance.updated", written, operation)
        return written

    def touch(self, conn: Connection, operation: Operation) -> None:
        """Tell that another operation holds the instance, or none any more: GET shows it."""
        found = instance_rows.find(conn, operation.subject)
        if found is not None:
            self.save(conn, found, operation)

    def move(
        self,
        conn: Connection,
        operation: Operation,
        event: Event,
        *,
        reason: str = "",
        message: str = "",
        failure: Failure | None = None,
    ) -> Instance | None:
        """Move the state of the operation's instance; None if it is gone or the table says no."""
        found = instance_rows.find(conn, operation.subject)
        if found is None:
            return None
        try:
            moved = instance_rows.moved(found, event, reason=reason, message=message, failure=failure)
        except IllegalTransition as exc:
            _log.warning(
                "state kept", extra={"instance": found.name, "operation": operation.id, "why": str(exc)}
            )
            return self.save(conn, found, operation)
        moved = followed(found, moved, self._clock.now(), self._rules)
        return self.save(conn, moved, operation)

    def remove(self, conn: Connection, operation: Operation) -> None:
        """Remove the operation's instance; its event carries the last form."""
        found = instance_rows.find(conn, operation.subject)
        if found is not None:
            instance_rows.remove(conn, found.id)
            self._tell(conn, "instance.deleted", found, operation)

    def observed(self, conn: Connection, machine: Machine | None, instance: Instance) -> Instance | None:
        """Take over an observation; None if it changes nothing that is shown."""
        if _rebooted(instance.machine, machine):
            self.beside(instance, Event.GUEST_REBOOTED)
        seen = self.derived(replace(instance, machine=machine))
        if replace(seen, machine=_without_order(machine)) == replace(
            instance, machine=_without_order(instance.machine)
        ):
            if (
                machine is not None
                and instance.machine is not None
                and machine.fence != instance.machine.fence
            ):
                instance_rows.note_machine(conn, instance.id, machine)
            return None
        return self.save(conn, seen)

    def beside(self, instance: Instance, event: Event) -> None:
        """Note what happened beside the state; the table says that it stays."""
        try:
            following = next_state(instance.state, event)
        except IllegalTransition as exc:
            _log.warning("observed out of place", extra={"instance": instance.name, "why": str(exc)})
            return
        if following is not instance.state:
            raise AssertionError(f"{event} moves {instance.state}: that is for an operation to do")
        _log.info("observed", extra={"instance": instance.name, "event": event.value})

    def derived(self, instance: Instance) -> Instance:
        """Return `instance` with the conditions that follow from the rest of it."""
        standing = self._fleet.standing(instance.node)
        view = View(
            instance.machine,
            bool(instance.nics),
            instance.readiness,
            standing.reachable is not False,
            standing.node.speed_factor,
            instance.nic_views,
        )
        conditions = derive(view, instance.conditions, self._clock.now())
        return replace(instance, conditions=conditions)

    def _tell(
        self, conn: Connection, event_type: str, instance: Instance, operation: Operation | None
    ) -> None:
        self._outbox.append(
            conn,
            event_type,
            instance.id,
            None if operation is None else operation.id,
            {"instance": instance.name, "resource": instance_document(instance)},
            fence=0 if operation is None else operation.fence,
        )


def _rebooted(before: Machine | None, now: Machine | None) -> bool:
    """Tell whether the guest has booted again within one start."""
    if before is None or now is None:
        return False
    return now.incarnation == before.incarnation and 0 < before.boots < now.boots


def _without_order(machine: Machine | None) -> Machine | None:
    return None if machine is None else replace(machine, revision=0, fence=0)
