"""Brings what is stored in step with the configured keys, before anything else works on the database.

It must never lose a secret: what it cannot open it leaves as it is, and where keys are missing for what is
stored the controller does not start, since it would go on in plain without anybody's noticing.
"""

import logging
from functools import partial
from typing import Final

from servicekit.settings import SettingsError

from controller.database import Database, DatabaseError
from controller.operations.failpoints import FailPoints, no_fail_points
from controller.records import sealed_rows
from controller.records.keyring import PLAIN, Keyring
from controller.records.sealed_rows import TABLES, SealedTable

_log = logging.getLogger(__name__)

# Rows of one transaction: a kill costs that much work, and at most so many MiB are held at once.
_AT_ONCE: Final = 50


async def bring_in_step(database: Database, keys: Keyring, fail_points: FailPoints = no_fail_points) -> None:
    """Seal by the first key what is plain or under an older one, then clean the files of what was before.

    Resumable: each row says what it is sealed by, and the database whether its files are still to be cleaned.

    Raises:
        SettingsError: There are rows under keys that are not configured.
        DatabaseError: The database cannot be used.
    """
    found = {table: await database.read(partial(sealed_rows.key_ids, table=table)) for table in TABLES}
    missing = sorted(sealed_by for ids in found.values() for sealed_by in ids if not keys.knows(sealed_by))
    if missing:
        raise SettingsError(
            f"secretKeyFile: the database holds secrets under {', '.join(sorted(set(missing)))}, and "
            "no configured key has this id; add the key again (docs/secrets.md)"
        )
    if keys.sealing_id == PLAIN:
        return
    for table, ids in found.items():
        for sealed_by in sorted(ids - {keys.sealing_id}):
            await _seal_anew(database, table, sealed_by, fail_points)
    if await database.read(sealed_rows.old_remains):
        await _clean(database)


async def _seal_anew(database: Database, table: SealedTable, sealed_by: str, fail_points: FailPoints) -> None:
    name = table.table.name
    _log.info("sealing secrets anew", extra={"table": name, "sealed_by": sealed_by or "nothing"})
    last: str | None = ""
    while last is not None:
        page = partial(sealed_rows.seal_anew, table=table, sealed_by=sealed_by, after=last, most=_AT_ONCE)
        last = await database.write(page)
        fail_points("sealing.page")


async def _clean(database: Database) -> None:
    names = tuple(table.table.name for table in TABLES)
    try:
        await database.rewrite(names)
    except DatabaseError as exc:
        # Secrets are sealed; what is left of older forms in the files is cleaned by the next start.
        _log.warning("the database's files still hold secrets as they were", extra={"error": str(exc)})
        return
    await database.write(sealed_rows.note_clean)
