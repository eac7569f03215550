"""The instance: what a user asked for, how it stands, and how its runner saw it last."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType

from controller.domain.condition import Condition
from controller.domain.first_boot import FirstBoot
from controller.domain.lease import Lease
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import LIVE_PUBLISHING, Machine, MachineNic, NicView, publishing_nic
from controller.domain.policy import Policies, Restarts
from controller.domain.readiness import Readiness

InstanceId = NewType("InstanceId", str)

MIB: Final = 1024 * 1024


class DesiredPower(StrEnum):
    """What the user wants; a crash does not change it."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"


@dataclass(frozen=True, slots=True)
class InstanceImage:
    """The image as it was resolved at launch.

    Attributes:
        digest: Of the bytes as they were uploaded.
        stored_digest: Of the blob that the machine runs from. Empty, as all that follows, while the image is
            still to be fetched.
    """

    name: str
    digest: str
    stored_digest: str
    format: str
    virtual_size_bytes: int

    @property
    def resolved(self) -> bool:
        """Whether the image store had it when it was last asked."""
        return bool(self.stored_digest)


@dataclass(frozen=True, slots=True)
class Resources:
    """Size of the machine; `disk_mib` is never below the image's virtual size."""

    cpus: int
    memory_mib: int
    disk_mib: int


@dataclass(frozen=True, slots=True)
class Failure:
    """What is kept of a failure after its machine is gone.

    Attributes:
        code: QEMU's exit code, if it exited.
        signal: Name of the signal that ended it; empty: none did.
        stderr_tail: The last of what QEMU said.
        console_tail: The last of what the guest said.
    """

    reason: str
    message: str
    time: datetime
    code: int | None = None
    signal: str = ""
    stderr_tail: str = ""
    console_tail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance.

    Attributes:
        generation: Raised with every change of intent.
        revision: Raised with every change of the representation.
        observed_generation: The generation that was last carried out.
        machine: The last observation; None before the first.
        seed_revision: How often its cloud-init was changed.
        first_boot: What cloud-init is told besides; not secret.
        operation: Id of the operation that holds the instance; empty: none.
        failure: The last one, until the instance runs again or is stopped.
    """

    id: InstanceId
    name: str
    image: InstanceImage
    arch: str
    resources: Resources
    nics: tuple[MachineNic, ...]
    labels: Mapping[str, str]
    readiness: Readiness
    node: str
    state: InstanceState
    reason: str = ""
    message: str = ""
    desired_power: DesiredPower
    generation: int = 1
    revision: int = 1
    observed_generation: int = 0
    create_time: datetime
    machine: Machine | None = None
    conditions: tuple[Condition, ...] = ()
    seed_revision: int = 0
    first_boot: FirstBoot = field(default_factory=FirstBoot)
    operation: str = ""
    policies: Policies = field(default_factory=Policies)
    restarts: Restarts = field(default_factory=Restarts)
    lease: Lease | None = None
    failure: Failure | None = None

    @property
    def etag(self) -> str:
        """The representation's tag; If-Match compares what stands before the hyphen."""
        return f"{self.generation}-{self.revision}"

    @property
    def timed(self) -> bool:
        """Whether a policy waits for a moment to come."""
        ends = self.policies.expire_time is not None or self.lease is not None
        return ends or self.restarts.next_time is not None or self.restarts.count > 0

    @property
    def disk_bytes(self) -> int:
        """Size that the disk must have."""
        return self.resources.disk_mib * MIB

    @property
    def seed_id(self) -> str:
        """The id by which the guest's cloud-init knows whether it has run: another with each other seed."""
        return self.id if not self.seed_revision else f"{self.id}-{self.seed_revision}"

    @property
    def nic_views(self) -> tuple[NicView, ...]:
        """The NICs as they were seen, or as they will be."""
        if self.machine is not None and len(self.machine.nics) == len(self.nics):
            return self.machine.nics
        return tuple(NicView(nic.network, nic.mac, nic.foreseen, nic.ports) for nic in self.nics)

    @property
    def publishing_nic(self) -> int | None:
        """Number of the NIC that published ports belong to."""
        return publishing_nic([nic.network for nic in self.nics])

    @property
    def publishes_live(self) -> bool:
        """Whether its published ports change while it runs."""
        number = self.publishing_nic
        return number is not None and self.nics[number].network in LIVE_PUBLISHING

    def condition(self, kind: str) -> Condition | None:
        """Return one condition."""
        return next((condition for condition in self.conditions if condition.type == kind), None)
