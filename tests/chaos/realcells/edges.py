"""A connection that can be cut at each edge of a native stack.

Every service listens somewhere else than its clients think; a proxy stands between. The proxies run in a
thread of their own, since the cells are played by blocking code.
"""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Final

from killmatrix.proxy import Proxy
from qcstack.layout import StackLayout

# Each edge with the service that answers there, and the setting that says where.
_DOORS: Final = {
    "gateway-controller": ("controller", "QC_CONTROLLER_LISTEN"),
    "gateway-image-store": ("image-store", "QC_IMAGE_STORE_LISTEN"),
    "controller-image-store": ("image-store", "QC_IMAGE_STORE_CONTROLLER_LISTEN"),
    "controller-runner": ("runner", "QC_QEMU_RUNNER_LISTEN"),
    "runner-image-store": ("image-store", "QC_IMAGE_STORE_RUNNER_LISTEN"),
}


class Edges:
    """The proxies of one stack, whose services listen in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._proxies: dict[str, Proxy] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def settings(self) -> dict[str, str]:
        """Return the variables that have the services listen behind the proxies."""
        return {variable: f"unix:{self._behind(edge)}" for edge, (_, variable) in _DOORS.items()}

    @contextmanager
    def before(self, layout: StackLayout) -> Iterator[None]:
        """Stand where the clients of this stack look for its services."""
        self._proxies = {
            edge: Proxy(Path(layout.socket(edge, server)), self._behind(edge))
            for edge, (server, _) in _DOORS.items()
        }
        standing: Future[asyncio.Event] = Future()
        thread = threading.Thread(target=lambda: asyncio.run(self._stand(standing)), name="edges")
        thread.start()
        leave = standing.result()
        try:
            yield
        finally:
            self._running().call_soon_threadsafe(leave.set)
            thread.join()

    def cut(self, edge: str) -> None:
        """Break every connection of an edge without a word; bytes on their way are lost."""
        done: Future[None] = Future()

        def act() -> None:
            self._proxies[edge].cut()
            done.set_result(None)

        self._running().call_soon_threadsafe(act)
        done.result()

    async def _stand(self, standing: "Future[asyncio.Event]") -> None:
        self._loop = asyncio.get_running_loop()
        leave = asyncio.Event()
        async with AsyncExitStack() as stack:
            for proxy in self._proxies.values():
                await stack.enter_async_context(proxy)
            standing.set_result(leave)
            await leave.wait()

    def _behind(self, edge: str) -> Path:
        return self._directory / f"{edge}.sock"

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise AssertionError("no proxy stands before a stack")
        return self._loop
