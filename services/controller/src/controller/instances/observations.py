"""Taking over what runners report of machines and nodes.

It owns the order of observations: a later one is never overwritten by an earlier one that took another way,
nor by one that predates an operation. It writes only what changed and never moves a state.
"""

import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.instance import Instance
from controller.domain.lifecycle import Event
from controller.domain.machine import Machine, absent
from controller.domain.node import Node
from controller.instances.capacity import Capacity
from controller.instances.changes import Changes
from controller.instances.fleet import Fleet
from controller.operations import Outbox
from controller.records import instance_rows
from controller.records.documents import Document, node_document
from controller.records.peer_cursor_rows import cursor_of, set_cursor

_log = logging.getLogger(__name__)

_NODE_UPDATED: Final = "node.updated"
_PAGE: Final = 200
# Beside the cursors of peers: the form in which a node was told of last.
_NODE_PEER: Final = "node:"
_PEER_CHARACTERS: Final = 64

_Each = TypeVar("_Each")


@dataclass(frozen=True, slots=True)
class _Taken:
    """An instance after a view of its machine.

    Attributes:
        doubtful: The view is older than what is known, and was not taken over.
    """

    instance: Instance
    doubtful: bool = False


class Observations:
    """Writes observations; `changed` is told of every instance that was looked at."""

    def __init__(
        self, database: Database, fleet: Fleet, capacity: Capacity, changes: Changes, outbox: Outbox
    ) -> None:
        self._database = database
        self._capacity = capacity
        self._fleet = fleet
        self._changes = changes
        self._outbox = outbox
        self._revisions: dict[str, int] = {}
        self._listeners: list[Callable[[Instance], None]] = []
        self._doubters: list[Callable[[Instance], None]] = []

    def on_observed(self, listener: Callable[[Instance], None]) -> None:
        """Call `listener` on the loop with every instance after an observation of it."""
        self._listeners.append(listener)

    def on_doubt(self, listener: Callable[[Instance], None]) -> None:
        """Call `listener` on the loop with every instance whose runner came back with an older view."""
        self._doubters.append(listener)

    async def saw(self, machine: Machine) -> None:
        """Take over one observation, unless a later one is known."""
        known = self._revisions.get(machine.id)
        if known is not None and machine.revision < known:
            return
        self._revisions[machine.id] = machine.revision
        instance = await self._database.write(lambda conn: self._take_over(conn, machine))
        if instance is None:
            # Nobody's (any more): an order of what is not kept need not be kept either.
            self._revisions.pop(machine.id, None)
        self._tell(instance)

    async def snapshot(self, node: str, machines: Mapping[str, Machine]) -> None:
        """Take over all machines of a node that answers: what is not among them does not exist there.

        A view that predates what an operation has seen is not taken: somebody has to look again.
        """
        back = self._fleet.heard(node)

        def take(conn: Connection, instance: Instance) -> _Taken | None:
            if back:
                self._changes.beside(instance, Event.RUNNER_BACK)
            machine = self._machine_of(machines, instance)
            if machine is not None and self._is_late(machine):
                self._changes.observed(conn, instance.machine, instance)
                return None
            return self._take(conn, machine, instance)

        async for page in self._pages(node, take):
            for taken in page:
                if taken is None:
                    continue
                self._tell(taken.instance)
                for listener in self._doubters if taken.doubtful else ():
                    listener(taken.instance)
        for machine in machines.values():
            self._revisions[machine.id] = max(machine.revision, self._revisions.get(machine.id, 0))

    def forget_order(self) -> None:
        """Begin to count revisions anew: a runner has begun another life."""
        self._revisions.clear()

    async def node_is(self, node: Node) -> None:
        """Take over a node's form."""
        if self._fleet.heard(node.name, node):
            await self._announce(node.name)

    async def runner_is_away(self, node: str, detail: str) -> None:
        """Note that nothing can be known of the node's machines; no state moves."""
        if self._fleet.lost(node, detail):
            _log.warning("runner is away", extra={"node": node, "detail": detail})
            await self._announce(node)
            await self._derive_without(node)

    async def derive(self, instance_ids: Sequence[str]) -> None:
        """Bring the conditions of these instances in step with what they are derived from."""

        def work(conn: Connection) -> None:
            for instance_id in instance_ids:
                instance = instance_rows.find(conn, instance_id)
                if instance is not None:
                    self._changes.observed(conn, instance.machine, instance)

        await self._database.write(work)

    async def _derive_without(self, node: str) -> None:
        """Bring the conditions of a node's instances in step with the loss of their runner."""

        def derive(conn: Connection, instance: Instance) -> None:
            self._changes.beside(instance, Event.RUNNER_GONE)
            self._changes.observed(conn, instance.machine, instance)

        async for _ in self._pages(node, derive):
            continue

    async def _pages(
        self, node: str, each: Callable[[Connection, Instance], _Each]
    ) -> AsyncIterator[list[_Each]]:
        """Do `each` to every instance of a node, a page in a transaction: others write between two pages."""
        after = ""
        while True:

            def work(conn: Connection, after: str = after) -> tuple[list[_Each], str]:
                page = instance_rows.page_on_node(conn, node, after, _PAGE)
                return [each(conn, instance) for instance in page], page[-1].id if len(page) == _PAGE else ""

            done, after = await self._database.write(work)
            yield done
            if not after:
                return

    async def _announce(self, node: str) -> None:
        form = self._fleet.standing(node).node

        def work(conn: Connection) -> None:
            shown = node_document(self._capacity.shown(conn, form))
            if not self._database.shared or self._is_news(conn, node, shown):
                self._outbox.append(conn, _NODE_UPDATED, None, None, {"resource": shown})

        await self._database.write(work)

    @staticmethod
    def _is_news(conn: Connection, node: str, shown: Document) -> bool:
        """Whether no other controller has told the same of the node before."""
        form = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()
        peer = f"{_NODE_PEER}{node}"[:_PEER_CHARACTERS]
        if cursor_of(conn, peer) == form:
            return False
        set_cursor(conn, peer, form)
        return True

    def _take_over(self, conn: Connection, machine: Machine) -> Instance | None:
        instance = instance_rows.find(conn, machine.id)
        if instance is None:
            return None
        return self._take(conn, machine, instance).instance

    def _take(self, conn: Connection, machine: Machine | None, instance: Instance) -> _Taken:
        known = instance.machine
        if machine is not None and known is not None and machine.older_than(known):
            self._changes.beside(instance, Event.OLDER_VIEW)
            return _Taken(self._changes.observed(conn, known, instance) or instance, doubtful=True)
        return _Taken(self._changes.observed(conn, machine, instance) or instance)

    def _is_late(self, machine: Machine) -> bool:
        """Whether a later view came by another way within this life of the runner."""
        return machine.revision < self._revisions.get(machine.id, 0)

    @staticmethod
    def _machine_of(machines: Mapping[str, Machine], instance: Instance) -> Machine | None:
        found = machines.get(instance.id)
        if found is None and instance.machine is not None:
            # Under the fence that is known: whether it is gone is then looked at under a higher one.
            return replace(absent(instance.id), fence=instance.machine.fence)
        return found

    def _tell(self, instance: Instance | None) -> None:
        if instance is not None:
            for listener in self._listeners:
                listener(instance)
