"""Fixtures of the service tests: a world without processes, and a loop that nothing may block."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from runner_fakes import World


@pytest.fixture(autouse=True)
def _nothing_blocks_the_loop() -> Iterator[BlockBuster]:
    with blockbuster_ctx("qemu_runner") as blocking:
        yield blocking


@pytest.fixture
def world() -> Iterator[World]:
    # pytest's own directories have names too long for unix sockets below them.
    with tempfile.TemporaryDirectory(prefix="qcr-") as name:
        made = World(Path(name))
        yield made
        made.close()
