"""The rules in DOCKER-USER, the chain that Docker leaves to others.

Docker's FORWARD chain drops what Docker does not know, and an accept in a table of our own never
overrides a drop elsewhere. So the same few things that our table accepts are accepted there too, no
more: should our table be gone for a moment, guests still reach no container. Pure.

Source: iptables(8), iptables-extensions(8).
"""

import shlex
from collections.abc import Sequence

from qemu_runner.bridge_network.nic import owner_tag

CHAIN = "DOCKER-USER"


def tag(owner: str) -> str:
    """Give the comment on each rule; without blanks, so that it is printed as it is written."""
    return f"qcontroller:{owner_tag(owner)}"


def wanted(owner: str, interface: str, uplinks: Sequence[str]) -> list[str]:
    """Give the rules, as `iptables -S` prints them behind the chain's name."""
    comment = f"-m comment --comment {tag(owner)} -j ACCEPT"
    return [
        f"-i {interface} -o {interface} {comment}",
        *(f"-i {interface} -o {uplink} {comment}" for uplink in sorted(uplinks)),
        f"-i {interface} -m conntrack --ctstate RELATED,ESTABLISHED {comment}",
        f"-o {interface} -m conntrack --ctstate RELATED,ESTABLISHED {comment}",
        f"-o {interface} -m conntrack --ctstate DNAT {comment}",
    ]


def standing(listing: str, owner: str) -> list[str]:
    """Read our rules from the output of `iptables -S DOCKER-USER`."""
    lead = f"-A {CHAIN} "
    return [
        line.removeprefix(lead)
        for line in listing.splitlines()
        if line.startswith(lead) and tag(owner) in shlex.split(line)
    ]


def restore_input(remove: Sequence[str], insert: Sequence[str]) -> str:
    """Give the input of `iptables-restore --noflush` that swaps rules at once."""
    lines = [f"-D {CHAIN} {rule}" for rule in remove]
    lines += [f"-I {CHAIN} {number} {rule}" for number, rule in enumerate(insert, start=1)]
    return "\n".join(["*filter", *lines, "COMMIT", ""])
