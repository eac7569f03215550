from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from controller.domain.restarting import RestartRules
from controller_fakes import Cloud, SteppedClock, running_cloud

RULES = RestartRules(delay_s=10.0, most_delay_s=40.0, reset_s=600.0, limit=2)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
async def cloud(tmp_path: Path, clock: SteppedClock) -> AsyncIterator[Cloud]:
    async with running_cloud(tmp_path, clock=clock, restart_rules=RULES) as running:
        yield running
