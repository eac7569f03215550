"""The `user` network by passt: may it be offered, what does a start need, what is left over.

It decides the order (guard before passt, refusal before anything is made) and owns no host object
but the guard. It must never spawn passt: vm-host does, so that guests outlive the runner.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

from qemu_runner.user_network import checks
from qemu_runner.user_network.addresses import AddressPlan, GuestAddress
from qemu_runner.user_network.behaviour import Availability, Available, Refused, decide
from qemu_runner.user_network.errors import (
    GuardError,
    PortTakenError,
    ProbeError,
    UdpPublishingError,
    UserNetworkUnavailableError,
)
from qemu_runner.user_network.netdev import stream_netdev_option
from qemu_runner.user_network.passt import passt_argv
from qemu_runner.user_network.ports import BehaviourProbe, Guard, HostNetwork, PortBinding
from qemu_runner.user_network.publishing import Protocol, PublishedPort, first_conflict
from qemu_runner.user_network.report import Check, Leak
from qemu_runner.user_network.resolver import ResolverPlan

_GUARD_TRIAL_KEPT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class PasstStart:
    """What one start of a guest needs; made by `PasstNetwork.prepare_start`.

    Attributes:
        program: Path of passt.
        guest: The guest's address.
        ports: Its published ports.
        resolver: How it resolves names.
        available: What the host was found to offer.
    """

    program: str
    guest: GuestAddress
    ports: tuple[PublishedPort, ...]
    resolver: ResolverPlan
    available: Available

    def argv(self, fd: int | str) -> list[str]:
        """Give passt's argument list, for the descriptor number (or placeholder) it will inherit."""
        return passt_argv(
            self.program, fd, self.guest, self.ports, self.resolver, self.available.behaviour.options
        )


class PasstNetwork:
    """The user network by passt (see `facade.UserNetwork`).

    Args:
        program: Path of passt.
        subnet: Private network for guests, /24 or wider.
        guard: The nft guard, or None where machines have no uids of their own or the runner lacks
            CAP_NET_ADMIN.
        probe: Finds out what passt does.
        host: Reads the host's routes and resolver.
        binding: Tries ports.
    """

    def __init__(
        self,
        program: str,
        subnet: IPv4Network,
        guard: Guard | None,
        probe: BehaviourProbe,
        host: HostNetwork,
        binding: PortBinding,
    ) -> None:
        self._program = program
        self._guard = guard
        self._probe = probe
        self._host = host
        self._binding = binding
        self._guard_usable_until = 0.0
        self.plan = AddressPlan(subnet)

    async def availability(self) -> Availability:
        """Say whether the network can be offered here, without changing anything on the host."""
        return await self._verdict(guarded=await self._could_be_guarded())

    async def _could_be_guarded(self) -> bool:
        """Tell whether the guard could stand; a yes is remembered for a while, for a trial costs a process.

        Nothing rests on it: before each start the guard is made to stand.
        """
        if self._guard is None:
            return False
        if time.monotonic() >= self._guard_usable_until:
            if await self._guard.usable() is not None:
                return False
            self._guard_usable_until = time.monotonic() + _GUARD_TRIAL_KEPT_S
        return True

    async def _verdict(self, *, guarded: bool) -> Availability:
        try:
            behaviour = await self._probe.behaviour()
        except ProbeError as error:
            return Refused(reason=str(error), fix=checks.PASST_FIX)
        if not await self._host.default_route_interfaces():
            return Refused(reason=checks.NO_ROUTE, fix=checks.NO_ROUTE_FIX)
        return decide(behaviour, guarded=guarded)

    async def check_ports(
        self, wanted: Iterable[PublishedPort], reserved: Iterable[PublishedPort], *, bind: bool = True
    ) -> None:
        """Refuse ports that cannot be had, at once rather than when passt ends without a word.

        Args:
            wanted: Ports of one machine.
            reserved: Ports of all other machines of this runner, running or not.
            bind: Whether to try the ports on the host; not for a machine that already holds them.

        Raises:
            PortTakenError: If a port is in use or reserved.
            PortPrivilegedError: If passt may not bind it.
            PortAddressError: If the address is not this host's.
            UdpPublishingError: If the probe says that replies are lost.
            ProbeError: If UDP is wanted and passt could not be probed.
        """
        ports = tuple(wanted)
        if conflict := first_conflict(ports, reserved):
            port, other = conflict
            raise PortTakenError(port, f"it is reserved for guest port {other.guest} already.")
        await self._check_udp([port for port in ports if port.protocol is Protocol.UDP])
        for port in ports if bind else ():
            await self._binding.try_bind(port)

    async def _check_udp(self, ports: list[PublishedPort]) -> None:
        if not ports:
            return
        behaviour = await self._probe.behaviour()
        guests: set[int] = set()
        for port in ports:
            if not behaviour.returns_udp(port):
                raise UdpPublishingError(port, "this passt loses the replies of UDP published there.")
            if port.guest in guests and not behaviour.udp_loopback_replies:
                raise UdpPublishingError(port, "this passt mixes up the replies of one guest port.")
            guests.add(port.guest)

    async def prepare_start(self, index: int, ports: Iterable[PublishedPort]) -> PasstStart:
        """Make sure that a guest may start now: the guard stands and passt can be trusted.

        Called before every start, which also restores a guard that somebody deleted. Ports are not
        tried again here (`check_ports` does that).

        Args:
            index: The machine's index in `plan`, kept by its owner.
            ports: The machine's published ports.

        Raises:
            UserNetworkUnavailableError: If the network cannot be offered.
            GuardError: If nftables refused the guard.
        """
        resolver = await self._host.resolver()
        verdict = await self._verdict(guarded=await self._stand_guard(resolver))
        if isinstance(verdict, Refused):
            raise UserNetworkUnavailableError(verdict.reason, verdict.fix)
        return PasstStart(self._program, self.plan.at(index), tuple(ports), resolver, verdict)

    def netdev_option(self, netdev_id: str, index: int, fd: str) -> str:  # noqa: ARG002 - the facade's
        """Give the value of QEMU's `-netdev`: its end of the socketpair. The address is passt's to give."""
        return stream_netdev_option(netdev_id, fd)

    async def _stand_guard(self, resolver: ResolverPlan) -> bool:
        """Make the guard stand; False where this runner can have none."""
        if self._guard is None:
            return False
        try:
            await self._guard.ensure(resolver)
        except GuardError:
            # Without the privilege there never is a guard, and the probe decides; one that only
            # failed now must not be taken for that.
            if await self._guard.usable() is None:
                raise
            return False
        return True

    async def remove_guard(self) -> None:
        """Remove the guard, when the last machine of this runner is gone for good.

        Raises:
            GuardError: If nftables refused.
        """
        if self._guard is not None:
            await self._guard.remove()

    async def checks(self) -> list[Check]:
        """Give the doctor's checks of this network."""
        return [
            await checks.passt_check(self._probe),
            await checks.guard_check(self._guard),
            await checks.route_check(self._host),
            await checks.resolver_check(self._host),
            checks.availability_check(await self.availability()),
        ]

    async def leaks(self, *, needed: bool) -> list[Leak]:
        """List guards that nobody needs.

        Args:
            needed: Whether this runner has a machine on the user network.

        Raises:
            GuardError: If nftables did not answer.
        """
        if self._guard is None or needed:
            return []
        standing = await self._guard.present()
        return [Leak(kind="rule", name=self._guard.name, owner=self._guard.owner)] if standing else []
