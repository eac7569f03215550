"""Idempotency: what accepted requests were answered, by their key, for two days."""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from image_store.catalogue.documents import Document
from image_store.catalogue.schema import REQUESTS
from image_store.errors import KeyReusedError

KEPT: Final = timedelta(hours=48)


def find_answer(
    connection: Connection, call: str, request_id: str, fingerprint: str, now: datetime
) -> Document | None:
    """Return what the request was answered when it came first, or None if it has no key or is new.

    Raises:
        KeyReusedError: The key came with another request.
    """
    row = connection.execute(
        select(REQUESTS.c.fingerprint, REQUESTS.c.answer).where(
            REQUESTS.c.call == call, REQUESTS.c.request_id == request_id, REQUESTS.c.expire_time > now
        )
    ).one_or_none()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise KeyReusedError
    answer: Document = row.answer
    return answer


def has_answer(connection: Connection, call: str, request_id: str, now: datetime) -> bool:
    """Tell whether a request with this key was accepted."""
    query = select(REQUESTS.c.call).where(
        REQUESTS.c.call == call, REQUESTS.c.request_id == request_id, REQUESTS.c.expire_time > now
    )
    return connection.execute(query).first() is not None


def keep_answer(
    connection: Connection, call: str, request_id: str, fingerprint: str, answer: Document, now: datetime
) -> None:
    """Keep `answer` for repeats, if the request has a key, and forget what has been kept long enough."""
    connection.execute(delete(REQUESTS).where(REQUESTS.c.expire_time <= now))
    if request_id:
        connection.execute(
            insert(REQUESTS).values(
                call=call,
                request_id=request_id,
                fingerprint=fingerprint,
                answer=answer,
                expire_time=now + KEPT,
            )
        )
