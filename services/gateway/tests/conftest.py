"""Fixtures: the gateway before fakes, in process or behind a real server."""

from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from framework.api_client import ApiClient
from gateway.server import http_server
from gateway_fakes import Stand, stand
from httpx import ASGITransport


@pytest.fixture
async def rest() -> AsyncIterator[Stand]:
    # A short path: addresses of unix sockets have at most 107 characters.
    with TemporaryDirectory(prefix="qcg") as folder:
        async with stand(Path(folder), heartbeat_s=0.05) as found:
            yield found


@pytest.fixture
async def client(rest: Stand) -> AsyncIterator[ApiClient]:
    async with ApiClient(transport=ASGITransport(app=rest.app), base_url="http://localhost") as found:
        yield found


@pytest.fixture
async def port(rest: Stand) -> AsyncIterator[int]:
    """A real server on an ephemeral port."""
    async with http_server(rest.app, "127.0.0.1:0", rest.closing) as (_, found):
        yield found


@pytest.fixture
async def wire(port: int) -> AsyncIterator[ApiClient]:
    async with ApiClient(base_url=f"http://127.0.0.1:{port}") as found:
        yield found
