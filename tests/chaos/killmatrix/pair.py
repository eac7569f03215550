"""Two controllers at once on one PostgreSQL database, before one runner and one image store."""

import asyncio
import os
import shutil
import signal
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import grpc
from fakerunner import FakeHost, FakeRunner
from fakerunner.serving import plain_server
from qcontroller.settings.v1.settings_pb2 import ControllerSettings, RunnerEndpoint
from qcstack.postgresql import PostgresServer

from killmatrix.client import Client
from killmatrix.controller_process import ControllerProcess
from killmatrix.image_store import FakeImageStore

_QUICK: Final = [
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
]
# How long the runner takes over each half of a call: long enough to be hit in the middle.
_CALL_S: Final = 0.05


class Pair:
    """An async context manager.

    Attributes:
        controllers: The two; nobody starts one again that has died.
        clients: One for each controller.
        database: Its name.
    """

    def __init__(self, server: PostgresServer, slots: int) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="qc-pair-"))
        self.server = server
        self.database = server.create_database(prefix="pair")
        self.host = FakeHost()
        self.store = FakeImageStore()
        self.runner = FakeRunner(f"unix:{self.directory}/runner.sock", self.host)
        self.runner.faults.observer = lambda _point, _machine: asyncio.sleep(_CALL_S)
        self.controllers = [self._controller(name, slots) for name in ("a", "b")]
        self.clients: list[Client] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start everything and wait until both controllers answer."""
        enter = self._stack.enter_async_context
        await enter(self.runner)
        await enter(plain_server(f"unix:{self.directory}/store.sock", self.store.services(), lambda _: None))
        for name, controller in zip("ab", self.controllers, strict=True):
            controller.start()
            self._stack.callback(controller.close)
            channel = await enter(
                grpc.aio.insecure_channel(f"unix:{self.directory}/{name}/c.sock", options=_QUICK)
            )
            self.clients.append(Client(channel))
        for client in self.clients:
            await client.list()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything; the directory stays if something went wrong."""
        await self._stack.aclose()
        self.server.drop_database(self.database)
        if kind is None:
            shutil.rmtree(self.directory)

    async def kill(self, number: int) -> None:
        """End one controller by SIGKILL."""
        self.controllers[number].kill()
        await self.controllers[number].ended()

    def freeze(self, number: int) -> None:
        """Hold one controller still."""
        os.kill(self.controllers[number].pid, signal.SIGSTOP)

    def thaw(self, number: int) -> None:
        """Let it go on, as if no time had passed."""
        os.kill(self.controllers[number].pid, signal.SIGCONT)

    def _controller(self, name: str, slots: int) -> ControllerProcess:
        directory = self.directory / name
        directory.mkdir()
        settings = ControllerSettings(
            listen=[f"unix:{directory}/c.sock"],
            database_url=self.server.url(self.database),
            image_store=f"unix:{self.directory}/store.sock",
            runners=[RunnerEndpoint(node="node-1", target=self.runner.target)],
        )
        return ControllerProcess(settings, directory, slots)
