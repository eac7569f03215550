"""What the demo prints: steps with their time, calls, a progress bar."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_BAR_WIDTH: Final = 32


class Screen:
    """Writes to one stream; a progress bar is drawn only where it is a terminal."""

    def __init__(self) -> None:
        """Count time from now."""
        self._begin = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line below the current step."""
        print(f"    {text}", flush=True)

    def call(self, curl: str) -> None:
        """Print the call that is about to be made."""
        print(f"    $ {curl}", flush=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Print `title`, then the time that the step took."""
        begin = time.monotonic()
        print(f"\n==> {title}", flush=True)
        yield
        print(f"    done in {time.monotonic() - begin:.2f} s", flush=True)

    def progress(self, done: int, total: int) -> None:
        """Draw the bar at `done` of `total` bytes."""
        finished = done >= total
        if not sys.stdout.isatty() and not finished:
            return
        filled = _BAR_WIDTH * done // max(total, 1)
        bar = "#" * filled + "." * (_BAR_WIDTH - filled)
        end = "\n" if finished else "\r"
        print(f"    [{bar}] {done / 2**20:.1f} of {total / 2**20:.1f} MiB", end=end, flush=True)

    def elapsed_s(self) -> float:
        """Return the seconds since the demo began."""
        return time.monotonic() - self._begin
