"""What is done inside a guest or read from it. None of it is an operation."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from controller.domain.condition import ConditionStatus, ConditionType
from controller.domain.fault import Fault
from controller.domain.instance import Instance
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import ConsoleChunk, ExecRequest, ExecResult, GuestReport
from controller.errors import AgentUnavailable, PeerRefused, RequestInvalid
from controller.instances.fleet import Fleet
from controller.instances.queries import Queries
from controller.instances.submitting import conflict
from controller.ports import Runner


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
        runner = self._reach(instance, "Running a program in the guest")
        with _agent_of(name):
            return await runner.execute(instance.id, request)

    async def read(self, name: str) -> GuestReport:
        """Ask the guest who it is and how it does, now.

        Raises:
            InstanceNotFound: There is no such instance.
            InstanceStateConflict: It does not run.
            AgentUnavailable: Its agent does not answer.
            PeerError: The runner is away or refuses.
        """
        instance = await self._queries.get(name)
        runner = self._reach(instance, "Asking the guest")
        with _agent_of(name):
            return await runner.read_guest(instance.id)

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

    def _reach(self, instance: Instance, what: str) -> Runner:
        """Return the runner of an instance whose guest may answer."""
        if instance.state is not InstanceState.RUNNING:
            raise conflict(instance, what)
        if _is_false(instance, ConditionType.AGENT_CONNECTED):
            raise AgentUnavailable(instance.name)
        return self._fleet.reachable_runner(instance.node)


@contextmanager
def _agent_of(name: str) -> Iterator[None]:
    """Say of whose agent it is that the runner cannot reach."""
    try:
        yield
    except PeerRefused as exc:
        if exc.reason == "GUEST_AGENT_UNAVAILABLE":
            raise AgentUnavailable(name) from exc
        raise


def _is_false(instance: Instance, kind: ConditionType) -> bool:
    condition = instance.condition(kind)
    return condition is not None and condition.status is ConditionStatus.FALSE
