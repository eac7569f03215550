"""What is wrong with a network-config, read already: versions 1 and 2 of cloud-init, as far as all read them.

Fields that one renderer alone knows pass; what cloud-init would stumble over on any guest does not. A fault
names places, never values.

Source: cloud-init, "Networking config version 1" and "version 2"; netplan's reference for kinds of devices.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

_MAX_FAULTS: Final = 32
_MAC: Final = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9._:-]{0,31}")

_DEVICES: Final = (
    "ethernets", "wifis", "bonds", "bridges", "vlans", "vrfs", "tunnels", "modems", "dummy-devices",
    "virtual-ethernets", "nm-devices",
)  # fmt: skip
_TOP: Final = frozenset(("version", "renderer", "openvswitch", *_DEVICES))
_V1_TOP: Final = frozenset(("version", "config"))
_V1_KINDS: Final = (
    "physical", "loopback", "bond", "bridge", "vlan", "infiniband", "nameserver", "route",
)  # fmt: skip
_V1_NAMED: Final = frozenset(("physical", "loopback", "bond", "bridge", "vlan", "infiniband"))

Told = Iterator[str]
_Check = Callable[[str, Any], Told]


def network_config_faults(document: Any) -> list[str]:
    """Return what is wrong, one sentence each, the first of them where there are many."""
    found: list[str] = []
    for told in _whole(document):
        if len(found) == _MAX_FAULTS:
            found.append("has more faults than are listed here")
            break
        found.append(told)
    return found


def _whole(document: Any) -> Told:
    if not isinstance(document, dict):
        yield "must be a mapping with a version"
        return
    if set(document) == {"network"}:
        # As files of netplan and of /etc/cloud/cloud.cfg.d have it, and newer versions of cloud-init take it.
        document = document["network"]
        if not isinstance(document, dict):
            yield "network must be a mapping with a version"
            return
    if document == {"config": "disabled"}:
        return
    version = document.get("version")
    if version == 1 and type(version) is int:
        yield from _unknown(document, _V1_TOP, "")
        yield from _version_1(document.get("config"))
    elif version == 2 and type(version) is int:
        yield from _unknown(document, _TOP, "")
        yield from _version_2(document)
    elif "version" in document:
        yield "version must be 1 or 2"
    else:
        yield "version is missing: it must be 1 or 2"


def _version_1(config: Any) -> Told:
    if config == "disabled":
        return
    if not isinstance(config, list):
        yield "config must be a list"
        return
    for number, item in enumerate(config):
        at = f"config[{number}]"
        if not isinstance(item, dict):
            yield f"{at} must be a mapping"
            continue
        kind = item.get("type")
        if kind not in _V1_KINDS:
            yield f"{at}.type must be one of {', '.join(_V1_KINDS)}"
        elif kind in _V1_NAMED and not isinstance(item.get("name"), str):
            yield f"{at}.name must be a text"
        yield from _members(at, item, _V1_FIELDS)


def _version_2(document: Mapping[Any, Any]) -> Told:
    if "renderer" in document:
        yield from _text("renderer", document["renderer"])
    for kind in _DEVICES:
        devices = document.get(kind, {})
        if not isinstance(devices, dict):
            yield f"{kind} must be a mapping of devices by their ids"
            continue
        for number, (name, device) in enumerate(devices.items()):
            at = f"{kind}.{_shown(name, number)}"
            if not isinstance(name, str):
                yield f"{at}: its id must be a text, quoted if it looks like something else"
            if not isinstance(device, dict):
                yield f"{at} must be a mapping"
                continue
            yield from _members(at, device, _V2_FIELDS)
            if "set-name" in device and "match" not in device:
                yield f"{at}.set-name needs match"


def _unknown(document: Mapping[Any, Any], known: frozenset[str], at: str) -> Told:
    for number, key in enumerate(document):
        if key not in known:
            yield f"{at}{_shown(key, number)} is not known; known are {', '.join(sorted(known))}"


def _members(at: str, mapping: Mapping[Any, Any], fields: Mapping[str, _Check]) -> Told:
    for name, check in fields.items():
        # Written down and left empty, it is as good as not there.
        if mapping.get(name) is not None:
            yield from check(f"{at}.{name}", mapping[name])


def _shown(key: Any, number: int) -> str:
    """Return a key where it looks like one: what is misread may be anything."""
    return key if isinstance(key, str) and _PLAIN.fullmatch(key) else f"#{number + 1}"


def _bool(at: str, value: Any) -> Told:
    if not isinstance(value, bool):
        yield f"{at} must be true or false"


def _int(at: str, value: Any) -> Told:
    if type(value) is not int:
        yield f"{at} must be a whole number"


def _text(at: str, value: Any) -> Told:
    if not isinstance(value, str):
        yield f"{at} must be a text"


def _mac(at: str, value: Any) -> Told:
    if not isinstance(value, str):
        # 52:54:00:12:34:56 is a number to base 60 in YAML 1.1.
        yield f"{at} must be a text: put it in quotes"
    elif _MAC.fullmatch(value) is None:
        yield f"{at} must be six bytes such as 52:54:00:12:34:56"


def _mac_or_word(at: str, value: Any) -> Told:
    # "random" and its like.
    if not isinstance(value, str) or value[:1].isdigit():
        yield from _mac(at, value)


def _address(at: str, value: Any) -> Told:
    if not _parses(ipaddress.ip_address, value):
        yield f"{at} must be an IP address"


def _interface(at: str, value: Any) -> Told:
    if isinstance(value, dict) and len(value) == 1:
        # netplan's form with options.
        value = next(iter(value))
    if not _parses(ipaddress.ip_interface, value) or "/" not in value:
        yield f"{at} must be an IP address with the length of its prefix, such as 192.0.2.5/24"


def _parses(parse: Callable[[str], object], value: Any) -> bool:
    # A number would be taken for an address.
    if not isinstance(value, str):
        return False
    try:
        parse(value)
    except ValueError:
        return False
    return True


def _list(check: _Check) -> _Check:
    def checked(at: str, value: Any) -> Told:
        if not isinstance(value, list):
            yield f"{at} must be a list"
            return
        for number, item in enumerate(value):
            yield from check(f"{at}[{number}]", item)

    return checked


def _mapping(**fields: _Check) -> _Check:
    named = {name.replace("_", "-"): check for name, check in fields.items()}

    def checked(at: str, value: Any) -> Told:
        if isinstance(value, dict):
            yield from _members(at, value, named)
        else:
            yield f"{at} must be a mapping"

    return checked


_V2_FIELDS: Final[Mapping[str, _Check]] = {
    "dhcp4": _bool,
    "dhcp6": _bool,
    "accept-ra": _bool,
    "optional": _bool,
    "wakeonlan": _bool,
    "match": _mapping(macaddress=_mac, name=_text),
    "set-name": _text,
    "macaddress": _mac_or_word,
    "mtu": _int,
    "addresses": _list(_interface),
    "gateway4": _address,
    "gateway6": _address,
    "nameservers": _mapping(addresses=_list(_address), search=_list(_text)),
    "routes": _list(_mapping(to=_text, via=_address, metric=_int)),
    "interfaces": _list(_text),
    "id": _int,
    "link": _text,
}
_V1_FIELDS: Final[Mapping[str, _Check]] = {
    "mac_address": _mac,
    "mtu": _int,
    "subnets": _list(_mapping(type=_text)),
}
