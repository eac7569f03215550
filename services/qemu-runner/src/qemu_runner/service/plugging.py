"""Hands a starting machine's taps to its QEMU, as descriptors over the monitor.

QEMU opens nothing: it gets copies, and ours are closed as soon as it has them, so that a tap vanishes with
the machine.
"""

from qemu_runner.bridge_network import AttachedTap, netdev_arguments
from qemu_runner.domain.argv import nic_device
from qemu_runner.monitor import QmpSession


class Taps:
    """The open taps of one start, by the number of their NIC."""

    def __init__(self) -> None:
        self._open: dict[int, AttachedTap] = {}

    def add(self, number: int, tap: AttachedTap) -> None:
        """Take over an open tap."""
        self._open[number] = tap

    def close(self) -> None:
        """Close this process's copies; harmless when they are closed."""
        for tap in self._open.values():
            tap.close()
        self._open.clear()

    async def plug(self, session: QmpSession, number: int, mac: str) -> None:
        """Plug NIC `number`; one without a tap has its netdev on QEMU's command line.

        Raises:
            MonitorError: QEMU refused or did not answer.
        """
        tap = self._open.get(number)
        if tap is None:
            await session.execute("device_add", nic_device(number, mac))
            return
        names = await _given(session, f"tap{number}", tap.taps)
        vhosts = await _given(session, f"vhost{number}", tap.vhosts)
        await session.execute("netdev_add", netdev_arguments(f"net{number}", tap, names, vhosts))
        await session.execute("device_add", nic_device(number, mac, len(tap.taps)))


async def _given(session: QmpSession, name: str, descriptors: tuple[int, ...]) -> str:
    """Give QEMU descriptors and return their names as a netdev takes them."""
    names = [f"{name}-{queue}" for queue in range(len(descriptors))]
    for one, descriptor in zip(names, descriptors, strict=True):
        await session.give(one, descriptor)
    return ":".join(names)
