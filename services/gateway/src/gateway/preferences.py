"""What a client asks for in headers: Prefer (RFC 7240), Accept and entity tags (RFC 9110), Range.

What cannot be read is ignored where the RFC says so; nothing here raises but for a range that lies outside.
"""

import re
from dataclasses import dataclass
from typing import Final

from gateway.errors import RangeError

MAX_WAIT_S: Final = 600
_PREFERENCE: Final = re.compile(
    r'^\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*(?:=\s*("[^"]*"|[^\s;,"]+))?\s*(?:;.*)?$'
)
_TAG: Final = re.compile(r'\s*(?:W/)?"([^"]*)"\s*(?:,|$)')
_RANGE: Final = re.compile(r"^\s*bytes\s*=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*$", re.IGNORECASE)


def wait_of(prefer: str) -> int | None:
    """Return the seconds of `wait=N`, at most 600; None if `prefer` asks for no wait that can be read.

    The first preference of a name counts (RFC 7240, section 2).
    """
    for part in prefer.split(","):
        match = _PREFERENCE.match(part)
        if match is None or match[1].lower() != "wait":
            continue
        value = (match[2] or "").strip('"')
        return (
            min(int(value), MAX_WAIT_S) if value.isascii() and value.isdigit() and len(value) < 10 else None
        )
    return None


def accepts(accept: str, offered: tuple[str, ...]) -> bool:
    """Tell whether `accept` lets one of the `offered` media types through; an empty one takes everything."""
    if not accept.strip() or "*/*" in offered:
        return True
    ranges: dict[str, float] = {}
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            ranges[name] = float(quality)
        except ValueError:
            ranges[name] = 1.0
    for media_type in offered:
        kind = media_type.split("/", maxsplit=1)[0]
        for pattern in (media_type, f"{kind}/*", "*/*"):
            if pattern in ranges:
                if ranges[pattern] > 0:
                    return True
                break
    return False


def tags_of(header: str) -> tuple[str, ...]:
    """Return the entity tags of If-Match or If-None-Match without quotes; ("*",) for the star."""
    if header.strip() == "*":
        return ("*",)
    return tuple(match[1] for match in _TAG.finditer(header))


def is_fresh(if_none_match: str, etag: str) -> bool:
    """Tell whether the client has the representation `etag` (without quotes) already."""
    tags = tags_of(if_none_match)
    return tags == ("*",) or etag in tags


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `first` to `last`, both included, of `total_bytes`."""

    first: int
    last: int
    total_bytes: int

    @property
    def length(self) -> int:
        """How many bytes these are."""
        return self.last - self.first + 1

    @property
    def content_range(self) -> str:
        """The value of Content-Range."""
        return f"bytes {self.first}-{self.last}/{self.total_bytes}"


def range_of(header: str, total_bytes: int) -> ByteRange | None:
    """Return the one range that `header` asks for; None for none, several, or what cannot be read.

    Raises:
        RangeError: It begins behind the end.
    """
    match = _RANGE.match(header)
    if match is None:
        return None
    if match[3] is not None:
        length = int(match[3])
        if not length or not total_bytes:
            raise RangeError(total_bytes)
        return ByteRange(max(total_bytes - length, 0), total_bytes - 1, total_bytes)
    first = int(match[1])
    last = min(int(match[2]), total_bytes - 1) if match[2] else total_bytes - 1
    if match[2] and int(match[2]) < first:
        return None
    if first >= total_bytes:
        raise RangeError(total_bytes)
    return ByteRange(first, last, total_bytes)
