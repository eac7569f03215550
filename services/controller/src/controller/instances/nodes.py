"""Nodes for those who ask: their last known form, their leaks and checks, and what this service depends on."""

from controller.database import Database, DatabaseError
from controller.domain.node import Check, Dependency, Leak, Node
from controller.errors import NodeNotFound, PeerError
from controller.instances.fleet import Fleet
from controller.instances.image_feed import ImageFeed
from controller.operations import Clock
from controller.ports import Runner


class Nodes:
    """Answers from the fleet's knowledge, freshened by asking the runner where it can be reached."""

    def __init__(self, database: Database, fleet: Fleet, images: ImageFeed, clock: Clock) -> None:
        self._database = database
        self._fleet = fleet
        self._images = images
        self._clock = clock
        self._database_since = clock.now()

    async def list(self) -> list[Node]:
        """Return all nodes, in the order of the settings."""
        return [await self._form(runner) for runner in self._fleet.runners]

    async def get(self, node: str) -> Node:
        """Return one node.

        Raises:
            NodeNotFound: There is none of this name.
        """
        return await self._form(self._fleet.runner(node))

    async def leaks(self, node: str) -> "list[Leak]":
        """List what carries our mark on the node and belongs to no machine.

        Raises:
            NodeNotFound: There is none of this name.
            PeerError: Its runner is away.
        """
        return await self._known(node).leaks()

    async def doctor(self, node: str) -> "list[Check]":
        """Run the node's checks.

        Raises:
            NodeNotFound: There is none of this name.
            PeerError: Its runner is away.
        """
        return await self._known(node).doctor()

    async def dependencies(self) -> "list[Dependency]":
        """Return what this service needs, and whether it is there."""
        found = [await self._database_stands()]
        found.append(Dependency("image-store", self._images.up, self._images.since, self._images.detail))
        for runner in self._fleet.runners:
            standing = self._fleet.standing(runner.node)
            try:
                host = await runner.host()
            except PeerError as exc:
                found.append(Dependency(f"runner/{runner.node}", False, standing.since, exc.message))
                continue
            # A runner whose stream has not been followed yet knows machines that we do not know of.
            up = bool(standing.reachable)
            detail = "" if up else standing.detail or "Its machines are not known yet."
            found.append(Dependency(f"runner/{runner.node}", up, standing.since, detail))
            found += host.dependencies
        return found

    def _known(self, node: str) -> Runner:
        if node not in {runner.node for runner in self._fleet.runners}:
            raise NodeNotFound(node)
        return self._fleet.reachable_runner(node)

    async def _form(self, runner: Runner) -> Node:
        standing = self._fleet.standing(runner.node)
        if standing.reachable is False:
            return standing.node
        try:
            return (await runner.host()).node
        except PeerError:
            # The stream tells of its absence; until then the last known form is the best there is.
            return self._fleet.standing(runner.node).node

    async def _database_stands(self) -> Dependency:
        try:
            await self._database.read(lambda conn: conn.exec_driver_sql("SELECT 1").scalar_one())
        except DatabaseError as exc:
            return Dependency("database", False, self._clock.now(), str(exc))
        return Dependency("database", True, self._database_since, "")
