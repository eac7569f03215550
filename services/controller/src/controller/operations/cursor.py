"""Cursors of the event feed.

It owns their form, which clients must not read: base64url of the database's epoch and a position in it.
"""

import base64
import re
from dataclasses import dataclass
from typing import NewType

from controller.operations.errors import CursorInvalid

Cursor = NewType("Cursor", str)

_FORM = re.compile(r"([0-9A-Za-z]+):(?:([0-9]{1,19})\.)?([0-9]{1,19})")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where an event stands in the log: its transaction, then its number. SQLite's transactions are all 0."""

    xid: int
    rev: int


def encode(epoch: str, rev: int, xid: int = 0) -> Cursor:
    """Return the cursor of a position."""
    position = f"{xid}.{rev}" if xid else f"{rev}"
    return Cursor(base64.urlsafe_b64encode(f"{epoch}:{position}".encode()).decode().rstrip("="))


def decode(cursor: str) -> tuple[str, Position]:
    """Return epoch and position.

    Raises:
        CursorInvalid: If it is not one of ours.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except ValueError as exc:
        raise CursorInvalid(f"not a cursor: {cursor[:64]!r}") from exc
    found = _FORM.fullmatch(text)
    if found is None:
        raise CursorInvalid(f"not a cursor: {cursor[:64]!r}")
    epoch, xid, rev = found.groups()
    return epoch, Position(int(xid or 0), int(rev))
