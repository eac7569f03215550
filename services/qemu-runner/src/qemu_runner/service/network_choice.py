"""Which network each NIC's name stands for on this host, and why one cannot be had.

It decides nothing twice: what it answered is stored with the machine, and a stored name stands for itself.
"""

from dataclasses import dataclass
from typing import Final

from qemu_runner.bridge_network import BridgeNetwork, Offered, Refused
from qemu_runner.domain.argv import SPARE_PORTS
from qemu_runner.domain.default_network import DefaultNetwork
from qemu_runner.domain.machine import (
    BRIDGE_PREFIX,
    DEFAULT_NETWORK,
    NAT_NETWORK,
    USER_NETWORK,
    MachineSpec,
)
from qemu_runner.errors import NetworkUnavailableError, SpecFault, SpecInvalidError
from qemu_runner.existing_bridge import ExistingBridges
from qemu_runner.user_network import Available, UserNetwork

_SWITCHED_OFF: Final = Refused(
    reason="the runner's settings switch it off.",
    fix="take `disabled` out of `bridgeNetwork` in the runner's settings.",
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What a spec's networks stand for.

    Attributes:
        networks: One for each NIC.
        warnings: What the caller should know.
    """

    networks: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class NetworkChoice:
    """Chooses networks.

    Args:
        user: The user network.
        nat: The runner's own bridge; None: switched off.
        bridges: Bridges that others made.
        default: What "default" stands for.
    """

    def __init__(
        self,
        user: UserNetwork,
        nat: BridgeNetwork | None,
        bridges: ExistingBridges,
        default: DefaultNetwork,
    ) -> None:
        self._user = user
        self._nat = nat
        self._bridges = bridges
        self._default = default

    async def resolve(self, spec: MachineSpec) -> Choice:
        """Return the network that each NIC's name stands for on this host.

        Raises:
            SpecInvalidError: With all faults of the NICs.
            NetworkUnavailableError: The host cannot offer one of them.
        """
        standing, warning = await self._standing(spec)
        networks = tuple(standing if nic.network == DEFAULT_NETWORK else nic.network for nic in spec.nics)
        faults = [*_name_faults(networks, self._nat), *_port_faults(spec, networks)]
        if len(spec.nics) > SPARE_PORTS:
            faults.append(SpecFault("/nics", f"a machine has {SPARE_PORTS} NICs at most."))
        if faults:
            raise SpecInvalidError(tuple(faults))
        remarks = [remark for network in dict.fromkeys(networks) for remark in await self._require(network)]
        return Choice(networks, (*((warning,) if warning else ()), *remarks))

    async def _standing(self, spec: MachineSpec) -> tuple[str, str]:
        """Return what "default" stands for, and what is to be said of it."""
        if all(nic.network != DEFAULT_NETWORK for nic in spec.nics):
            return USER_NETWORK, ""
        match self._default:
            case DefaultNetwork.USER:
                return USER_NETWORK, ""
            case DefaultNetwork.QC0:
                return NAT_NETWORK, ""
            case DefaultNetwork.AUTO:
                verdict = await self._nat_verdict()
        if not isinstance(verdict, Refused):
            return NAT_NETWORK, ""
        why = f"{verdict.reason} To mend it: {verdict.fix}"
        return USER_NETWORK, f"The default network is `user` here, since qc0 cannot be had: {why}"

    async def _require(self, network: str) -> tuple[str, ...]:
        """Return what is to be said of a network that can be had."""
        verdict: Offered | Available | Refused | None
        match network:
            case _ if network == USER_NETWORK:
                verdict = await self._user.availability()
            case _ if network == NAT_NETWORK:
                verdict = await self._nat_verdict()
            case _:
                verdict = await self._bridges.refusal(network.removeprefix(BRIDGE_PREFIX))
        if isinstance(verdict, Refused):
            raise NetworkUnavailableError(network, f"{verdict.reason} To mend it: {verdict.fix}")
        return verdict.remarks if isinstance(verdict, Offered) else ()

    async def _nat_verdict(self) -> Offered | Refused:
        return _SWITCHED_OFF if self._nat is None else await self._nat.availability()


def _name_faults(networks: tuple[str, ...], nat: BridgeNetwork | None) -> list[SpecFault]:
    faults = []
    for number, network in enumerate(networks):
        pointer = f"/nics/{number}/network"
        if network.startswith(BRIDGE_PREFIX):
            if nat is not None and network.removeprefix(BRIDGE_PREFIX) == nat.name:
                faults.append(SpecFault(pointer, f"that bridge is this node's own: ask for {NAT_NETWORK!r}."))
        elif network not in {USER_NETWORK, NAT_NETWORK}:
            faults.append(SpecFault(pointer, f"there is no network {network!r}."))
        elif network == USER_NETWORK and USER_NETWORK in networks[:number]:
            faults.append(SpecFault(pointer, "a machine has one NIC on the user network at most."))
    return faults


def _port_faults(spec: MachineSpec, networks: tuple[str, ...]) -> list[SpecFault]:
    """Ports belong to the user network's NIC or to the first on the runner's own bridge."""
    first_nat = networks.index(NAT_NETWORK) if NAT_NETWORK in networks else None
    return [
        SpecFault("/ports", f"NIC {number} on {network!r} cannot publish ports.")
        for number, (nic, network) in enumerate(zip(spec.nics, networks, strict=True))
        if nic.ports and network != USER_NETWORK and number != first_nat
    ]
