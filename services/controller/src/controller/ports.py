"""What the service needs of others, as it would like it: runners and the image store.

Each has two implementations: the gRPC client in `adapters` and the fake of the unit tests.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from controller.domain.console import ConsoleChunk, ConsoleWish
from controller.domain.console_talk import ConsoleCommand, ConsoleEnd, ConsoleNews, ConsoleViewer
from controller.domain.guest import (
    ExecEnd,
    ExecOutput,
    FileEnd,
    FileWish,
    Frozen,
    GuestFile,
    GuestReport,
)
from controller.domain.image_source import FetchWish
from controller.domain.instance import InstanceImage
from controller.domain.machine import (
    ExecRequest,
    ExecResult,
    Machine,
    MachinePlan,
    MachineSpec,
)
from controller.domain.node import Check, Host, Leak, Node
from controller.domain.orphan import Unclaimed


@dataclass(frozen=True, slots=True)
class Fencing:
    """Identity of a mutation: whose machine, under which fence, asked by which operation and step.

    `timeout_s` bounds the call; `traceparent` is what later work is linked to.
    """

    machine_id: str
    fence: int
    request_id: str
    timeout_s: float
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotComplete:
    """All machines that exist have been told."""


@dataclass(frozen=True, slots=True)
class EvidencePart:
    """A file of evidence; `content` is the end of it."""

    name: str
    content: bytes


class GuestAccess(Protocol):
    """What is done inside the guests of one host. Methods raise `PeerAway` or `PeerRefused`."""

    async def report(self, machine_id: str) -> GuestReport:
        """Ask the guest who it is and how it does."""

    def stream(self, machine_id: str, request: ExecRequest) -> AsyncIterator[ExecOutput | ExecEnd]:
        """Run a program; yield what it writes while it runs, and its end. Not iterating further ends it."""

    async def push(self, machine_id: str, wish: FileWish, parts: AsyncIterator[bytes | FileEnd]) -> GuestFile:
        """Put a file in its place, whole or not at all."""

    def pull(self, machine_id: str, path: str) -> AsyncIterator[GuestFile | bytes]:
        """Yield what a file is, then its bytes."""

    async def set_password(self, machine_id: str, user: str, password: str, *, crypted: bool) -> None:
        """Set a user's password."""

    async def authorise_keys(self, machine_id: str, user: str, keys: Sequence[str], *, replace: bool) -> None:
        """Let SSH keys in as a user."""

    async def freeze(self, machine_id: str, timeout_s: float) -> Frozen:
        """Have the guest's filesystems stand still, for so long at most."""

    async def thaw(self, machine_id: str) -> int:
        """Let them go on; return how many."""


class ConsoleAccess(Protocol):
    """The serial consoles of one host's machines. Methods raise `PeerAway` or `PeerRefused`."""

    def attach(
        self, machine_id: str, viewer: ConsoleViewer, commands: AsyncIterator[ConsoleCommand]
    ) -> AsyncGenerator[ConsoleNews | ConsoleEnd, None]:
        """Yield what a viewer is told, ending with the end. Not iterating further detaches it."""


class Runner(Protocol):
    """The machines of one host. Methods raise `PeerAway`, `PeerRefused` or, with a fence, `StaleFence`."""

    node: str

    @property
    def guests(self) -> GuestAccess:
        """The guests of its machines."""

    @property
    def consoles(self) -> ConsoleAccess:
        """The consoles of its machines."""

    async def plan(
        self, machine_id: str, spec: MachineSpec, *, network_only: bool = False, reserve: bool = False
    ) -> MachinePlan:
        """Say what preparing and starting would do, refused as they would be; or look at ports alone.

        With `reserve`, addresses are set aside for the prepare that follows.
        """

    async def prepare(
        self, fencing: Fencing, spec: MachineSpec, progress: Callable[[int, int, str], None]
    ) -> Machine:
        """Make the files match `spec`."""

    async def start(self, fencing: Fencing) -> Machine:
        """Have QEMU run; refused with QEMU's own words if it does not."""

    async def stop(
        self, fencing: Fencing, *, force: bool, grace_s: float, stage: Callable[[str], Awaitable[None]]
    ) -> Machine:
        """Have no process; `stage` is told powerdown, quit and kill as they begin."""

    async def claim(self, fencing: Fencing, name: str, cluster_id: str, record: str) -> Machine:
        """Have the machine's record say whose it is now; neither process nor other files are touched."""

    async def pause(self, fencing: Fencing) -> Machine:
        """Have the guest's CPUs stand still."""

    async def resume(self, fencing: Fencing) -> Machine:
        """Have the guest's CPUs run."""

    async def reset(self, fencing: Fencing) -> Machine:
        """Reset the guest as its button would."""

    async def delete(self, fencing: Fencing) -> None:
        """Have nothing left of it."""

    async def quiesce(self, fencing: Fencing) -> Machine:
        """Return when no action of a lower fence is in flight."""

    async def get(self, machine_id: str, *, fence: int = 0, timeout_s: float = 10.0) -> Machine:
        """Observe one machine; a fence above 0 first shuts out lower ones."""

    def watch(self) -> AsyncIterator[Machine | SnapshotComplete | Node]:
        """Yield all machines, then every change; ends only by raising `PeerError`."""

    def evidence(self, machine_id: str, trace_id: str) -> AsyncIterator[EvidencePart]:
        """Yield what the host knows of a machine, and the runner's log lines of a trace."""

    def read_console(self, machine_id: str, wish: ConsoleWish) -> AsyncGenerator[ConsoleChunk, None]:
        """Yield what is wanted of the console log.

        One that follows gets an empty chunk every few seconds, and ends when there is nothing to follow (any
        more).
        """

    async def execute(self, machine_id: str, request: ExecRequest) -> ExecResult:
        """Run a program in the guest."""

    async def host(self) -> Host:
        """Observe the host."""

    async def leaks(self) -> list[Leak]:
        """List objects that nobody claims."""

    async def unclaimed(self, claimed: Collection[str]) -> list[Unclaimed]:
        """List the machines that are there beside the `claimed` ones."""

    async def doctor(self) -> list[Check]:
        """Run the host's checks."""


@dataclass(frozen=True, slots=True)
class StoreImage:
    """An image of the store."""

    image: InstanceImage
    arch: str
    labels: Mapping[str, str] = field(default_factory=dict)
    has_agent: bool = True


@dataclass(frozen=True, slots=True)
class ImageEvent:
    """One event of the store's outbox; `resource` as REST shows it."""

    cursor: str
    time: datetime
    type: str
    resource: Mapping[str, Any] = field(default_factory=dict)


class ImageStore(Protocol):
    """The image store. Every method raises `PeerAway` or `PeerRefused`."""

    async def find(self, name: str) -> StoreImage:
        """Return an image.

        Raises:
            ImageNotFound: There is none of this name.
        """

    async def find_by_digest(self, digest: str) -> StoreImage | None:
        """Return an image of these bytes, as they were uploaded or served; None if there is none."""

    async def check_fetch(self, wish: FetchWish) -> None:
        """Refuse what `fetch` would refuse before it connects."""

    async def fetch(
        self, wish: FetchWish, progress: Callable[[int, int], None], timeout_s: float
    ) -> StoreImage:
        """Have the image fetched; `progress` is told bytes that came and, or 0, those there are.

        Cancelling it ends the fetch.
        """

    async def undo_fetch(self, name: str, digest: str, timeout_s: float) -> None:
        """Have no fetch of `name` at work, and the name not point to these bytes unless they are in use."""

    async def pin(
        self, instance_id: str, instance_name: str, image: str, digest: str, timeout_s: float
    ) -> InstanceImage:
        """Keep the image's blob for the instance; a pin that stands is returned unchanged.

        Raises:
            ImageNotFound: There is none of this name.
            ImageDigestMismatch: The name points elsewhere.
        """

    async def unpin(self, instance_id: str, timeout_s: float) -> None:
        """Let go of the instance's blob, if it has one."""

    async def ping(self) -> None:
        """Return if the store answers."""

    def watch(self, cursor: str) -> AsyncIterator[ImageEvent]:
        """Yield the outbox after `cursor` (empty: all that is kept); ends only by raising `PeerError`."""
