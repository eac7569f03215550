"""The fake runner as a server: comes up, dies without warning, comes back with its machines."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from grpc import StatusCode
from qcontroller.controller.v1 import host_pb2
from qcontroller.runner.v1 import runner_pb2_grpc
from qemu_runner.error_table import translate as runner_translate
from servicekit.rpc_errors import RpcProblem

from fakerunner.actions import Life, RunnerCrashed
from fakerunner.faults import Faults
from fakerunner.host import FakeHost
from fakerunner.servicer import FakeHostServicer, FakeMachineServicer
from fakerunner.serving import plain_server

_PACKAGE = "qcontroller.runner.v1"


class FakeRunner:
    """An async context manager that serves at `target`.

    Attributes:
        host: What outlives it.
        faults: What goes wrong.
        life: Its memory.
    """

    def __init__(self, target: str, host: FakeHost | None = None, *, node: str = "node-1") -> None:
        self.target = target
        self.host = host or FakeHost()
        self.faults = Faults()
        self.life = Life(self.host, self.faults)
        self._node = node
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Serve."""
        machines = FakeMachineServicer(lambda: self.life, self._node_message)
        hosts = FakeHostServicer(lambda: self.life, self._node_message)
        services = [
            (
                f"{_PACKAGE}.MachineService",
                lambda server: runner_pb2_grpc.add_MachineServiceServicer_to_server(machines, server),
            ),
            (
                f"{_PACKAGE}.HostService",
                lambda server: runner_pb2_grpc.add_HostServiceServicer_to_server(hosts, server),
            ),
        ]
        await self._stack.enter_async_context(plain_server(self.target, services, _translate))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the streams, then the server."""
        self.life.crash()
        await self._stack.aclose()

    def crash(self) -> None:
        """Lose all memory in the middle of everything and begin another life on the same host.

        Calls in flight fail as those of a process that has died; connections are their keeper's to cut.
        """
        self.life.crash()
        self.life = Life(self.host, self.faults)

    def _node_message(self) -> host_pb2.Node:
        total, used = self.host.memory_mib, self.host.used_mib
        return host_pb2.Node(
            name=self._node,
            state=host_pb2.NODE_STATE_READY,
            arch="x86_64",
            qemu_version="0.0-fake",
            accelerators=[host_pb2.Accelerator(name="tcg", usable=True)],
            accelerator="tcg",
            speed_factor=1.0,
            cpus=host_pb2.CpuCapacity(total=1024),
            memory=host_pb2.MemoryCapacity(total=total, allocated=used),
            disk=host_pb2.DiskCapacity(total=1 << 30, free=1 << 30),
        )


def _translate(exc: Exception) -> RpcProblem | None:
    if isinstance(exc, RunnerCrashed):
        # As a client names it whose connection broke.
        return RpcProblem(StatusCode.UNAVAILABLE, "UNAVAILABLE", "The runner has died.")
    return runner_translate(exc)
