"""What the tests in network namespaces begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bridge_network_world import Bench, made_bench


@pytest.fixture(name="shared_bench", scope="module")
def _shared_bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with made_bench(tmp_path_factory.mktemp("runner")) as bench:
        bench.service.adopt()
        yield bench


@pytest.fixture(name="bench")
def _bench(shared_bench: Bench) -> Iterator[Bench]:
    """A host that runs on from test to test, with guests of this test's own."""
    yield shared_bench
    shared_bench.clear()


@pytest.fixture(name="own_bench")
def _own_bench(tmp_path: Path) -> Iterator[Bench]:
    """A host of this test's own, for tests that end its service or break it."""
    with made_bench(tmp_path) as bench:
        bench.service.adopt()
        yield bench
