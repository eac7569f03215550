"""Reads what the host has and what this process may. It must never change either."""

import asyncio
import os
import shutil
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from qemu_runner.bridge_network.adapters.taps import TUN
from qemu_runner.user_network.adapters.host_network import ProcHostNetwork

_CAP_NET_ADMIN: Final = 12
_DNS: Final = 53
_IP_FREEBIND: Final = 15  # ip(7); the socket module does not name it


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The host this process runs on.

    Attributes:
        tun: The device that taps come from.
        status: This process's status (proc(5)).
        resolv_conf: The C library's resolver configuration.
    """

    tun: Path = TUN
    status: Path = Path("/proc/self/status")
    resolv_conf: Path = Path("/etc/resolv.conf")

    async def has_net_admin(self) -> bool:
        text = await asyncio.to_thread(self.status.read_text, encoding="ascii", errors="replace")
        words = next((line.split() for line in text.splitlines() if line.startswith("CapEff:")), ["", "0"])
        return bool(int(words[1], 16) >> _CAP_NET_ADMIN & 1)

    async def tap_obstacle(self) -> str | None:
        return await asyncio.to_thread(_obstacle, self.tun)

    async def program(self, name: str) -> str | None:
        return await asyncio.to_thread(shutil.which, name)

    async def resolvers(self) -> tuple[IPv4Address, ...]:
        return (await ProcHostNetwork(resolv_conf=self.resolv_conf).resolver()).servers

    async def port_53_taken(self, address: IPv4Address) -> bool:
        return await asyncio.to_thread(_taken, address)


def _obstacle(tun: Path) -> str | None:
    try:
        os.close(os.open(tun, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{tun}: {error.strerror}"
    return None


def _taken(address: IPv4Address) -> bool:
    """Try to bind port 53 there; a listener on the wildcard address is in the way of every other.

    Before the bridge stands its address is not the host's yet; the try then goes by IP_FREEBIND.
    """
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as trial:
            trial.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
            if kind == socket.SOCK_STREAM:
                # Connections of a predecessor in TIME_WAIT are not in the way.
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((str(address), _DNS))
                if kind == socket.SOCK_STREAM:
                    trial.listen(1)
            except OSError:
                return True
    return False
