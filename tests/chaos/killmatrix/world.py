"""One controller with everything around it that it can be hit by: processes, connections, a database file."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import grpc
from fakerunner import FakeHost, FakeRunner
from fakerunner.serving import plain_server
from qcontroller.settings.v1.settings_pb2 import ControllerSettings, RunnerEndpoint

from killmatrix.client import Client
from killmatrix.controller_process import ControllerProcess
from killmatrix.image_store import FakeImageStore
from killmatrix.plan import Fault
from killmatrix.population import populate
from killmatrix.proxy import Proxy
from killmatrix.report import Cell

_AT_WORK: Final = (
    "SELECT id, kind, step, state, subject FROM operations WHERE state IN ('running', 'undoing')"
)
_QUICK: Final = [
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.min_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
]


class World:
    """An async context manager; the controller in it is started again whenever it has died.

    Attributes:
        died: Called after each death, before the next start.
        faulty_ends: How controllers ended that nobody had killed.
    """

    def __init__(self, slots: int, *, population: int = 0) -> None:
        """Make everything; nothing runs yet. `population` is how many instances run from the beginning."""
        self.directory = Path(tempfile.mkdtemp(prefix="qc-chaos-"))
        self.host = FakeHost()
        self.store = FakeImageStore()
        self.runner = FakeRunner(f"unix:{self.directory}/runner.sock", self.host)
        self.to_runner = Proxy(self.directory / "to-runner.sock", self.directory / "runner.sock")
        self.to_store = Proxy(self.directory / "to-store.sock", self.directory / "store.sock")
        self.database = self.directory / "controller.db"
        settings = ControllerSettings(
            listen=[f"unix:{self.directory}/controller.sock"],
            database_url=f"sqlite:///{self.database}",
            image_store=self.to_store.target,
            runners=[RunnerEndpoint(node="node-1", target=self.to_runner.target)],
        )
        self.controller = ControllerProcess(settings, self.directory, slots)
        self.client: Client
        self.died: Callable[[], None] = lambda: None
        self.faulty_ends: list[int] = []
        self._population = population
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start everything and wait until the controller answers."""
        enter = self._stack.enter_async_context
        await enter(self.runner)
        await enter(plain_server(f"unix:{self.directory}/store.sock", self.store.services(), lambda _: None))
        await enter(self.to_runner)
        await enter(self.to_store)
        if self._population:
            await populate(self.database, self.host, self.store, self._population)
        self.controller.start()
        self._stack.callback(self.controller.close)
        keeper = asyncio.create_task(self._keep())
        self._stack.callback(keeper.cancel)
        channel = await enter(
            grpc.aio.insecure_channel(f"unix:{self.directory}/controller.sock", options=_QUICK)
        )
        self.client = Client(channel)
        await self.client.first_page()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything; the directory stays if something went wrong."""
        await self._stack.aclose()
        if kind is None:
            shutil.rmtree(self.directory)

    def at_work(self) -> dict[str, tuple[str, str, bool, str]]:
        """Return kind, step, whether it is undoing, and subject of each operation that has begun."""
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        try:
            rows: list[tuple[str, ...]] = connection.execute(_AT_WORK).fetchall()
        finally:
            connection.close()
        return {
            operation: (kind, step, state == "undoing", subject)
            for operation, kind, step, state, subject in rows
        }

    def cells(self, fault: Fault, subjects: set[str] | None = None) -> list[Cell]:
        """Return the operations that `fault` hits now; with `subjects`, of these instances alone."""
        return [
            Cell(kind, step, undoing, fault)
            for kind, step, undoing, subject in self.at_work().values()
            if subjects is None or subject in subjects
        ]

    async def lock_database(self, seconds: float) -> None:
        """Hold the database's write lock for a while, as a backup or an administrator's shell would."""

        def lock() -> Any:
            connection = sqlite3.connect(
                self.database, timeout=5, isolation_level=None, check_same_thread=False
            )
            connection.execute("BEGIN IMMEDIATE")
            return connection

        try:
            connection = await asyncio.to_thread(lock)
        except sqlite3.OperationalError:
            # The controller writes without a pause: then it was not locked out.
            return
        try:
            await asyncio.sleep(seconds)
        finally:
            connection.rollback()
            connection.close()

    async def _keep(self) -> None:
        while True:
            code = await self.controller.ended()
            if code != -9:
                self.faulty_ends.append(code)
            self.died()
            self.controller.start()
