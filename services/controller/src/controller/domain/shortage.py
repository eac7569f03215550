"""What a node has too little of, and who holds it."""

from dataclasses import dataclass
from enum import StrEnum


class Resource(StrEnum):
    """What can be short."""

    CPUS = "cpus"
    MEMORY = "memory"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Holder:
    """An instance that takes part of what is short."""

    name: str
    amount: int


@dataclass(frozen=True, slots=True)
class Shortage:
    """One resource that does not suffice.

    Attributes:
        asked: What the instance would take.
        free: What could still be taken.
        limit: What may be taken by all together.
        holders: The largest, in order.
    """

    resource: Resource
    asked: int
    free: int
    limit: int
    holders: tuple[Holder, ...] = ()
