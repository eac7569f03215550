"""Capacity: whether what is asked for fits on its node, judged in the transaction that takes it."""

from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from controller.database import Database
from controller.domain.capacity import Overcommit, Reservation, is_emulated, reservation_of
from controller.domain.instance import Instance
from controller.domain.node import Node
from controller.domain.shortage import Resource, Shortage
from controller.errors import HostCapacityExhausted, PeerError
from controller.instances.fleet import Fleet
from controller.records import capacity_rows

_HOLDERS: Final = 3


class Capacity:
    """Judges what nodes can still hold."""

    def __init__(self, database: Database, fleet: Fleet, overcommit: Overcommit) -> None:
        self._database = database
        self._fleet = fleet
        self._overcommit = overcommit

    async def learn(self, node: str) -> None:
        """Have the node's size, before it is judged, where its runner has not told it yet.

        Raises:
            NodeNotFound: There is no such node.
            PeerError: Its runner is away.
        """
        if self._fleet.standing(node).node.memory_total_mib == 0:
            self._fleet.heard(node, (await self._fleet.runner(node).host()).node)

    def reserve(self, conn: Connection, wanted: Instance, before: Instance | None = None) -> None:
        """Pass if `wanted` fits where `before` stood; what it does not take more of is not judged.

        Until the transaction ends nobody else can reserve on the node. What is reserved follows from the
        instance's row, which the caller writes.

        Raises:
            HostCapacityExhausted: It does not fit.
        """
        if self._grown(wanted, before):
            capacity_rows.hold_node(conn, wanted.node)
            self._require(conn, wanted, before)

    async def placed(self, draft: Instance) -> Instance:
        """Return `draft` on the first node that can be reached and has room for it.

        Raises:
            PeerAway: None can be reached.
            HostCapacityExhausted: None has room; it tells of the first.
        """
        chosen = replace(draft, node=self._fleet.choose().node)
        refusal: HostCapacityExhausted | None = None
        for runner in self._fleet.runners:
            if self._fleet.standing(runner.node).reachable is False:
                continue
            candidate = replace(draft, node=runner.node)
            try:
                await self.check(candidate)
            except HostCapacityExhausted as exc:
                refusal = refusal or exc
            except PeerError:
                # It has gone meanwhile; where it is the only one, the call that follows says so.
                continue
            else:
                return candidate
        if refusal is not None:
            raise refusal
        return chosen

    async def check(self, wanted: Instance, before: Instance | None = None) -> None:
        """Pass as `reserve` would at this moment; reserves nothing.

        Raises:
            HostCapacityExhausted: It does not fit.
            NodeNotFound: There is no such node.
            PeerError: The node's size is not known and its runner is away.
        """
        await self.learn(wanted.node)
        await self._database.read(lambda conn: self._require(conn, wanted, before))

    def shown(self, conn: Connection, node: Node) -> Node:
        """Return `node` with what its instances take and may take."""
        taken = capacity_rows.reserved(conn, node.name, emulated=is_emulated(node))
        limits = self._overcommit.limits(node)
        return replace(
            node,
            cpus_allocated=taken.cpus,
            memory_allocated_mib=taken.memory_mib,
            disk_allocated_mib=taken.disk_mib,
            cpus_limit=limits.get(Resource.CPUS, 0),
            memory_limit_mib=limits.get(Resource.MEMORY, 0),
            disk_limit_mib=limits.get(Resource.DISK, 0),
        )

    def _require(self, conn: Connection, wanted: Instance, before: Instance | None) -> None:
        grown = self._grown(wanted, before)
        if not grown:
            return
        node = self._fleet.standing(wanted.node).node
        emulated = is_emulated(node)
        limits = self._overcommit.limits(node)
        asked = reservation_of(wanted, emulated=emulated)
        taken = capacity_rows.reserved(conn, node.name, emulated=emulated, without=wanted.id)
        short = [
            Shortage(
                resource,
                asked.of(resource),
                max(most - taken.of(resource), 0),
                most,
                capacity_rows.holders(conn, node.name, resource, _HOLDERS, emulated=emulated),
            )
            for resource, most in limits.items()
            if resource in grown and asked.of(resource) > most - taken.of(resource)
        ]
        if Resource.CPUS in grown and node.cpus_total and asked.cpus > node.cpus_total:
            # Promised together they may be more; one guest gains nothing from more than there are.
            short = [shortage for shortage in short if shortage.resource is not Resource.CPUS]
            short.append(Shortage(Resource.CPUS, asked.cpus, node.cpus_total, node.cpus_total))
        if short:
            raise HostCapacityExhausted(node.name, short)

    def _grown(self, wanted: Instance, before: Instance | None) -> frozenset[Resource]:
        emulated = is_emulated(self._fleet.standing(wanted.node).node)
        asked = reservation_of(wanted, emulated=emulated)
        held = Reservation() if before is None else reservation_of(before, emulated=emulated)
        return frozenset(resource for resource in Resource if asked.of(resource) > held.of(resource))
