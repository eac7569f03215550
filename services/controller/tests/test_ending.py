"""How the service ends."""

import asyncio
import gc
from pathlib import Path
from typing import Any

from controller_fakes import running_cloud


async def test_a_controller_that_ends_in_order_tells_of_no_failure(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    async with running_cloud(tmp_path):
        pass
    # A failure that nobody asked for is told when it is collected.
    gc.collect()
    assert told == []
