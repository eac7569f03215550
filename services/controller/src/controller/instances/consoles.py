"""Serial consoles that somebody is attached to. None of it is an operation."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

from controller.domain.console_talk import ConsoleCommand, ConsoleEnd, ConsoleNews, ConsoleViewer
from controller.domain.lifecycle import InstanceState
from controller.errors import InstanceNotFound
from controller.instances.fleet import Fleet
from controller.instances.queries import Queries
from controller.instances.submitting import conflict

_WITH_A_MACHINE: Final = frozenset({InstanceState.RUNNING, InstanceState.PAUSED, InstanceState.STOPPING})


class Consoles:
    """Passes on what viewers ask and are told."""

    def __init__(self, queries: Queries, fleet: Fleet) -> None:
        self._queries = queries
        self._fleet = fleet

    async def attach(
        self, name: str, viewer: ConsoleViewer, commands: AsyncIterator[ConsoleCommand]
    ) -> AsyncGenerator[ConsoleNews | ConsoleEnd, None]:
        """Yield what a viewer is told, until its instance's machine has ended.

        Raises:
            InstanceNotFound: There is no such instance.
            InstanceStateConflict: It has no machine that runs.
            PeerError: The runner is away, refuses, or is restarted.
        """
        instance = await self._queries.get(name)
        if instance.state not in _WITH_A_MACHINE:
            raise conflict(instance, "Attaching to the console")
        consoles = self._fleet.reachable_runner(instance.node).consoles
        # Closed at once when the caller hangs up: the runner counts who is attached.
        async with aclosing(consoles.attach(instance.id, viewer, commands)) as parts:
            async for part in parts:
                yield await self._told(name, instance.id, part) if isinstance(part, ConsoleEnd) else part

    async def _told(self, name: str, instance_id: str, end: ConsoleEnd) -> ConsoleEnd:
        """Return the end, with a deletion's own name: to the runner it begins as any stop does."""
        try:
            now = await self._queries.get(name)
        except InstanceNotFound:
            return _deleted(name, end)
        is_gone = now.id != instance_id or now.state is InstanceState.DELETING
        return _deleted(name, end) if is_gone else end


def _deleted(name: str, end: ConsoleEnd) -> ConsoleEnd:
    return ConsoleEnd("DELETED", f"The instance {name} is deleted.", end.offset)
