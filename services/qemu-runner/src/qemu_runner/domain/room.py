"""How much one guest may have told of itself: many guests are listed in one message of 4 MiB."""

from collections.abc import Iterable
from typing import Final

# Of a text in a protobuf message: its tag and length, and those of a message around it.
_AROUND_BYTES: Final = 8


class Room:
    """A number of bytes that texts fill up.

    Args:
        size_bytes: How many there are.
    """

    def __init__(self, size_bytes: int) -> None:
        self._left_bytes = size_bytes

    def takes(self, *texts: str) -> bool:
        """Tell whether all of these still fit, and if so fill their room."""
        needed = sum(size_of(text) for text in texts)
        if needed > self._left_bytes:
            return False
        self._left_bytes -= needed
        return True

    def fitting(self, texts: Iterable[str]) -> tuple[str, ...]:
        """Return those that fit, in their order; they fill their room."""
        return tuple(text for text in texts if self.takes(text))


def size_of(text: str) -> int:
    """Return how many bytes a text needs in a message."""
    return len(text.encode("utf-8", "replace")) + _AROUND_BYTES
