"""Launching: everything that makes it impossible is found before an operation is filed."""

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Final

from servicekit.telemetry import current_traceparent
from sqlalchemy import Connection

from controller.database import Database
from controller.domain.fault import Fault
from controller.domain.image_source import FetchWish, is_url, name_of_digest
from controller.domain.instance import MIB, DesiredPower, Instance, InstanceId, InstanceImage, Resources
from controller.domain.launch_spec import ARCHES, LaunchWish, disk_faults, faults_of, source_faults
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import MachineNic, MachinePlan, publishing_nic
from controller.domain.policy import Policies
from controller.domain.probe import ADDRESS, AGENT
from controller.domain.readiness import Readiness
from controller.errors import (
    ControllerError,
    ImageDigestMismatch,
    InstanceAlreadyExists,
    PeerRefused,
    RequestInvalid,
)
from controller.instances.capacity import Capacity
from controller.instances.changes import Changes
from controller.instances.deadlines import Deadlines
from controller.instances.fleet import Fleet
from controller.instances.image_imports import faults_told
from controller.instances.submitting import Mutated, Options, Submitting
from controller.operations import Clock, Submission
from controller.plans.kinds import LAUNCH_STEPS
from controller.plans.workbench import machine_spec
from controller.ports import ImageStore, StoreImage
from controller.records import image_sources, instance_rows
from controller.records.instance_rows import Secrets

# QEMU's own prefix, locally administered (docs/interop of QEMU; IEEE 802c).
_MAC_PREFIX: Final = "52:54:00"
_DEFAULT_ARCH: Final = "x86_64"
_FETCHED_FIRST: Final = "The image is fetched first; only then is known how large a disk it needs."
# Where the client gave what the store calls by these pointers.
_SOURCE_POINTERS: Final = {"/url": "/image", "/expectedDigest": "/imageDigest"}


@dataclass(frozen=True, slots=True)
class LaunchPreview:
    """What a launch would do."""

    instance: Instance
    machine: MachinePlan
    steps: tuple[str, ...]


class Launching:
    """Accepts launches."""

    def __init__(
        self,
        database: Database,
        fleet: Fleet,
        store: ImageStore,
        changes: Changes,
        capacity: Capacity,
        submitting: Submitting,
        clock: Clock,
        cluster_id: str,
        deadlines: Deadlines,
    ) -> None:
        self._deadlines = deadlines
        self._capacity = capacity
        self._database = database
        self._fleet = fleet
        self._store = store
        self._changes = changes
        self._submitting = submitting
        self._clock = clock
        self._cluster_id = cluster_id

    async def launch(self, wish: LaunchWish, faults: Sequence[Fault], options: Options) -> Mutated:
        """File a launch; `faults` are those that reading the request found.

        Raises:
            RequestInvalid: All faults at once.
            ControllerError: Name taken, image unknown, no capacity, a service is away, …
            SubmitRefused: By the engine.
        """
        return await self._submitting.once(options, lambda: self._launch(wish, faults, options))

    async def preview(self, wish: LaunchWish, faults: Sequence[Fault]) -> LaunchPreview:
        """Say what a launch would do; refused as it would be."""
        instance, machine = await self._planned(wish, faults)
        if not instance.image.resolved:
            machine = replace(machine, warnings=(*machine.warnings, _FETCHED_FIRST))
        steps = LAUNCH_STEPS if wish.start else LAUNCH_STEPS[:2]
        machine = replace(machine, warnings=(*machine.warnings, *wish.remarks))
        return LaunchPreview(self._changes.derived(instance), machine, steps)

    async def _launch(self, wish: LaunchWish, faults: Sequence[Fault], options: Options) -> Mutated:
        instance, _ = await self._planned(wish, faults, reserve=True)
        hidden = Secrets(wish.user_data, wish.network_config)
        traceparent = current_traceparent()

        def prepare(conn: Connection) -> Submission:
            if instance_rows.find_by_name(conn, instance.name) is not None:
                raise InstanceAlreadyExists(instance.name)
            self._capacity.reserve(conn, instance)
            self._changes.add(conn, instance, hidden)
            if not instance.image.resolved:
                image_sources.keep(conn, instance.id, wish.image)
            return Submission(
                kind="launch",
                subject=instance.id,
                subject_name=instance.name,
                spec={"start": wish.start},
                deadline_s=self._deadlines.of(instance),
                traceparent=traceparent,
                accepted=self._changes.touch,
            )

        return await self._submitting.submit(prepare, options)

    async def _planned(
        self, wish: LaunchWish, faults: Sequence[Fault], *, reserve: bool = False
    ) -> tuple[Instance, MachinePlan]:
        now = self._clock.now()
        found = await self._image(wish, [*faults, *faults_of(wish), *wish.policies.faults(now, now)])
        if await self._database.read(lambda conn: instance_rows.find_by_name(conn, wish.name)) is not None:
            raise InstanceAlreadyExists(wish.name)
        draft = await self._capacity.placed(self._instance(wish, found))
        runner = self._fleet.reachable_runner(draft.node)
        hidden = Secrets(wish.user_data, wish.network_config)
        spec = machine_spec(draft, hidden, self._cluster_id)
        machine = await runner.plan(draft.id, spec, reserve=reserve)
        return replace(draft, nics=_resolved(draft.nics, machine)), machine

    async def _image(self, wish: LaunchWish, faults: list[Fault]) -> StoreImage:
        """Return the image, or raise all faults, its own among them where it can be asked."""
        found: StoreImage | None = None
        refusal: ControllerError | None = None
        if wish.image:
            try:
                found = await self._found(wish)
            except PeerRefused as exc:
                refusal = faults_told(exc, _SOURCE_POINTERS)
                if isinstance(refusal, RequestInvalid):
                    known = {fault.pointer for fault in faults}
                    faults += [fault for fault in refusal.faults if fault.pointer not in known]
            except ControllerError as exc:
                refusal = exc
        if found is not None:
            if wish.disk_mib:
                faults += [
                    fault
                    for fault in disk_faults(wish.disk_mib, found.image.virtual_size_bytes)
                    if fault not in faults
                ]
            if found.arch not in ARCHES:
                faults.append(Fault("/image", f"is for {found.arch}, which no machine here can be"))
            elif wish.arch and wish.arch != found.arch and wish.arch in ARCHES:
                faults.append(Fault("/arch", f"the image is for {found.arch}"))
        if faults:
            raise RequestInvalid(faults)
        if refusal is not None:
            raise refusal
        if found is None:
            raise AssertionError("an empty image name is a fault")
        if wish.image_digest and wish.image_digest != found.image.digest:
            raise ImageDigestMismatch(wish.image, wish.image_digest, found.image.digest)
        return found

    async def _found(self, wish: LaunchWish) -> StoreImage | None:
        """Return the image; of a URL whose image is not there yet, what is known of it."""
        if not is_url(wish.image):
            return await self._store.find(wish.image)
        if source_faults(wish):
            return None
        name = name_of_digest(wish.image_digest)
        fetch = FetchWish(name, wish.image, wish.image_digest, wish.arch or _DEFAULT_ARCH)
        # First of all, so that a bad URL is no less bad when the image is there.
        await self._store.check_fetch(fetch)
        found = await self._store.find_by_digest(wish.image_digest)
        return found or StoreImage(InstanceImage(name, wish.image_digest, "", "", 0), fetch.arch)

    def _instance(self, wish: LaunchWish, found: StoreImage, node: str = "") -> Instance:
        now = self._clock.now()
        return Instance(
            id=InstanceId(str(uuid.uuid4())),
            name=wish.name,
            image=found.image,
            arch=found.arch,
            resources=Resources(wish.cpus, wish.memory_mib or 0, _disk_mib(wish.disk_mib or 0, found.image)),
            nics=_nics(wish),
            labels=dict(wish.labels),
            first_boot=wish.first_boot,
            readiness=_readiness(wish, found),
            node=node,
            state=InstanceState.CREATING,
            desired_power=DesiredPower.RUNNING if wish.start else DesiredPower.STOPPED,
            create_time=now,
            policies=wish.policies.applied(Policies(), now),
            lease=wish.policies.lease_of(None, now),
        )


def _readiness(wish: LaunchWish, found: StoreImage) -> Readiness:
    """Return the contract as it was asked for, or else what the image can keep."""
    wanted = wish.readiness or Readiness()
    if wanted.probes:
        return wanted
    by_address = not found.has_agent and bool(wish.wanted_nics)
    return replace(wanted, probes=(ADDRESS if by_address else AGENT,))


def _disk_mib(wanted_mib: int, image: InstanceImage) -> int:
    return wanted_mib or -(-image.virtual_size_bytes // MIB)


def _nics(wish: LaunchWish) -> tuple[MachineNic, ...]:
    """Return the NICs; published ports belong to one of them."""
    publishing = publishing_nic([nic.network for nic in wish.wanted_nics])
    return tuple(
        MachineNic(
            nic.network or "default",
            nic.mac.lower() or _new_mac(),
            wish.ports if index == publishing else (),
            nic.address,
        )
        for index, nic in enumerate(wish.wanted_nics)
    )


def _resolved(nics: Sequence[MachineNic], plan: MachinePlan) -> tuple[MachineNic, ...]:
    """Return the NICs with what their networks stand for and the addresses that are set aside for them."""
    return tuple(
        replace(nic, network=network or nic.network, planned="" if nic.address else planned or "")
        for nic, network, planned in zip_longest(nics, plan.networks, plan.addresses)
    )


def _new_mac() -> str:
    return ":".join((_MAC_PREFIX, *(f"{byte:02x}" for byte in secrets.token_bytes(3))))
