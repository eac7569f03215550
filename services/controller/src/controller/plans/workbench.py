"""What steps share: the instance they work on, its runner, fencing, and how observations are taken over."""

from weakref import WeakKeyDictionary

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.instance import Instance, InstanceImage
from controller.domain.lifecycle import Event, InstanceState
from controller.domain.machine import Machine, MachineImage, MachineSpec
from controller.instances.changes import Changes
from controller.instances.evidence import Evidence
from controller.instances.fleet import Fleet
from controller.instances.image_sources import ImageSources
from controller.instances.observations import Observations
from controller.operations import LostLease, Permanent, Problem, StepContext, active_operation
from controller.operations.store import find as find_operation
from controller.plans.translation import step_errors
from controller.ports import Fencing, ImageStore, Runner
from controller.records import instance_rows
from controller.records.instance_record import record_of
from controller.records.instance_rows import Secrets


class Workbench:
    """One object for all steps."""

    def __init__(
        self,
        database: Database,
        fleet: Fleet,
        store: ImageStore,
        changes: Changes,
        observations: Observations,
        evidence: Evidence,
        sources: ImageSources,
        cluster_id: str,
    ) -> None:
        self.store = store
        self.sources = sources
        self.evidence = evidence
        self.changes = changes
        self._database = database
        self._fleet = fleet
        self._observations = observations
        self.cluster_id = cluster_id
        # What was last seen of the machine in one walk of a step.
        self._last: WeakKeyDictionary[StepContext, Machine] = WeakKeyDictionary()

    async def instance(self, ctx: StepContext) -> Instance:
        """Return the instance that the operation works on.

        Raises:
            Permanent: It is gone.
        """
        found = await self._database.read(lambda conn: instance_rows.find(conn, ctx.subject))
        if found is None:
            raise Permanent(Problem("INSTANCE_NOT_FOUND", "The instance is gone."))
        return found

    async def runner(self, ctx: StepContext) -> Runner:
        """Return the runner of the instance's node, or of that in the spec where there is no instance."""
        node = ctx.spec.get("node")
        return self._fleet.runner(node if node is not None else (await self.instance(ctx)).node)

    def fencing(self, ctx: StepContext, step: str) -> Fencing:
        """Return the identity of a call that `step` makes."""
        return Fencing(ctx.subject, ctx.fence, f"{ctx.operation_id}/{step}", ctx.remaining_s, ctx.traceparent)

    async def look(self, ctx: StepContext) -> Machine:
        """Observe the machine under the operation's fence."""
        runner = await self.runner(ctx)
        machine = await runner.get(ctx.subject, fence=ctx.fence, timeout_s=min(10.0, ctx.remaining_s))
        self._last[ctx] = machine
        return machine

    async def last_look(self, ctx: StepContext) -> Machine:
        """Return what this walk of the step has last seen, by a look or an answer; look if nothing."""
        return self._last.get(ctx) or await self.look(ctx)

    async def answered(self, ctx: StepContext, machine: Machine) -> None:
        """Take over what a call of the step answered: it was seen under the step's own fence."""
        self._last[ctx] = machine
        await self.saw(machine)

    async def saw(self, machine: Machine) -> None:
        """Take over what a call answered, so that the operation's end shows it."""
        await self._observations.saw(machine)

    async def spec(self, instance: Instance) -> MachineSpec:
        """Return what the runner is to make, secrets included."""
        with step_errors():
            secrets = await self._database.read(lambda conn: instance_rows.secrets_of(conn, instance.id))
        return machine_spec(instance, secrets, self.cluster_id)

    async def boot(self, ctx: StepContext) -> None:
        """Show that the operation goes on to power the machine on.

        Raises:
            LostLease: The operation does not hold the instance any more.
        """

        def work(conn: Connection) -> None:
            operation = find_operation(conn, ctx.operation_id)
            held = active_operation(conn, ctx.subject) == ctx.operation_id
            if operation is None or not held or operation.fence != ctx.fence:
                raise LostLease(f"{ctx.operation_id} does not hold {ctx.subject} any more")
            found = instance_rows.find(conn, ctx.subject)
            if found is not None and found.state in {InstanceState.CREATING, InstanceState.STOPPING}:
                self.changes.move(conn, operation, Event.BOOT)

        await self._database.write(work)


def machine_spec(instance: Instance, secrets: Secrets, cluster_id: str) -> MachineSpec:
    """Return what a runner is to make of `instance`."""
    return MachineSpec(
        name=instance.name,
        arch=instance.arch,
        cpus=instance.resources.cpus,
        memory_mib=instance.resources.memory_mib,
        disk_bytes=instance.disk_bytes,
        image=_machine_image(instance.image),
        nics=instance.nics,
        user_data=secrets.user_data,
        network_config=secrets.network_config,
        first_boot=instance.first_boot,
        seed_id=instance.seed_id,
        keep_seed=not secrets.known,
        cluster_id=cluster_id,
        record=record_of(instance),
        probes=instance.readiness.probes,
    )


def _machine_image(image: InstanceImage) -> MachineImage:
    if image.resolved:
        return MachineImage(image.stored_digest, image.format, image.virtual_size_bytes)
    # A stand-in for plans: what they say of networks, addresses and QEMU does not depend on the image.
    return MachineImage(image.digest, "qcow2", 0)
