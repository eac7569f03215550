"""What the end of an operation means for its instance, in the transaction of that end."""

from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from controller.domain.instance import DesiredPower
from controller.domain.lifecycle import Event, InstanceState
from controller.domain.policy import RestartPolicy
from controller.domain.verdict import GUEST_SHUTDOWN, STOPPED
from controller.instances.changes import Changes
from controller.operations import Initiator, Operation, Problem, State
from controller.operations.ledger import SUPERSEDED
from controller.plans.power_steps import RUNNING
from controller.records import instance_rows

_CALLED_OFF: Final = Problem("OPERATION_CANCELLED", "The operation was cancelled.")


class Settling:
    """The `on_settle` hooks of all plans."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    def launch(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """A launch that comes to nothing leaves nothing; one whose QEMU was spawned leaves it FAILED."""
        if _superseded(error):
            return
        if outcome is State.SUCCEEDED:
            event = Event.IS_RUNNING if operation.spec["start"] else Event.IS_OFF
            self._carried_out(conn, operation, event)
        elif outcome is State.FAILED and RUNNING in operation.entered_steps:
            self._lost(conn, operation, error)
        else:
            self._changes.remove(conn, operation)

    def start(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """A start that was undone leaves the instance off; one of a policy, FAILED, so that it goes on."""
        if _superseded(error):
            return
        if outcome is State.SUCCEEDED:
            self._carried_out(conn, operation, Event.IS_RUNNING)
        elif outcome is State.FAILED and (
            RUNNING in operation.entered_steps or operation.initiator is Initiator.SYSTEM
        ):
            self._lost(conn, operation, error)
        elif outcome is State.CANCELLED:
            self._changes.move(conn, operation, Event.IS_OFF)
            self._want(conn, operation, DesiredPower.STOPPED)
        else:
            self._called_off(conn, operation, error)

    def restart(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """As a start, once the machine was off; before that it still runs."""
        found = instance_rows.find(conn, operation.subject)
        off = found is not None and found.state is InstanceState.STARTING
        if outcome is not State.SUCCEEDED and not _superseded(error) and not off:
            self._called_off(conn, operation, error)
        else:
            self.start(conn, operation, outcome, error)

    def stop(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """A stop that was called off leaves the instance as it was before."""
        if outcome is State.SUCCEEDED:
            spec = operation.spec
            why = {name: str(spec.get(name, "")) for name in ("reason", "message")}
            self._carried_out(conn, operation, Event.IS_OFF, **why)
        elif not _superseded(error):
            self._called_off(conn, operation, error)

    def pause(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """The state moves when it is so."""
        self._in_place(conn, operation, outcome, error, Event.PAUSE)

    def resume(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """The state moves when it is so."""
        self._in_place(conn, operation, outcome, error, Event.RESUME)

    def reset(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """The state stays."""
        self._in_place(conn, operation, outcome, error, Event.RESET)

    def update(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """A change that failed is taken back, or every later start would fail with it."""
        found = instance_rows.find(conn, operation.subject)
        if found is None or _superseded(error):
            return
        if outcome is State.SUCCEEDED:
            self._changes.save(conn, replace(found, observed_generation=found.generation), operation)
            return
        before = operation.spec["before"]
        resources = replace(
            found.resources,
            cpus=before["cpus"],
            memory_mib=before["memory_mib"],
            disk_mib=before["disk_mib"],
        )
        nics = found.nics
        if operation.spec.get("ports"):
            nics = instance_rows.nics_of(operation.spec["nics_before"])
        restored = replace(found, resources=resources, nics=nics, generation=found.generation + 1)
        self._changes.save(conn, restored, operation)

    def delete(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """The row goes last of all."""
        if outcome is State.SUCCEEDED:
            self._changes.remove(conn, operation)
        elif not _superseded(error):
            self._called_off(conn, operation, error)

    def observe(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """The state follows what was seen under the fence."""
        if outcome is not State.SUCCEEDED or not operation.facts.get("event"):
            if not _superseded(error):
                self._changes.touch(conn, operation)
            return
        facts = operation.facts
        event, reason = Event(facts["event"]), facts["reason"]
        shown = "" if event is Event.IS_OFF and reason == STOPPED else reason
        moved = self._changes.move(conn, operation, event, reason=shown, message=facts["message"])
        restarted = moved is not None and moved.policies.restart is RestartPolicy.ALWAYS
        if event is Event.IS_OFF and reason == GUEST_SHUTDOWN and not restarted:
            self._want(conn, operation, DesiredPower.STOPPED)

    def _in_place(
        self, conn: Connection, operation: Operation, outcome: State, error: Problem | None, event: Event
    ) -> None:
        if outcome is State.SUCCEEDED:
            self._carried_out(conn, operation, event)
        elif not _superseded(error):
            self._changes.touch(conn, operation)

    def _carried_out(
        self, conn: Connection, operation: Operation, event: Event, *, reason: str = "", message: str = ""
    ) -> None:
        moved = self._changes.move(conn, operation, event, reason=reason, message=message)
        if moved is not None and moved.observed_generation != moved.generation:
            self._changes.save(conn, replace(moved, observed_generation=moved.generation), operation)

    def _lost(self, conn: Connection, operation: Operation, error: Problem | None) -> None:
        problem = error or _CALLED_OFF
        self._changes.move(conn, operation, Event.IS_LOST, reason=problem.reason, message=problem.message)

    def _called_off(self, conn: Connection, operation: Operation, error: Problem | None) -> None:
        """Put the instance back; the reconciler looks at the machine as soon as the operation has ended."""
        match operation.spec.get("from"):
            case InstanceState.RUNNING.value:
                self._changes.move(conn, operation, Event.IS_RUNNING)
                self._want(conn, operation, DesiredPower.RUNNING)
            case InstanceState.PAUSED.value:
                self._changes.move(conn, operation, Event.IS_PAUSED)
                self._want(conn, operation, DesiredPower.RUNNING)
            case InstanceState.STOPPED.value:
                self._changes.move(conn, operation, Event.IS_OFF)
            case _:
                self._lost(conn, operation, error)

    def _want(self, conn: Connection, operation: Operation, power: DesiredPower) -> None:
        found = instance_rows.find(conn, operation.subject)
        if found is not None and found.desired_power is not power:
            wanted = replace(found, desired_power=power, generation=found.generation + 1)
            self._changes.save(conn, wanted, operation)


def _superseded(error: Problem | None) -> bool:
    return error is not None and error.reason == SUPERSEDED
