"""How far another service's outbox has been taken into the one log."""

from sqlalchemy import Connection, delete, insert, select

from controller.records.schema import peer_cursors


def cursor_of(conn: Connection, peer: str) -> str:
    """Return the last cursor that was taken over; empty before the first."""
    found = conn.execute(
        select(peer_cursors.c.cursor).where(peer_cursors.c.peer == peer)
    ).scalar_one_or_none()
    return found or ""


def set_cursor(conn: Connection, peer: str, cursor: str) -> None:
    """Remember that everything up to `cursor` has been taken over."""
    conn.execute(delete(peer_cursors).where(peer_cursors.c.peer == peer))
    conn.execute(insert(peer_cursors).values(peer=peer, cursor=cursor))
