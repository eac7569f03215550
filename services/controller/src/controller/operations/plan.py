"""What the domain hands to the engine: plans made of steps, and what a step is given.

It owns the shapes only. The engine decides when a step is called; a step must never assume that it runs once.
"""

import abc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import Connection

from controller.operations.errors import Problem
from controller.operations.operation import Operation, OperationId
from controller.operations.state import State


class Look(StrEnum):
    """What a step sees of its goal, before and after acting.

    `FOREIGN` (the object is there and carries another owner's mark) fails the operation at once with
    `FOREIGN_OBJECT`; `BUSY` (an action for this subject is still running) is looked at again until the
    deadline.
    """

    ABSENT = "ABSENT"
    PARTIAL = "PARTIAL"
    DONE = "DONE"
    BUSY = "BUSY"
    FOREIGN = "FOREIGN"


class StepContext(Protocol):
    """What a step may know and do while it runs. All its members are safe to use from the event loop only."""

    @property
    def operation_id(self) -> OperationId:
        """Id of the operation; goes into calls as their `request_id`."""

    @property
    def subject(self) -> str:
        """The object being worked on."""

    @property
    def spec(self) -> Mapping[str, Any]:
        """What was asked for at submit."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was saved so far."""

    @property
    def fence(self) -> int:
        """Fence to send with every call, reads included."""

    @property
    def attempt(self) -> int:
        """Number of this claim, from 1."""

    @property
    def deadline(self) -> datetime:
        """When this walk (forward or undo) gives up, wall clock, UTC."""

    @property
    def remaining_s(self) -> float:
        """Seconds left until the deadline by the monotonic clock, never below 0.05: a time-out for calls."""

    @property
    def undoing(self) -> bool:
        """Whether the operation is being walked back."""

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked to cancel; the step's task is cancelled as well."""

    @property
    def traceparent(self) -> str:
        """W3C trace context of the current step's span, or ""."""

    async def save_facts(self, **facts: Any) -> None:
        """Merge JSON-able `facts` into the row; they are durable when this returns.

        Raises:
            LostLease: If the row is no longer ours; let it pass through.
        """

    def progress(self, done: int, total: int, unit: str) -> None:
        """Report how far the step is; written to the row at most once a second."""

    def aside(self) -> AbstractContextManager[None]:
        """Take no slot of the engine inside: for waits of minutes on another service."""

    def log(self, line: str) -> None:
        """Tell people one line of what was done; it is kept with the operation. Never secrets."""


class Step(abc.ABC):
    """One goal of a plan, reached by looking, doing and verifying.

    Steps hold no state of their own; one object serves all operations of its kind.
    """

    name: str

    @abc.abstractmethod
    async def look(self, ctx: StepContext) -> Look:
        """Say what is there now. Must change nothing.

        DONE before this operation entered the step makes it SKIPPED: it is not ours and is never undone.
        """

    async def allocate(self, ctx: StepContext) -> Mapping[str, Any]:
        """Choose what `do` will use (ports, names, addresses); saved as facts before `do` runs.

        Called when the step is first entered by this operation; facts already saved win on a re-walk.
        """
        del ctx
        return {}

    @abc.abstractmethod
    async def do(self, ctx: StepContext) -> None:
        """Bring the goal about. May be called again after any crash; repeating re-attaches or is harmless.

        Raises:
            StepError: Classified by its subclass; any other exception counts as `Retryable`.
        """

    async def verify(self, ctx: StepContext) -> Look:
        """Look again after `do`; anything but DONE is not yet."""
        return await self.look(ctx)


class ReversibleStep(Step):
    """A step whose effect can be taken back."""

    @abc.abstractmethod
    async def undo(self, ctx: StepContext) -> None:
        """Remove what `do` of this operation made.

        Called only if the step was entered and its look is neither ABSENT nor FOREIGN.
        """

    async def verify_undone(self, ctx: StepContext) -> Look:
        """Look again after `undo`; ABSENT and FOREIGN are good, everything else is tried again."""
        return await self.look(ctx)


def _start_nothing(conn: Connection, operation: Operation) -> None:
    del conn, operation


def _settle_nothing(conn: Connection, operation: Operation, outcome: State, error: Problem | None) -> None:
    del conn, operation, outcome, error


StartHook = Callable[[Connection, Operation], None]
Witness = Callable[[StepContext, Problem], Awaitable[Mapping[str, bytes]]]
SettleHook = Callable[[Connection, Operation, State, Problem | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How operations of one kind are carried out.

    Attributes:
        kind: Name stored in the row; rows of kinds without a plan are left alone.
        revision: Raised when steps change.
        deadline_s: From submit to the end of the walk forward, unless the submission says otherwise.
        undo_deadline_s: After that long, undo needs attention and is retried slowly.
        point_of_no_return: Name of the step from which on (once entered) cancel is refused and failing means
            going on.
        keep_after: Name of the step from which on (once entered) a *failure* leaves everything as it is; a
            cancel still undoes.
        max_step_failures: `Retryable` errors in a row of one step before the operation fails.
        retired_steps: Steps of the previous revision, kept one release for their undo.
        quiesce: Called with the new fence before anything is undone: ends actions still running for the
            subject.
        witness: Called when the operation fails, before anything is undone; the files that it returns are
            kept with the operation. It must not change anything; what it raises is logged and forgotten.
        on_start: Runs in the claim transaction the first time; may raise `Permanent` when the precondition is
            gone.
        on_undo: Runs in the transaction that goes to UNDOING.
        on_settle: Runs in the transaction of the terminal state with SUCCEEDED, FAILED or CANCELLED.
    """

    kind: str
    revision: int
    steps: tuple[Step, ...]
    deadline_s: float
    undo_deadline_s: float = 120.0
    point_of_no_return: str | None = None
    keep_after: str | None = None
    max_step_failures: int = 5
    retired_steps: tuple[Step, ...] = ()
    quiesce: Callable[[StepContext], Awaitable[None]] | None = None
    witness: Witness | None = None
    on_start: StartHook = _start_nothing
    on_undo: StartHook = _start_nothing
    on_settle: SettleHook = _settle_nothing

    def __post_init__(self) -> None:
        """Refuse a plan whose names do not fit together."""
        names = [step.name for step in self.steps]
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"plan {self.kind!r} needs steps of different names, not {names}")
        for named in (self.point_of_no_return, self.keep_after):
            if named is not None and named not in names:
                raise ValueError(f"plan {self.kind!r} has no step {named!r}")

    def step(self, name: str) -> Step | None:
        """Find a step, retired ones included."""
        return next((step for step in (*self.steps, *self.retired_steps) if step.name == name), None)

    def past_return(self, entered: Sequence[str]) -> bool:
        """Whether the point of no return lies behind."""
        return self._reached(self.point_of_no_return, entered)

    def keeps(self, entered: Sequence[str]) -> bool:
        """Whether failing now leaves everything as it is."""
        return self._reached(self.keep_after, entered)

    def _reached(self, name: str | None, entered: Sequence[str]) -> bool:
        # A later step counts too: the named one may have been skipped because its goal held already.
        if name is None:
            return False
        names = [step.name for step in self.steps]
        return any(later in entered for later in names[names.index(name) :])
