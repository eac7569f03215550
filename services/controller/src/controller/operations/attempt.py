"""Driving one coroutine of a step: interrupts, retries, back-off.

It owns the classification of what a step raises. It never writes a row.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from controller.database import DatabaseError
from controller.operations.clock import Clock
from controller.operations.errors import (
    LostLease,
    NotYet,
    PeerUnavailable,
    Permanent,
    Problem,
    Retryable,
)
from controller.operations.ledger import INTERNAL
from controller.operations.metrics import Metrics

_log = logging.getLogger(__name__)

T = TypeVar("T")

_BACKOFF_FIRST_S = 0.1
_BACKOFF_MOST_S = 5.0


class Interrupt(StrEnum):
    """Why a run was called away from its step, in the order in which they are obeyed.

    A row that was moved is read again before anything else is done to it.
    """

    CHANGED = "changed"
    STOP = "stop"
    DEADLINE = "deadline"


class Interrupted(Exception):  # noqa: N818 - not a fault, an order
    """The step was left in the middle, on order."""

    def __init__(self, reason: Interrupt) -> None:
        super().__init__(reason.value)
        self.reason = reason


def backoff_s(failures: int, *, most_s: float = _BACKOFF_MOST_S, first_s: float = _BACKOFF_FIRST_S) -> float:
    """Return the wait before the next try after that many in a row, doubling up to `most_s` seconds."""
    return float(min(most_s, first_s * 2.0 ** min(max(0, failures - 1), 20)))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a retried thing counts its failures.

    Attributes:
        label: Kind of the operation, for logs and metrics.
        most_failures: Counted errors in a row before the last becomes `Permanent`; None for no end.
        failed: Told of each counted error with the new count, to save it.
        before_wait: Awaited before each back-off, to save what is not saved yet.
    """

    label: str
    most_failures: int | None
    failed: Callable[[int], Awaitable[None]]
    before_wait: Callable[[], Awaitable[None]]


class Driver:
    """Runs coroutines one at a time in tasks that `interrupt` can end, unlike the saves of the run itself."""

    def __init__(
        self,
        clock: Clock,
        metrics: Metrics,
        settle_saves: Callable[[], Awaitable[None]],
        require_lease: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._settle_saves = settle_saves
        self._require_lease = require_lease
        self._inner: asyncio.Task[Any] | None = None
        self._pending: set[Interrupt] = set()
        self._waiting = False
        self._stopping = False
        self.last_problem: Problem | None = None

    def interrupt(self, reason: Interrupt) -> None:
        """End what is being driven, now or next: `drive` raises `Interrupted` once for each reason."""
        self._pending.add(reason)
        if self._inner is not None:
            self._inner.cancel()

    def stop_at_boundary(self) -> None:
        """Interrupt with `STOP` at the next boundary; waiting for a retry is one."""
        self._stopping = True
        if self._waiting:
            self.interrupt(Interrupt.STOP)

    def boundary(self) -> None:
        """Pass, or leave between two steps.

        Raises:
            Interrupted: If somebody asked for it.
        """
        self._obey()
        if self._stopping:
            raise Interrupted(Interrupt.STOP)

    def begin_walk(self) -> None:
        """Forget the deadline of an earlier walk, which may have passed while that walk ended otherwise."""
        self._pending.discard(Interrupt.DEADLINE)

    async def drive(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work` in a task of its own.

        Raises:
            Interrupted: If it was ended by `interrupt`; it has really ended then.
            LostLease: If this process may not act any more; it was not begun then.
        """
        try:
            self._obey()
            self._require_lease()
        except (Interrupted, LostLease):
            work.close()
            raise
        task: asyncio.Task[T] = asyncio.create_task(work)
        self._inner = task
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        finally:
            self._inner = None
        # A save that the step began goes on when the step is ended: the next write must find its result.
        await self._settle_saves()
        if not task.cancelled() and task.exception() is not None:
            _log.debug("step raised", exc_info=task.exception())
        self._obey()
        if task.cancelled():
            problem = Problem(INTERNAL, "A step ended itself by cancelling its own task.")
            raise Retryable(problem)
        return task.result()

    def _obey(self) -> None:
        for reason in Interrupt:
            if reason in self._pending:
                # Taken before anybody acts on it: what comes while it is acted on is told again.
                self._pending.remove(reason)
                raise Interrupted(reason)

    async def wait(self, delay_s: float) -> None:
        """Wait out a back-off; a stop ends it."""
        self.boundary()
        self._waiting = True
        try:
            await self.drive(self._clock.sleep(delay_s))
        finally:
            self._waiting = False

    async def retry(
        self, work: Callable[[], Coroutine[Any, Any, T]], policy: RetryPolicy, *, failures: int = 0
    ) -> T:
        """Drive `work` until it succeeds; what waits for the world is bounded by the deadline's interrupt.

        Raises:
            Permanent: At once, or after too many counted failures.
            Interrupted: On order.
            LostLease: If the row is no longer ours.
        """
        waits = 0
        while True:
            try:
                return await self.drive(work())
            except (Permanent, Interrupted, LostLease):
                raise
            except (NotYet, PeerUnavailable) as exc:
                self.last_problem = exc.problem
                error = type(exc).__name__
            except DatabaseError:
                error = "DatabaseError"
            except Exception as exc:
                if isinstance(exc, Retryable):
                    self.last_problem = exc.problem
                else:
                    _log.exception("step raised an unexpected error", extra={"kind": policy.label})
                    self.last_problem = Problem(INTERNAL, "Internal error.")
                error = "Retryable"
                failures += 1
                if policy.most_failures is not None and failures >= policy.most_failures:
                    raise Permanent(self.last_problem) from exc
                await policy.failed(failures)
            self._metrics.retries.labels(policy.label, error).inc()
            waits += 1
            await policy.before_wait()
            await self.wait(backoff_s(waits))
