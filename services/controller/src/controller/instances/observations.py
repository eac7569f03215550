"""Taking over what runners report of machines and nodes.

It owns the order of observations within one life of a runner: a later one is never overwritten by an earlier
one that took another way. It writes only what changed and never moves a state.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.instance import Instance
from controller.domain.machine import Machine, absent
from controller.domain.node import Node
from controller.instances.changes import Changes
from controller.instances.fleet import Fleet
from controller.operations import Outbox
from controller.records import instance_rows
from controller.records.documents import node_document
from controller.records.peer_cursor_rows import cursor_of, set_cursor

_log = logging.getLogger(__name__)

_NODE_UPDATED: Final = "node.updated"
# Beside the cursors of peers: the form in which a node was told of last.
_NODE_PEER: Final = "node:"
_PEER_CHARACTERS: Final = 64


class Observations:
    """Writes observations; `changed` is told of every instance that was looked at."""

    def __init__(self, database: Database, fleet: Fleet, changes: Changes, outbox: Outbox) -> None:
        self._database = database
        self._fleet = fleet
        self._changes = changes
        self._outbox = outbox
        self._revisions: dict[str, int] = {}
        self._listeners: list[Callable[[Instance], None]] = []

    def on_observed(self, listener: Callable[[Instance], None]) -> None:
        """Call `listener` on the loop with every instance after an observation of it."""
        self._listeners.append(listener)

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
        """Take over all machines of a node: what is not among them does not exist there."""

        def work(conn: Connection) -> list[Instance]:
            return [
                self._changes.observed(conn, self._machine_of(machines, instance), instance) or instance
                for instance in instance_rows.on_node(conn, node)
            ]

        for machine in machines.values():
            self._revisions[machine.id] = machine.revision
        for instance in await self._database.write(work):
            self._tell(instance)

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
            await self.derive_again(node)

    async def runner_is_back(self, node: str) -> None:
        """Note that the runner answers."""
        if self._fleet.heard(node):
            await self.derive_again(node)

    async def derive_again(self, node: str) -> None:
        """Bring the conditions of a node's instances in step with what they are derived from."""

        def work(conn: Connection) -> None:
            for instance in instance_rows.on_node(conn, node):
                self._changes.observed(conn, instance.machine, instance)

        await self._database.write(work)

    async def _announce(self, node: str) -> None:
        document = node_document(self._fleet.standing(node).node)
        form = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

        def work(conn: Connection) -> None:
            if self._database.shared:
                # Another controller may have seen and told the same.
                peer = f"{_NODE_PEER}{node}"[:_PEER_CHARACTERS]
                if cursor_of(conn, peer) == form:
                    return
                set_cursor(conn, peer, form)
            self._outbox.append(conn, _NODE_UPDATED, None, None, {"resource": document})

        await self._database.write(work)

    def _take_over(self, conn: Connection, machine: Machine) -> Instance | None:
        instance = instance_rows.find(conn, machine.id)
        if instance is None:
            return None
        return self._changes.observed(conn, machine, instance) or instance

    @staticmethod
    def _machine_of(machines: Mapping[str, Machine], instance: Instance) -> Machine | None:
        found = machines.get(instance.id)
        if found is None and instance.machine is not None:
            return absent(instance.id)
        return found

    def _tell(self, instance: Instance | None) -> None:
        if instance is not None:
            for listener in self._listeners:
                listener(instance)
