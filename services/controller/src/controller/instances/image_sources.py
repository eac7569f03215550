"""What a launch from a URL keeps until its image is there, and what the image then makes of the instance."""

from dataclasses import replace

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.instance import MIB, Instance
from controller.errors import HostCapacityExhausted
from controller.instances.capacity import Capacity
from controller.instances.changes import Changes
from controller.operations import LostLease, Permanent, Problem, StepContext, active_operation
from controller.operations.store import find as find_operation
from controller.plans.translation import step_errors
from controller.ports import StoreImage
from controller.records import image_sources, instance_rows


class ImageSources:
    """URLs of the images to come."""

    def __init__(self, database: Database, capacity: Capacity, changes: Changes) -> None:
        self._database = database
        self._capacity = capacity
        self._changes = changes

    async def url_of(self, subject: str) -> str:
        """Return the URL that is kept for an operation's subject.

        Raises:
            Permanent: There is none, or it cannot be opened.
        """
        with step_errors():
            url = await self._database.read(lambda conn: image_sources.find(conn, subject))
        if url is None:
            raise Permanent(Problem("IMAGE_NOT_FOUND", "The URL of the image is not known any more."))
        return url

    async def resolve(self, ctx: StepContext, found: StoreImage) -> Instance:
        """Write into the operation's instance what its image is, now that it is there.

        Raises:
            Permanent: The instance cannot be made of it.
            LostLease: The operation does not hold the instance any more.
        """

        def work(conn: Connection) -> Instance:
            operation = find_operation(conn, ctx.operation_id)
            held = active_operation(conn, ctx.subject) == ctx.operation_id
            if operation is None or not held or operation.fence != ctx.fence:
                raise LostLease(f"{ctx.operation_id} does not hold {ctx.subject} any more")
            before = instance_rows.find(conn, ctx.subject)
            if before is None:
                raise Permanent(Problem("INSTANCE_NOT_FOUND", "The instance is gone."))
            resolved = _made_of(before, found)
            try:
                self._capacity.reserve(conn, resolved, before)
            except HostCapacityExhausted as exc:
                resource = ",".join(shortage.resource.value for shortage in exc.shortages)
                metadata = {"node": exc.node, "resource": resource}
                raise Permanent(Problem("HOST_CAPACITY_EXHAUSTED", str(exc), metadata)) from exc
            image_sources.forget(conn, ctx.subject)
            return self._changes.save(conn, resolved, operation)

        return await self._database.write(work)


def _made_of(instance: Instance, found: StoreImage) -> Instance:
    if found.arch != instance.arch:
        message = f"The image is for {found.arch}, the instance for {instance.arch}."
        raise Permanent(Problem("FIELD_INVALID", message, {"pointer": "/arch"}))
    needed_mib = -(-found.image.virtual_size_bytes // MIB)
    wanted_mib = instance.resources.disk_mib
    if wanted_mib and wanted_mib < needed_mib:
        message = f"The disk must have at least {needed_mib} MiB: a disk does not shrink."
        raise Permanent(Problem("FIELD_INVALID", message, {"pointer": "/vm/disk"}))
    resources = replace(instance.resources, disk_mib=wanted_mib or needed_mib)
    return replace(instance, image=found.image, resources=resources)
