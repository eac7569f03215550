"""Rows of `image_sources`: URLs that images are still to be fetched from. They may hold secrets."""

from sqlalchemy import Connection, delete, insert, select

from controller.records.schema import image_sources
from controller.records.sealed_rows import IMAGE_SOURCES, opened, sealed


def keep(conn: Connection, subject: str, url: str) -> None:
    """Keep the URL for the steps that work on `subject`."""
    forget(conn, subject)
    conn.execute(insert(image_sources).values(sealed(conn, IMAGE_SOURCES, subject, {"url": url.encode()})))


def find(conn: Connection, subject: str) -> str | None:
    """Return the URL; None if there is none any more."""
    row = conn.execute(select(image_sources).where(image_sources.c.subject == subject)).one_or_none()
    return None if row is None else opened(conn, IMAGE_SOURCES, row)["url"].decode()


def forget(conn: Connection, subject: str) -> None:
    """Remove the URL: what was to be fetched is there, or is not wanted any more."""
    conn.execute(delete(image_sources).where(image_sources.c.subject == subject))
