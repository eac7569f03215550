"""Links, addresses and routes by netlink (pyroute2). It must only change what its caller names."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError

from qemu_runner.bridge_network.adapters.devconf import Switch, set_switch
from qemu_runner.bridge_network.errors import LinkError
from qemu_runner.bridge_network.host_view import HostView, Link, Route
from qemu_runner.bridge_network.ports import BridgePlan

_PYROUTE2: Final[Any] = pyroute2  # it has no annotations
_IFF_UP: Final = 0x1
_TABLE_LOCAL: Final = 255
_UNICAST: Final = 1
_TIMEOUT_S: Final = 10.0
_SWITCHES: Final = Path("/proc/sys/net/ipv4/conf")
_GONE: Final = 19  # ENODEV


class NetlinkLinks:
    """The links of this process's network namespace."""

    async def look(self) -> HostView:
        async with _kernel("links") as kernel:
            links = [message async for message in await kernel.get_links()]
            addresses = [message async for message in await kernel.get_addr(family=socket.AF_INET)]
            routes = [message async for message in await kernel.get_routes(family=socket.AF_INET)]
        return HostView(
            links=tuple(_link(message) for message in links),
            addresses=tuple(
                (m["index"], IPv4Address(m.get("address"))) for m in addresses if m.get("address")
            ),
            routes=tuple(_route(message) for message in routes if _leads_out(message)),
        )

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
        async with _kernel(f"tap {name}") as kernel:
            index = await _index(kernel, name)
            if index is None:
                raise LinkError(f"tap {name}", "there is no such interface")
            await kernel.link("set", index=index, ifalias=alias, master=bridge)
            await kernel.link("set", index=index, state="up")

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
    try:
        await asyncio.to_thread(set_switch, index, switch, value)
    except OSError as error:
        raise LinkError(f"interface {name}", f"{switch.name.lower()}: {error.strerror}") from error


def _read_switch(name: str, switch: str) -> bool:
    try:
        return (_SWITCHES / name / switch).read_text(encoding="ascii").strip() != "0"
    except FileNotFoundError:
        return False


def _link(message: Any) -> Link:
    return Link(
        index=message["index"],
        name=message.get("ifname") or "",
        kind=message.get(("linkinfo", "kind")) or "",
        alias=message.get("ifalias") or "",
        master=message.get("master") or 0,
        up=bool(message["flags"] & _IFF_UP),
        mac=message.get("address") or "",
    )


def _leads_out(message: Any) -> bool:
    table = message.get("table") or message["table"]
    return bool(message["type"] == _UNICAST and table != _TABLE_LOCAL)


def _route(message: Any) -> Route:
    hops = message.get("multipath") or ()
    through = [hop["oif"] for hop in hops] if hops else [message.get("oif") or 0]
    destination = message.get("dst") or "0.0.0.0"  # noqa: S104 - the destination of a default route
    return Route(IPv4Network((destination, message["dst_len"])), tuple(through))
