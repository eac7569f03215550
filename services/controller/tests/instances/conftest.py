from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from controller_databases import FULLY, empty_database
from controller_fakes import Cloud, running_cloud


@pytest.fixture(params=FULLY)
async def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cloud]:
    """Every claim about instances holds on each database."""
    with empty_database(request.param, tmp_path) as target:
        async with running_cloud(tmp_path, database=target) as running:
            yield running
