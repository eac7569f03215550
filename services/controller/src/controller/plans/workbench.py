"""What steps share: the instance they work on, its runner, fencing, and how observations are taken over."""

import json
from typing import Any

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.instance import Instance
from controller.domain.lifecycle import Event, InstanceState
from controller.domain.machine import Machine, MachineImage, MachineSpec
from controller.instances.changes import Changes
from controller.instances.evidence import Evidence
from controller.instances.fleet import Fleet
from controller.instances.observations import Observations
from controller.operations import LostLease, Permanent, Problem, StepContext, active_operation
from controller.operations.store import find as find_operation
from controller.ports import Fencing, ImageStore, Runner
from controller.records import instance_rows
from controller.records.documents import readiness_document, time_text
from controller.records.instance_rows import Secrets
from controller.records.stored_json import to_stored


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
        cluster_id: str,
    ) -> None:
        self.store = store
        self.evidence = evidence
        self.changes = changes
        self._database = database
        self._fleet = fleet
        self._observations = observations
        self._cluster_id = cluster_id

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
        """Return the runner of the instance's node."""
        return self._fleet.runner((await self.instance(ctx)).node)

    def fencing(self, ctx: StepContext, step: str) -> Fencing:
        """Return the identity of a call that `step` makes."""
        return Fencing(ctx.subject, ctx.fence, f"{ctx.operation_id}/{step}", ctx.remaining_s, ctx.traceparent)

    async def look(self, ctx: StepContext) -> Machine:
        """Observe the machine under the operation's fence."""
        runner = await self.runner(ctx)
        return await runner.get(ctx.subject, fence=ctx.fence, timeout_s=min(10.0, ctx.remaining_s))

    async def saw(self, machine: Machine) -> None:
        """Take over what a call answered, so that the operation's end shows it."""
        await self._observations.saw(machine)

    async def spec(self, instance: Instance) -> MachineSpec:
        """Return what the runner is to make, secrets included."""
        secrets = await self._database.read(lambda conn: instance_rows.secrets_of(conn, instance.id))
        return machine_spec(instance, secrets, self._cluster_id)

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
        image=MachineImage(
            instance.image.stored_digest, instance.image.format, instance.image.virtual_size_bytes
        ),
        nics=instance.nics,
        user_data=secrets.user_data,
        network_config=secrets.network_config,
        seed_id=instance.seed_id,
        cluster_id=cluster_id,
        record=record_of(instance),
    )


def record_of(instance: Instance) -> str:
    """Return what a lost database can be rebuilt from; no secrets, and equal for equal machines."""
    record: dict[str, Any] = {
        "name": instance.name,
        "id": instance.id,
        "image": to_stored(instance.image),
        "arch": instance.arch,
        "vm": to_stored(instance.resources),
        "nics": to_stored(instance.nics),
        "labels": dict(instance.labels),
        "readiness": readiness_document(instance.readiness),
        "createTime": time_text(instance.create_time),
    }
    if instance.seed_revision:
        # What the seed was made of is secret; that it is another one must be seen all the same.
        record["seedRevision"] = instance.seed_revision
    return json.dumps(record, sort_keys=True, separators=(",", ":"))
