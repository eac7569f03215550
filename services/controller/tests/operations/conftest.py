from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from controller.database import Database
from operations_fakes import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    path = tmp_path / "controller.db"
    async with Database(path) as database:
        yield World(path, database)
