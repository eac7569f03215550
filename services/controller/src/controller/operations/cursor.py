"""Cursors of the event feed.

It owns their form, which clients must not read: base64url of the database's epoch and a position in it.
"""

import base64
from typing import NewType

from controller.operations.errors import CursorInvalid

Cursor = NewType("Cursor", str)


def encode(epoch: str, rev: int) -> Cursor:
    """Return the cursor of a position."""
    return Cursor(base64.urlsafe_b64encode(f"{epoch}:{rev}".encode()).decode().rstrip("="))


def decode(cursor: str) -> tuple[str, int]:
    """Return epoch and position.

    Raises:
        CursorInvalid: If it is not one of ours.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        epoch, _, rev = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").partition(":")
    except ValueError as exc:
        raise CursorInvalid(f"not a cursor: {cursor[:64]!r}") from exc
    if not epoch.isalnum() or not rev.isdecimal() or not rev.isascii():
        raise CursorInvalid(f"not a cursor: {cursor[:64]!r}")
    return epoch, int(rev)
