"""Files that are kept with an operation: what was seen when it failed.

It owns `operation_files`. A file is small and is forgotten with its operation.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, delete, insert, select

from controller.operations.rows import operation_files


def keep(conn: Connection, op_seq: int, files: Mapping[str, bytes]) -> None:
    """Keep `files` in place of what was kept before."""
    conn.execute(delete(operation_files).where(operation_files.c.op_seq == op_seq))
    if files:
        rows = [{"op_seq": op_seq, "name": name, "content": content} for name, content in files.items()]
        conn.execute(insert(operation_files), rows)


def kept(conn: Connection, op_seq: int) -> dict[str, bytes]:
    """Return what is kept, in order of name."""
    found = conn.execute(
        select(operation_files.c.name, operation_files.c.content)
        .where(operation_files.c.op_seq == op_seq)
        .order_by(operation_files.c.name)
    )
    return {name: bytes(content) for name, content in found}
