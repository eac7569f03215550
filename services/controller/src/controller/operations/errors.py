"""What the operations engine can refuse, and what a step can say went wrong.

It owns the exceptions of this package and the problem object they carry; it knows nothing of gRPC, HTTP or
SQL.

    OperationsError
    ├── SubmitRefused
    │   ├── OperationInProgress        another operation holds the subject
    │   ├── IdempotencyKeyReused       same key, other request
    │   └── UnknownKind                no plan of that name was handed in
    ├── OperationNotFound
    ├── NotCancellable                 finished, or past its point of no return
    ├── PageTokenInvalid
    ├── CursorError
    │   ├── CursorInvalid              not one of ours
    │   ├── CursorExpired              of another epoch, or below the retained floor
    │   └── ReaderTooSlow              a watcher fell too far behind and is cut
    ├── EngineStopped                  a loop of the engine ended without being asked to
    ├── LostLease                      the row is no longer ours: stop without acting
    │   └── ShutOut                    whoever is asked has seen a higher fence
    └── StepError                      raised by steps and hooks, classified by the engine
        ├── Permanent                  fail now
        ├── Retryable                  counted per step, the count resets on progress
        ├── NotYet                     not counted, bounded by the deadline
        └── PeerUnavailable            not counted, bounded by the deadline
"""

# ruff: noqa: N818 - the names say what happened, as the tree above reads

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an operation ended badly, in the words the API answers.

    Attributes:
        reason: UPPER_SNAKE_CASE name that clients match on.
        message: One sentence for people.
        metadata: Strings that belong to the reason.
    """

    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        return {"reason": self.reason, "message": self.message, "metadata": dict(self.metadata)}

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "Problem":
        """Read the stored form."""
        return Problem(stored["reason"], stored["message"], dict(stored.get("metadata", {})))


class OperationsError(Exception):
    """Everything this package raises on purpose."""


class SubmitRefused(OperationsError):
    """The operation was not accepted; nothing was written."""


class OperationInProgress(SubmitRefused):
    """Another operation holds the subject and may not be superseded.

    Attributes:
        operation_id: The operation in the way.
    """

    def __init__(self, subject: str, operation_id: str) -> None:
        super().__init__(f"operation {operation_id} is at work on {subject}")
        self.subject = subject
        self.operation_id = operation_id


class IdempotencyKeyReused(SubmitRefused):
    """The key was used in this scope with another request."""

    def __init__(self, scope: str, key: str) -> None:
        super().__init__("The idempotency key was used for another request; take a new one.")
        self.scope = scope
        self.key = key


class UnknownKind(SubmitRefused):
    """No plan of this kind was handed to the engine."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"no plan for operations of kind {kind!r}")
        self.kind = kind


class OperationNotFound(OperationsError):
    """No operation has this id (any more)."""

    def __init__(self, operation_id: str) -> None:
        super().__init__(f"no operation {operation_id}")
        self.operation_id = operation_id


class NotCancellable(OperationsError):
    """The operation has finished or is past its point of no return.

    Attributes:
        state: The operation's state when cancelling was refused.
    """

    def __init__(self, operation_id: str, state: str) -> None:
        super().__init__(f"operation {operation_id} cannot be cancelled any more ({state})")
        self.operation_id = operation_id
        self.state = state


class PageTokenInvalid(OperationsError):
    """The page token is not ours or belongs to another filter."""


class CursorError(OperationsError):
    """An event cursor that cannot be resumed from, or no further."""


class CursorInvalid(CursorError):
    """The cursor is not one that this service ever gave out."""


class CursorExpired(CursorError):
    """The cursor's events are gone: list again, then follow from now."""


class ReaderTooSlow(CursorError):
    """More events wait for a watcher than are kept for one; they are in the log: resume after the last."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} events were waiting to be read")


class EngineStopped(OperationsError):
    """A loop of the engine ended on its own; the process must end too."""


class LostLease(OperationsError):
    """The row changed hands under a run, which must stop without acting."""


class ShutOut(LostLease):
    """A call came too late: whoever is asked has seen a higher fence of the subject."""


class StepError(OperationsError):
    """A step did not reach its goal.

    Attributes:
        problem: What the operation says if it ends because of this.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.reason}: {problem.message}")
        self.problem = problem


class Permanent(StepError):
    """Trying again cannot help: the operation fails now and is undone."""


class Retryable(StepError):
    """Worth trying again; counted per step up to `Plan.max_step_failures`."""


class NotYet(StepError):
    """The world is on its way but not there; tried again until the operation's deadline."""


class PeerUnavailable(StepError):
    """The other side cannot be reached; tried again until the operation's deadline."""
