"""The operation as a value: what a row says, parsed once.

It must never write; rows are changed by `store` alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NewType

from controller.operations.errors import Problem
from controller.operations.state import PublicState, StageState, State

OperationId = NewType("OperationId", str)

SUPERSEDED: Final = "SUPERSEDED"
"""Reason of the error of an operation whose place another has taken."""

SUPERSEDES: Final = "supersedes"
"""The fact of an operation that has taken the place of others: their ids."""


class Initiator(StrEnum):
    """Who wanted the operation."""

    USER = "user"
    SYSTEM = "system"


class UndoScope(StrEnum):
    """What an ending operation takes back of the steps it entered."""

    ALL = "all"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Stage:
    """One step as clients see it.

    Attributes:
        start_time: When the step was first entered; None while pending or skipped.
        duration_ms: From entering to its end; None while it is not over.
    """

    name: str
    state: StageState = StageState.PENDING
    start_time: datetime | None = None
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the current step is, in `unit`s (`bytes`, `files`, …)."""

    done: int
    total: int
    unit: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """One short line of what was done, for people."""

    time: datetime
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One row of `operations`.

    Attributes:
        seq: Position in order of submission; never reused.
        subject: The object it works on (`subjects.id`).
        subject_name: What people call the subject; display only.
        plan_rev: Revision of the plan it was submitted under.
        spec: What was asked for; never changes.
        facts: What steps allocated; saved before they act on it.
        entered_steps: Steps whose `do` may have begun, in that order: the ones undo walks back.
        outcome: While UNDOING, the state it will end in.
        error: Why it failed or was cancelled.
        needs_attention: Neither undo nor rolling forward succeeded in time; it is being retried slowly.
        attempt: Claims so far.
        fence: The number runners compare; raised by every claim and by going to UNDOING.
        traceparent: W3C trace context of the request that submitted it, or "".
        log: The last lines of what was done.
    """

    seq: int
    id: OperationId
    tenant: str
    kind: str
    plan_rev: int
    subject: str
    subject_name: str
    initiator: Initiator
    requested_by: str
    spec: Mapping[str, Any]
    facts: Mapping[str, Any]
    state: State
    step: str
    entered_steps: tuple[str, ...]
    stages: tuple[Stage, ...]
    progress: Progress | None
    outcome: State | None
    error: Problem | None
    undo_scope: UndoScope
    needs_attention: bool
    attempt: int
    step_failures: int
    undo_failures: int
    not_before: datetime
    deadline: datetime
    undo_deadline: datetime | None
    cancel_requested_at: datetime | None
    owner: str | None
    fence: int
    traceparent: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    log: tuple[LogLine, ...] = ()

    @property
    def superseded_by(self) -> str:
        """Id of the operation that took its place; empty: none did."""
        if self.error is None or self.error.reason != SUPERSEDED:
            return ""
        return str(self.error.metadata.get("operation", ""))

    @property
    def supersedes(self) -> tuple[str, ...]:
        """Ids of the operations whose place it took."""
        return tuple(self.facts.get(SUPERSEDES, ()))

    @property
    def public_state(self) -> PublicState:
        """The state as the API names it."""
        return self.state.public
