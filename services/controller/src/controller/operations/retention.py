"""Forgetting what is old: events, finished operations, idempotency keys, and subjects that are gone.

It owns deletion, in batches so that no write waits long. Whatever removes events raises the floor with them.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, Connection, Select, delete, func, or_, select, update

from controller.database import Database
from controller.operations.clock import Clock
from controller.operations.idempotency import KEPT
from controller.operations.rows import events, idempotency, meta, operation_subjects, operations, subjects
from controller.operations.subjects import forget_subject

BATCH = 1000


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How long things are kept.

    Attributes:
        kept_per_subject: Newest operations of a subject that stay however old they are, while it exists.
        keys: How long an idempotency key is answered.
        living: Selects the ids of the subjects that exist; None: all are taken to exist, for ever.
    """

    events: timedelta = timedelta(days=7)
    operations: timedelta = timedelta(days=30)
    kept_per_subject: int = 20
    keys: timedelta = KEPT
    living: "Select[tuple[str]] | None" = None


class Retention:
    """Trims the engine's tables."""

    def __init__(self, database: Database, clock: Clock, settings: RetentionSettings | None = None) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings or RetentionSettings()

    async def trim(self) -> int:
        """Remove all that is too old; return how many rows went.

        Raises:
            DatabaseError: In between; what was removed stays removed.
        """
        removed = 0
        for batch in (self._trim_events, self._trim_operations, self._trim_keys, self._trim_subjects):
            while count := await self._database.write(batch):
                removed += count
        return removed

    def _trim_events(self, conn: Connection) -> int:
        oldest_kept = self._clock.now() - self._settings.events
        # By position: event times come from a clock that may have been set, and only a prefix may go.
        young = select(func.min(events.c.rev)).where(events.c.ts >= oldest_kept)
        first_kept = conn.execute(young).scalar_one()
        doomed = select(events.c.rev).order_by(events.c.rev).limit(BATCH)
        if first_kept is not None:
            doomed = doomed.where(events.c.rev < first_kept)
        last = conn.execute(select(func.max(doomed.subquery().c.rev))).scalar_one()
        if last is None:
            return 0
        removed = conn.execute(delete(events).where(events.c.rev <= last)).rowcount
        conn.execute(update(meta).values(events_floor=last))
        return removed

    def _trim_operations(self, conn: Connection) -> int:
        limit = self._clock.now() - self._settings.operations
        ranked = select(
            operations.c.seq,
            operations.c.subject,
            operations.c.finished_at,
            func.row_number()
            .over(partition_by=operations.c.subject, order_by=operations.c.seq.desc())
            .label("rank"),
        ).subquery()
        surplus: ColumnElement[bool] = ranked.c.rank > self._settings.kept_per_subject
        if self._settings.living is not None:
            # Nobody asks for the history of what is gone for ever: it goes with age alone.
            surplus = or_(surplus, ranked.c.subject.not_in(self._settings.living))
        doomed = (
            select(ranked.c.seq)
            .where(ranked.c.finished_at < limit, surplus)
            .order_by(ranked.c.seq)
            .limit(BATCH)
        )
        return conn.execute(delete(operations).where(operations.c.seq.in_(doomed))).rowcount

    def _trim_subjects(self, conn: Connection) -> int:
        """Forget subjects that are gone, with their fences, when their last operation is forgotten.

        That one removed them and has succeeded, so whoever compares fences has kept its own mark since then:
        an operation that could not be carried out to its end is never trimmed.
        """
        if self._settings.living is None:
            return 0
        remembered = select(operation_subjects.c.subject)
        doomed = (
            select(subjects.c.id)
            .where(
                subjects.c.active_op.is_(None),
                subjects.c.id.not_in(self._settings.living),
                subjects.c.id.not_in(remembered),
            )
            .order_by(subjects.c.id)
            .limit(BATCH)
        )
        gone = conn.execute(doomed).scalars().all()
        for subject in gone:
            forget_subject(conn, subject)
        return len(gone)

    def _trim_keys(self, conn: Connection) -> int:
        doomed = (
            select(idempotency.c.scope, idempotency.c.key)
            .where(idempotency.c.expires_at <= self._clock.now())
            .order_by(idempotency.c.expires_at)
            .limit(BATCH)
        )
        keys = conn.execute(doomed).all()
        for scope, key in keys:
            conn.execute(delete(idempotency).where(idempotency.c.scope == scope, idempotency.c.key == key))
        return len(keys)
