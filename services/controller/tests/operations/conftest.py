from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from operations_fakes import World

from controller.database import Database


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    path = tmp_path / "controller.db"
    async with Database(path) as database:
        yield World(path, database)
