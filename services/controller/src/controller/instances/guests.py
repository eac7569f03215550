"""What is done inside a guest or read from it. None of it is an operation."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from controller.domain.condition import ConditionStatus, ConditionType
from controller.domain.fault import Fault
from controller.domain.guest import (
    ExecEnd,
    ExecOutput,
    FileEnd,
    FileWish,
    Frozen,
    GuestFile,
    GuestReport,
)
from controller.domain.instance import Instance
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import ExecRequest, ExecResult
from controller.errors import AgentUnavailable, PeerRefused, RequestInvalid
from controller.instances.fleet import Fleet
from controller.instances.queries import Queries
from controller.instances.submitting import conflict
from controller.ports import GuestAccess, Runner


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
        _check(request, faults)
        runner = self._reach(instance, "Running a program in the guest")
        with _agent_of(name):
            return await runner.execute(instance.id, request)

    async def stream(
        self, name: str, request: ExecRequest, faults: Sequence[Fault]
    ) -> AsyncIterator[ExecOutput | ExecEnd]:
        """Run a program in the guest; yield what it writes while it runs, and its end.

        Raises:
            As for `execute`.
        """
        instance = await self._queries.get(name)
        _check(request, faults)
        guests = self._reach(instance, "Running a program in the guest").guests
        with _agent_of(name):
            async for part in guests.stream(instance.id, request):
                yield part

    async def read(self, name: str) -> GuestReport:
        """Ask the guest who it is and how it does, now.

        Raises:
            InstanceNotFound: There is no such instance.
            InstanceStateConflict: It does not run.
            AgentUnavailable: Its agent does not answer.
            PeerError: The runner is away or refuses.
        """
        machine_id, guests = await self._guest(name, "Asking the guest")
        with _agent_of(name):
            return await guests.report(machine_id)

    async def push(self, name: str, wish: FileWish, parts: AsyncIterator[bytes | FileEnd]) -> GuestFile:
        """Put a file into the guest, whole or not at all.

        Raises:
            As for `read`.
        """
        machine_id, guests = await self._guest(name, "Writing a file of the guest")
        with _agent_of(name):
            return await guests.push(machine_id, wish, parts)

    async def pull(self, name: str, path: str) -> AsyncIterator[GuestFile | bytes]:
        """Yield what a file of the guest is, then its bytes.

        Raises:
            As for `read`.
        """
        machine_id, guests = await self._guest(name, "Reading a file of the guest")
        with _agent_of(name):
            async for part in guests.pull(machine_id, path):
                yield part

    async def set_password(self, name: str, user: str, password: str, *, crypted: bool) -> None:
        """Set the password of a user of the guest; it is not kept.

        Raises:
            As for `read`.
        """
        machine_id, guests = await self._guest(name, "Setting a password in the guest")
        with _agent_of(name):
            await guests.set_password(machine_id, user, password, crypted=crypted)

    async def authorise_keys(self, name: str, user: str, keys: Sequence[str], *, replace: bool) -> None:
        """Let SSH keys in as a user of the guest, beside those there are or instead of them.

        Raises:
            As for `read`.
        """
        machine_id, guests = await self._guest(name, "Authorising keys in the guest")
        with _agent_of(name):
            await guests.authorise_keys(machine_id, user, keys, replace=replace)

    async def freeze(self, name: str, timeout_s: float) -> Frozen:
        """Have the guest's filesystems stand still, for so long at most.

        Raises:
            As for `read`.
        """
        machine_id, guests = await self._guest(name, "Freezing the guest's filesystems")
        with _agent_of(name):
            return await guests.freeze(machine_id, timeout_s)

    async def thaw(self, name: str) -> int:
        """Let the guest's filesystems go on; return how many.

        Raises:
            As for `read`.
        """
        machine_id, guests = await self._guest(name, "Thawing the guest's filesystems")
        with _agent_of(name):
            return await guests.thaw(machine_id)

    async def _guest(self, name: str, what: str) -> tuple[str, GuestAccess]:
        instance = await self._queries.get(name)
        return instance.id, self._reach(instance, what).guests

    def _reach(self, instance: Instance, what: str) -> Runner:
        """Return the runner of an instance whose guest may answer."""
        if instance.state is not InstanceState.RUNNING:
            raise conflict(instance, what)
        if _is_false(instance, ConditionType.AGENT_CONNECTED):
            raise AgentUnavailable(instance.name)
        return self._fleet.reachable_runner(instance.node)


def _check(request: ExecRequest, faults: Sequence[Fault]) -> None:
    found = [*faults, *([] if request.argv and request.argv[0] else [Fault("/argv", "names no program")])]
    if found:
        raise RequestInvalid(found)


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
