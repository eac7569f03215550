"""Remembering which request was answered how.

It owns `idempotency`. Only accepted requests are kept, in the transaction that accepted them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select

from controller.operations.errors import IdempotencyKeyReused
from controller.operations.rows import idempotency
from controller.operations.submission import IdempotencyKey

KEPT: Final = timedelta(hours=48)


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What was answered the first time: an operation's id or a response."""

    operation_id: str | None
    response: Mapping[str, Any] | None


def recall(conn: Connection, key: IdempotencyKey, now: datetime) -> StoredAnswer | None:
    """Return the stored answer, or None for a new key.

    Raises:
        IdempotencyKeyReused: If the key belongs to another request.
    """
    row = conn.execute(
        select(idempotency).where(idempotency.c.scope == key.scope, idempotency.c.key == key.key)
    ).one_or_none()
    if row is None:
        return None
    if row.expires_at <= now:
        conn.execute(
            delete(idempotency).where(idempotency.c.scope == key.scope, idempotency.c.key == key.key)
        )
        return None
    if row.request_hash != key.request_hash:
        raise IdempotencyKeyReused(key.scope, key.key)
    return StoredAnswer(row.op_id, row.response)


def remember(
    conn: Connection, key: IdempotencyKey, answer: StoredAnswer, expires_at: datetime, *, tenant: str
) -> None:
    """Store the answer until `expires_at`."""
    conn.execute(
        insert(idempotency).values(
            scope=key.scope,
            key=key.key,
            tenant=tenant,
            request_hash=key.request_hash,
            op_id=answer.operation_id,
            response=None if answer.response is None else dict(answer.response),
            expires_at=expires_at,
        )
    )
