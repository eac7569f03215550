from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from controller.domain.restarting import RestartRules
from controller_databases import FULLY, empty_database
from controller_fakes import Cloud, SteppedClock, running_cloud

RULES = RestartRules(delay_s=10.0, most_delay_s=40.0, reset_s=600.0, limit=2)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture(params=FULLY)
async def cloud(request: pytest.FixtureRequest, tmp_path: Path, clock: SteppedClock) -> AsyncIterator[Cloud]:
    """Every claim about policies holds on each database."""
    with empty_database(request.param, tmp_path) as target:
        async with running_cloud(tmp_path, clock=clock, database=target, restart_rules=RULES) as running:
            yield running
