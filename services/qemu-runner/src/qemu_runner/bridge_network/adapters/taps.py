"""Opens taps and vhost-net. What it returns belongs to the caller; a tap nobody holds is gone.

Source: Linux `Documentation/networking/tuntap.rst`, `include/uapi/linux/if_tun.h`.
"""

import asyncio
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from qemu_runner.bridge_network.errors import LinkError
from qemu_runner.bridge_network.nic import AttachedTap

_TUNSETIFF: Final = 0x400454CA
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000
_IFF_MULTI_QUEUE: Final = 0x0100
_IFF_TUN_EXCL: Final = 0x8000
TUN: Final = Path("/dev/net/tun")
VHOST: Final = Path("/dev/vhost-net")


class TunTaps:
    """Taps of this process's network namespace.

    Attributes:
        tun: The device that taps come from.
        vhost: The device of vhost-net, which may be absent.
    """

    def __init__(self, tun: Path = TUN, vhost: Path = VHOST) -> None:
        self.tun = tun
        self.vhost = vhost

    async def open(self, name: str, queues: int) -> AttachedTap:
        return await asyncio.to_thread(self._open, name, queues)

    def _open(self, name: str, queues: int) -> AttachedTap:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)
        taps: list[int] = []
        vhosts: list[int] = []
        try:
            for number in range(queues):
                taps.append(os.open(self.tun, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK))
                # Only the first queue makes the interface.
                wanted = flags | (0 if number else _IFF_TUN_EXCL)
                fcntl.ioctl(taps[-1], _TUNSETIFF, struct.pack("16sH22x", name.encode(), wanted))
            vhosts += self._open_vhosts(queues)
        except OSError as error:
            for fd in taps:
                os.close(fd)
            raise LinkError(f"tap {name}", error.strerror or str(error)) from error
        return AttachedTap(name, tuple(taps), tuple(vhosts))

    def _open_vhosts(self, queues: int) -> list[int]:
        """Open vhost-net as often; none where the host has none that opens."""
        opened: list[int] = []
        try:
            for _ in range(queues):
                opened.append(os.open(self.vhost, os.O_RDWR | os.O_CLOEXEC))  # noqa: PERF401 - kept on failure
        except OSError:
            for fd in opened:
                os.close(fd)
            return []
        return opened
