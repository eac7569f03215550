"""The runs of this process: claiming, slots, wake-ups, shutdown.

It owns the tasks that carry out operations. It must never act on an operation that it has not claimed, nor
claim one that it has not finished with.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from opentelemetry.trace import Tracer
from sqlalchemy import Connection

from controller.database import Database
from controller.operations.attempt import backoff_s
from controller.operations.claim import Claims, claim
from controller.operations.clock import StepsBack
from controller.operations.failpoints import FailPoints
from controller.operations.hold import Hold
from controller.operations.lease import Lease
from controller.operations.ledger import Ledger
from controller.operations.metrics import Metrics
from controller.operations.operation import Operation
from controller.operations.racing import first_of
from controller.operations.run import Run

_log = logging.getLogger(__name__)

_LEAST_PAUSE_S = 0.001


@dataclass(frozen=True, slots=True)
class Carrier:
    """What a run needs besides its operation."""

    database: Database
    ledger: Ledger
    metrics: Metrics
    fail_point: FailPoints
    tracer: Tracer
    lease: Lease

    def run(self, claimed: Operation) -> Run:
        """Return the run of a claimed operation.

        Raises:
            LookupError: If there is no plan for it, which claiming rules out.
        """
        plan = self.ledger.plan(claimed.kind)
        if plan is None:
            raise LookupError(claimed.kind)
        hold = Hold(claimed, self.database, self.ledger, self.metrics, self.fail_point, self.lease)
        return Run(hold, plan, self.tracer)


class Supervisor:
    """Keeps up to `slots` runs at work."""

    def __init__(self, carrier: Carrier, slots: int, resync_s: float) -> None:
        self._carrier = carrier
        self._clock = carrier.ledger.clock
        self._metrics = carrier.metrics
        self._slots = slots
        self._resync_s = resync_s
        self._lease = carrier.lease
        self._live: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._abandoned: set[asyncio.Task[None]] = set()
        self._turned: dict[str, int] = {}
        self._steps_back = StepsBack(self._clock)
        self._set_back = False
        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._stopping = False
        self._waits_since: datetime | None = None
        self._metrics.queue_age_seconds.set_function(self._queue_age_s)

    def wake(self, turned: Iterable[Operation] = ()) -> None:
        """Look for work soon; tell the runs of operations that another transaction has turned round."""
        for operation in turned:
            self.moved(operation.id, operation.fence)
        self._wake.set()

    def moved(self, operation_id: str, fence: int) -> None:
        """Tell the run of an operation, if it is here, that somebody has moved the row to that fence."""
        # Its claim may have committed without its run having begun: that run is told when it does.
        self._turned[operation_id] = fence
        run = self._live.get(operation_id)
        if run is not None:
            run.changed(fence)

    def abandon(self) -> None:
        """End all runs without another write: what they hold may be another's by now."""
        for task in self._tasks - self._abandoned:
            self._abandoned.add(task)
            task.cancel()

    def stop_claiming(self) -> None:
        """Claim nothing any more."""
        self._stopping = True
        self._wake.set()

    async def claim_for(self, group: asyncio.TaskGroup) -> None:
        """Claim what is due and run it in the group's tasks, until `stop_claiming`; survives outages."""
        failures = 0
        while not self._stopping:
            self._wake.clear()
            try:
                next_due = await self._claim_due(group)
                failures = 0
                pause_s = self._pause_s(next_due)
            except Exception:  # noqa: BLE001 - loops go on, counted
                failures += 1
                self._metrics.loop_errors.labels("claims").inc()
                _log.exception("looking for work failed")
                pause_s = backoff_s(failures)
            await first_of(self._wake.wait(), self._clock.sleep(pause_s))

    async def let_runs_end(self, grace_s: float) -> None:
        """Let each run reach a boundary within the grace, then end its step; all give their rows back."""
        # A claim that is about to commit must start its run, or its row would stay owned.
        async with self._claiming:
            pass
        for run in tuple(self._live.values()):
            run.stop_at_boundary()
        await self._ended_within(grace_s)
        for run in tuple(self._live.values()):
            run.stop_now()
        await self._ended_within(grace_s)
        for task in tuple(self._tasks):
            task.cancel()

    async def _claim_due(self, group: asyncio.TaskGroup) -> datetime | None:
        async with self._claiming:
            self._turned.clear()
            if not self._lease.held:
                return None
            owner = self._lease.owner
            taken = sum(not run.is_aside for run in self._live.values())
            free = max(0, self._slots - taken)
            live = frozenset(self._live)
            began = self._clock.monotonic()
            database = self._carrier.database
            self._set_back = self._steps_back.noticed() or self._set_back

            def look_for_work(conn: Connection) -> Claims:
                return claim(
                    conn,
                    self._carrier.ledger,
                    owner,
                    free,
                    live,
                    shared=database.shared,
                    set_back=self._set_back,
                )

            claims = await database.write(look_for_work)
            self._set_back = False
            self._metrics.claim_seconds.observe(self._clock.monotonic() - began)
            self._waits_since = claims.waits_since
            self._carrier.fail_point("claim.after_commit")
            for operation in claims.claimed:
                self._start(group, operation)
        if free and len(claims.claimed) == free:
            self._wake.set()
        return claims.next_due

    def _start(self, group: asyncio.TaskGroup, operation: Operation) -> None:
        if operation.attempt > 1:
            self._metrics.takeovers.inc()
        elif operation.started_at is not None:
            queued_s = (operation.started_at - operation.created_at).total_seconds()
            self._metrics.queue_seconds.labels(operation.kind).observe(max(0.0, queued_s))
        run = self._carrier.run(operation)
        run.told_aside(self._wake.set)
        run.changed(self._turned.get(operation.id, 0))
        self._live[operation.id] = run
        self._metrics.running.set(len(self._live))
        task = group.create_task(self._carry_out(operation.id, run), name=f"operation {operation.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._abandoned.discard)

    async def _carry_out(self, operation_id: str, run: Run) -> None:
        try:
            await run.execute()
        except Exception:  # noqa: BLE001 - one broken run must not end the others
            self._metrics.loop_errors.labels("run").inc()
            _log.exception("run broke off", extra={"operation": operation_id})
        finally:
            if self._live.get(operation_id) is run:
                del self._live[operation_id]
            self._metrics.running.set(len(self._live))
            self._wake.set()

    def _queue_age_s(self) -> float:
        since = self._waits_since
        return 0.0 if since is None else max(0.0, (self._clock.now() - since).total_seconds())

    def _pause_s(self, next_due: datetime | None) -> float:
        if next_due is None:
            return self._resync_s
        due_in_s = (next_due - self._clock.now()).total_seconds()
        return min(self._resync_s, max(_LEAST_PAUSE_S, due_in_s))

    async def _ended_within(self, limit_s: float) -> None:
        if self._tasks:
            await first_of(asyncio.wait(set(self._tasks)), self._clock.sleep(limit_s))
