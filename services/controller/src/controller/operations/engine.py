"""The engine: claims operations, supervises their runs, answers for them.

It owns the loops and the slots. It must never act on an operation that it has not claimed, and never outlive
one of its loops.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, func, select

from controller.database import Database
from controller.operations import listing, store, submit
from controller.operations.attempt import backoff_s
from controller.operations.claim import Claims, claim, release_owners
from controller.operations.clock import Clock, OperationIds, SystemClock, uuid7_operation_ids
from controller.operations.errors import EngineStopped, OperationNotFound
from controller.operations.failpoints import FailPoints, no_fail_points
from controller.operations.feed import Event, Feed
from controller.operations.hold import Hold
from controller.operations.ledger import Ledger
from controller.operations.listing import OperationFilter, OperationPage
from controller.operations.metrics import Metrics
from controller.operations.operation import Operation, UndoScope
from controller.operations.outbox import Outbox
from controller.operations.plan import Plan
from controller.operations.retention import Retention, RetentionSettings
from controller.operations.rows import operations
from controller.operations.run import Run
from controller.operations.submission import Accepted, IdempotencyKey, Prepare

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How the engine works.

    Attributes:
        slots: Operations at work at once.
        resync_s: Slow look for work that no wake-up announced.
        stop_grace_s: How long steps may take to reach a boundary at shutdown.
        trim_every_s: Pause between two rounds of retention.
        watcher_queue: Events that a watcher may lag behind before it is closed.
    """

    slots: int = 32
    resync_s: float = 15.0
    stop_grace_s: float = 10.0
    trim_every_s: float = 3600.0
    watcher_queue: int = 1000
    retention: RetentionSettings = field(default_factory=RetentionSettings)


class Engine:
    """Carries out what was promised.

    Attributes:
        feed: Replay and live events.
        outbox: For the domain's own events, in the transactions of its hooks and writes.
        owner: This process's name in the rows that it has claimed.
    """

    def __init__(
        self,
        database: Database,
        plans: Iterable[Plan],
        *,
        settings: EngineSettings | None = None,
        clock: Clock | None = None,
        operation_ids: OperationIds | None = None,
        fail_points: FailPoints = no_fail_points,
        registry: CollectorRegistry | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._database = database
        self._settings = settings or EngineSettings()
        self._clock = clock or SystemClock()
        self._ids = operation_ids or uuid7_operation_ids(self._clock)
        self._fail_point = fail_points
        self._tracer = tracer or trace.get_tracer(__name__)
        self._metrics = Metrics(registry or CollectorRegistry())
        self._metrics.watch(database)
        self._plans = {plan.kind: plan for plan in plans}
        self.owner = f"engine-{uuid.uuid4().hex[:12]}"
        self.outbox = Outbox(self._clock)
        self.feed = Feed(database, self._clock, self._metrics, watcher_queue=self._settings.watcher_queue)
        self.feed.on_event(self._finished)
        self._ledger = Ledger(self._plans, self._clock, self.outbox)
        self._retention = Retention(database, self._clock, self._settings.retention)
        self._live: dict[str, Run] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._wake = asyncio.Event()
        self._stop_requested = asyncio.Event()
        self._stopped = asyncio.Event()
        self._claiming = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Engine"]:
        """Run inside the block; a loop that dies cancels the block; leaving it stops gracefully."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.run(), name="operations engine")
            try:
                yield self
            finally:
                await self.stop()

    async def run(self) -> None:
        """Release former owners, resume what is unfinished, work until `stop`.

        Raises:
            EngineStopped: If a loop ended on its own (inside an exception group).
            DatabaseError: If the former owners cannot be released.
        """
        try:
            resumed = await self._database.write(release_owners)
            # Before anything can end: no end may lie between a waiter's look and the feed's first event.
            await self.feed.open()
            self._tell_waiters(*self._waiters)
            _log.info("engine starts", extra={"owner": self.owner, "released": resumed})
            async with asyncio.TaskGroup() as group:
                loops = [
                    group.create_task(self._supervised(name, loop), name=f"operations {name}")
                    for name, loop in (
                        ("claims", lambda: self._claim_loop(group)),
                        ("feed", self.feed.follow),
                        ("retention", self._retention_loop),
                    )
                ]
                await self._stop_requested.wait()
                await self._let_runs_end()
                for loop in loops:
                    loop.cancel()
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Stop claiming, let steps reach a boundary, end the rest, give the rows back; `run` returns then."""
        self._stop_requested.set()
        self._wake.set()
        await self._stopped.wait()

    async def submit(self, prepare: Prepare, *, idempotency: IdempotencyKey | None = None) -> Accepted:
        """Accept an operation in one write transaction.

        `prepare(conn)` makes the domain's own checks and row changes and says what to do; what it raises
        rolls all back and is raised here. Order inside: idempotency key, `prepare`, `OperationInProgress`,
        rows, `accepted`, events. `prepare` may call `require_idle(conn, subject)` to have that refusal before
        its own later ones.

        Raises:
            OperationInProgress: Another operation holds the subject and is not to be superseded, or cannot
            be.
            IdempotencyKeyReused: The key belongs to another request.
            UnknownKind: There is no plan for it.
            DatabaseError: Nothing was accepted.
        """
        done = await self._database.write(
            lambda conn: submit.submit(conn, self._ledger, self._ids, prepare, idempotency)
        )
        self._tell_runs(done.turned)
        self._wake.set()
        return done.accepted

    async def cancel(self, operation_id: str) -> Operation:
        """Ask for the operation's end: a waiting one is CANCELLED at once, a running one goes to UNDOING.

        One that is undoing already is returned as it is.

        Raises:
            OperationNotFound: No such operation.
            NotCancellable: It has finished or is past its point of no return.
            DatabaseError: Nothing was changed.
        """
        operation = await self._database.write(
            lambda conn: self._ledger.cancel(conn, operation_id, None, UndoScope.ALL)
        )
        self._tell_runs([operation])
        self._wake.set()
        return operation

    async def wait(self, operation_id: str, timeout_s: float) -> Operation:
        """Return the operation when it has finished, or as it is after `timeout_s`.

        Raises:
            OperationNotFound: No such operation.
        """
        told = asyncio.Event()
        self._waiters.setdefault(operation_id, set()).add(told)
        give_up_at = self._clock.monotonic() + timeout_s
        try:
            # Read after joining the waiters: the end is either in the row or still to be told.
            while not (operation := await self.get(operation_id)).state.finished:
                left_s = give_up_at - self._clock.monotonic()
                if left_s <= 0:
                    break
                await self._first_of(told.wait(), self._clock.sleep(left_s))
                told.clear()
            return operation
        finally:
            waiting = self._waiters[operation_id]
            waiting.discard(told)
            if not waiting:
                del self._waiters[operation_id]

    async def get(self, operation_id: str) -> Operation:
        """Return one operation.

        Raises:
            OperationNotFound: No such operation.
        """
        operation = await self._database.read(lambda conn: store.find(conn, operation_id))
        if operation is None:
            raise OperationNotFound(operation_id)
        return operation

    async def list(
        self, chosen: OperationFilter | None = None, *, page_size: int = 50, page_token: str = ""
    ) -> OperationPage:
        """Return a page, newest first; pages are stable under insertion and deletion.

        Raises:
            PageTokenInvalid: The token is not ours or belongs to another filter.
        """
        wanted = chosen or OperationFilter()
        return await self._database.read(lambda conn: listing.page(conn, wanted, page_size, page_token))

    def _tell_runs(self, turned: Iterable[Operation]) -> None:
        for operation in turned:
            run = self._live.get(operation.id)
            if run is not None:
                run.changed(operation.fence)

    def _finished(self, event: Event) -> None:
        if event.type != "operation.finished" or event.operation_id is None:
            return
        self._metrics.finished.labels(event.data.get("kind", ""), event.data.get("state", "")).inc()
        self._tell_waiters(event.operation_id)

    def _tell_waiters(self, *operation_ids: str) -> None:
        for operation_id in operation_ids:
            for waiter in self._waiters.get(operation_id, ()):
                waiter.set()

    # The loops below catch what passes and go on; whatever ends one of them ends the process.

    async def _supervised(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        try:
            await loop()
        except Exception as exc:
            raise EngineStopped(f"the {name} loop failed") from exc
        if not self._stop_requested.is_set():
            raise EngineStopped(f"the {name} loop ended")

    async def _claim_loop(self, group: asyncio.TaskGroup) -> None:
        failures = 0
        while not self._stop_requested.is_set():
            self._wake.clear()
            try:
                next_due = await self._claim_ready(group)
                failures = 0
                pause_s = self._pause_s(next_due)
            except Exception:  # noqa: BLE001 - loops go on, counted
                failures += 1
                self._metrics.loop_errors.labels("claims").inc()
                _log.exception("looking for work failed")
                pause_s = backoff_s(failures)
            await self._woken_within(pause_s)

    async def _claim_ready(self, group: asyncio.TaskGroup) -> datetime | None:
        async with self._claiming:
            free = max(0, self._settings.slots - len(self._live))
            live = frozenset(self._live)
            began = self._clock.monotonic()

            def look_for_work(conn: Connection) -> Claims:
                return claim(conn, self._ledger, self.owner, free, live)

            claims = await self._database.write(look_for_work)
            self._metrics.claim_seconds.observe(self._clock.monotonic() - began)
            self._fail_point("claim.after_commit")
            for operation in claims.claimed:
                self._start(group, operation)
        if free and len(claims.claimed) == free:
            self._wake.set()
        return claims.next_due

    def _start(self, group: asyncio.TaskGroup, operation: Operation) -> None:
        if operation.attempt == 1 and operation.started_at is not None:
            queued_s = (operation.started_at - operation.created_at).total_seconds()
            self._metrics.queue_seconds.labels(operation.kind).observe(max(0.0, queued_s))
        elif operation.attempt > 1:
            self._metrics.takeovers.inc()
        hold = Hold(operation, self._database, self._ledger, self._metrics, self._fail_point)
        run = Run(hold, self._plans[operation.kind], self._tracer)
        self._live[operation.id] = run
        self._metrics.running.set(len(self._live))
        task = group.create_task(self._carry_out(operation.id, run), name=f"operation {operation.id}")
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)

    async def _carry_out(self, operation_id: str, run: Run) -> None:
        try:
            await run.execute()
        except Exception:  # noqa: BLE001 - loops go on, counted
            self._metrics.loop_errors.labels("run").inc()
            _log.exception("run broke off", extra={"operation": operation_id})
        finally:
            if self._live.get(operation_id) is run:
                del self._live[operation_id]
            self._metrics.running.set(len(self._live))
            self._wake.set()

    async def _retention_loop(self) -> None:
        while True:
            try:
                removed = await self._retention.trim()
                attention = await self._database.read(_count_needing_attention)
                self._metrics.needs_attention.set(attention)
                _log.info("retention", extra={"removed": removed, "needs_attention": attention})
            except Exception:  # noqa: BLE001 - loops go on, counted
                self._metrics.loop_errors.labels("retention").inc()
                _log.exception("retention failed")
            await self._clock.sleep(self._settings.trim_every_s)

    def _pause_s(self, next_due: datetime | None) -> float:
        if next_due is None:
            return self._settings.resync_s
        return min(self._settings.resync_s, max(0.001, (next_due - self._clock.now()).total_seconds()))

    async def _woken_within(self, pause_s: float) -> None:
        await self._first_of(self._wake.wait(), self._clock.sleep(pause_s))

    async def _let_runs_end(self) -> None:
        # A claim that is about to commit must start its run, or its row would stay owned.
        async with self._claiming:
            pass
        for run in tuple(self._live.values()):
            run.stop_at_boundary()
        await self._runs_ended_within(self._settings.stop_grace_s)
        for run in tuple(self._live.values()):
            run.stop_now()
        await self._runs_ended_within(self._settings.stop_grace_s)
        for task in tuple(self._runs):
            task.cancel()

    async def _runs_ended_within(self, limit_s: float) -> None:
        if self._runs:
            await self._first_of(asyncio.wait(set(self._runs)), self._clock.sleep(limit_s))

    async def _first_of(self, *works: Coroutine[Any, Any, Any]) -> None:
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()


def _count_needing_attention(conn: Connection) -> int:
    return conn.execute(
        select(func.count()).select_from(operations).where(operations.c.needs_attention)
    ).scalar_one()
