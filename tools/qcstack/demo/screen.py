"""What the demo prints: steps with their time, calls, a progress bar."""

import contextlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_BAR_WIDTH: Final = 32


class Screen:
    """Writes to standard output; a progress bar is drawn only where it is a terminal.

    A reader that has gone (`make demo | head`) ends the demo by the error that writing raises, but must not
    keep it from cleaning up: from `cleaning` on, lines that nobody takes are dropped.
    """

    def __init__(self) -> None:
        """Count time from now."""
        self._begin = time.monotonic()
        self._cleaning = False

    def cleaning(self) -> None:
        """Raise no more errors of the stream."""
        self._cleaning = True

    def line(self, text: str) -> None:
        """Print one line.

        Raises:
            OSError: Nobody takes it.
        """
        self._write(f"{text}\n")

    def say(self, text: str) -> None:
        """Print one line below the current step."""
        self._write(f"    {text}\n")

    def call(self, curl: str) -> None:
        """Print the call that is about to be made."""
        self._write(f"    $ {curl}\n")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print `title`, then the time that the step took."""
        begin = time.monotonic()
        self._write(f"\n==> {title}\n")
        yield
        self._write(f"    done in {time.monotonic() - begin:.2f} s\n")

    def progress(self, done: int, total: int) -> None:
        """Draw the bar at `done` of `total` bytes."""
        finished = done >= total
        if not sys.stdout.isatty() and not finished:
            return
        filled = _BAR_WIDTH * done // max(total, 1)
        bar = "#" * filled + "." * (_BAR_WIDTH - filled)
        end = "\n" if finished else "\r"
        self._write(f"    [{bar}] {done / 2**20:.1f} of {total / 2**20:.1f} MiB{end}")

    def elapsed_s(self) -> float:
        """Return the seconds since the demo began."""
        return time.monotonic() - self._begin

    def _write(self, text: str) -> None:
        with contextlib.suppress(*((OSError,) if self._cleaning else ())):
            print(text, end="", flush=True)
