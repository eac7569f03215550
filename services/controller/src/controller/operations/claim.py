"""Finding work: which operations are due, and making them the caller's.

It owns the two claim queries and the end of what waited too long. It never touches a kind without a plan.
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, or_, select, update

from controller.database import translate
from controller.operations import lease, store, subjects
from controller.operations.errors import LostLease, Permanent, Problem
from controller.operations.ledger import DEADLINE_EXCEEDED, INTERNAL, Ledger
from controller.operations.operation import Operation
from controller.operations.rows import READY, WAITING, operations
from controller.operations.state import State, Trigger

_log = logging.getLogger(__name__)

_HOOK_RETRY = timedelta(seconds=60)
_STRAY_RETRY = timedelta(seconds=1)
# Nobody is told to wait that long: a later moment was written by a clock that has been set back since.
_BEYOND_ALL_WAITS = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a look for work brought.

    Attributes:
        claimed: Operations that are now the caller's to carry out.
        next_due: When something that waits for its time will be due.
        waits_since: When the oldest that has not begun was submitted.
    """

    claimed: tuple[Operation, ...]
    next_due: datetime | None
    waits_since: datetime | None


def claim(
    conn: Connection,
    ledger: Ledger,
    owner: str,
    limit: int,
    live: Collection[str],
    *,
    shared: bool = False,
    set_back: bool = False,
) -> Claims:
    """Give up to `limit` due operations to `owner`; end those whose time ran out in the queue.

    `live` are the ids that the caller has not finished with: a run never meets itself. Where the database is
    `shared`, what belongs to owners whose lease has run out is due too. Where the clock was `set_back`, all
    that waits was written under another one, and is due.

    Raises:
        LostLease: The caller's own lease has run out.
    """
    now = ledger.clock.now()
    if shared:
        lease.release_dead(conn)
        if not lease.stands(conn, owner):
            raise LostLease(f"the lease of {owner} has run out")
    _release_strays(conn, owner, live, now)
    if set_back:
        conn.execute(update(operations).where(READY, operations.c.not_before > now).values(not_before=now))
    _expire(conn, ledger, now)
    known = operations.c.kind.in_(ledger.kinds)
    due_now = or_(operations.c.not_before <= now, operations.c.not_before > now + _BEYOND_ALL_WAITS)
    ready = conn.execute(
        select(operations)
        .where(READY, known, due_now, operations.c.id.not_in(sorted(live)))
        .order_by(operations.c.not_before, operations.c.seq)
        .limit(limit)
        # What another controller is claiming at this moment is not waited for.
        .with_for_update(skip_locked=True)
    ).all()
    claimed = [_claim_one(conn, ledger, store.to_operation(row), owner) for row in ready]
    later = conn.execute(
        select(func.min(operations.c.not_before)).where(READY, known, operations.c.not_before > now)
    ).scalar_one()
    expiry = conn.execute(
        select(func.min(operations.c.deadline)).where(WAITING, known, operations.c.deadline > now)
    ).scalar_one()
    waits_since = conn.execute(select(func.min(operations.c.created_at)).where(WAITING, known)).scalar_one()
    due = [moment for moment in (later, expiry) if moment is not None]
    begun = tuple(operation for operation in claimed if operation is not None)
    return Claims(begun, min(due, default=None), waits_since)


def _release_strays(conn: Connection, owner: str, live: Collection[str], now: datetime) -> None:
    """Take back what is the owner's without a run of his.

    A claim that committed while its connection broke is not known to who made it, and a run that broke off
    leaves its row as it was.
    """
    conn.execute(
        update(operations)
        .where(operations.c.owner == owner, operations.c.id.not_in(sorted(live)))
        .values(owner=None, not_before=now + _STRAY_RETRY)
    )


def _claim_one(conn: Connection, ledger: Ledger, seen: Operation, owner: str) -> Operation | None:
    if seen.state is not State.QUEUED:
        return _take(conn, ledger, seen, owner)
    try:
        with conn.begin_nested():
            operation = _take(conn, ledger, seen, owner)
            ledger.start(conn, operation)
    except Permanent as exc:
        _settle_or_defer(conn, ledger, seen, exc.problem)
    except Exception as exc:
        if translate(exc) is not None:
            raise
        _log.exception("start hook failed", extra={"operation": seen.id, "kind": seen.kind})
        _settle_or_defer(conn, ledger, seen, Problem(INTERNAL, "Internal error."))
    else:
        return operation
    return None


def _take(conn: Connection, ledger: Ledger, seen: Operation, owner: str) -> Operation:
    now = ledger.clock.now()
    return store.change(
        conn,
        seen,
        Trigger.CLAIM,
        owner=owner,
        attempt=seen.attempt + 1,
        fence=subjects.next_fence(conn, seen.subject),
        started_at=seen.started_at or now,
    )


def _expire(conn: Connection, ledger: Ledger, now: datetime) -> None:
    late = (
        conn.execute(
            select(operations.c.id)
            .where(WAITING, operations.c.kind.in_(ledger.kinds), operations.c.deadline <= now)
            .order_by(operations.c.deadline, operations.c.seq)
        )
        .scalars()
        .all()
    )
    for operation_id in late:
        current = store.find(conn, operation_id)
        # Ending one may have let another in, but it can have ended none.
        if current is not None and not current.state.finished:
            problem = Problem(DEADLINE_EXCEEDED, "The deadline passed before the operation could begin.")
            _settle_or_defer(conn, ledger, current, problem)


def _settle_or_defer(conn: Connection, ledger: Ledger, seen: Operation, problem: Problem) -> None:
    """End it; a failing hook of one kind must not keep the others from being claimed."""
    try:
        with conn.begin_nested():
            ledger.settle(conn, seen, Trigger.FAIL, problem)
    except Exception as exc:
        if translate(exc) is not None:
            raise
        _log.exception("settle hook failed", extra={"operation": seen.id, "kind": seen.kind})
        later = ledger.clock.now() + _HOOK_RETRY
        deferred = store.change(
            conn, seen, owner=None, not_before=later, deadline=later, needs_attention=True
        )
        ledger.tell(conn, deferred, "operation.updated")
