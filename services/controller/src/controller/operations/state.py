"""The life of an operation: one table, one function.

Nothing else in the package decides which state follows which.
"""

from enum import StrEnum


class State(StrEnum):
    """Stored state of an operation; never renamed, since old and new builds share the table."""

    QUEUED = "queued"
    BLOCKED = "blocked"
    RUNNING = "running"
    UNDOING = "undoing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether no transition leaves this state."""
        return self in FINISHED

    @property
    def public(self) -> "PublicState":
        """The word the API uses for it."""
        match self:
            case State.QUEUED | State.BLOCKED:
                return PublicState.PENDING
            case State.RUNNING:
                return PublicState.RUNNING
            case State.UNDOING:
                return PublicState.UNDOING
            case State.SUCCEEDED:
                return PublicState.SUCCEEDED
            case State.FAILED:
                return PublicState.FAILED
            case State.CANCELLED:
                return PublicState.CANCELLED


class PublicState(StrEnum):
    """State as clients see it."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    UNDOING = "UNDOING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def stored(self) -> frozenset[State]:
        """The stored states that clients see under this word."""
        return frozenset(state for state in State if state.public is self)


class StageState(StrEnum):
    """State of one step as the API's `stages` show it."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    UNDONE = "UNDONE"
    SKIPPED = "SKIPPED"


class Trigger(StrEnum):
    """What can happen to an operation."""

    PROMOTE = "promote"
    CLAIM = "claim"
    SUCCEED = "succeed"
    UNDO = "undo"
    FAIL = "fail"
    CANCEL = "cancel"


ACTIVE = frozenset({State.QUEUED, State.RUNNING, State.UNDOING})
FINISHED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

TRANSITIONS: dict[tuple[State, Trigger], State] = {
    (State.BLOCKED, Trigger.PROMOTE): State.QUEUED,
    (State.BLOCKED, Trigger.FAIL): State.FAILED,
    (State.BLOCKED, Trigger.CANCEL): State.CANCELLED,
    (State.QUEUED, Trigger.CLAIM): State.RUNNING,
    (State.QUEUED, Trigger.FAIL): State.FAILED,
    (State.QUEUED, Trigger.CANCEL): State.CANCELLED,
    (State.RUNNING, Trigger.CLAIM): State.RUNNING,
    (State.RUNNING, Trigger.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Trigger.UNDO): State.UNDOING,
    (State.RUNNING, Trigger.FAIL): State.FAILED,
    (State.UNDOING, Trigger.CLAIM): State.UNDOING,
    (State.UNDOING, Trigger.FAIL): State.FAILED,
    (State.UNDOING, Trigger.CANCEL): State.CANCELLED,
}


class IllegalTransition(RuntimeError):  # noqa: N818 - named like the errors of the package
    """A defect: the engine asked for a transition that is not in the table."""


def next_state(state: State, trigger: Trigger) -> State:
    """Return the state that follows.

    Raises:
        IllegalTransition: If the table has no such entry.
    """
    try:
        return TRANSITIONS[state, trigger]
    except KeyError:
        raise IllegalTransition(f"{trigger} in state {state}") from None
