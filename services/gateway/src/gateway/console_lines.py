"""Lines of a console with the times at which they began, as `TIME LINE`; pure.

TIME is RFC 3339 in UTC with microseconds; `~` behind it says that the line came then or before.
"""

from datetime import UTC
from typing import Final

from qcontroller.controller.v1 import instance_pb2 as pb

_NEW_LINE: Final = b"\n"


class TimedLines:
    """Puts times in front of lines as they come in pieces."""

    def __init__(self) -> None:
        self._begins = True

    def feed(self, message: pb.ReadConsoleResponse) -> bytes:
        """Return the message's bytes with a time in front of each line that begins in it."""
        times = list(message.times)
        parts: list[bytes] = []
        position, number = message.offset, 0
        for line in message.chunk.split(_NEW_LINE):
            ends = position + len(line) < message.offset + len(message.chunk)
            if self._begins and (line or ends):
                while number < len(times) - 1 and times[number].end <= position:
                    number += 1
                parts.append(_text(times[number]) if times else b"")
                self._begins = False
            parts.append(line)
            if ends:
                parts.append(_NEW_LINE)
                self._begins = True
            position += len(line) + 1
        return b"".join(parts)


def _text(moment: pb.ConsoleTime) -> bytes:
    text = moment.time.ToDatetime(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return f"{text}{'~' if moment.approximate else ''} ".encode()
