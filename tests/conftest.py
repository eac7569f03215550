"""Fixtures of both suites: the stack that is tested, natively or in containers, and evidence of what failed.

QC_STACK=compose runs tests/integration against containers; tests/compose is always about containers.
"""

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from framework import evidence, guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud
from framework.containers import Containers, running
from framework.engine import engine_in
from framework.site import Site, SiteOf, containers_site, running_site
from framework.stack import Stack, eventually, running_stack
from framework.subject import Subject
from qcstack import host_snapshot
from qcstack.compose import ComposeStack, lacking
from qcstack.layout import StackLayout
from user_network_world import made_world

IN_CONTAINERS: Final = os.environ.get("QC_STACK", "native") == "compose"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out, with their reasons, the tests that mean nothing for a stack in containers.

    Those whose containers need an engine of the test's own take long there, and those that kill services too.
    """
    if not IN_CONTAINERS:
        return
    for item in items:
        for mark in item.iter_markers("native"):
            item.add_marker(pytest.mark.skip(reason=f"natively only: {mark.args[0]}"))
        if {"site_of", "victim"} & set(getattr(item, "fixturenames", [])):
            item.add_marker(pytest.mark.full)


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
def stack(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """A stack that the tests of the session share; nothing is left on the host when it has ended."""
    if IN_CONTAINERS:
        yield request.getfixturevalue("containers")
        return
    guests.tiny()
    before = host_snapshot.take()
    with pytest.MonkeyPatch.context() as patch:
        # Images are fetched from servers of the tests' own; nothing else that is not public is allowed.
        patch.setenv("QC_IMAGE_STORE_FETCH__ALLOW", "127.0.0.1")
        with running_stack() as started:
            yield started
    assert host_snapshot.take().left_since(before) == {}


@pytest.fixture(scope="session")
def in_containers() -> bool:
    """Whether the stacks of tests/integration are containers."""
    return IN_CONTAINERS


@pytest.fixture(scope="session")
def engine_data(images: None) -> Iterator[Path]:
    """Where an engine of a test's own finds the project's images; one engine at a time."""
    data = Path(tempfile.mkdtemp(prefix="qct-engine-data-", dir="/var/tmp"))
    try:
        with made_world() as world, engine_in(world, data=data) as engine:
            engine.start()
            engine.take_images(ComposeStack(StackLayout(data)).images())
        yield data
    finally:
        shutil.rmtree(data)


@pytest.fixture(scope="session")
def site_of(request: pytest.FixtureRequest) -> SiteOf:
    """What makes a stack in namespaces of its own."""
    if not IN_CONTAINERS:
        return running_site
    data: Path = request.getfixturevalue("engine_data")

    @contextmanager
    def in_an_engine(_prefix: str) -> Iterator[Site]:
        with made_world() as world, engine_in(world, data=data) as engine:
            engine.start()
            with containers_site(world, engine) as site:
                yield site

    return in_an_engine


@pytest.fixture(scope="session")
def cloud(stack: Subject) -> Iterator[Cloud]:
    """The shared stack with the tiny image in it."""
    with BlockingApiClient(stack.base_url) as api:
        shared = Cloud(stack, api)
        shared.upload("tiny", guests.tiny())
        yield shared


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Behind each test of a shared stack, what carries our mark on the host has an owner."""
    shared: Cloud | None = request.getfixturevalue("cloud") if "cloud" in request.fixturenames else None
    yield
    if shared is not None:
        eventually(lambda: shared.leaks() == [], "nothing is listed as leaked")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the evidence of a failed test's stacks."""
    report = yield
    if report.failed:
        funcargs: dict[str, Any] = getattr(item, "funcargs", {})
        for value in funcargs.values():
            found = value.stack if isinstance(value, Site) else value
            if isinstance(found, Stack | Containers):
                folder = evidence.keep(found, item.name)
                report.sections.append(("evidence", f"kept in {folder}"))
    return report
