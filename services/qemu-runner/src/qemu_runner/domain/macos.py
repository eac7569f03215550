"""QEMU's argument list on macOS: hvf in the place of KVM, vmnet in that of bridge and tap. Pure.

Untested: no QEMU of a Mac has ever read these words, and no service here runs on one. Nothing on Linux leads
to this module: the runner's setting `accelerator` knows no hvf, and vm-host offers none.

Source: qemu-system-aarch64(1), `-accel hvf` and `-netdev vmnet-shared`; QAPI `NetdevVmnetSharedOptions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Final

from qemu_runner.domain.argv import Launch, build_argv

HVF: Final = "hvf"
CPU_MODEL: Final = "host"

# Network, host, two guests, broadcast: with fewer there would be no range to give.
_LONGEST_PREFIX: Final = 29


@dataclass(frozen=True, slots=True)
class SharedNetwork:
    """A network of vmnet's, with NAT and DHCP of macOS.

    Attributes:
        subnet: Its addresses: the host has the first, guests have the others. None: what macOS chooses.
        isolated: Whether its guests are kept from each other.
    """

    subnet: IPv4Network | None = None
    isolated: bool = False


def vmnet_netdev(index: int, network: SharedNetwork) -> str:
    """Return the value of `-netdev` for NIC `index`, whose id is `net<index>` as everywhere.

    macOS lets only root, or a program with Apple's entitlement `com.apple.vm.networking`, have such a card.

    Raises:
        ValueError: The subnet is not private, or too small for a guest.
    """
    words = [f"vmnet-shared,id=net{index}"]
    if network.isolated:
        words.append("isolated=on")
    if (subnet := network.subnet) is not None:
        if not subnet.is_private:
            raise ValueError(f"{subnet} is not private")
        if subnet.prefixlen > _LONGEST_PREFIX:
            raise ValueError(f"{subnet} is too small: /{_LONGEST_PREFIX} at the least")
        # QEMU takes the three together or none of them.
        words += [
            f"start-address={subnet[1]}",
            f"end-address={subnet[-2]}",
            f"subnet-mask={subnet.netmask}",
        ]
    return ",".join(words)


def build_macos_argv(
    launch: Launch, networks: Sequence[SharedNetwork], firmware: str = ""
) -> tuple[str, ...]:
    """Return the argument list of a machine on macOS, program first.

    It is Linux's but for accelerator, CPU, cards and the sandbox, which is seccomp's and so Linux's alone.

    Args:
        launch: What the machine is made of; its accelerator, CPU model and cards are not looked at.
        networks: One for each card.
        firmware: Path of the UEFI image there, as QEMU of Homebrew has in its `share/qemu`; empty: Linux's.

    Raises:
        ValueError: As of `vmnet_netdev`.
    """
    arch = replace(launch.arch, firmware=firmware) if firmware and launch.arch.firmware else launch.arch
    argv = build_argv(
        replace(
            launch,
            arch=arch,
            accelerator=HVF,
            cpu_model=CPU_MODEL,
            nic_netdevs=tuple(vmnet_netdev(index, network) for index, network in enumerate(networks)),
        )
    )
    sandbox = argv.index("-sandbox")
    return argv[:sandbox] + argv[sandbox + 2 :]
