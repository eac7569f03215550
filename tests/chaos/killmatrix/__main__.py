"""`make chaos`: play the matrix until enough cells are done; a failure says how to see it again."""

import argparse
import asyncio
import secrets
import sys
from pathlib import Path
from typing import Final

from killmatrix.report import Report
from killmatrix.rounds import Rounds
from killmatrix.world import World

_ROUNDS_OF_A_WORLD: Final = 6
_OPERATIONS: Final = 100


async def play(cells: int, seed: int, *, operations: int = _OPERATIONS) -> Report:
    """Play worlds of a few rounds each, seeded one after the other, until that many cells are done.

    Raises:
        NotTrueError: Something that must hold does not.
    """
    report = Report()
    while report.total < cells:
        async with World(slots=operations) as world:
            rounds = Rounds(world, str(seed))
            try:
                for _ in range(_ROUNDS_OF_A_WORLD):
                    await rounds.play(operations)
                    if report.total + rounds.report.total >= cells:
                        break
            except BaseException:
                again = f"make chaos N={max(1, rounds.report.total)} SEED={seed}"
                print(f"kept: {world.directory}\nreproduce: {again}", file=sys.stderr)
                raise
        report.add(rounds.report)
        seed += 1
        rate = report.total / report.seconds
        print(
            f"{report.total} cells, {rate:.0f} a second",
            end="\r" if sys.stdout.isatty() else "\n",
            flush=True,
        )
    return report


def main() -> None:
    """Play what the arguments say."""
    parser = argparse.ArgumentParser(prog="killmatrix", description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--report", type=Path, help="also write the report to this file")
    arguments = parser.parse_args()
    print(f"kill matrix on the fake runner: {arguments.cells} cells, SEED={arguments.seed}", flush=True)
    report = asyncio.run(play(arguments.cells, arguments.seed))
    text = report.text()
    print(text)
    if arguments.report is not None:
        arguments.report.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
