"""Fixtures of the tests with real processes and real QEMU."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from runner_stack import RunnerStack, running_stack


@pytest.fixture
async def stack() -> AsyncIterator[RunnerStack]:
    # pytest's own directories are closed to the uids that machines get.
    with tempfile.TemporaryDirectory(prefix="qc-run-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        async with running_stack(directory) as running:
            yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder: they boot QEMU and belong to the integration tests."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.real)
