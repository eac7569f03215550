"""What a guest is doing at one moment, as its agent and its balloon tell it; the guest is hostile."""

from dataclasses import dataclass
from datetime import datetime

from qemu_runner.domain.observation import GuestInfo


@dataclass(frozen=True, slots=True)
class GuestUser:
    """Somebody who is logged in."""

    name: str
    domain: str = ""
    login_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class GuestFilesystem:
    """A mounted filesystem; sizes are None where they are not told."""

    mountpoint: str
    device: str
    type: str
    total_bytes: int | None = None
    used_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GuestLoad:
    """Processes that want to run, averaged over 1, 5 and 15 minutes."""

    one_minute: float
    five_minutes: float
    fifteen_minutes: float


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """Memory as the guest sees it; None for what is not told.

    Attributes:
        source: "balloon": its balloon's statistics; "agent": read from its kernel by the agent.
    """

    source: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    available_bytes: int | None = None
    cached_bytes: int | None = None
    swap_in_bytes: int | None = None
    swap_out_bytes: int | None = None
    major_faults: int | None = None


@dataclass(frozen=True, slots=True)
class GuestReport:
    """Everything that was told; empty and None stand for what was not."""

    time: datetime
    info: GuestInfo
    agent_version: str = ""
    users: tuple[GuestUser, ...] = ()
    filesystems: tuple[GuestFilesystem, ...] = ()
    load: GuestLoad | None = None
    memory: GuestMemory | None = None
