"""Keeps the host as the attached cards need it: look, then do what is missing.

It owns the knowledge of what should stand: cards, uplinks, whether DNS is served. The service decides
when to call it, and holds its lock while it works. It must never take down what stands rightly: guests
keep their connections through every mending.
"""

import logging
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from qemu_runner.bridge_network import engine
from qemu_runner.bridge_network.errors import LinkError, RulesetError
from qemu_runner.bridge_network.firewall import FAMILIES, Firewall, counts, fingerprint, refresh_commands
from qemu_runner.bridge_network.host_view import HostView, Link
from qemu_runner.bridge_network.marks import Marks
from qemu_runner.bridge_network.names_service import NamesService
from qemu_runner.bridge_network.nic import BridgeNic
from qemu_runner.bridge_network.ports import (
    BridgePlan,
    Change,
    EngineRules,
    Facts,
    Links,
    NamesServer,
    Notes,
    Ruleset,
)

_LOG = logging.getLogger(__name__)
_FORWARDING_NOTE: Final = "forwarding"
_TRIES: Final = 3
ALL_CHANGES: Final = frozenset(Change)


class Upkeep:
    """What should stand on the host, and how it is made to.

    Args:
        marks: How what is ours is told.
        plan: The bridge.
        firewall: The rules.
        names: What dnsmasq serves; whether it answers DNS is decided here.
        links: The host's links.
        ruleset: Nftables.
        server: Dnsmasq.
        engine_rules: The container engine's chain.
        facts: The host's facts.
        notes: Where it is noted what has to be switched back.
    """

    def __init__(
        self,
        marks: Marks,
        plan: BridgePlan,
        firewall: Firewall,
        names: NamesService,
        *,
        links: Links,
        ruleset: Ruleset,
        server: NamesServer,
        engine_rules: EngineRules,
        facts: Facts,
        notes: Notes,
    ) -> None:
        self.cards: dict[tuple[str, int], BridgeNic] = {}
        self.names = names
        self._marks = marks
        self._plan = plan
        self._firewall = firewall
        self._links = links
        self._ruleset = ruleset
        self._server = server
        self._engine_rules = engine_rules
        self._facts = facts
        self._notes = notes
        self._uplinks: tuple[str, ...] = ()
        self._bridge = 0
        self._fingerprint: str | None = None
        self._tries = 0

    async def mend(self, changes: set[Change] | frozenset[Change]) -> None:
        """Make what may have changed be right again.

        Raises:
            HostRefusedError: If the host refused.
        """
        moved = Change.LINKS in changes and await self._mend_links()
        if Change.RULES in changes:
            await self._mend_rules()
        if not self._server.running:
            await self._start_server()
        if moved or Change.ENGINE in changes or await self._engine_rules.unannounced():
            await self._engine_rules.ensure(engine.wanted(self._marks.owner, self._plan.name, self._uplinks))

    async def apply_rules(self) -> None:
        """Write the rules for the cards as they are now.

        Raises:
            RulesetError: If nftables refused.
        """
        self._fingerprint = None
        fresh = self._fresh_commands()
        try:
            await self._ruleset.apply(refresh_commands(fresh))
        except RulesetError as error:
            # Perhaps what stands is not what we made.
            _LOG.info("rules not refreshed", extra={"error": str(error)})
            await self._ruleset.apply(self._firewall.replace_commands(fresh))

    async def raise_tap(self, nic: BridgeNic) -> None:
        """Put a card's tap on the bridge, and let the host know whose address is behind it.

        A host that still asks for a guest that had the address before would give up on it, and refuse a
        connection to this one with it.

        Raises:
            LinkError: If the kernel refused.
        """
        try:
            await self._links.mend_tap(self.tap(nic), self._marks.tap_alias(nic.machine_id), self._bridge)
        except LinkError:
            # Perhaps the bridge is gone and nobody has noticed yet.
            await self.mend({Change.LINKS})
            await self._links.mend_tap(self.tap(nic), self._marks.tap_alias(nic.machine_id), self._bridge)
        await self._links.introduce(self._bridge, nic.address, nic.mac)

    def tap(self, nic: BridgeNic) -> str:
        """Give the name of a card's tap."""
        return self._marks.tap_name(nic.machine_id, nic.index)

    async def undo_forwarding(self) -> None:
        """Switch off the forwarding that was switched on here, unless the whole host forwards now.

        Raises:
            LinkError: If the kernel refused.
        """
        switched = await self._notes.read(_FORWARDING_NOTE)
        if switched and not await self._links.forwards("all"):
            for name in switched:
                await self._links.set_forwarding(name, on=False)
        await self._notes.write(_FORWARDING_NOTE, ())

    async def _mend_links(self) -> bool:
        view = await self._links.look()
        found = view.link(self._plan.name)
        if found is not None and not self._marks.owns_bridge(found):
            raise LinkError(f"bridge {self._plan.name}", "an interface of that name is not ours")
        moved = await self._follow_uplinks(view)
        if found is None or not await self._is_whole(view, found):
            index = await self._links.mend_bridge(self._plan)
            _LOG.info("bridge mended", extra={"bridge": self._plan.name, "index": index})
        else:
            index = found.index
        if index != self._bridge:
            # dnsmasq's sockets are bound to the interface that was.
            self._bridge = index
            await self._server.stop()
        for nic in self.cards.values():
            tap = view.link(self.tap(nic))
            alias = self._marks.tap_alias(nic.machine_id)
            if tap is not None and (tap.master, tap.up, tap.alias) != (index, True, alias):
                await self._links.mend_tap(tap.name, alias, index)
        return moved

    async def _is_whole(self, view: HostView, bridge: Link) -> bool:
        plan = self._plan
        return (
            (bridge.up, bridge.mac, bridge.alias) == (True, plan.mac, plan.alias)
            and (bridge.index, plan.address) in view.addresses
            and await self._links.forwards(plan.name)
        )

    async def _follow_uplinks(self, view: HostView) -> bool:
        """Forward by the interfaces that default routes lead through now; tell whether they are others."""
        uplinks = view.uplinks(self._plan.name)
        for name in uplinks:
            if not await self._links.forwards(name):
                noted = await self._notes.read(_FORWARDING_NOTE)
                await self._notes.write(_FORWARDING_NOTE, sorted({*noted, name}))
                await self._links.set_forwarding(name, on=True)
        if uplinks == self._uplinks:
            return False
        self._uplinks = uplinks
        await self.apply_rules()
        return True

    async def _mend_rules(self) -> None:
        listings = [await self._ruleset.listing(family, self._firewall.table) or [] for family in FAMILIES]
        seen = fingerprint(listings)
        if seen == self._fingerprint:
            return
        wanted = counts(command["add"] for command in self._fresh_commands())
        complete = counts(entry for listing in listings for entry in listing) == wanted
        if self._fingerprint is None and (complete or self._tries >= _TRIES):
            # The first look after a change of ours tells what is right.
            self._fingerprint = seen
            self._tries = 0
            return
        self._tries += 1
        _LOG.info("rules written anew", extra={"table": self._firewall.table, "complete": complete})
        self._fingerprint = None
        await self._ruleset.apply(self._firewall.replace_commands(self._fresh_commands()))

    async def _start_server(self) -> None:
        dns = not await self._facts.port_53_taken(self._plan.address)
        servers = () if dns else await self._facts.resolvers()
        changed = dns != self.names.dns
        self.names = replace(self.names, dns=dns, servers=servers)
        if changed:
            await self.apply_rules()
        await self._server.write(self.names, self.cards.values())
        await self._server.start(self.names)

    def _fresh_commands(self) -> list[dict[str, object]]:
        cards = [(self.tap(nic), nic) for nic in self.cards.values()]
        return self._firewall.fresh_commands(cards, self._uplinks, dns=self.names.dns)

    def holder_of(self, address: IPv4Address) -> BridgeNic | None:
        """Give the attached card that has an address."""
        return next((nic for nic in self.cards.values() if nic.address == address), None)
