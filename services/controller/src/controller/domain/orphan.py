"""Machines that a runner has and no instance stands for."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from controller.domain.machine import Machine


class OrphanReason(StrEnum):
    """Why nobody claims a machine."""

    OTHER_DATABASE = "OTHER_DATABASE"
    NOT_IN_DATABASE = "NOT_IN_DATABASE"
    DELETED = "DELETED"
    RECORD_INCOMPLETE = "RECORD_INCOMPLETE"
    RECORD_UNREADABLE = "RECORD_UNREADABLE"


IMPORTABLE = frozenset({OrphanReason.OTHER_DATABASE, OrphanReason.NOT_IN_DATABASE, OrphanReason.DELETED})
"""What has a record from which an instance can be made."""


@dataclass(frozen=True, slots=True)
class Unclaimed:
    """A machine as its runner tells of it when it was not among those that were asked about.

    Attributes:
        machine: As observed.
        since: When its record was last written.
        disk_bytes: What its files occupy.
        fault: Why its record cannot be read; empty if it can.
        running: Whether it has a process, or may have one.
    """

    machine: Machine
    since: datetime | None
    disk_bytes: int
    fault: str
    running: bool


@dataclass(frozen=True, slots=True)
class Orphan:
    """A quarantined machine; it is never removed by itself, and goes on running if it does.

    Attributes:
        name: The instance's, as recorded; empty where that cannot be read.
        message: What `reason` means here, in one sentence.
    """

    unclaimed: Unclaimed
    name: str
    reason: OrphanReason
    message: str

    @property
    def id(self) -> str:
        """The machine's id."""
        return self.unclaimed.machine.id

    @property
    def importable(self) -> bool:
        """Whether an instance can be made of it."""
        return self.reason in IMPORTABLE
