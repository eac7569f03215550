"""Ctrl-C, SIGTERM and a terminal that closes, as one KeyboardInterrupt and never a second.

Cleaning up begins with the first; an impatient second one must not leave a stack behind.
"""

import signal
from types import FrameType
from typing import Final

_NUMBERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interruption:
    """Raises once in the main thread, while it is armed."""

    def __init__(self) -> None:
        """Begin disarmed, with the process's handlers as they are."""
        self._armed = False

    def arm(self) -> None:
        """Let the next signal raise KeyboardInterrupt; those that the parent ignores stay ignored."""
        self._armed = True
        for number in _NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._arrived)

    def disarm(self) -> None:
        """Let no later signal raise."""
        self._armed = False

    def _arrived(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt
