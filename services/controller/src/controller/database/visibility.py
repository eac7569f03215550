"""What decides when a reader may take a row for final: whose transaction wrote it, and who still writes.

A sequence gives out numbers before it is known which transaction commits first. Ids of transactions do so
too, but the database knows below which of them none is open any more; a reader that stays below it, in order
of (transaction, number), meets every row exactly once. SQLite has one writer: there every transaction counts
as the same one, and none is ever open beside a reader.
"""

from typing import Any

from sqlalchemy import BigInteger, Compiled
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

_BEYOND_ALL = 2**63 - 1


class transaction_id(FunctionElement[int]):  # noqa: N801 - named as SQL functions are
    """The id of the write transaction at work."""

    type = BigInteger()
    inherit_cache = True


class oldest_open_transaction(FunctionElement[int]):  # noqa: N801 - named as SQL functions are
    """The lowest id that may still be open: everything below has ended, as the statement's snapshot sees it.

    Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT.
    """

    type = BigInteger()
    inherit_cache = True


@compiles(transaction_id)
def _same_for_all(element: transaction_id, compiler: Compiled, **kw: Any) -> str:
    del element, compiler, kw
    return "0"


@compiles(transaction_id, "postgresql")
def _current(element: transaction_id, compiler: Compiled, **kw: Any) -> str:
    del element, compiler, kw
    return "CAST(CAST(pg_current_xact_id() AS text) AS bigint)"


@compiles(oldest_open_transaction)
def _none_is_open(element: oldest_open_transaction, compiler: Compiled, **kw: Any) -> str:
    del element, compiler, kw
    return str(_BEYOND_ALL)


@compiles(oldest_open_transaction, "postgresql")
def _snapshot_xmin(element: oldest_open_transaction, compiler: Compiled, **kw: Any) -> str:
    del element, compiler, kw
    return "CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)"
