from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from controller.database import Database, Target
from controller_databases import KINDS, empty_database
from operations_fakes import World


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """Every claim about the engine holds on each database."""
    with empty_database(request.param, tmp_path) as target:
        yield target


@pytest.fixture
async def world(target: Target) -> AsyncIterator[World]:
    async with Database(target) as database:
        yield World(target, database)
