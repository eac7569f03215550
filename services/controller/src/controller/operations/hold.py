"""This process's hold on one claimed operation: what the row said last, and every write that a run makes.

It owns the guarded saves, one transaction at a time. A save that was begun is never cancelled, and one that
was refused means that the hold is lost.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection

from controller.database import Database, DatabaseError
from controller.operations import store
from controller.operations.attempt import backoff_s
from controller.operations.errors import LostLease, Problem
from controller.operations.failpoints import FailPoints
from controller.operations.files import keep
from controller.operations.lease import Lease
from controller.operations.ledger import UNDO_FAILING, Ledger
from controller.operations.metrics import Metrics
from controller.operations.operation import LogLine, Operation, Progress, Stage, UndoScope
from controller.operations.state import StageState, State, Trigger
from controller.operations.subjects import fence_of

_log = logging.getLogger(__name__)

T = TypeVar("T")

_SLOW_FIRST_S = 1.0
_SLOW_MOST_S = 60.0
_PROGRESS_EVERY_S = 1.0
_LINES = 100
_LINE_CHARACTERS = 300


def _nobody() -> None:
    """Nobody hands out slots."""


class Hold:
    """The row of one claim.

    Attributes:
        operation: The row as this run last saw or wrote it.
    """

    def __init__(
        self,
        claimed: Operation,
        database: Database,
        ledger: Ledger,
        metrics: Metrics,
        fail_point: FailPoints,
        lease: Lease,
    ) -> None:
        self.operation = claimed
        self.clock = ledger.clock
        self.metrics = metrics
        self.fail_point = fail_point
        self._database = database
        self._ledger = ledger
        self._lease = lease
        self._lock = asyncio.Lock()
        self._saves: set[asyncio.Task[None]] = set()
        self._marked: tuple[Stage, ...] | None = None
        self._noted: tuple[LogLine, ...] = ()
        self._progress: Progress | None = None
        self._progress_writer: asyncio.Task[None] | None = None
        self.is_aside = False
        self.on_aside: Callable[[], None] = _nobody

    @property
    def released(self) -> bool:
        """Whether the row has been given back or has ended."""
        return self.operation.owner is None

    def require_lease(self) -> None:
        """Pass while this process may act on what it has claimed.

        Raises:
            LostLease: It may not.
        """
        if not self._lease.held:
            raise LostLease(f"the lease of {self._lease.owner} was not renewed in time")

    @property
    def abandoned(self) -> bool:
        """Whether a successor has taken over what is not undone yet."""
        return self.operation.undo_scope is UndoScope.NONE

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Count as waiting inside; whoever hands out slots is told."""
        self.is_aside = True
        self.on_aside()
        try:
            yield
        finally:
            self.is_aside = False

    def mark(self, step: str, state: StageState) -> None:
        """Move a stage; written with the next save, which spares a commit per step."""
        stages = self.operation.stages if self._marked is None else self._marked
        self._marked = store.stage_moved(stages, step, state, self.clock.now())

    def note(self, message: str) -> None:
        """Add a line to the operation's log; written with the next save. Said again, it is not repeated."""
        known = self._noted or self.operation.log
        if known and known[-1].message == message:
            return
        self._noted = (*known, LogLine(self.clock.now(), message[:_LINE_CHARACTERS]))[-_LINES:]

    async def flush(self) -> None:
        """Write marked stages and noted lines now: the run is about to wait."""
        if self._marked is not None or self._noted:
            await self.save()

    async def save(self, **values: Any) -> None:
        """Write values and marked stages to the row; moved stages are told to watchers.

        Raises:
            LostLease: If the row has moved on.
        """

        def work(conn: Connection, seen: Operation, stages: tuple[Stage, ...]) -> Operation:
            operation = store.change(conn, seen, stages=store.stages_json(stages), **values)
            if stages != seen.stages or "needs_attention" in values or "progress" in values:
                self._ledger.tell(conn, operation, "operation.updated")
            return operation

        await self._change(work)

    async def save_facts(self, facts: Mapping[str, Any], fence: int) -> None:
        """Merge facts for a step that works under `fence`.

        Raises:
            LostLease: If the row has moved on.
        """
        if fence != self.operation.fence:
            raise LostLease(f"a step under fence {fence} of {self.operation.id} tried to save")

        def work(conn: Connection, seen: Operation, stages: tuple[Stage, ...]) -> Operation:
            return store.change(conn, seen, facts={**seen.facts, **facts}, stages=store.stages_json(stages))

        await self._change(work)

    async def keep_files(self, files: Mapping[str, bytes]) -> None:
        """Keep files with the operation.

        Raises:
            LostLease: If the row has moved on.
        """

        def work(conn: Connection, seen: Operation, stages: tuple[Stage, ...]) -> Operation:
            operation = store.change(conn, seen, stages=store.stages_json(stages))
            keep(conn, operation.seq, files)
            return operation

        await self._change(work)

    async def settle(self, trigger: Trigger, error: Problem | None) -> None:
        """End the operation."""
        self.fail_point("settle.before_commit")
        await self._change(
            lambda conn, seen, stages: self._ledger.settle(conn, seen, trigger, error, stages=stages)
        )
        self.fail_point("settle.after_commit")

    async def turn_round(self, error: Problem) -> None:
        """Begin to undo because of a failure."""
        self.fail_point("undo.before_commit")
        await self._change(
            lambda conn, seen, stages: self._ledger.begin_undo(conn, seen, State.FAILED, error, stages=stages)
        )
        self.fail_point("undo.after_commit")

    async def release(self, not_before: datetime, **values: Any) -> None:
        """Give the row back unfinished, for the claim at `not_before`."""
        try:
            await self.save(owner=None, not_before=not_before, **values)
        except LostLease:
            self.metrics.lost_leases.inc()

    async def let_go(self, problem: Problem) -> None:
        """Ask for attention and give the row back for a slow retry: it goes neither on nor back."""
        operation = self.operation
        failures = operation.undo_failures + 1
        _log.warning(
            "operation needs attention",
            extra={
                "operation": operation.id,
                "kind": operation.kind,
                "reason": problem.reason,
                "problem": problem.message,
                "failures": failures,
            },
        )
        if operation.state is State.UNDOING:
            problem = _beside(operation.error, problem)
        delay_s = backoff_s(failures, first_s=_SLOW_FIRST_S, most_s=_SLOW_MOST_S)
        await self.release(
            self.clock.now() + timedelta(seconds=delay_s),
            needs_attention=True,
            undo_failures=failures,
            error=problem.to_json(),
        )

    async def refresh(self) -> bool:
        """Read the row again after it was moved; return whether it is still this run's to work on."""
        mine = self.operation
        found = await self._through_outages(lambda conn: store.find(conn, mine.id))
        if found is None or (found.owner, found.attempt) != (mine.owner, mine.attempt):
            return False
        self.operation = found
        # Whoever moved the row has closed the stages.
        self._marked = None
        return not found.state.finished

    async def is_behind(self) -> bool:
        """Tell whether the subject's fence has risen above the one that this claim has."""
        mine = self.operation
        return await self._through_outages(lambda conn: fence_of(conn, mine.subject)) > mine.fence

    def report(self, progress: Progress, fence: int) -> None:
        """Keep a step's progress and have it written soon."""
        if fence != self.operation.fence:
            return
        self._progress = progress
        if self._progress_writer is None or self._progress_writer.done():
            self._progress_writer = asyncio.ensure_future(self._write_progress())

    async def settled(self) -> None:
        """Wait for the saves that have begun."""
        if self._saves:
            await asyncio.wait(set(self._saves))

    def close(self) -> None:
        """Stop writing; a transaction that has begun still commits."""
        for task in (*self._saves, self._progress_writer):
            if task is not None:
                task.cancel()

    async def _write_progress(self) -> None:
        try:
            while self._progress is not None:
                progress, self._progress = self._progress, None
                await self.save(
                    progress={"done": progress.done, "total": progress.total, "unit": progress.unit}
                )
                await self.clock.sleep(_PROGRESS_EVERY_S)
        except LostLease:
            # The run itself learns it by its own next save.
            self._progress = None

    async def _change(self, work: Callable[[Connection, Operation, tuple[Stage, ...]], Operation]) -> None:
        # A task of its own: ending the step that asked for the save must not end the save.
        task = asyncio.ensure_future(self._change_guarded(work))
        self._saves.add(task)
        task.add_done_callback(self._save_ended)
        await asyncio.shield(task)

    def _save_ended(self, task: "asyncio.Task[None]") -> None:
        self._saves.discard(task)
        if not task.cancelled():
            # Whoever asked may be gone: then the row's next reader learns what came of it.
            task.exception()

    async def _change_guarded(
        self, work: Callable[[Connection, Operation, tuple[Stage, ...]], Operation]
    ) -> None:
        async with self._lock:
            seen, marked, noted = self.operation, self._marked, self._noted
            if seen.owner is None:
                raise LostLease(f"operation {seen.id} was given back")
            stages = seen.stages if marked is None else marked

            def change(conn: Connection) -> Operation:
                changed = work(conn, seen, stages)
                return store.write_log(conn, changed, noted) if noted else changed

            self.operation = await self._through_outages(change, write=True)
            if self._marked is marked:
                self._marked = None
            if self._noted is noted:
                self._noted = ()

    async def _through_outages(self, work: Callable[[Connection], T], *, write: bool = False) -> T:
        failures = 0
        while True:
            try:
                return await (self._database.write(work) if write else self._database.read(work))
            except DatabaseError as exc:
                failures += 1
                self.metrics.retries.labels(self.operation.kind, type(exc).__name__).inc()
                _log.warning("database outage", extra={"operation": self.operation.id, "error": str(exc)})
            await self.clock.sleep(backoff_s(failures))


def _beside(error: Problem | None, undoing: Problem) -> Problem:
    """Return the error to show while undo fails: the first cause, and beside it what holds up its undo."""
    if error is None or error.reason == UNDO_FAILING:
        return Problem(UNDO_FAILING, undoing.message, {"cause": undoing.reason})
    metadata = {**error.metadata, "undo": undoing.reason, "undoMessage": undoing.message}
    return Problem(error.reason, error.message, metadata)
