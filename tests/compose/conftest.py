"""Fixtures of the suite in containers: one project for the session, evidence kept when a test fails."""

from collections.abc import Generator, Iterator
from typing import Any

import pytest
from containers import SERVICES, Containers, client, running
from framework import guests
from framework.cloud import Cloud
from qcstack.compose import ComposeStack, lacking
from qcstack.layout import StackLayout

_LAST_LINES = 60


@pytest.fixture(scope="session")
def images() -> None:
    """The images, built where they are missing or old."""
    if what := lacking():
        pytest.fail(f"{what}: `tools/engine start` helps", pytrace=False)
    ComposeStack(StackLayout(guests.tiny().parent)).build(print)


@pytest.fixture(scope="session")
def containers(images: None) -> Iterator[Containers]:
    """A project that the tests of the session share; nothing is left on the host when it has ended."""
    with running() as started:
        yield started
    started.assert_nothing_is_left()


@pytest.fixture(scope="session")
def cloud(containers: Containers) -> Iterator[Cloud]:
    """The shared project with the tiny image in it."""
    with client(containers) as shared:
        shared.upload("tiny", guests.tiny())
        yield shared


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the last log lines of every container where a test failed."""
    report = yield
    funcargs: dict[str, Any] = getattr(item, "funcargs", {})
    shared = funcargs.get("containers")
    if report.failed and isinstance(shared, Containers):
        for service in SERVICES:
            lines = shared.log(service)[-_LAST_LINES:]
            report.sections.append((f"log of {service}", "\n".join(lines)))
    return report
