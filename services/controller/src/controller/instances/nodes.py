"""Nodes as clients see them, and what the service depends on."""

import asyncio
import base64
from dataclasses import replace
from typing import Final

from sqlalchemy import text

from controller.database import Database, DatabaseError
from controller.domain.node import Check, Dependency, Host, Leak, Node, NodeState
from controller.errors import PageTokenForeign, PeerError
from controller.instances.capacity import Capacity
from controller.instances.fleet import Fleet
from controller.instances.image_feed import ImageFeed
from controller.ports import ImageStore, Runner

_DEFAULT_PAGE_SIZE: Final = 100


class Nodes:
    """Answers questions about hosts; a node that is away is shown as it was last known."""

    def __init__(
        self, database: Database, fleet: Fleet, capacity: Capacity, store: ImageStore, images: ImageFeed
    ) -> None:
        self._database = database
        self._capacity = capacity
        self._fleet = fleet
        self._store = store
        self._images = images

    async def page(self, page_size: int, page_token: str) -> tuple[list[Node], str]:
        """Return a page of nodes in order of name, and the token of the next.

        Raises:
            PageTokenForeign: The token does not belong to this list.
        """
        size = page_size or _DEFAULT_PAGE_SIZE
        after = _decode(page_token) if page_token else ""
        runners = sorted(
            (runner for runner in self._fleet.runners if runner.node > after), key=lambda runner: runner.node
        )
        shown = runners[:size]
        nodes = await asyncio.gather(*(self._form(runner) for runner in shown))
        return nodes, _encode(shown[-1].node) if len(runners) > size else ""

    async def get(self, name: str) -> Node:
        """Return a node.

        Raises:
            NodeNotFound: There is none of this name.
        """
        return await self._form(self._fleet.runner(name))

    async def leaks(self, name: str) -> list[Leak]:
        """Return what nobody claims on a node.

        Raises:
            NodeNotFound: There is none of this name.
            PeerError: Its runner is away.
        """
        return await self._fleet.runner(name).leaks()

    async def doctor(self, name: str) -> list[Check]:
        """Run a node's checks.

        Raises:
            NodeNotFound: There is none of this name.
            PeerError: Its runner is away.
        """
        return await self._fleet.runner(name).doctor()

    async def readiness(self) -> list[Dependency]:
        """Return everything the service needs: database, image store, runners and their vm-hosts."""
        database, store, *hosts = await asyncio.gather(
            self._database_up(), self._store_up(), *(self._host_up(runner) for runner in self._fleet.runners)
        )
        return [*database, *store, *(dependency for found in hosts for dependency in found)]

    async def _form(self, runner: Runner) -> Node:
        try:
            form = (await runner.host()).node
        except PeerError as exc:
            last = self._fleet.standing(runner.node).node
            form = replace(last, state=NodeState.UNREACHABLE, message=exc.message)
        return await self._database.read(lambda conn: self._capacity.shown(conn, form))

    async def _database_up(self) -> list[Dependency]:
        try:
            await self._database.read(lambda conn: conn.execute(text("SELECT 1")).scalar_one())
        except DatabaseError as exc:
            return [Dependency("database", up=False, since=None, detail=str(exc))]
        return [Dependency("database", up=True, since=None, detail="")]

    async def _store_up(self) -> list[Dependency]:
        try:
            await self._store.ping()
        except PeerError as exc:
            return [Dependency("image-store", up=False, since=self._images.since, detail=exc.message)]
        return [Dependency("image-store", up=True, since=self._images.since, detail="")]

    async def _host_up(self, runner: Runner) -> list[Dependency]:
        name = f"runner:{runner.node}"
        since = self._fleet.standing(runner.node).since
        try:
            host: Host = await runner.host()
        except PeerError as exc:
            return [
                Dependency(name, up=False, since=since, detail=exc.message),
                Dependency("vm-host", up=False, since=None, detail="Not known: the runner is away."),
            ]
        # One whose stream is not followed yet may have machines that nobody here knows of.
        followed = self._fleet.standing(runner.node).reachable is True
        detail = "" if followed else "Its machines are not known yet."
        return [Dependency(name, up=followed, since=since, detail=detail), *host.dependencies]


def _encode(name: str) -> str:
    return base64.urlsafe_b64encode(f"node:{name}".encode()).decode().rstrip("=")


def _decode(token: str) -> str:
    try:
        padded = token + "=" * (-len(token) % 4)
        kind, _, name = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").partition(":")
    except ValueError as exc:
        raise PageTokenForeign from exc
    if kind != "node" or not name:
        raise PageTokenForeign
    return name
