"""What an attached viewer of a serial console asks and is told."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

MAX_LABEL: Final = 64
MAX_INPUT_BYTES: Final = 64 * 1024
MAX_CELLS: Final = 1000


@dataclass(frozen=True, slots=True)
class ViewerWish:
    """Somebody who wants to see a console.

    Attributes:
        label: What others are told of them; empty: one is given.
        offset: Where in the log to begin; None: near its end.
        write: Whether they want to write at once.
        force: Whether they take the writer's role from whoever has it.
    """

    label: str = ""
    offset: int | None = None
    write: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes for the guest."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """The size of the viewer's window, in characters."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class RoleRequest:
    """Take the writer's role, by force or not, or give it back."""

    take: bool
    force: bool = False


Command = Input | Resize | RoleRequest


@dataclass(frozen=True, slots=True)
class Opened:
    """First news: where the output begins, what others call this viewer, and where the log ended then."""

    offset: int
    label: str
    end_offset: int


@dataclass(frozen=True, slots=True)
class Output:
    """What the guest wrote next."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Gap:
    """What lies between these offsets is not told."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Role:
    """Who writes.

    Attributes:
        writer: Whether it is this viewer.
        holder: Its label; empty: nobody writes.
        since: Since when; None where nobody does.
        refused: This viewer has just asked for the role and somebody else keeps it.
        lost: Somebody has just taken it from this viewer.
    """

    writer: bool
    holder: str
    since: datetime | None
    refused: bool = False
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Resized:
    """What became of a resize; `detail` says why it was not applied."""

    size: Resize
    applied: bool
    detail: str = ""


class Refusal(StrEnum):
    """Why input did not reach the guest."""

    NOT_THE_WRITER = "NOT_THE_WRITER"
    MACHINE_NOT_RUNNING = "MACHINE_NOT_RUNNING"
    INPUT_NOT_TAKEN = "INPUT_NOT_TAKEN"
    INPUT_TOO_LARGE = "INPUT_TOO_LARGE"


@dataclass(frozen=True, slots=True)
class InputRefused:
    """Input that did not reach the guest, or not all of it."""

    reason: Refusal
    detail: str


@dataclass(frozen=True, slots=True)
class End:
    """Last news: the machine's process has ended, or the machine is gone."""

    reason: str
    detail: str
    offset: int


News = Opened | Output | Gap | Role | Resized | InputRefused | End


def is_label(text: str) -> bool:
    """Tell whether others can be shown this as a viewer's name."""
    return len(text) <= MAX_LABEL and not any(
        unicodedata.category(one).startswith(("C", "Z")) and one != " " for one in text
    )
