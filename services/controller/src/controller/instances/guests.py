"""What is done inside a guest or read from it: programs and the console. Neither is an operation."""

from collections.abc import AsyncIterator, Sequence

from controller.domain.condition import ConditionStatus, ConditionType
from controller.domain.fault import Fault
from controller.domain.instance import Instance
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import ConsoleChunk, ExecRequest, ExecResult
from controller.errors import AgentUnavailable, PeerRefused, RequestInvalid
from controller.instances.fleet import Fleet
from controller.instances.queries import Queries
from controller.instances.submitting import conflict


class Guests:
    """Passes on what the guest is asked, where its state allows it."""

    def __init__(self, queries: Queries, fleet: Fleet) -> None:
        self._queries = queries
        self._fleet = fleet

    async def execute(self, name: str, request: ExecRequest, faults: Sequence[Fault]) -> ExecResult:
        """Run a program in the guest.

        Raises:
            InstanceNotFound: There is no such instance.
            RequestInvalid: The request has faults.
            InstanceStateConflict: It does not run.
            AgentUnavailable: Its agent does not answer.
            PeerError: The runner is away or refuses, for instance because the program is missing.
        """
        instance = await self._queries.get(name)
        found = [*faults, *([] if request.argv and request.argv[0] else [Fault("/argv", "names no program")])]
        if found:
            raise RequestInvalid(found)
        if instance.state is not InstanceState.RUNNING:
            raise conflict(instance, "Running a program in the guest")
        if _is_false(instance, ConditionType.AGENT_CONNECTED):
            raise AgentUnavailable(name)
        runner = self._fleet.reachable_runner(instance.node)
        try:
            return await runner.execute(instance.id, request)
        except PeerRefused as exc:
            if exc.reason == "GUEST_AGENT_UNAVAILABLE":
                raise AgentUnavailable(name) from exc
            raise

    async def read_console(self, name: str, offset: int, length: int) -> AsyncIterator[ConsoleChunk]:
        """Yield the console log; of a machine that was never started, nothing.

        Raises:
            InstanceNotFound: There is no such instance.
            PeerError: The runner is away or refuses.
        """
        instance = await self._queries.get(name)
        runner = self._fleet.reachable_runner(instance.node)
        async for chunk in runner.read_console(instance.id, offset, length):
            yield chunk


def _is_false(instance: Instance, kind: ConditionType) -> bool:
    condition = instance.condition(kind)
    return condition is not None and condition.status is ConditionStatus.FALSE
