"""Changes links and addresses by netlink. It must only change what its caller names."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final, TypeVar

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError

from qemu_runner.bridge_network.adapters.devconf import Switch, set_switch
from qemu_runner.bridge_network.adapters.look import look
from qemu_runner.bridge_network.adapters.rtnetlink import (
    OR_REPLACE,
    RTM_NEWNEIGH,
    RTM_SETLINK,
    attribute,
    change,
)
from qemu_runner.bridge_network.errors import LinkError
from qemu_runner.bridge_network.host_view import HostView
from qemu_runner.bridge_network.ports import BridgePlan

_PYROUTE2: Final[Any] = pyroute2  # it has no annotations
_IFF_UP: Final = 0x1
_IFLA_MASTER: Final = 10
_IFLA_IFALIAS: Final = 20
_NDA_DST: Final = 1
_NDA_LLADDR: Final = 2
_NUD_STALE: Final = 0x04
_TIMEOUT_S: Final = 10.0
_Answer = TypeVar("_Answer")
_SWITCHES: Final = Path("/proc/sys/net/ipv4/conf")
_GONE: Final = 19  # ENODEV


class NetlinkLinks:
    """The links of this process's network namespace."""

    async def look(self) -> HostView:
        return await _asked("links", look)

    async def mend_bridge(self, plan: BridgePlan) -> int:
        async with _kernel(f"bridge {plan.name}") as kernel:
            index = await _index(kernel, plan.name)
            if index is None:
                await kernel.link(
                    "add",
                    ifname=plan.name,
                    kind="bridge",
                    address=plan.mac,
                    br_stp_state=0,
                    br_forward_delay=0,
                )
                index = await _index(kernel, plan.name)
            if index is None:
                raise LinkError(f"bridge {plan.name}", "it vanished while it was made")
            # The kernel ignores an alias that comes with "add".
            await kernel.link("set", index=index, ifalias=plan.alias, address=plan.mac)
            addresses = [m async for m in await kernel.get_addr(family=socket.AF_INET, index=index)]
            if not any(m.get("address") == str(plan.address) for m in addresses):
                await kernel.addr(
                    "add",
                    index=index,
                    address=str(plan.address),
                    prefixlen=plan.prefix_len,
                    broadcast=str(plan.subnet.broadcast_address),
                )
            await kernel.link("set", index=index, state="up")
        for switch in (Switch.FORWARDING, Switch.ROUTE_LOCALNET):
            await _set_switch(plan.name, index, switch, 1)
        return index

    async def mend_tap(self, name: str, alias: str, bridge: int) -> None:
        await _asked(f"tap {name}", _mend_tap, name, alias, bridge)

    async def introduce(self, bridge: int, address: IPv4Address, mac: str) -> None:
        await _asked(f"neighbour {address}", _introduce, bridge, address, mac)

    async def remove(self, name: str) -> None:
        async with _kernel(f"interface {name}") as kernel:
            if (index := await _index(kernel, name)) is not None:
                try:
                    await kernel.link("del", index=index)
                except NetlinkError as error:
                    if error.code != _GONE:
                        raise

    async def forwards(self, name: str) -> bool:
        return await asyncio.to_thread(_read_switch, name, "forwarding")

    async def set_forwarding(self, name: str, *, on: bool) -> None:
        async with _kernel(f"interface {name}") as kernel:
            index = await _index(kernel, name)
        if index is not None:
            await _set_switch(name, index, Switch.FORWARDING, int(on))


@asynccontextmanager
async def _kernel(subject: str) -> AsyncIterator[Any]:
    try:
        async with asyncio.timeout(_TIMEOUT_S), _PYROUTE2.AsyncIPRoute() as kernel:
            yield kernel
    except NetlinkError as error:
        raise LinkError(subject, str(error.args[-1])) from error
    except TimeoutError as error:
        raise LinkError(subject, f"the kernel did not answer within {_TIMEOUT_S:.0f} s") from error


async def _index(kernel: Any, name: str) -> int | None:
    found = await kernel.link_lookup(ifname=name)
    return int(found[0]) if found else None


async def _set_switch(name: str, index: int, switch: Switch, value: int) -> None:
    await _asked(f"interface {name}", set_switch, index, switch, value)


async def _asked(subject: str, question: Callable[..., _Answer], *given: object) -> _Answer:
    """Ask the kernel in a thread."""
    try:
        return await asyncio.to_thread(question, *given)
    except OSError as error:
        raise LinkError(subject, error.strerror or str(error)) from error


def _mend_tap(name: str, alias: str, bridge: int) -> None:
    index = socket.if_nametoindex(name)
    marks = attribute(_IFLA_IFALIAS, alias.encode()) + attribute(_IFLA_MASTER, struct.pack("=I", bridge))
    change(RTM_SETLINK, struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, 0, 0) + marks)
    # In one message the kernel would set it up before it is on the bridge.
    change(RTM_SETLINK, struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, _IFF_UP, _IFF_UP))


def _introduce(bridge: int, address: IPv4Address, mac: str) -> None:
    fixed = struct.pack("=BxxxiHBB", socket.AF_INET, bridge, _NUD_STALE, 0, 0)
    known = attribute(_NDA_DST, address.packed) + attribute(_NDA_LLADDR, bytes.fromhex(mac.replace(":", "")))
    change(RTM_NEWNEIGH, fixed + known, OR_REPLACE)


def _read_switch(name: str, switch: str) -> bool:
    try:
        return (_SWITCHES / name / switch).read_text(encoding="ascii").strip() != "0"
    except FileNotFoundError:
        return False
