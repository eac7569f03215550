"""The files of a NoCloud seed. Pure.

JSON is YAML, and a JSON writer is what makes the YAML here: no text of a user's can become a key, another
type (a machine called `null`) or a line of its own. What the user gave as user-data and network-config is
passed on byte for byte.

Source: cloud-init, "NoCloud" and "Networking config version 2".
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qemu_runner.domain.machine import MachineId, Nic, Seed

_NO_USER_DATA: Final = b"#cloud-config\n{}\n"


def seed_files(machine_id: MachineId, seed: Seed, nics: Sequence[Nic]) -> Mapping[str, bytes]:
    """Return what is on the seed, by name."""
    files = {"meta-data": _meta_data(machine_id, seed), "user-data": seed.user_data or _NO_USER_DATA}
    if seed.vendor_data:
        files["vendor-data"] = seed.vendor_data
    if network := seed.network_config or default_network(nics):
        files["network-config"] = network
    return files


def default_network(nics: Sequence[Nic]) -> bytes:
    """Return DHCP on every card, found by its MAC address; nothing where there is no card.

    Without `set-name`: the guest's own names stay. An old cloud-init that does not look names up by MAC takes
    the ids for names, so they are those that a kernel gives. IPv6 comes by router advertisements; to ask for
    DHCPv6 as well would hold up guests where nobody serves it. A boot waits for the first card alone.
    """
    if not nics:
        return b""
    cards: dict[str, Any] = {}
    for number, nic in enumerate(nics):
        card: dict[str, Any] = {"match": {"macaddress": nic.mac}, "dhcp4": True}
        if number:
            card["optional"] = True
        cards[f"eth{number}"] = card
    return _json({"version": 2, "ethernets": cards}) + b"\n"


def _meta_data(machine_id: MachineId, seed: Seed) -> bytes:
    meta: dict[str, Any] = {
        "instance-id": seed.instance_id or machine_id,
        "local-hostname": seed.hostname or machine_id,
    }
    if seed.public_keys:
        meta["public-keys"] = list(seed.public_keys)
    # One member a line, for the people who look at it.
    return b"".join(key.encode() + b": " + _json(value) + b"\n" for key, value in meta.items())


def _json(value: Any) -> bytes:
    # Not escaped: YAML would take the two halves of a character beyond 16 bits for two characters.
    return json.dumps(value, ensure_ascii=False).encode()
