"""The verbs: what is asked of an instance that exists.

Precedence of refusals (REST.md): 404, 412, 400, OPERATION_IN_PROGRESS, INSTANCE_STATE_CONFLICT, no-op.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from servicekit.telemetry import current_traceparent
from sqlalchemy import Connection

from controller.database import Database
from controller.domain.fault import Fault
from controller.domain.instance import DesiredPower, Instance
from controller.domain.lifecycle import GOALS, InstanceState, Verb, admits, event_of
from controller.domain.policy import Restarts
from controller.errors import InstanceExpired, InstanceProtected, RequestInvalid
from controller.instances.capacity import Capacity
from controller.instances.changes import Changes
from controller.instances.deadlines import Deadlines
from controller.instances.fleet import Fleet
from controller.instances.submitting import (
    Mutated,
    Options,
    Submitting,
    already,
    conflict,
    wanted_instance,
)
from controller.operations import AlreadyThere, Clock, Operation, Submission, Supersede, require_idle
from controller.plans.workbench import machine_spec
from controller.records import instance_rows
from controller.records.lease_rows import write_lease

# Beyond the guest's own time: quit, kill, and what comes after.
_MARGIN_S: Final = 120.0
_SUPERSEDING: Final = frozenset({Verb.FORCE_STOP, Verb.DELETE, Verb.FORCE_DELETE})
_KINDS: Final = {
    Verb.START: "start",
    Verb.STOP: "stop",
    Verb.FORCE_STOP: "stop",
    Verb.RESTART: "restart",
    Verb.PAUSE: "pause",
    Verb.RESUME: "resume",
    Verb.RESET: "reset",
    Verb.DELETE: "delete",
    Verb.FORCE_DELETE: "delete",
}
# What a verb says about the power that is wanted; pause, resume and reset say nothing.
_POWER: Final = {
    Verb.START: DesiredPower.RUNNING,
    Verb.RESTART: DesiredPower.RUNNING,
    Verb.STOP: DesiredPower.STOPPED,
    Verb.FORCE_STOP: DesiredPower.STOPPED,
    Verb.DELETE: DesiredPower.STOPPED,
    Verb.FORCE_DELETE: DesiredPower.STOPPED,
}
_DELETING: Final = frozenset({Verb.DELETE, Verb.FORCE_DELETE})
_STARTING: Final = frozenset({Verb.START, Verb.RESTART})
# Their state moves when they have been carried out, not when they are accepted.
_IN_PLACE: Final = frozenset({Verb.PAUSE, Verb.RESUME, Verb.RESET})


@dataclass(frozen=True, slots=True)
class Command:
    """One verb for one instance.

    Attributes:
        grace_s: How long the guest may take to power down.
        faults: What reading the request found.
    """

    name: str
    verb: Verb
    grace_s: float = 0.0
    faults: tuple[Fault, ...] = ()


class Verbs:
    """Accepts verbs."""

    def __init__(
        self,
        database: Database,
        fleet: Fleet,
        changes: Changes,
        capacity: Capacity,
        submitting: Submitting,
        deadlines: Deadlines,
        cluster_id: str,
        clock: Clock,
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._changes = changes
        self._capacity = capacity
        self._submitting = submitting
        self._deadlines = deadlines
        self._cluster_id = cluster_id
        self._clock = clock

    async def accept(self, command: Command, options: Options) -> Mutated:
        """File the operation that carries `command` out, or answer a no-op success.

        Raises:
            InstanceNotFound: There is no such instance.
            PreconditionFailed: If-Match names another generation.
            RequestInvalid: The request has faults.
            InstanceProtected: It is not to be deleted.
            OperationInProgress: Another operation holds the instance.
            InstanceStateConflict: The state does not allow it.
            InstanceExpired: Its time has run out; it would be stopped at once.
            HostCapacityExhausted: It is to run, and does not fit.
            PeerError: A service that is needed is away or refuses beforehand.
        """
        traceparent = current_traceparent()

        def prepare(conn: Connection) -> Submission | AlreadyThere:
            return self._prepare(conn, command, options, traceparent)

        if command.verb is not Verb.START:
            return await self._submitting.submit(prepare, options)

        async def start() -> Mutated:
            await self._plan(command, options)
            return await self._submitting.submit(prepare, options)

        return await self._submitting.once(options, start)

    async def _plan(self, command: Command, options: Options) -> None:
        """Have the runner refuse at once what it would refuse later."""

        def check(conn: Connection) -> Instance | None:
            instance = self._checked(conn, command, options)
            return None if instance.state is GOALS.get(command.verb) else instance

        instance = await self._database.read(check)
        if instance is not None:
            await self._capacity.check(_wanting(instance, DesiredPower.RUNNING), instance)
            hidden = await self._database.read(lambda conn: instance_rows.secrets_of(conn, instance.id))
            runner = self._fleet.reachable_runner(instance.node)
            await runner.plan(instance.id, machine_spec(instance, hidden, self._cluster_id))

    def _checked(self, conn: Connection, command: Command, options: Options) -> Instance:
        verb = command.verb
        instance = wanted_instance(conn, command.name, options)
        if command.faults:
            raise RequestInvalid(command.faults)
        if verb in _DELETING and instance.policies.protected:
            raise InstanceProtected(instance.name)
        possible = admits(instance.state, verb)
        if verb not in _SUPERSEDING or instance.state is InstanceState.DELETING:
            require_idle(conn, instance.id)
        holds = instance.state is GOALS.get(verb)
        if holds:
            require_idle(conn, instance.id)
        if not possible and not holds:
            raise conflict(instance, verb.value)
        expire_time = instance.policies.expire_time
        if verb in _STARTING and not holds and expire_time is not None and expire_time <= self._clock.now():
            raise InstanceExpired(instance.name, expire_time)
        return instance

    def _prepare(
        self, conn: Connection, command: Command, options: Options, traceparent: str
    ) -> Submission | AlreadyThere:
        verb = command.verb
        instance = self._checked(conn, command, options)
        if instance.state is GOALS.get(verb):
            return already(instance)
        self._fleet.reachable_runner(instance.node)
        if _POWER.get(verb) is DesiredPower.RUNNING:
            self._capacity.reserve(conn, _wanting(instance, DesiredPower.RUNNING), instance)
        force = verb in {Verb.FORCE_STOP, Verb.FORCE_DELETE}
        return Submission(
            kind=_KINDS[verb],
            subject=instance.id,
            subject_name=instance.name,
            spec=_spec(command, instance, force=force),
            supersede=Supersede.ABANDON if verb in _SUPERSEDING else Supersede.NO,
            deadline_s=max(self._deadlines.of(instance), command.grace_s + _MARGIN_S),
            traceparent=traceparent,
            accepted=self._accepted(verb),
        )

    def _accepted(self, verb: Verb) -> Callable[[Connection, Operation], None]:
        def accepted(conn: Connection, operation: Operation) -> None:
            if verb in _IN_PLACE:
                self._changes.touch(conn, operation)
                return
            found = instance_rows.find(conn, operation.subject)
            if found is None:
                raise AssertionError("the instance was found in this transaction")
            # What a user asks for goes before what a policy has planned, and is a new beginning.
            moved = replace(instance_rows.moved(found, event_of(verb)), restarts=Restarts())
            if verb in _STARTING and found.lease is not None and found.lease.lost:
                # Whoever starts it is there again.
                moved = replace(moved, lease=found.lease.renewed(self._clock.now()))
                write_lease(conn, found.id, moved.lease)
            self._changes.save(conn, _wanting(moved, _POWER[verb]), operation)

        return accepted


def _spec(command: Command, instance: Instance, *, force: bool) -> dict[str, Any]:
    return {"from": instance.state.value, "force": force, "grace_s": command.grace_s}


def _wanting(instance: Instance, power: DesiredPower) -> Instance:
    if instance.desired_power is power:
        return instance
    return replace(instance, desired_power=power, generation=instance.generation + 1)


def stop_verb(*, force: bool) -> Verb:
    """Return the verb of a stop."""
    return Verb.FORCE_STOP if force else Verb.STOP


def delete_verb(*, force: bool) -> Verb:
    """Return the verb of a delete."""
    return Verb.FORCE_DELETE if force else Verb.DELETE


def command(name: str, verb: Verb, *, grace_s: float = 0.0, faults: Sequence[Fault] = ()) -> Command:
    """Return a command."""
    return Command(name, verb, grace_s, tuple(faults))
