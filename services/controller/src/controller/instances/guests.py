"""What is asked of a guest beside its lifecycle: programs run in it, and what it printed."""

from collections.abc import AsyncIterator
from typing import Final

from controller.database import Database
from controller.domain.instance import Instance
from controller.domain.lifecycle import InstanceState, allowed
from controller.domain.machine import ConsoleChunk, ExecRequest, ExecResult
from controller.errors import AgentUnavailable, InstanceNotFound, InstanceStateConflict
from controller.instances.fleet import Fleet
from controller.records import instance_rows

_TAIL_BYTES: Final = 4096
_TAIL_LINES: Final = 20


class Guests:
    """Asks runners about the guests of instances."""

    def __init__(self, database: Database, fleet: Fleet) -> None:
        self._database = database
        self._fleet = fleet

    async def execute(self, name: str, request: ExecRequest) -> ExecResult:
        """Run a program in the guest.

        Raises:
            InstanceNotFound: There is no such instance.
            InstanceStateConflict: Its guest does not run.
            AgentUnavailable: The guest agent does not answer.
            PeerError: The runner is away, or refuses (program not found, time is up).
        """
        instance = await self._find(name)
        if instance.state is not InstanceState.RUNNING:
            verbs = [verb.value for verb in allowed(instance.state)]
            raise InstanceStateConflict(name, instance.state.value, verbs, "Running a program")
        if instance.machine is None or not instance.machine.agent_connected:
            raise AgentUnavailable(name)
        return await self._fleet.reachable_runner(instance.node).execute(instance.id, request)

    async def read_console(self, name: str, offset: int, length: int) -> AsyncIterator[ConsoleChunk]:
        """Yield the console's log from `offset` (negative: from the end); `length` 0 is all.

        Raises:
            InstanceNotFound: There is no such instance.
            PeerError: The runner is away.
        """
        instance = await self._find(name)
        runner = self._fleet.reachable_runner(instance.node)
        async for chunk in runner.read_console(instance.id, offset, length):
            yield chunk

    async def console_tail(self, instance: Instance) -> str:
        """Return the last lines that the guest printed.

        Raises:
            PeerError: The runner is away.
        """
        runner = self._fleet.reachable_runner(instance.node)
        chunks = [chunk.chunk async for chunk in runner.read_console(instance.id, -_TAIL_BYTES, 0)]
        lines = b"".join(chunks).decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    async def _find(self, name: str) -> Instance:
        found = await self._database.read(lambda conn: instance_rows.find_by_name(conn, name))
        if found is None:
            raise InstanceNotFound(name)
        return found
