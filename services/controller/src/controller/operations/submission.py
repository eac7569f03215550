"""What goes into a submit and what comes out of it.

Values only; the transaction is `submit`'s.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection

from controller.operations.operation import Initiator, Operation


class Supersede(StrEnum):
    """What becomes of an operation that already holds the subject.

    `NO` refuses the new one. `UNDO` cancels the old one and walks it back before the new one starts.
    `ABANDON` cancels it and leaves what it made to the new one, whose plan must cope with half-made things
    (delete, forced stop). In both cases the old one's `on_settle` runs after the new one's `prepare`: it can
    tell by the error's reason `SUPERSEDED` that the subject is not its own any more; and by its undo scope,
    where it was being undone already for a reason of its own.
    """

    NO = "no"
    UNDO = "undo"
    ABANDON = "abandon"


def _nothing_more(conn: Connection, operation: Operation) -> None:
    del conn, operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """An operation to be.

    Attributes:
        subject: Id of the object it changes; created in `subjects` if new.
        subject_name: What people call it.
        spec: JSON-able; never secrets.
        facts: JSON-able facts known already.
        other_subjects: Further objects that must be free (clone, network delete).
        deadline_s: Instead of the plan's.
        traceparent: W3C trace context of the request.
        accepted: Called last in the submit transaction with the new operation, for rows and events that carry
            its id.
    """

    kind: str
    subject: str
    subject_name: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    other_subjects: tuple[str, ...] = ()
    supersede: Supersede = Supersede.NO
    deadline_s: float | None = None
    tenant: str = "local"
    initiator: Initiator = Initiator.USER
    requested_by: str = "local"
    traceparent: str = ""
    accepted: Callable[[Connection, Operation], None] = _nothing_more


@dataclass(frozen=True, slots=True)
class AlreadyThere:
    """The goal holds already: nothing to do, answer this (JSON-able, stored under the idempotency key)."""

    response: Mapping[str, Any]
    tenant: str = "local"


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A client's promise that two requests are one.

    Attributes:
        scope: Principal, method and path.
        key: The client's key.
        request_hash: Hash of the client's body as it came, without anything the server made.
    """

    scope: str
    key: str
    request_hash: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """Answer of a submit: `operation` or `response`, or neither for a replayed operation that is long gone.

    Attributes:
        operation: The new or replayed operation, as it is now.
        response: What `AlreadyThere` carried.
        replayed: Whether a stored answer was given again.
    """

    operation: Operation | None
    response: Mapping[str, Any] | None
    replayed: bool


Prepare = Callable[[Connection], Submission | AlreadyThere]
