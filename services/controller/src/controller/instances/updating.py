"""Updating: a merge patch of labels, resources and published ports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from servicekit.telemetry import current_traceparent
from sqlalchemy import Connection

from controller.domain.instance import MIB, Instance, Resources
from controller.domain.launch_spec import cpus_faults, disk_faults, label_faults, memory_faults, port_faults
from controller.domain.lifecycle import Verb, admits
from controller.domain.machine import Port
from controller.errors import Fault, RequestInvalid
from controller.instances.changes import Changes
from controller.instances.fleet import Fleet
from controller.instances.submitting import (
    Mutated,
    Options,
    Submitting,
    already,
    conflict,
    wanted_instance,
)
from controller.operations import AlreadyThere, Operation, Submission, require_idle
from controller.records import instance_rows
from controller.records.stored_json import to_stored

PORTS_NOTE = "Published ports take effect at the next start."


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What is to change; None stays.

    Attributes:
        labels: To set.
        removed_labels: To remove.
        clear_labels: Remove all that are not in `labels`.
        faults: What reading the request found.
    """

    name: str
    labels: Mapping[str, str]
    removed_labels: Sequence[str] = ()
    clear_labels: bool = False
    cpus: int | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    ports: tuple[Port, ...] | None = None
    faults: tuple[Fault, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What takes effect when."""
        return () if self.ports is None else (PORTS_NOTE,)


class Updating:
    """Accepts patches."""

    def __init__(self, fleet: Fleet, changes: Changes, submitting: Submitting) -> None:
        self._fleet = fleet
        self._changes = changes
        self._submitting = submitting

    async def update(self, patch: Patch, options: Options) -> Mutated:
        """File an update, or answer at once where nothing changes.

        Raises:
            InstanceNotFound: There is no such instance.
            PreconditionFailed: If-Match names another generation.
            RequestInvalid: All faults at once.
            OperationInProgress: Another operation holds the instance.
            InstanceStateConflict: Resources change only while it is STOPPED.
            PeerAway: The files must change and the runner is away.
        """
        traceparent = current_traceparent()

        def prepare(conn: Connection) -> Submission | AlreadyThere:
            instance = wanted_instance(conn, patch.name, options)
            faults = _faults_of(patch, instance)
            if faults:
                raise RequestInvalid(faults)
            require_idle(conn, instance.id)
            changed = _patched(patch, instance)
            resize = changed.resources != instance.resources
            if resize and not admits(instance.state, Verb.RESIZE):
                raise conflict(instance, "Changing cpus, memory or disk")
            if changed == instance:
                return already(instance)
            if resize:
                self._fleet.reachable_runner(instance.node)
            return Submission(
                kind="update",
                subject=instance.id,
                subject_name=instance.name,
                spec={
                    "resize": resize,
                    "before": to_stored(instance.resources),
                    "from": instance.state.value,
                },
                traceparent=traceparent,
                accepted=self._accepted(changed),
            )

        return await self._submitting.submit(prepare, options)

    def _accepted(self, changed: Instance) -> Callable[[Connection, Operation], None]:
        def accepted(conn: Connection, operation: Operation) -> None:
            wanted = replace(changed, generation=changed.generation + 1, operation=operation.id)
            instance_rows.save_labels(conn, wanted)
            self._changes.save(conn, wanted, operation)

        return accepted


def _faults_of(patch: Patch, instance: Instance) -> list[Fault]:
    faults = [*patch.faults, *label_faults(_labels(patch, instance))]
    if patch.cpus is not None:
        faults += cpus_faults(patch.cpus)
    if patch.memory_mib is not None:
        faults += memory_faults(patch.memory_mib)
    if patch.disk_mib is not None:
        faults += disk_faults(patch.disk_mib, instance.resources.disk_mib * MIB)
    if patch.ports is not None:
        faults += port_faults(patch.ports)
        if patch.ports and not instance.nics:
            faults.append(Fault("/ports", "an instance without NICs cannot publish ports"))
    return faults


def _labels(patch: Patch, instance: Instance) -> dict[str, str]:
    kept = {} if patch.clear_labels else dict(instance.labels)
    for key in patch.removed_labels:
        kept.pop(key, None)
    return kept | dict(patch.labels)


def _patched(patch: Patch, instance: Instance) -> Instance:
    now = instance.resources
    resources = Resources(
        now.cpus if patch.cpus is None else patch.cpus,
        now.memory_mib if patch.memory_mib is None else patch.memory_mib,
        now.disk_mib if patch.disk_mib is None else patch.disk_mib,
    )
    nics = instance.nics
    if patch.ports is not None and nics:
        nics = (replace(nics[0], ports=patch.ports), *nics[1:])
    return replace(instance, labels=_labels(patch, instance), resources=resources, nics=nics)
