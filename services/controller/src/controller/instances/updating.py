"""Updating: a merge patch of labels, policies, resources, published ports and cloud-init.

Ports are asked of the runner before anything is filed: one that is taken is refused at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from servicekit.telemetry import current_traceparent
from sqlalchemy import Connection

from controller.database import Database
from controller.domain.fault import Fault
from controller.domain.first_boot import FirstBoot, FirstBootPatch, first_boot_faults
from controller.domain.instance import MIB, Instance, Resources
from controller.domain.launch_spec import (
    NOTHING_PUBLISHES,
    cpus_faults,
    disk_faults,
    label_faults,
    memory_faults,
    port_faults,
)
from controller.domain.lifecycle import Verb, admits
from controller.domain.machine import Port
from controller.domain.policy import PolicyWish, Restarts
from controller.domain.restarting import RestartRules, planned
from controller.errors import RequestInvalid
from controller.instances.capacity import Capacity
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
from controller.operations import AlreadyThere, Clock, Operation, Submission, require_idle
from controller.plans.workbench import machine_spec
from controller.records import instance_rows
from controller.records.instance_rows import Secrets
from controller.records.lease_rows import write_lease
from controller.records.stored_json import to_stored

PORTS_NOTE = "Published ports take effect at the next start."
RESOURCES_NOTE = "The guest has other cpus, memory and disk from the next start on."
SEED_NOTE = (
    "cloudInit, sshKeys, hostname and packages take effect at the next start, under another instance-id: "
    "as at a first boot."
)
UNKNOWN_HALF = (
    "The instance was imported: what its seed holds of this is not known here and would be lost. "
    'Give it too, or "" for none.'
)
_NO_SECRETS = Secrets(b"", "")


@dataclass(frozen=True, slots=True)
class SeedPatch:
    """What cloud-init is to be told; None stays, empty is none. Secret."""

    user_data: bytes | None = None
    network_config: str | None = None

    def __repr__(self) -> str:
        """Show nothing."""
        return "SeedPatch()"

    def over(self, stored: Callable[[], Secrets]) -> Secrets:
        """Return the secrets as they are to be; what is `stored` is asked for only where a half is missing.

        So an instance whose stored secrets do not open is mended by giving both halves.
        """
        if self.user_data is not None and self.network_config is not None:
            return Secrets(self.user_data, self.network_config)
        secrets = stored()
        return Secrets(
            secrets.user_data if self.user_data is None else self.user_data,
            secrets.network_config if self.network_config is None else self.network_config,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What is to change; None stays.

    Attributes:
        labels: To set.
        removed_labels: To remove.
        clear_labels: Remove all that are not in `labels`.
        remarks: What whoever asks should know of the user-data.
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
    seed: SeedPatch | None = None
    first_boot: FirstBootPatch = field(default_factory=FirstBootPatch)
    remarks: tuple[str, ...] = ()
    policies: PolicyWish = field(default_factory=PolicyWish)
    faults: tuple[Fault, ...] = ()

    def reseeds(self, instance: Instance) -> bool:
        """Tell whether cloud-init is told something else; the same secret text again counts as other."""
        return self.seed is not None or self.first_boot.over(instance.first_boot) != instance.first_boot

    def notes(self, mutated: Mutated) -> tuple[str, ...]:
        """Return what of the update takes effect when; what is not told of does at once, or is as it was."""
        instance, operation = mutated.instance, mutated.operation
        if instance is None:
            return ()
        changes = operation.spec if operation is not None else {}
        later = (
            (RESOURCES_NOTE, changes.get("resize")),
            (SEED_NOTE, changes.get("cloud_init")),
            (PORTS_NOTE, changes.get("ports") and not instance.publishes_live),
        )
        return (*(note for note, told in later if told), *self.remarks)


class Updating:
    """Accepts patches."""

    def __init__(
        self,
        database: Database,
        fleet: Fleet,
        changes: Changes,
        capacity: Capacity,
        submitting: Submitting,
        cluster_id: str,
        clock: Clock,
        rules: RestartRules,
    ) -> None:
        self._capacity = capacity
        self._database = database
        self._fleet = fleet
        self._changes = changes
        self._submitting = submitting
        self._cluster_id = cluster_id
        self._clock = clock
        self._rules = rules

    async def update(self, patch: Patch, options: Options) -> Mutated:
        """File an update, or answer at once where nothing changes.

        Raises:
            InstanceNotFound: There is no such instance.
            PreconditionFailed: If-Match names another generation.
            RequestInvalid: All faults at once.
            OperationInProgress: Another operation holds the instance.
            InstanceStateConflict: Resources change only while it is STOPPED.
            HostCapacityExhausted: It is to take more than is left.
            PeerAway: The files or the ports must change and the runner is away.
            PeerRefused: A port cannot be had.
        """
        return await self._submitting.once(options, lambda: self._update(patch, options))

    async def _update(self, patch: Patch, options: Options) -> Mutated:
        await self._require_ports(patch, options)
        traceparent = current_traceparent()

        def prepare(conn: Connection) -> Submission | AlreadyThere:
            instance, changed = self._judged(conn, patch, options)
            # Whether it is the same cloud-init is not told: the answer would tell who guesses right.
            reseeds = patch.reseeds(instance)
            if changed == instance and not reseeds:
                return already(instance)
            resize, ports = changed.resources != instance.resources, changed.nics != instance.nics
            if resize or ports:
                self._fleet.reachable_runner(instance.node)
            self._capacity.reserve(conn, changed, instance)
            return Submission(
                kind="update",
                subject=instance.id,
                subject_name=instance.name,
                spec={
                    "resize": resize,
                    "before": to_stored(instance.resources),
                    "ports": ports,
                    "nics_before": to_stored(instance.nics) if ports else [],
                    "cloud_init": reseeds,
                    "first_boot_before": to_stored(instance.first_boot) if reseeds else {},
                    "from": instance.state.value,
                },
                traceparent=traceparent,
                accepted=self._accepted(changed, patch.seed),
            )

        return await self._submitting.submit(prepare, options)

    async def _require_ports(self, patch: Patch, options: Options) -> None:
        """Have the runner refuse ports that cannot be had; what else is wrong is refused before."""
        if patch.ports is None:
            return
        instance, changed = await self._database.read(lambda conn: self._judged(conn, patch, options))
        if changed.nics != instance.nics:
            runner = self._fleet.reachable_runner(instance.node)
            spec = machine_spec(changed, _NO_SECRETS, self._cluster_id)
            await runner.plan(instance.id, spec, network_only=True)

    def _accepted(self, changed: Instance, seed: SeedPatch | None) -> Callable[[Connection, Operation], None]:
        def accepted(conn: Connection, operation: Operation) -> None:
            if seed is not None:
                hidden = seed.over(lambda: instance_rows.secrets_of(conn, changed.id))
                instance_rows.want_secrets(conn, changed.id, hidden)
            wanted = replace(changed, generation=changed.generation + 1, operation=operation.id)
            instance_rows.save_labels(conn, wanted)
            found = instance_rows.find(conn, wanted.id)
            if found is None or found.lease != wanted.lease:
                write_lease(conn, wanted.id, wanted.lease)
            self._changes.save(conn, wanted, operation)

        return accepted

    def _judged(self, conn: Connection, patch: Patch, options: Options) -> tuple[Instance, Instance]:
        """Return the instance as it is and as it is to be; refused as `update` says."""
        now = self._clock.now()
        instance = wanted_instance(conn, patch.name, options)
        faults = [*_faults_of(patch, instance), *patch.policies.faults(instance.create_time, now)]
        reseeds = patch.reseeds(instance)
        if reseeds:
            faults += _dropped(patch.seed or SeedPatch(), conn, instance.id)
        if faults:
            raise RequestInvalid(faults)
        require_idle(conn, instance.id)
        changed = _patched(patch, instance)
        changed = replace(changed, lease=patch.policies.lease_of(instance.lease, now))
        if changed.resources != instance.resources and not admits(instance.state, Verb.RESIZE):
            raise conflict(instance, "Changing cpus, memory or disk")
        if reseeds and not admits(instance.state, Verb.RESIZE):
            raise conflict(instance, "Changing cloudInit, sshKeys, hostname or packages")
        if changed.policies.restart is not instance.policies.restart and admits(instance.state, Verb.START):
            # The new policy judges anew how the machine ended, from the beginning.
            changed = planned(replace(changed, restarts=Restarts()), now, self._rules)
        return instance, changed


def _faults_of(patch: Patch, instance: Instance) -> list[Fault]:
    faults = [*patch.faults, *label_faults(_labels(patch, instance))]
    if patch.cpus is not None:
        faults += cpus_faults(patch.cpus)
    if patch.memory_mib is not None:
        faults += memory_faults(patch.memory_mib)
    if patch.disk_mib is not None:
        faults += disk_faults(patch.disk_mib, instance.resources.disk_mib * MIB)
    faults += first_boot_faults(patch.first_boot.over(FirstBoot()))
    if patch.ports is not None:
        faults += port_faults(patch.ports)
        if patch.ports and instance.publishing_nic is None:
            faults.append(Fault("/ports", NOTHING_PUBLISHES))
    return faults


def _dropped(seed: SeedPatch, conn: Connection, instance_id: str) -> list[Fault]:
    """Return what a change of a part of a seed would lose of the others, which nobody knows any more."""
    halves = (("userdata", seed.user_data), ("networkConfig", seed.network_config))
    missing = [name for name, given in halves if given is None]
    if not missing or instance_rows.secrets_of(conn, instance_id).known:
        return []
    return [Fault(f"/cloudInit/{name}", UNKNOWN_HALF) for name in missing]


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
    if patch.ports is not None:
        nics = tuple(
            replace(nic, ports=patch.ports) if number == instance.publishing_nic else nic
            for number, nic in enumerate(nics)
        )
    policies = patch.policies.applied(instance.policies, instance.create_time)
    return replace(
        instance,
        labels=_labels(patch, instance),
        resources=resources,
        nics=nics,
        policies=policies,
        first_boot=patch.first_boot.over(instance.first_boot),
    )
