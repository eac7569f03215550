"""The console's log: what is asked of it and what is told. Offsets count from its first byte ever."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ConsoleWish:
    """What somebody wants to read.

    Attributes:
        offset: Where it begins; negative: from the end.
        length: How many bytes at most; 0: to the end.
        follow: Go on with what comes.
        timestamps: Tell when the bytes came.
    """

    offset: int = 0
    length: int = 0
    follow: bool = False
    timestamps: bool = False


@dataclass(frozen=True, slots=True)
class ConsoleTime:
    """When the bytes up to `end` were there; if approximate, then or before."""

    end: int
    time: datetime
    approximate: bool


@dataclass(frozen=True, slots=True)
class ConsoleChunk:
    """A piece of the log: where it begins, how long the log was then, and where it begins by now."""

    chunk: bytes
    offset: int
    total_bytes: int
    first_kept: int = 0
    times: tuple[ConsoleTime, ...] = ()
