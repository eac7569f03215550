"""Opaque texts that clients carry back: page tokens and event cursors.

Both are base64url, so that nobody takes them for something to read or to make.
"""

import base64
import json
import re
from typing import Final

from image_store.errors import CursorInvalidError, PageTokenError
from image_store.image import ImageName
from image_store.requests import ImageFilter

_POSITION: Final = re.compile(r"([0-9a-f]{1,64}):([0-9]{1,18})", re.ASCII)


def page_token(image_filter: ImageFilter, last: ImageName) -> str:
    """Return the token of the page after the image `last`."""
    return _wrap(json.dumps([image_filter.fingerprint(), last]))


def parse_page_token(token: str, image_filter: ImageFilter) -> ImageName | None:
    """Return the name after which the page begins; None for the first page, whose token is empty.

    Raises:
        PageTokenError: It is none, or belongs to a list with another filter.
    """
    if not token:
        return None
    try:
        document = json.loads(_unwrap(token))
    except ValueError as exc:
        raise PageTokenError("is none of ours") from exc
    match document:
        case [fingerprint, str(last)] if fingerprint == image_filter.fingerprint():
            return ImageName(last)
        case _:
            raise PageTokenError("belongs to another list")


def cursor(epoch: str, seq: int) -> str:
    """Return the cursor of the event `seq` of the database `epoch`."""
    return _wrap(f"{epoch}:{seq}")


def parse_cursor(text: str) -> tuple[str, int]:
    """Return epoch and position of a cursor.

    Raises:
        CursorInvalidError: It is not one of ours.
    """
    try:
        match = _POSITION.fullmatch(_unwrap(text))
    except ValueError as exc:
        raise CursorInvalidError(text) from exc
    if match is None:
        raise CursorInvalidError(text)
    return match[1], int(match[2])


def _wrap(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _unwrap(text: str) -> str:
    """Return what was wrapped.

    Raises:
        ValueError: Nothing was.
    """
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode()
