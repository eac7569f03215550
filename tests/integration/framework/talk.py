"""A TCP connection on which something is said all the time, so that its end is seen whenever it comes."""

import contextlib
import socket
import threading
from typing import Final, Self

from framework.stack import eventually

# TCP sends again what was dropped; what is lost for longer is not traffic that flows.
_ANSWER_WITHIN_S: Final = 30.0
_PAUSE_S: Final = 0.02


class Talk:
    """Says one line after the other to an echo, and hears each again.

    Args:
        connection: To something that echoes; it is closed with this.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.settimeout(_ANSWER_WITHIN_S)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="talk")
        self._failure: Exception | None = None
        self.lines = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        # Whoever waits for a line is told that none comes; one that is cut already cannot be.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def assert_goes_on(self) -> None:
        """Wait until a line was heard again that was not yet said when this was called."""
        before = self.lines + 1

        def heard() -> bool:
            assert self._failure is None, f"after {self.lines} lines: {self._failure!r}"
            return self.lines > before

        eventually(heard, "another line is heard")

    def _go_on(self) -> None:
        try:
            with self._connection.makefile("rb") as heard:
                while not self._ended.wait(_PAUSE_S):
                    said = b"line %d\n" % self.lines
                    self._connection.sendall(said)
                    got = heard.readline()
                    if got != said:
                        raise ConnectionError(f"said {said!r}, heard {got!r}")
                    self.lines += 1
        except (OSError, ValueError) as error:
            if not self._ended.is_set():
                self._failure = error
