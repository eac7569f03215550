"""Reserves published ports with bound sockets: DNAT by itself reserves nothing.

A reserving socket never listens: while the rules stand no packet reaches it, and without them a client
is refused at once.
"""

import asyncio
import errno
import socket

from qemu_runner.bridge_network.errors import BridgePortAddressError, BridgePortTakenError
from qemu_runner.user_network import Protocol, PublishedPort

_Key = tuple[Protocol, str, int]


class SocketHostPorts:
    """Sockets of this process, by protocol, address and port."""

    def __init__(self) -> None:
        self._sockets: dict[_Key, socket.socket] = {}

    async def hold(self, port: PublishedPort) -> None:
        if not self.held(port):
            self._sockets[_key(port)] = await asyncio.to_thread(_bound, port)

    async def release(self, port: PublishedPort) -> None:
        if (held := self._sockets.pop(_key(port), None)) is not None:
            held.close()

    def held(self, port: PublishedPort) -> bool:
        return _key(port) in self._sockets


def _key(port: PublishedPort) -> _Key:
    return port.protocol, str(port.address), port.host


def _bound(port: PublishedPort) -> socket.socket:
    kind = socket.SOCK_STREAM if port.protocol is Protocol.TCP else socket.SOCK_DGRAM
    # No SO_REUSEADDR: with it two sockets that do not listen would share the port.
    held = socket.socket(socket.AF_INET, kind)
    try:
        held.bind((str(port.address), port.host))
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise BridgePortAddressError(port, f"{port.address} is not an address of this host.") from error
        raise BridgePortTakenError(port, f"the host does not give it ({error.strerror}).") from error
    return held
