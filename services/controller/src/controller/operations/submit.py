"""Accepting an operation: key, domain's changes, rows and events in one transaction.

It owns the order in which a submit checks and writes. It never waits and never wakes anybody.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection

from controller.operations import idempotency, store, subjects
from controller.operations.clock import OperationIds
from controller.operations.errors import (
    NotCancellable,
    OperationInProgress,
    Problem,
    UnknownKind,
)
from controller.operations.idempotency import StoredAnswer
from controller.operations.ledger import Ledger
from controller.operations.operation import SUPERSEDED, Operation, OperationId, UndoScope
from controller.operations.submission import (
    Accepted,
    AlreadyThere,
    IdempotencyKey,
    Prepare,
    Submission,
    Supersede,
)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What the transaction did.

    Attributes:
        accepted: The answer.
        turned: Operations that it cancelled or turned round: their runs must be told.
    """

    accepted: Accepted
    turned: tuple[Operation, ...] = ()


def submit(
    conn: Connection,
    ledger: Ledger,
    ids: OperationIds,
    prepare: Prepare,
    key: IdempotencyKey | None,
    *,
    keys_kept: timedelta = idempotency.KEPT,
) -> Submitted:
    """Do the whole of it; what is raised rolls everything back.

    Raises:
        SubmitRefused: By its subclasses, and whatever `prepare` raises.
    """
    now = ledger.clock.now()
    stored = None if key is None else idempotency.recall(conn, key, now)
    if stored is not None:
        operation = None if stored.operation_id is None else store.find(conn, stored.operation_id)
        return Submitted(Accepted(operation, stored.response, replayed=True))
    wanted = prepare(conn)
    match wanted:
        case AlreadyThere():
            if key is not None:
                answer = StoredAnswer(None, wanted.response)
                idempotency.remember(conn, key, answer, now + keys_kept, tenant=wanted.tenant)
            return Submitted(Accepted(None, wanted.response, replayed=False))
        case Submission():
            operation, turned = _accept(conn, ledger, ids(), wanted)
            if key is not None:
                answer = StoredAnswer(operation.id, None)
                idempotency.remember(conn, key, answer, now + keys_kept, tenant=wanted.tenant)
            return Submitted(Accepted(operation, None, replayed=False), turned)


def _accept(
    conn: Connection, ledger: Ledger, operation_id: OperationId, wanted: Submission
) -> tuple[Operation, tuple[Operation, ...]]:
    if ledger.plan(wanted.kind) is None:
        raise UnknownKind(wanted.kind)
    names = sorted({wanted.subject, *wanted.other_subjects})
    subjects.ensure(conn, names)
    turned = _make_room(conn, ledger, operation_id, wanted.supersede, names)
    blocked = any(subjects.active_operation(conn, name) is not None for name in names)
    superseded = [operation.id for operation in turned]
    operation = ledger.create(conn, operation_id, wanted, blocked=blocked, supersedes=superseded)
    wanted.accepted(conn, operation)
    return operation, turned


def _make_room(
    conn: Connection, ledger: Ledger, successor: OperationId, supersede: Supersede, names: list[str]
) -> tuple[Operation, ...]:
    # The waiting ones first: ending the active one would let them in.
    in_the_way = subjects.successors(conn, names)
    for name in names:
        holder = subjects.active_operation(conn, name)
        if holder is None or holder in in_the_way:
            continue
        if supersede is Supersede.NO:
            raise OperationInProgress(name, holder)
        in_the_way.append(holder)
    if in_the_way and supersede is Supersede.NO:
        raise OperationInProgress(names[0], in_the_way[0])
    problem = Problem(SUPERSEDED, f"Operation {successor} took its place.", {"operation": successor})
    scope = UndoScope.NONE if supersede is Supersede.ABANDON else UndoScope.ALL
    turned = []
    for operation_id in in_the_way:
        try:
            turned.append(ledger.cancel(conn, operation_id, problem, scope))
        except NotCancellable as exc:
            raise OperationInProgress(names[0], operation_id) from exc
    return tuple(turned)
