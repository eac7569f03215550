"""Every move of an operation from state to state, with its events and the domain's hooks, in one transaction.

It owns the meaning of a transition. It runs inside the caller's write transaction and must never open its
own.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from controller.operations import store, subjects
from controller.operations.clock import Clock
from controller.operations.errors import NotCancellable, OperationNotFound, Problem
from controller.operations.operation import SUPERSEDES, Operation, Stage, UndoScope
from controller.operations.outbox import Outbox
from controller.operations.plan import Plan
from controller.operations.state import State, Trigger
from controller.operations.submission import Submission

DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
INTERNAL = "INTERNAL"
UNDO_FAILING = "UNDO_FAILING"


class Ledger:
    """Moves operations; knows the plans for their hooks."""

    def __init__(self, plans: Mapping[str, Plan], clock: Clock, outbox: Outbox) -> None:
        self._plans = plans
        self._known = tuple(sorted(plans))
        self._clock = clock
        self._outbox = outbox

    def plan(self, kind: str) -> Plan | None:
        """Return the plan of a kind, None if it was not handed in."""
        return self._plans.get(kind)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that have a plan."""
        return self._known

    @property
    def clock(self) -> Clock:
        """The clock that stamps every move."""
        return self._clock

    def create(
        self,
        conn: Connection,
        operation_id: str,
        submission: Submission,
        *,
        blocked: bool,
        supersedes: Sequence[str] = (),
    ) -> Operation:
        """Insert an operation, queued or blocked behind the ones that hold its subjects.

        `supersedes` are those that were cancelled for it.
        """
        plan = self._plans[submission.kind]
        now = self._clock.now()
        deadline_s = plan.deadline_s if submission.deadline_s is None else submission.deadline_s
        operation = store.add(
            conn,
            id=operation_id,
            tenant=submission.tenant,
            kind=plan.kind,
            plan_rev=plan.revision,
            subject=submission.subject,
            subject_name=submission.subject_name,
            initiator=submission.initiator,
            requested_by=submission.requested_by,
            spec=dict(submission.spec),
            facts={**submission.facts, **({SUPERSEDES: list(supersedes)} if supersedes else {})},
            state=State.BLOCKED if blocked else State.QUEUED,
            stages=store.stages_json([Stage(step.name) for step in plan.steps]),
            not_before=now,
            deadline=now + timedelta(seconds=deadline_s),
            traceparent=submission.traceparent,
            created_at=now,
        )
        subjects.attach(conn, operation, (submission.subject, *submission.other_subjects))
        if not blocked:
            subjects.occupy(conn, operation)
        self.tell(conn, operation, "operation.created")
        return operation

    def start(self, conn: Connection, operation: Operation) -> None:
        """Let the domain check its preconditions again and move its own row when the operation first runs.

        Raises:
            Permanent: If the domain says that it cannot begin any more.
        """
        self._plans[operation.kind].on_start(conn, operation)
        self.tell(conn, operation, "operation.updated")

    def begin_undo(
        self,
        conn: Connection,
        seen: Operation,
        outcome: State,
        error: Problem | None,
        *,
        scope: UndoScope = UndoScope.ALL,
        stages: Sequence[Stage] | None = None,
    ) -> Operation:
        """Turn a running operation round, under a new fence that shuts out what it has in flight."""
        plan = self._plans[seen.kind]
        now = self._clock.now()
        operation = store.change(
            conn,
            seen,
            Trigger.UNDO,
            outcome=outcome,
            error=None if error is None else error.to_json(),
            undo_scope=scope,
            undo_failures=0,
            needs_attention=False,
            not_before=now,
            undo_deadline=now + timedelta(seconds=plan.undo_deadline_s),
            cancel_requested_at=now if outcome is State.CANCELLED else seen.cancel_requested_at,
            stages=store.stages_json(store.running_failed(seen.stages if stages is None else stages, now)),
            fence=subjects.next_fence(conn, seen.subject),
        )
        plan.on_undo(conn, operation)
        self.tell(conn, operation, "operation.updated")
        return operation

    def abandon_undo(self, conn: Connection, seen: Operation) -> Operation:
        """Leave what an undoing operation has not undone yet to its successor."""
        return store.change(
            conn,
            seen,
            undo_scope=UndoScope.NONE,
            not_before=self._clock.now(),
            fence=subjects.next_fence(conn, seen.subject),
        )

    def settle(
        self, conn: Connection, seen: Operation, trigger: Trigger, error: Problem | None, **values: Any
    ) -> Operation:
        """End an operation, let go of its subjects and let a waiting successor in."""
        error = error if error is not None else seen.error
        if trigger is Trigger.SUCCEED or (error is not None and error.reason == UNDO_FAILING):
            error = None
        now = self._clock.now()
        stages = values.pop("stages", seen.stages)
        operation = store.change(
            conn,
            seen,
            trigger,
            stages=store.stages_json(store.running_failed(stages, now)),
            error=None if error is None else error.to_json(),
            needs_attention=False,
            owner=None,
            lease_until=None,
            finished_at=now,
            **values,
        )
        held = subjects.of(conn, operation)
        subjects.vacate(conn, operation)
        plan = self._plans.get(operation.kind)
        if plan is not None:
            plan.on_settle(conn, operation, operation.state, operation.error)
        self.tell(conn, operation, "operation.finished")
        for successor_id in subjects.successors(conn, held):
            self._promote(conn, successor_id)
        return operation

    def cancel(
        self, conn: Connection, operation_id: str, error: Problem | None, scope: UndoScope
    ) -> Operation:
        """Cancel at once what waits, turn round what runs; what is ending already goes on ending.

        Raises:
            OperationNotFound: No such operation.
            NotCancellable: It has finished or is past its point of no return, or no plan says how.
        """
        seen = store.find(conn, operation_id)
        if seen is None:
            raise OperationNotFound(operation_id)
        plan = self._plans.get(seen.kind)
        if seen.state.finished or plan is None:
            raise NotCancellable(operation_id, seen.public_state)
        match seen.state:
            case State.QUEUED | State.BLOCKED:
                return self.settle(conn, seen, Trigger.CANCEL, error, cancel_requested_at=self._clock.now())
            case State.RUNNING if plan.past_return(seen.entered_steps):
                raise NotCancellable(operation_id, seen.public_state)
            case State.RUNNING:
                return self.begin_undo(conn, seen, State.CANCELLED, error, scope=scope)
            case _ if scope is UndoScope.NONE and seen.undo_scope is UndoScope.ALL:
                return self.abandon_undo(conn, seen)
            case _:
                return seen

    def tell(self, conn: Connection, operation: Operation, event_type: str) -> None:
        """Append an event about the operation; its payload is only what finds it again."""
        self._outbox.append(
            conn,
            event_type,
            operation.subject,
            operation.id,
            {
                "kind": operation.kind,
                "subjectName": operation.subject_name,
                "state": operation.public_state.value,
                "needsAttention": operation.needs_attention,
            },
            fence=operation.fence,
            tenant=operation.tenant,
        )

    def _promote(self, conn: Connection, operation_id: str) -> None:
        seen = store.find(conn, operation_id)
        if seen is None or any(subjects.active_operation(conn, name) for name in subjects.of(conn, seen)):
            return
        operation = store.change(conn, seen, Trigger.PROMOTE, not_before=self._clock.now())
        subjects.occupy(conn, operation)
