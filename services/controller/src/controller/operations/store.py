"""Rows of `operations` read and changed.

It owns the translation between row and value, and the guard of every change: state, owner and attempt must be
what the caller last saw. Which state follows is `state`'s to say.
"""

import functools
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from controller.operations.errors import LostLease, Problem
from controller.operations.operation import (
    Initiator,
    LogLine,
    Operation,
    OperationId,
    Progress,
    Stage,
    UndoScope,
)
from controller.operations.rows import operations
from controller.operations.state import StageState, State, Trigger, next_state


def to_operation(row: Row[Any]) -> Operation:
    """Read a whole row of `operations`."""
    return Operation(
        seq=row.seq,
        id=OperationId(row.id),
        tenant=row.tenant,
        kind=row.kind,
        plan_rev=row.plan_rev,
        subject=row.subject,
        subject_name=row.subject_name,
        initiator=Initiator(row.initiator),
        requested_by=row.requested_by,
        spec=row.spec,
        facts=row.facts,
        state=State(row.state),
        step=row.step,
        entered_steps=tuple(row.entered_steps),
        stages=tuple(_to_stage(stage) for stage in row.stages),
        progress=None if row.progress is None else Progress(**row.progress),
        outcome=None if row.outcome is None else State(row.outcome),
        error=None if row.error is None else Problem.from_json(row.error),
        undo_scope=UndoScope(row.undo_scope),
        needs_attention=row.needs_attention,
        attempt=row.attempt,
        step_failures=row.step_failures,
        undo_failures=row.undo_failures,
        not_before=row.not_before,
        deadline=row.deadline,
        undo_deadline=row.undo_deadline,
        cancel_requested_at=row.cancel_requested_at,
        owner=row.owner,
        fence=row.fence,
        traceparent=row.traceparent,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        log=tuple(LogLine(datetime.fromisoformat(time), message) for time, message in row.log),
    )


def find(conn: Connection, operation_id: str) -> Operation | None:
    """Return the operation, or None if there is no such row."""
    row = conn.execute(select(operations).where(operations.c.id == operation_id)).one_or_none()
    return None if row is None else to_operation(row)


def add(conn: Connection, **values: Any) -> Operation:
    """Insert a row; `values` are those that have no natural beginning."""
    row = conn.execute(
        insert(operations)
        .values(
            step="",
            entered_steps=[],
            undo_scope=UndoScope.ALL,
            needs_attention=False,
            attempt=0,
            step_failures=0,
            undo_failures=0,
            fence=0,
            **values,
        )
        .returning(operations)
    ).one()
    return to_operation(row)


def change(conn: Connection, seen: Operation, trigger: Trigger | None = None, **values: Any) -> Operation:
    """Write `values` and the state that `trigger` leads to, if the row is still as it was seen.

    Raises:
        LostLease: If its state, owner or attempt is another by now.
    """
    if trigger is not None:
        values["state"] = next_state(seen.state, trigger)
    row = conn.execute(
        _guarded_update(tuple(sorted(values)), owned=seen.owner is not None),
        {
            **values,
            "seen_seq": seen.seq,
            "seen_state": seen.state,
            "seen_attempt": seen.attempt,
            **({} if seen.owner is None else {"seen_owner": seen.owner}),
        },
    ).one_or_none()
    if row is None:
        raise LostLease(
            f"operation {seen.id} is no longer {seen.state} in attempt {seen.attempt} of {seen.owner}"
        )
    return to_operation(row)


def write_log(conn: Connection, operation: Operation, log: tuple[LogLine, ...]) -> Operation:
    """Write the log of an operation that was changed in this transaction."""
    stored = [[line.time.isoformat(), line.message] for line in log]
    conn.execute(update(operations).where(operations.c.seq == operation.seq).values(log=stored))
    return replace(operation, log=log)


@functools.lru_cache
def _guarded_update(columns: tuple[str, ...], *, owned: bool) -> ReturningUpdate[Any]:
    # Building a statement costs more than running it; there are few combinations of columns.
    return (
        update(operations)
        .where(
            operations.c.seq == bindparam("seen_seq"),
            operations.c.state == bindparam("seen_state"),
            operations.c.attempt == bindparam("seen_attempt"),
            operations.c.owner == bindparam("seen_owner") if owned else operations.c.owner.is_(None),
        )
        .values({name: bindparam(name) for name in columns})
        .returning(operations)
    )


def stages_json(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Return the stored form of stages."""
    return [
        {
            "name": stage.name,
            "state": stage.state.value,
            "start_time": None if stage.start_time is None else stage.start_time.isoformat(),
            "duration_ms": stage.duration_ms,
        }
        for stage in stages
    ]


def stage_moved(stages: Sequence[Stage], name: str, state: StageState, now: datetime) -> tuple[Stage, ...]:
    """Return the stages with one of them moved to `state` at `now`, its times kept accordingly."""

    def moved(stage: Stage) -> Stage:
        if state is StageState.RUNNING:
            return replace(stage, state=state, start_time=stage.start_time or now, duration_ms=None)
        if stage.start_time is None or stage.duration_ms is not None:
            return replace(stage, state=state)
        return replace(
            stage, state=state, duration_ms=max(0, int((now - stage.start_time).total_seconds() * 1000))
        )

    return tuple(moved(stage) if stage.name == name else stage for stage in stages)


def running_failed(stages: Sequence[Stage], now: datetime) -> tuple[Stage, ...]:
    """Return the stages with the one that is running, if any, marked as not having reached its goal."""
    for stage in stages:
        if stage.state is StageState.RUNNING:
            return stage_moved(stages, stage.name, StageState.FAILED, now)
    return tuple(stages)


def _to_stage(stored: dict[str, Any]) -> Stage:
    start = stored["start_time"]
    return Stage(
        stored["name"],
        StageState(stored["state"]),
        None if start is None else datetime.fromisoformat(start),
        stored["duration_ms"],
    )
