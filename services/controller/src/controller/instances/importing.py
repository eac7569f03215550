"""Taking quarantined machines back, and removing those that nobody wants.

Everything that makes it impossible is found before an operation is filed.
"""

from dataclasses import replace

from servicekit.telemetry import current_traceparent
from sqlalchemy import Connection

from controller.database import Database
from controller.domain.instance import Instance
from controller.domain.launch_spec import name_faults
from controller.domain.orphan import Orphan
from controller.errors import (
    InstanceAlreadyExists,
    MachineAlreadyManaged,
    OrphanNotImportable,
    OrphanRunning,
    RequestInvalid,
)
from controller.instances.changes import Changes
from controller.instances.fleet import Fleet
from controller.instances.orphans import Orphans
from controller.instances.submitting import Mutated, Options, Submitting
from controller.operations import Clock, Submission, outbid, require_idle
from controller.records import instance_rows
from controller.records.instance_record import RecordIncomplete, instance_from
from controller.records.instance_rows import Secrets

# What the machine's seed was made of stands in the seed alone.
_UNKNOWN = Secrets(b"", "", known=False)
_OTHER_NAME = "Give another `name` to import the machine under."


class Importing:
    """Accepts imports of orphans and their removal."""

    def __init__(
        self,
        database: Database,
        fleet: Fleet,
        orphans: Orphans,
        changes: Changes,
        submitting: Submitting,
        clock: Clock,
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._orphans = orphans
        self._changes = changes
        self._submitting = submitting
        self._clock = clock

    async def take(self, node: str, machine_id: str, name: str, options: Options) -> Mutated:
        """File the import of an orphan; `name` empty: as recorded.

        Raises:
            RequestInvalid: The name is none.
            NodeNotFound: There is no such node.
            OrphanNotFound: The node has no such machine.
            MachineAlreadyManaged: An instance stands for it.
            OrphanNotImportable: Its record does not suffice.
            InstanceAlreadyExists: The name is taken.
            PeerError: The runner is away.
            SubmitRefused: By the engine.
        """
        return await self._submitting.once(options, lambda: self._take(node, machine_id, name, options))

    async def discard(self, node: str, machine_id: str, options: Options, *, force: bool) -> Mutated:
        """File the removal of an orphan with everything that it has.

        Raises:
            NodeNotFound: There is no such node.
            OrphanNotFound: The node has no such machine.
            MachineAlreadyManaged: An instance stands for it.
            OrphanRunning: It runs, and `force` was not given.
            PeerError: The runner is away.
            SubmitRefused: By the engine.
        """
        return await self._submitting.once(
            options, lambda: self._discard(node, machine_id, options, force=force)
        )

    async def _take(self, node: str, machine_id: str, name: str, options: Options) -> Mutated:
        faults = name_faults(name) if name else []
        if faults:
            raise RequestInvalid(faults)
        orphan = await self._orphan(node, machine_id)
        instance = self._instance(orphan, node, name)
        traceparent = current_traceparent()

        def prepare(conn: Connection) -> Submission:
            _require_unmanaged(conn, orphan.id)
            if instance_rows.find_by_name(conn, instance.name) is not None:
                raise InstanceAlreadyExists(instance.name, _OTHER_NAME)
            # Whoever had the machine before has counted further than this database knows, and may wake up.
            outbid(conn, {orphan.id: orphan.unclaimed.machine.fence})
            self._changes.add(conn, instance, _UNKNOWN)
            return Submission(
                kind="import",
                subject=instance.id,
                subject_name=instance.name,
                traceparent=traceparent,
                accepted=self._changes.touch,
            )

        return await self._submitting.submit(prepare, options)

    async def _discard(self, node: str, machine_id: str, options: Options, *, force: bool) -> Mutated:
        orphan = await self._orphan(node, machine_id)
        if orphan.unclaimed.running and not force:
            raise OrphanRunning(node, machine_id)
        traceparent = current_traceparent()

        def prepare(conn: Connection) -> Submission:
            _require_unmanaged(conn, orphan.id)
            outbid(conn, {orphan.id: orphan.unclaimed.machine.fence})
            return Submission(
                kind="discard",
                subject=orphan.id,
                subject_name=orphan.name or orphan.id,
                spec={"node": node},
                traceparent=traceparent,
            )

        return await self._submitting.submit(prepare, options)

    async def _orphan(self, node: str, machine_id: str) -> Orphan:
        self._fleet.runner(node)

        def check(conn: Connection) -> None:
            _require_unmanaged(conn, machine_id)

        await self._database.read(check)
        return await self._orphans.find(node, machine_id)

    def _instance(self, orphan: Orphan, node: str, name: str) -> Instance:
        machine = orphan.unclaimed.machine
        if not orphan.importable:
            raise OrphanNotImportable(orphan.id, orphan.message)
        try:
            found = instance_from(machine.record, node, self._clock.now())
        except RecordIncomplete as exc:
            raise OrphanNotImportable(orphan.id, f"{exc}.") from exc
        if found.id != machine.id:
            raise OrphanNotImportable(orphan.id, f"Its record is that of {found.id}.")
        return replace(found, name=name or found.name, machine=machine)


def _require_unmanaged(conn: Connection, machine_id: str) -> None:
    found = instance_rows.find(conn, machine_id)
    if found is not None:
        raise MachineAlreadyManaged(machine_id, found.name)
    require_idle(conn, machine_id)
