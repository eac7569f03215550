"""The event loop: readiness of descriptors, timers and signals, in one thread.

Owns the selector. Children must be spawned by the thread that lives as long as the process (their
death signal is bound to that *thread*), so everything happens here in the main one, and nothing may
block it.
"""

import heapq
import itertools
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable
from typing import Protocol

_log = logging.getLogger(__name__)

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class HasFileno(Protocol):
    """Anything with a descriptor."""

    def fileno(self) -> int: ...


class Timer:
    """A callback that is due at some time; it can be cancelled until then."""

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Make it never fire."""
        self.cancelled = True


class Loop:
    """Call back when descriptors are ready, timers are due, or signals arrive."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._running = True

    def watch(self, source: HasFileno | int, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(ready events)`` whenever ``source`` is ready; replaces an earlier watch of it.

        ``events`` of 0 pauses the watch.
        """
        if source in self._selector.get_map():
            self._selector.unregister(source)
        if events:
            self._selector.register(source, events, callback)

    def forget(self, source: HasFileno | int) -> None:
        """End the watch of ``source``, if there is one; call it before closing the descriptor."""
        if source in self._selector.get_map():
            self._selector.unregister(source)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, ``delay_s`` seconds from now."""
        timer = Timer(time.monotonic() + delay_s, callback)
        heapq.heappush(self._timers, (timer.due, next(self._order), timer))
        return timer

    def on_signals(
        self, numbers: Iterable[signal.Signals], callback: Callable[[signal.Signals], None]
    ) -> None:
        """Call ``callback`` from the loop, never from inside other code, when one of these arrives."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        wanted = frozenset(numbers)
        for number in wanted:
            # The byte in the wake-up pipe is the message; Python needs some handler to write it.
            signal.signal(number, lambda _number, _frame: None)

        def arrived(_events: int) -> None:
            for byte in os.read(reader, 64):
                if byte in wanted:
                    callback(signal.Signals(byte))

        self.watch(reader, READ, arrived)

    def stop(self) -> None:
        """Let ``run`` return after the callback that is running."""
        self._running = False

    def run(self) -> None:
        """Serve until ``stop``.

        A callback that raises is a defect, but ending here would end every guest: it is logged, and
        the loop goes on.
        """
        while self._running:
            for key, events in self._selector.select(self._timeout_s()):
                # An earlier callback of this round may have ended this watch.
                if self._selector.get_map().get(key.fd) is key:
                    self._call(key.data, events)
            self._fire()

    def _timeout_s(self) -> float | None:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _fire(self) -> None:
        now = time.monotonic()
        while self._running and self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            if not timer.cancelled:
                self._call(timer.callback)

    @staticmethod
    def _call(callback: Callable[..., None], *arguments: int) -> None:
        try:
            callback(*arguments)
        except Exception:  # noqa: BLE001  # see run
            _log.exception("callback failed")
