"""The engine: claims operations, supervises their runs, answers for them.

It owns the loops and the slots. It must never act on an operation it has not claimed.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection

from controller.database import Database
from controller.operations.clock import Clock, OperationIds
from controller.operations.failpoints import FailPoints
from controller.operations.feed import Feed
from controller.operations.operation import Operation, OperationId
from controller.operations.outbox import Outbox
from controller.operations.plan import Plan
from controller.operations.state import PublicState
from controller.operations.submission import Accepted, IdempotencyKey, Prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Attributes:
    slots: Operations at work at once.
    resync_s: Slow look for work that no wake-up announced.
    stop_grace_s: How long steps may take to reach a boundary at shutdown.
    """

    slots: int = 32
    resync_s: float = 15.0
    stop_grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Which operations to list; an empty member does not restrict."""

    subject: str | None = None
    states: frozenset[PublicState] = frozenset()
    kinds: frozenset[str] = frozenset()
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class OperationPage:
    """Newest first; `next_page_token` is "" on the last page."""

    operations: tuple[Operation, ...]
    next_page_token: str


class Engine:
    """Carries out what was promised.

    Attributes:
        feed: Replay and live events.
        outbox: For the domain's own events, in the transactions of its hooks.
    """

    feed: Feed
    outbox: Outbox

    def __init__(
        self,
        database: Database,
        plans: Iterable[Plan],
        *,
        settings: EngineSettings | None = None,
        clock: Clock | None = None,
        operation_ids: OperationIds | None = None,
        fail_points: FailPoints | None = None,
        registry: CollectorRegistry | None = None,
        tracer: Tracer | None = None,
        owner: str | None = None,
    ) -> None:
        raise NotImplementedError

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Engine"]:
        """Run inside the block; a loop that dies cancels the block; leaving it stops gracefully."""
        raise NotImplementedError
        yield self

    async def run(self) -> None:
        """Release former owners, resume what is unfinished, work until `stop`.

        Raises:
            EngineStopped: If a loop ended on its own (as part of an exception group).
        """
        raise NotImplementedError

    async def stop(self) -> None:
        """Stop claiming, let steps reach a boundary, cancel the rest, release the rows. `run` returns afterwards."""
        raise NotImplementedError

    async def submit(self, prepare: Prepare, *, idempotency: IdempotencyKey | None = None) -> Accepted:
        """Accept an operation in one write transaction.

        `prepare(conn)` makes the domain's own checks and row changes and says what to do; what it raises rolls all back
        and is raised here. Order inside: idempotency key, prepare, `OperationInProgress` check, rows, `accepted`, events.
        `prepare` may call `require_idle(conn, subject)` to have that refusal before its own ones.

        Raises:
            OperationInProgress: Another operation holds the subject and is not to be superseded, or cannot be.
            IdempotencyKeyReused: The key belongs to another request.
            UnknownKind: There is no plan for it.
            DatabaseError: Nothing was accepted.
        """
        raise NotImplementedError

    async def cancel(self, operation_id: str) -> Operation:
        """Ask for the operation's end; a waiting one is CANCELLED at once, a running one goes to UNDOING.

        Raises:
            OperationNotFound: No such operation.
            NotCancellable: It has finished, is ending already, or is past its point of no return.
        """
        raise NotImplementedError

    async def wait(self, operation_id: str, timeout_s: float) -> Operation:
        """Return the operation when it has finished, or as it is after `timeout_s`.

        Raises:
            OperationNotFound: No such operation.
        """
        raise NotImplementedError

    async def get(self, operation_id: str) -> Operation:
        """Return one operation.

        Raises:
            OperationNotFound: No such operation.
        """
        raise NotImplementedError

    async def list(
        self, chosen: OperationFilter | None = None, *, page_size: int = 50, page_token: str = ""
    ) -> OperationPage:
        """Return a page, newest first; pages are stable under insertion and deletion.

        Raises:
            PageTokenInvalid: The token is not ours or belongs to another filter.
        """
        raise NotImplementedError


def active_operation(conn: Connection, subject: str) -> OperationId | None:
    """Return the operation that holds the subject (queued, running or undoing)."""
    raise NotImplementedError


def require_idle(conn: Connection, subject: str) -> None:
    """Raise `OperationInProgress` if an operation holds the subject."""
    raise NotImplementedError


def next_fence(conn: Connection, subject: str) -> int:
    """Raise the subject's fence and return it: for calls outside operations (adoption, reconciling)."""
    raise NotImplementedError


def forget_subject(conn: Connection, subject: str) -> None:
    """Remove the subject's row. Only when nobody can hold an older fence of it any more."""
    raise NotImplementedError


if TYPE_CHECKING:  # the names other modules are to import come from the package
    __all__ = ["Engine"]
