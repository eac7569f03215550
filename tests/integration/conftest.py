"""Fixtures of the integration suite: one stack for the session, evidence kept when a test fails."""

from collections.abc import Generator, Iterator
from typing import Any

import pytest
from framework import evidence, guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud
from framework.stack import Stack, running_stack
from qcstack import host_snapshot


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A stack that the tests of the session share; nothing is left on the host when it has ended."""
    guests.tiny()
    before = host_snapshot.take()
    with running_stack() as running:
        yield running
    assert host_snapshot.take().left_since(before) == {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the evidence of a failed test's stacks."""
    report = yield
    if report.failed:
        funcargs: dict[str, Any] = getattr(item, "funcargs", {})
        for value in funcargs.values():
            if isinstance(value, Stack):
                folder = evidence.keep(value, item.name)
                report.sections.append(("evidence", f"kept in {folder}"))
    return report


@pytest.fixture(scope="session")
def cloud(stack: Stack) -> Iterator[Cloud]:
    """The shared stack with the tiny image in it."""
    with BlockingApiClient(stack.base_url) as api:
        shared = Cloud(stack, api)
        shared.upload("tiny", guests.tiny())
        yield shared
