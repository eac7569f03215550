"""Fixtures of the suite about containers: its stack is the project in containers, whatever QC_STACK says."""

from collections.abc import Iterator

import pytest
from framework import guests
from framework.cloud import Cloud
from framework.containers import Containers, client


@pytest.fixture(scope="session")
def cloud(containers: Containers) -> Iterator[Cloud]:
    """The shared project with the tiny image in it."""
    with client(containers) as shared:
        shared.upload("tiny", guests.tiny())
        yield shared
