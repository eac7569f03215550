"""What the controller refuses, beside what its operations engine and its database do.

    ControllerError
    ├── RequestInvalid             faults of the input, all of them
    ├── InstanceNotFound
    ├── InstanceAlreadyExists
    ├── InstanceStateConflict      the verb does not go with the state
    ├── InstanceProtected          a deletion is refused whatever the state
    ├── InstanceExpired            its time has run out: it is not started any more
    ├── InstanceWithoutLease       there is none to renew
    ├── LeaseLost                  it ran out before it was renewed
    ├── PreconditionFailed         If-Match names another generation
    ├── PageTokenForeign           not ours, or of another filter
    ├── ImageNotFound
    ├── ImageDigestMismatch        the name points to other bytes than were asked for
    ├── NodeNotFound
    ├── OrphanNotFound             the node has no such quarantined machine
    ├── OrphanNotImportable        its record does not suffice
    ├── OrphanRunning              it runs, and is removed by force only
    ├── MachineAlreadyManaged      an instance stands for it
    ├── HostCapacityExhausted      the node cannot hold that much more
    ├── AgentUnavailable           the guest agent does not answer
    ├── SecretUnreadable           what is stored sealed cannot be opened
    ├── WaitTimeout                a condition did not become true in time
    └── PeerError                  another service
        ├── PeerAway               cannot be reached, or did not answer in time
        ├── PeerRefused            refused, with a reason of its own that is passed on
        └── StaleFence             a runner has seen a higher fence: this call comes too late

The exceptions know nothing of gRPC or HTTP; `problems` maps them. Engine: `controller.operations.errors`;
database: `controller.database.errors`.
"""

# ruff: noqa: N818 - the names say what happened, as the tree above reads

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from controller.domain.fault import Fault
from controller.domain.shortage import Resource, Shortage


class ControllerError(Exception):
    """Everything the controller itself raises on purpose."""


class RequestInvalid(ControllerError):
    """The request has faults."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(f"{fault.pointer}: {fault.detail}" for fault in faults))
        self.faults = tuple(faults)


class InstanceNotFound(ControllerError):
    """There is no instance of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no instance {name!r}.")
        self.name = name


class InstanceAlreadyExists(ControllerError):
    """The name is taken; `hint` says what else could be done."""

    def __init__(self, name: str, hint: str = "") -> None:
        super().__init__(" ".join(filter(None, (f"There is an instance {name!r} already.", hint))))
        self.name = name


class InstanceStateConflict(ControllerError):
    """What was asked for does not go with the instance's state.

    Attributes:
        allowed: What can be asked for.
    """

    def __init__(self, name: str, state: str, allowed: Sequence[str], wanted: str) -> None:
        super().__init__(f"{wanted} is not possible: {name} is {state}.")
        self.name = name
        self.state = state
        self.allowed = tuple(allowed)


class InstanceProtected(ControllerError):
    """The instance is protected against deletion."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is protected: it is not deleted before its protection is taken away.")
        self.name = name


class InstanceExpired(ControllerError):
    """The instance's time has run out."""

    def __init__(self, name: str, expire_time: datetime) -> None:
        super().__init__(f"The time of {name} ran out at {expire_time:%Y-%m-%dT%H:%M:%SZ}.")
        self.name = name


class InstanceWithoutLease(ControllerError):
    """The instance was not given a lease."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} has no lease.")
        self.name = name


class LeaseLost(ControllerError):
    """The instance's lease ran out."""

    def __init__(self, name: str, lost_time: datetime) -> None:
        super().__init__(f"The lease of {name} ran out at {lost_time:%Y-%m-%dT%H:%M:%SZ}.")
        self.name = name


class PreconditionFailed(ControllerError):
    """The instance has another generation than the caller has seen."""

    def __init__(self, name: str, wanted: str, etag: str) -> None:
        super().__init__(f"{name} has changed: its etag is {etag}, not {wanted}.")
        self.name = name
        self.etag = etag


class PageTokenForeign(ControllerError):
    """The page token is not ours or belongs to another filter."""

    def __init__(self) -> None:
        super().__init__("The page token does not belong to this list.")


class ImageNotFound(ControllerError):
    """The store has no image of this name."""

    def __init__(self, image: str) -> None:
        super().__init__(f"There is no image {image!r}.")
        self.image = image


class ImageDigestMismatch(ControllerError):
    """The image has other bytes than were asked for."""

    def __init__(self, image: str, expected: str, actual: str) -> None:
        super().__init__(f"Image {image!r} is {actual}, not {expected}.")
        self.image = image
        self.expected = expected
        self.actual = actual


class NodeNotFound(ControllerError):
    """There is no node of this name."""

    def __init__(self, node: str) -> None:
        super().__init__(f"There is no node {node!r}.")
        self.node = node


class OrphanNotFound(ControllerError):
    """The node has no quarantined machine of this id."""

    def __init__(self, node: str, machine_id: str) -> None:
        super().__init__(f"{node} has no orphan {machine_id!r}.")
        self.node = node
        self.machine_id = machine_id


class OrphanNotImportable(ControllerError):
    """No instance can be made of the quarantined machine."""

    def __init__(self, machine_id: str, why: str) -> None:
        super().__init__(f"{machine_id} cannot be imported. {why}")
        self.machine_id = machine_id


class OrphanRunning(ControllerError):
    """The quarantined machine runs: somebody may be using it."""

    def __init__(self, node: str, machine_id: str) -> None:
        super().__init__(f"{machine_id} runs on {node}: it is removed with force only.")
        self.machine_id = machine_id


class MachineAlreadyManaged(ControllerError):
    """An instance stands for the machine."""

    def __init__(self, machine_id: str, instance: str) -> None:
        super().__init__(f"{machine_id} is no orphan: it is the machine of instance {instance!r}.")
        self.machine_id = machine_id
        self.instance = instance


class HostCapacityExhausted(ControllerError):
    """What was asked for does not fit on the node beside what others hold.

    Attributes:
        shortages: What is short, one at least.
    """

    def __init__(self, node: str, shortages: Sequence[Shortage]) -> None:
        super().__init__(f"{node} has not enough left: {'; '.join(map(_told, shortages))}.")
        self.node = node
        self.shortages = tuple(shortages)


class AgentUnavailable(ControllerError):
    """The guest agent does not answer."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The guest agent of {name} does not answer.")
        self.name = name


class SecretUnreadable(ControllerError):
    """A secret that is stored cannot be opened by the configured keys; it stays stored."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"The secret of {place} cannot be opened: {why}.")


class WaitTimeout(ControllerError):
    """A condition did not become true in time.

    Attributes:
        reason: The condition's own reason.
        evidence: Its message.
        console: The last lines that the guest printed.
    """

    def __init__(self, name: str, condition: str, reason: str, evidence: str, console: str) -> None:
        super().__init__(f"{condition} of {name} did not become true in time ({reason}).")
        self.name = name
        self.condition = condition
        self.reason = reason
        self.evidence = evidence
        self.console = console


class PeerError(ControllerError):
    """Another service did not do what it was asked.

    Attributes:
        reason: What clients are told, such as RUNNER_UNAVAILABLE.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class PeerAway(PeerError):
    """The service cannot be reached or did not answer in time; whether it acted is not known."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a peer said when it refused; `code` is the name of its status code."""

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()


class PeerRefused(PeerError):
    """The service refused."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason, refusal.message)
        self.refusal = refusal


class StaleFence(PeerError):
    """A later operation has taken over the machine."""

    def __init__(self, message: str) -> None:
        super().__init__("STALE_FENCE", message)


def _told(shortage: Shortage) -> str:
    unit = "" if shortage.resource is Resource.CPUS else " MiB"
    told = (
        f"{shortage.resource.value}: {shortage.asked}{unit} asked for, {shortage.free}{unit} free of "
        f"{shortage.limit}{unit}"
    )
    if not shortage.holders:
        return told
    largest = ", ".join(f"{holder.name} ({holder.amount}{unit})" for holder in shortage.holders)
    return f"{told}, most of it held by {largest}"
