"""The objects that operations work on: who holds one, and its fence.

It owns `subjects` and `operation_subjects`. A fence only rises; a subject's row goes last of all.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import Connection, bindparam, delete, exists, insert, select, update

from controller.operations.errors import OperationInProgress
from controller.operations.operation import Operation, OperationId
from controller.operations.rows import BLOCKED, operation_subjects, operations, subjects

_COUNTING_BITS: Final = 32
# Names in one query: SQLite takes 32,766 parameters, older builds of it 999.
_AT_ONCE: Final = 500


def active_operation(conn: Connection, subject: str) -> OperationId | None:
    """Return the operation that holds the subject (queued, running or undoing)."""
    found = conn.execute(select(subjects.c.active_op).where(subjects.c.id == subject)).scalar_one_or_none()
    return None if found is None else OperationId(found)


def require_idle(conn: Connection, subject: str) -> None:
    """Pass if no operation holds the subject.

    Raises:
        OperationInProgress: If one does.
    """
    holder = active_operation(conn, subject)
    if holder is not None:
        raise OperationInProgress(subject, holder)


def next_fence(conn: Connection, subject: str) -> int:
    """Raise the subject's fence and return it; also for calls outside operations (adoption, reconciling)."""
    ensure(conn, [subject])
    risen = (
        update(subjects)
        .where(subjects.c.id == subject)
        .values(fence=subjects.c.fence + 1)
        .returning(subjects.c.fence)
    )
    return int(conn.execute(risen).scalar_one())


def outbid(conn: Connection, seen: Mapping[str, int]) -> None:
    """Raise subjects' fences above those that were `seen` elsewhere, and beyond what counting on reaches.

    The high bits count how often a subject changed hands between databases, or between processes on copies
    of one: whoever had it before is shut out for good.
    """
    known = fences_of(conn, seen)
    ensure(conn, seen.keys() - known.keys())
    risen = [
        {"subject": name, "above": (max(known.get(name, 0), fence) >> _COUNTING_BITS) + 1 << _COUNTING_BITS}
        for name, fence in sorted(seen.items())
    ]
    if risen:
        raising = update(subjects).where(subjects.c.id == bindparam("subject"))
        conn.execute(raising.values(fence=bindparam("above")), risen)


def fence_of(conn: Connection, subject: str) -> int:
    """Return the subject's fence; 0 for one that is not known."""
    return conn.execute(select(subjects.c.fence).where(subjects.c.id == subject)).scalar_one_or_none() or 0


def fences_of(conn: Connection, names: Iterable[str]) -> dict[str, int]:
    """Return the fences of those subjects that are known."""
    wanted = sorted(names)
    found: dict[str, int] = {}
    for begin in range(0, len(wanted), _AT_ONCE):
        some = subjects.c.id.in_(wanted[begin : begin + _AT_ONCE])
        found.update(
            (name, fence) for name, fence in conn.execute(select(subjects.c.id, subjects.c.fence).where(some))
        )
    return found


def forget_subject(conn: Connection, subject: str) -> None:
    """Remove the subject's row. Only when nobody can hold an older fence of it any more.

    Raises:
        OperationInProgress: If an operation holds it.
    """
    require_idle(conn, subject)
    conn.execute(delete(subjects).where(subjects.c.id == subject))


def ensure(conn: Connection, names: Iterable[str]) -> None:
    """Create the rows that are missing, in sorted order."""
    for name in sorted(names):
        known = conn.execute(select(subjects.c.id).where(subjects.c.id == name)).one_or_none()
        if known is None:
            conn.execute(insert(subjects).values(id=name, fence=0, generation=0))


def occupy(conn: Connection, operation: Operation) -> None:
    """Make the operation the holder of its subjects; the unique index refuses a second one."""
    for name in of(conn, operation):
        conn.execute(update(subjects).where(subjects.c.id == name).values(active_op=operation.id))
    conn.execute(
        update(operation_subjects).where(operation_subjects.c.op_seq == operation.seq).values(active=True)
    )


def vacate(conn: Connection, operation: Operation) -> None:
    """Let go of the operation's subjects."""
    for name in of(conn, operation):
        held = (subjects.c.id == name) & (subjects.c.active_op == operation.id)
        conn.execute(update(subjects).where(held).values(active_op=None))
    conn.execute(
        update(operation_subjects).where(operation_subjects.c.op_seq == operation.seq).values(active=False)
    )


def attach(conn: Connection, operation: Operation, names: Iterable[str]) -> None:
    """Record which subjects the operation is about; not yet as their holder."""
    for name in sorted(set(names)):
        conn.execute(insert(operation_subjects).values(op_seq=operation.seq, subject=name, active=False))


def of(conn: Connection, operation: Operation) -> list[str]:
    """Return the operation's subjects in sorted order."""
    return list(
        conn.execute(
            select(operation_subjects.c.subject)
            .where(operation_subjects.c.op_seq == operation.seq)
            .order_by(operation_subjects.c.subject)
        ).scalars()
    )


def successors(conn: Connection, names: Iterable[str]) -> list[OperationId]:
    """Return the blocked operations that wait for any of the subjects, oldest first."""
    return [
        OperationId(found)
        for found in conn.execute(
            select(operations.c.id)
            .where(
                exists().where(
                    operation_subjects.c.op_seq == operations.c.seq,
                    operation_subjects.c.subject.in_(sorted(names)),
                ),
                BLOCKED,
            )
            .order_by(operations.c.seq)
        ).scalars()
    ]
