"""Events written in the transaction of the change they tell of.

It owns inserting into `events`; reading them is `feed`'s.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select

from controller.database import transaction_id
from controller.operations.clock import Clock
from controller.operations.rows import events, meta

_APPEND = insert(events).values(epoch=select(meta.c.db_epoch).scalar_subquery(), xid=transaction_id())


class Outbox:
    """Appends events; takes the connection of the caller's write transaction."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def append(
        self,
        conn: Connection,
        event_type: str,
        subject: str | None,
        operation_id: str | None = None,
        data: Mapping[str, Any] | None = None,
        *,
        fence: int = 0,
        tenant: str = "local",
    ) -> None:
        """Append one event.

        Args:
            conn: Connection of the transaction that makes the change.
            event_type: `<thing>.<what happened>`, as clients see it.
            subject: Id of the object it is about.
            operation_id: The operation that caused it.
            data: JSON-able payload, no secrets; readers load the resource itself.
            fence: Fence of the operation, 0 if there is none.
            tenant: Whose event it is.
        """
        conn.execute(
            _APPEND,
            {
                "ts": self._clock.now(),
                "tenant": tenant,
                "subject": subject,
                "op_id": operation_id,
                "fence": fence,
                "type": event_type,
                "data": dict(data or {}),
            },
        )
