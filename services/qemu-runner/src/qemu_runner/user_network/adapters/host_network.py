"""Reads the host's default routes and resolver from files. It must never change either."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from qemu_runner.user_network.resolver import ResolverPlan, choose_resolver

_RTF_UP = 0x1


@dataclass(frozen=True, slots=True)
class ProcHostNetwork:
    """The host this process runs on.

    Attributes:
        routes: Routing table in the format of /proc/net/route (proc(5)).
        resolv_conf: The C library's resolver configuration.
        upstream_resolv_conf: What systemd-resolved itself asks, where it runs.
    """

    routes: Path = Path("/proc/self/net/route")
    resolv_conf: Path = Path("/etc/resolv.conf")
    upstream_resolv_conf: Path = Path("/run/systemd/resolve/resolv.conf")

    async def resolver(self) -> ResolverPlan:
        own = await asyncio.to_thread(_text, self.resolv_conf)
        upstream = await asyncio.to_thread(_text, self.upstream_resolv_conf)
        return choose_resolver(own, upstream)

    async def default_route_interfaces(self) -> tuple[str, ...]:
        return parse_default_routes(await asyncio.to_thread(_text, self.routes))


def parse_default_routes(text: str) -> tuple[str, ...]:
    """Give the interfaces of the default routes in /proc/net/route, in its order, each once."""
    found: list[str] = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 8:
            continue
        name, destination, flags, mask = words[0], words[1], int(words[3], 16), words[7]
        if destination == "00000000" == mask and flags & _RTF_UP and name not in found:
            found.append(name)
    return tuple(found)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
