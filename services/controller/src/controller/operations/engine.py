"""The engine: accepts operations, has them carried out, answers for them.

It owns the loops and the waiters. It must never outlive one of its loops.
"""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from opentelemetry import trace
from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, select

from controller.database import Database
from controller.operations import listing, store, submit
from controller.operations.claim import release_owners
from controller.operations.clock import Clock, OperationIds, SystemClock, uuid7_operation_ids
from controller.operations.errors import EngineStopped, OperationNotFound
from controller.operations.failpoints import FailPoints, no_fail_points
from controller.operations.feed import Event, Feed
from controller.operations.ledger import Ledger
from controller.operations.listing import OperationFilter, OperationPage
from controller.operations.metrics import Metrics
from controller.operations.operation import Operation, UndoScope
from controller.operations.outbox import Outbox
from controller.operations.plan import Plan
from controller.operations.retention import Retention, RetentionSettings
from controller.operations.rows import operations
from controller.operations.submission import Accepted, IdempotencyKey, Prepare
from controller.operations.supervisor import Carrier, Supervisor, first_of

_log = logging.getLogger(__name__)

T = TypeVar("T")


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
        self._metrics = Metrics(registry or CollectorRegistry())
        self._metrics.watch(database)
        self.owner = f"engine-{uuid.uuid4().hex[:12]}"
        self.outbox = Outbox(self._clock)
        self.feed = Feed(database, self._clock, self._metrics, watcher_queue=self._settings.watcher_queue)
        self.feed.on_event(self._told)
        self._ledger = Ledger({plan.kind: plan for plan in plans}, self._clock, self.outbox)
        self._retention = Retention(database, self._clock, self._settings.retention)
        carrier = Carrier(
            database, self._ledger, self._metrics, fail_points, tracer or trace.get_tracer(__name__)
        )
        self._supervisor = Supervisor(carrier, self._settings.slots, self._settings.resync_s, self.owner)
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._orders: set[asyncio.Task[object]] = set()
        self._attention: set[str] = set()
        self._stop_requested = asyncio.Event()
        self._stopped = asyncio.Event()

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
            self._attention = set(await self._database.read(_needing_attention))
            self._metrics.needs_attention.set(len(self._attention))
            self._tell_waiters(*self._waiters)
            _log.info("engine starts", extra={"owner": self.owner, "released": resumed})
            async with asyncio.TaskGroup() as group:
                loops = [
                    group.create_task(self._supervised(name, loop), name=f"operations {name}")
                    for name, loop in (
                        ("claims", lambda: self._supervisor.claim_for(group)),
                        ("feed", self.feed.follow),
                        ("retention", self._retention_loop),
                    )
                ]
                await self._stop_requested.wait()
                await self._supervisor.let_runs_end(self._settings.stop_grace_s)
                for loop in loops:
                    loop.cancel()
        finally:
            self._stopped.set()

    async def stop(self) -> None:
        """Stop claiming, let steps reach a boundary, end the rest, give the rows back; `run` returns then."""
        self._stop_requested.set()
        self._supervisor.stop_claiming()
        await self._stopped.wait()

    async def submit(self, prepare: Prepare, *, idempotency: IdempotencyKey | None = None) -> Accepted:
        """Accept an operation in one write transaction.

        `prepare(conn)` makes the domain's own checks and row changes and says what to do; what it raises
        rolls all back and is raised here. Order inside: idempotency key, `prepare`, `OperationInProgress`,
        rows, `accepted`, events. `prepare` may call `require_idle(conn, subject)` to have that refusal before
        its own later ones.

        Raises:
            OperationInProgress: Another operation holds the subject, and is not or cannot be superseded.
            IdempotencyKeyReused: The key belongs to another request.
            UnknownKind: There is no plan for it.
            DatabaseError: Nothing was accepted.
        """
        done = await self._order(
            lambda conn: submit.submit(
                conn,
                self._ledger,
                self._ids,
                prepare,
                idempotency,
                keys_kept=self._settings.retention.keys,
            ),
            lambda submitted: submitted.turned,
        )
        return done.accepted

    async def cancel(self, operation_id: str) -> Operation:
        """Ask for the operation's end: a waiting one is CANCELLED at once, a running one goes to UNDOING.

        One that is undoing already is returned as it is.

        Raises:
            OperationNotFound: No such operation.
            NotCancellable: It has finished or is past its point of no return.
            DatabaseError: Nothing was changed.
        """
        return await self._order(
            lambda conn: self._ledger.cancel(conn, operation_id, None, UndoScope.ALL),
            lambda operation: (operation,),
        )

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
                await first_of(told.wait(), self._clock.sleep(left_s))
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

    async def _order(self, work: Callable[[Connection], T], turned: Callable[[T], Iterable[Operation]]) -> T:
        """Write and wake whom it concerns, also if whoever asked hangs up meanwhile: the write stands."""

        async def carried_out() -> T:
            done = await self._database.write(work)
            self._supervisor.wake(turned(done))
            return done

        task = asyncio.create_task(carried_out())
        self._orders.add(task)
        task.add_done_callback(self._order_ended)
        return await asyncio.shield(task)

    def _order_ended(self, task: "asyncio.Task[object]") -> None:
        self._orders.discard(task)
        if not task.cancelled():
            # Whoever asked may be gone, and was told nothing: a refusal is nobody's fault.
            task.exception()

    def _told(self, event: Event) -> None:
        if event.operation_id is None or not event.type.startswith("operation."):
            return
        if event.data.get("needsAttention"):
            self._attention.add(event.operation_id)
        else:
            self._attention.discard(event.operation_id)
        self._metrics.needs_attention.set(len(self._attention))
        if event.type == "operation.finished":
            self._finished(event, event.operation_id)

    def _finished(self, event: Event, operation_id: str) -> None:
        self._metrics.finished.labels(event.data.get("kind", ""), event.data.get("state", "")).inc()
        self._tell_waiters(operation_id)

    def _tell_waiters(self, *operation_ids: str) -> None:
        for operation_id in operation_ids:
            for waiter in self._waiters.get(operation_id, ()):
                waiter.set()

    async def _supervised(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        try:
            await loop()
        except Exception as exc:
            raise EngineStopped(f"the {name} loop failed") from exc
        if not self._stop_requested.is_set():
            raise EngineStopped(f"the {name} loop ended")

    async def _retention_loop(self) -> None:
        while True:
            try:
                removed = await self._retention.trim()
                _log.info("retention", extra={"removed": removed, "needs_attention": len(self._attention)})
            except Exception:  # noqa: BLE001 - loops go on, counted
                self._metrics.loop_errors.labels("retention").inc()
                _log.exception("retention failed")
            await self._clock.sleep(self._settings.trim_every_s)


def _needing_attention(conn: Connection) -> Sequence[str]:
    return conn.execute(select(operations.c.id).where(operations.c.needs_attention)).scalars().all()
