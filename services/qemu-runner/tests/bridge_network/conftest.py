"""What the tests in network namespaces begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bridge_network_world import Bench, made_bench


@pytest.fixture(name="bench")
def _bench(tmp_path: Path) -> Iterator[Bench]:
    with made_bench(tmp_path) as bench:
        bench.service.adopt()
        yield bench
