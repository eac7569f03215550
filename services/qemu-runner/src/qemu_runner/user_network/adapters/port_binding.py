"""Tries a port of the host by binding it for an instant, as passt would.

It holds nothing: between the try and passt's own bind another process can take the port, and then
the start fails honestly. It must never keep a socket open.
"""

import asyncio
import errno
import socket
from pathlib import Path

from qemu_runner.user_network.errors import PortAddressError, PortPrivilegedError, PortTakenError
from qemu_runner.user_network.publishing import Protocol, PublishedPort

_UNPRIVILEGED_START = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


class SocketPortBinding:
    """Binds real sockets in the runner's own network namespace, which is passt's too."""

    async def try_bind(self, port: PublishedPort) -> None:
        await asyncio.to_thread(_try_bind, port)


def _try_bind(port: PublishedPort) -> None:
    # passt runs under a machine's uid without capabilities: that the runner is root does not help.
    first = int(_UNPRIVILEGED_START.read_text(encoding="ascii"))
    if port.host < first:
        raise PortPrivilegedError(
            port,
            f"ports below {first} need a privilege that guests' passt never has; choose a higher one "
            "or lower net.ipv4.ip_unprivileged_port_start.",
        )
    tcp = port.protocol is Protocol.TCP
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as trial:
        if tcp:
            # As passt does: connections of a predecessor in TIME_WAIT are not in the way. For UDP the
            # option would share the port with whoever has it.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((str(port.address), port.host))
            if tcp:
                trial.listen(1)
        except OSError as error:
            raise _translated(port, error) from error


def _translated(
    port: PublishedPort, error: OSError
) -> PortTakenError | PortAddressError | PortPrivilegedError:
    match error.errno:
        case errno.EADDRNOTAVAIL:
            return PortAddressError(port, f"{port.address} is not an address of this host.")
        case errno.EACCES | errno.EPERM:
            return PortPrivilegedError(port, "the host does not permit it.")
        case _:
            return PortTakenError(port, f"something on this host has it ({error.strerror}).")
