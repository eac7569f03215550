"""What the end of an operation means for its instance, in the transaction of that end."""

from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from controller.domain.failing import failure
from controller.domain.first_boot import FirstBoot
from controller.domain.instance import DesiredPower, Instance
from controller.domain.lifecycle import LOSSES, Event, InstanceState
from controller.domain.machine import Machine, MachineExit, MachinePhase
from controller.domain.policy import RestartPolicy
from controller.domain.verdict import HOST_SHUTDOWN, START_FAILED, STOPPED, Verdict, ended, loss_of, seen
from controller.instances.changes import Changes
from controller.operations import Initiator, Operation, Problem, State, UndoScope
from controller.operations.operation import SUPERSEDED
from controller.plans.import_steps import IMAGE_GONE
from controller.plans.machine_steps import KEPT
from controller.plans.power_steps import RUNNING
from controller.records import instance_rows
from controller.records.stored_json import from_stored

_CALLED_OFF: Final = Problem("OPERATION_CANCELLED", "The operation was cancelled.")

# What an imported machine is found to be.
_UP: Final = frozenset({Event.IS_RUNNING, Event.IS_PAUSED, Event.DISK_FAILED})
_OFF_ON_PURPOSE: Final = frozenset({Event.IS_OFF, Event.GUEST_SHUT_DOWN})


class Settling:
    """The `on_settle` hooks of all plans."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    def launch(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """A launch that comes to nothing leaves nothing; one whose QEMU was spawned leaves it FAILED."""
        if _superseded(operation, error):
            return
        if outcome is State.SUCCEEDED:
            event = Event.IS_RUNNING if operation.spec["start"] else Event.IS_OFF
            self._carried_out(conn, operation, event)
        elif outcome is State.FAILED and _was_spawned(operation):
            self._came_to_nothing(conn, operation, error)
        else:
            self._changes.remove(conn, operation)

    def start(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """A start that was undone leaves the instance off; one of a policy, FAILED, so that it goes on."""
        if _superseded(operation, error):
            return
        if outcome is State.SUCCEEDED:
            self._carried_out(conn, operation, Event.IS_RUNNING)
        elif outcome is State.FAILED and _was_spawned(operation):
            self._came_to_nothing(conn, operation, error)
        elif outcome is State.FAILED and operation.initiator is Initiator.SYSTEM:
            # Not as the machine was before: that would call for the same start again, at once and for ever.
            self._failed(conn, operation, error, None)
        elif outcome is State.CANCELLED:
            self._changes.move(conn, operation, Event.IS_OFF)
            self._want(conn, operation, DesiredPower.STOPPED)
        else:
            self._called_off(conn, operation, error)

    def restart(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """As a start, once the machine was off; before that it still runs."""
        found = instance_rows.find(conn, operation.subject)
        off = found is not None and found.state is InstanceState.STARTING
        if outcome is not State.SUCCEEDED and not _superseded(operation, error) and not off:
            self._called_off(conn, operation, error)
        elif outcome is State.FAILED and not _was_spawned(operation) and not _superseded(operation, error):
            # It ran, it was to run on, and it is off.
            self._failed(conn, operation, error, None)
        else:
            self.start(conn, operation, outcome, error)

    def stop(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """A stop that was called off leaves the instance as it was before."""
        if outcome is State.SUCCEEDED:
            spec = operation.spec
            why = {name: str(spec.get(name, "")) for name in ("reason", "message")}
            self._carried_out(conn, operation, Event.IS_OFF, **why)
        elif not _superseded(operation, error):
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
        if found is None or _superseded(operation, error):
            return
        if outcome is State.SUCCEEDED:
            if operation.spec.get("cloud_init"):
                instance_rows.take_wanted_secrets(conn, found.id)
                found = replace(found, seed_revision=found.seed_revision + 1)
            self._changes.save(conn, replace(found, observed_generation=found.generation), operation)
            return
        instance_rows.drop_wanted_secrets(conn, found.id)
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
        first_boot = found.first_boot
        # An operation of an older build has not kept it, and has not changed it either.
        if "first_boot_before" in operation.spec and operation.spec.get("cloud_init"):
            first_boot = from_stored(FirstBoot, operation.spec["first_boot_before"])
        restored = replace(
            found, resources=resources, nics=nics, first_boot=first_boot, generation=found.generation + 1
        )
        self._changes.save(conn, restored, operation)

    def delete(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """The row goes last of all."""
        if outcome is State.SUCCEEDED:
            self._changes.remove(conn, operation)
        elif not _superseded(operation, error):
            self._called_off(conn, operation, error)

    def observe(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """The state follows what was seen under the fence."""
        if outcome is not State.SUCCEEDED or not operation.facts.get("event"):
            if not _superseded(operation, error):
                self._changes.touch(conn, operation)
            return
        facts = operation.facts
        verdict = Verdict(Event(facts["event"]), facts["reason"], facts["message"])
        moved = self._follow(conn, operation, verdict)
        restarted = moved is not None and moved.policies.restart is RestartPolicy.ALWAYS
        if verdict.event is Event.GUEST_SHUT_DOWN and not restarted:
            self._want(conn, operation, DesiredPower.STOPPED)

    def imported(self, conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
        """The instance is as its machine was found; an import that comes to nothing leaves an orphan."""
        if _superseded(operation, error):
            return
        if outcome is not State.SUCCEEDED:
            self._changes.remove(conn, operation)
            return
        facts = operation.facts
        verdict = Verdict(Event(facts["event"]), facts["reason"], facts["message"])
        if verdict.event in _UP:
            self._changes.move(conn, operation, Event.BOOT)
        moved = self._follow(conn, operation, verdict)
        if moved is None:
            return
        if not moved.reason and not facts["pinned"]:
            gone = "The image store has its image no more; the machine runs from a copy of its own."
            moved = replace(moved, reason=IMAGE_GONE, message=gone)
        self._changes.save(conn, replace(moved, observed_generation=moved.generation), operation)
        if verdict.event not in _OFF_ON_PURPOSE:
            self._want(conn, operation, DesiredPower.RUNNING)

    def _in_place(
        self, conn: Connection, operation: Operation, outcome: State, error: Problem | None, event: Event
    ) -> None:
        if outcome is State.SUCCEEDED:
            self._carried_out(conn, operation, event)
        elif not _superseded(operation, error):
            self._changes.touch(conn, operation)

    def _carried_out(
        self, conn: Connection, operation: Operation, event: Event, *, reason: str = "", message: str = ""
    ) -> None:
        moved = self._changes.move(conn, operation, event, reason=reason, message=message)
        if moved is not None and moved.observed_generation != moved.generation:
            self._changes.save(conn, replace(moved, observed_generation=moved.generation), operation)

    def _follow(self, conn: Connection, operation: Operation, verdict: Verdict) -> Instance | None:
        """Move the state by what was seen of the machine."""
        found = instance_rows.find(conn, operation.subject)
        end = None if found is None or found.machine is None else found.machine.exit
        kept = None
        if verdict.event in LOSSES:
            kept = failure(verdict.reason, verdict.message, _of_failure(end), self._changes.now())
        shown = "" if verdict.reason == STOPPED else verdict.reason
        return self._changes.move(
            conn, operation, verdict.event, reason=shown, message=verdict.message, failure=kept
        )

    def _came_to_nothing(self, conn: Connection, operation: Operation, error: Problem | None) -> None:
        """QEMU was spawned, and the operation failed; a runner that is away is no proof that it has ended."""
        found = instance_rows.find(conn, operation.subject)
        machine = None if found is None else found.machine
        if machine is not None and machine.running:
            self._changes.move(conn, operation, Event.IS_RUNNING)
        elif machine is not None and machine.exit is not None and machine.exit.reason == HOST_SHUTDOWN:
            self._follow(conn, operation, ended(machine))
        else:
            self._failed(conn, operation, error, None if machine is None else machine.exit)

    def _failed(
        self, conn: Connection, operation: Operation, error: Problem | None, end: MachineExit | None
    ) -> None:
        problem = error or _CALLED_OFF
        event = loss_of(problem.reason)
        reason = START_FAILED if event is Event.START_FAILED else problem.reason
        message = problem.message
        kept = failure(reason, message, _of_failure(end), self._changes.now())
        self._changes.move(conn, operation, event, reason=reason, message=message, failure=kept)

    def _called_off(self, conn: Connection, operation: Operation, error: Problem | None) -> None:
        """Put the instance back to how its machine was seen last; the reconciler looks again at once."""
        found = instance_rows.find(conn, operation.subject)
        if found is None:
            return
        was = operation.spec.get("from")
        verdict = _as_seen(found.machine, was)
        if verdict is not None:
            self._follow(conn, operation, verdict)
            if found.machine is not None and found.machine.phase is MachinePhase.ACTIVE:
                self._want(conn, operation, DesiredPower.RUNNING)
            return
        match was:
            case InstanceState.RUNNING.value | InstanceState.PAUSED.value:
                paused = was == InstanceState.PAUSED.value
                self._changes.move(conn, operation, Event.IS_PAUSED if paused else Event.IS_RUNNING)
                self._want(conn, operation, DesiredPower.RUNNING)
            case InstanceState.FAILED.value if found.failure is not None:
                before = found.failure
                event = loss_of(before.reason)
                self._changes.move(conn, operation, event, reason=before.reason, message=before.message)
            case InstanceState.STOPPED.value:
                self._changes.move(conn, operation, Event.IS_OFF)
            case _:
                self._failed(conn, operation, error, None)

    def _want(self, conn: Connection, operation: Operation, power: DesiredPower) -> None:
        found = instance_rows.find(conn, operation.subject)
        if found is not None and found.desired_power is not power:
            wanted = replace(found, desired_power=power, generation=found.generation + 1)
            self._changes.save(conn, wanted, operation)


def _as_seen(machine: Machine | None, was: str | None) -> Verdict | None:
    """Return what the last look at the machine says, where it says more than the state before."""
    if machine is None:
        return None
    ran = was in {InstanceState.RUNNING.value, InstanceState.PAUSED.value}
    if machine.phase is MachinePhase.ACTIVE or (ran and machine.phase is MachinePhase.EXITED):
        return seen(machine)
    return None


def _was_spawned(operation: Operation) -> bool:
    return RUNNING in operation.entered_steps or bool(operation.facts.get(KEPT))


def _of_failure(end: MachineExit | None) -> MachineExit | None:
    """Return the end as evidence: how a process ended that was stopped for the failure says nothing of it."""
    if end is None or end.reason != STOPPED:
        return end
    return replace(end, code=None, signal=None)


def _superseded(operation: Operation, error: Problem | None) -> bool:
    """Tell whether the instance is somebody else's now, who may have come when it was undone already."""
    abandoned = operation.undo_scope is UndoScope.NONE
    return abandoned or (error is not None and error.reason == SUPERSEDED)
