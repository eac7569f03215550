"""Operations per second on SQLite and on PostgreSQL, side by side: six steps that do nothing, 32 at once.

Both databases wait for the disk. What is measured is the engine: submit, claim, save, settle, events.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from controller.database import Database, Target
from controller.operations import Engine, EngineSettings, Look, Plan, Step, StepContext, Submission
from qcstack.postgresql import PostgresMissingError, PostgresServer
from sqlalchemy import make_url

_STEPS = 6
_SLOTS = 32
_LONG_S = 600.0


class Nothing(Step):
    """A step with nothing to do."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._done: set[str] = set()

    async def look(self, ctx: StepContext) -> Look:
        """Tell whether nothing was done yet."""
        return Look.DONE if ctx.operation_id in self._done else Look.ABSENT

    async def do(self, ctx: StepContext) -> None:
        """Do nothing."""
        self._done.add(ctx.operation_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="qc-bench-") as folder:
        sqlite = asyncio.run(rate(Path(folder) / "controller.db", arguments.operations))
    try:
        with PostgresServer(durable=True) as server:
            url = make_url(server.url(server.create_database()))
            postgresql = asyncio.run(rate(url, arguments.operations))
    except PostgresMissingError as exc:
        sys.stdout.write(f"operations/s on PostgreSQL: not measured, {exc}\n")
        return
    ratio = postgresql / sqlite
    sys.stdout.write(f"operations/s on PostgreSQL {postgresql:.0f}, SQLite {sqlite:.0f}: ratio {ratio:.2f}\n")


async def rate(target: Target, count: int) -> float:
    """Return how many operations end in a second, after a warm-up of a tenth of them."""
    plan = Plan(
        kind="nothing",
        revision=1,
        steps=tuple(Nothing(f"step-{number}") for number in range(_STEPS)),
        deadline_s=_LONG_S,
    )
    async with Database(target) as database:
        engine = Engine(database, [plan], settings=EngineSettings(slots=_SLOTS))
        async with engine.running():
            await carry_out(engine, "warm", max(1, count // 10))
            began = time.monotonic()
            await carry_out(engine, "run", count)
            return count / (time.monotonic() - began)


async def carry_out(engine: Engine, prefix: str, count: int) -> None:
    """Submit that many operations, each on a subject of its own, and wait for their ends."""

    async def one(subject: str) -> None:
        accepted = await engine.submit(lambda _: Submission(kind="nothing", subject=subject))
        if accepted.operation is not None:
            await engine.wait(accepted.operation.id, _LONG_S)

    await asyncio.gather(*(one(f"{prefix}-{number}") for number in range(count)))


if __name__ == "__main__":
    main()
