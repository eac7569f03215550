"""A bridge of others is used as it is: refused with advice, its neighbours known, nothing changed."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
from qemu_runner.bridge_network import AttachedTap, LinkError
from qemu_runner.bridge_network.host_view import HostView, Link
from qemu_runner.bridge_network.ports import BridgePlan
from qemu_runner.existing_bridge import BridgeTapError
from qemu_runner.existing_bridge.bridges import HostBridges
from qemu_runner.existing_bridge.ports import Neighbour

MAC = "52:54:00:00:00:01"


@dataclass
class Host:
    """Links, taps and facts of one host with a bridge and a card; `refuses` makes the kernel refuse."""

    links: tuple[Link, ...] = (Link(2, "eth0"), Link(3, "br0", kind="bridge"))
    net_admin: bool = True
    obstacle: str | None = None
    refuses: bool = False
    enslaved: list[tuple[str, int]] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)

    async def look(self) -> HostView:
        return HostView(links=self.links)

    async def mend_bridge(self, plan: BridgePlan) -> int:
        raise AssertionError("a bridge of others is never mended")

    async def remove(self, name: str) -> None:
        raise AssertionError("nothing of others is removed")

    async def forwards(self, name: str) -> bool:
        raise AssertionError("forwarding is none of its business")

    async def set_forwarding(self, name: str, *, on: bool) -> None:
        raise AssertionError("forwarding is none of its business")

    async def mend_tap(self, name: str, alias: str, bridge: int) -> None:
        if self.refuses:
            raise LinkError(name, "no")
        self.enslaved.append((name, bridge))

    async def open(self, name: str, queues: int) -> AttachedTap:
        self.opened += [os.open("/dev/null", os.O_RDWR) for _ in range(queues)]
        return AttachedTap(name, tuple(self.opened))

    async def has_net_admin(self) -> bool:
        return self.net_admin

    async def tap_obstacle(self) -> str | None:
        return self.obstacle


@dataclass
class Table:
    """Neighbours that a test sets; `notice` tells of a change."""

    known: tuple[Neighbour, ...] = ()
    notices: "asyncio.Queue[None]" = field(default_factory=asyncio.Queue)

    async def look(self) -> tuple[Neighbour, ...]:
        return self.known

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[None]]:
        yield self._stream()

    async def _stream(self) -> AsyncIterator[None]:
        while True:
            await self.notices.get()
            yield


def bridges(host: Host, table: Table | None = None) -> HostBridges:
    return HostBridges(host, host, host, table or Table(), "tests")  # type: ignore[arg-type]  # what is asked of it


async def test_a_bridge_that_is_there_takes_guests() -> None:
    assert await bridges(Host()).refusal("br0") is None


@pytest.mark.parametrize(
    ("host", "bridge", "said"),
    [
        (Host(), "br9", "no interface 'br9'"),
        (Host(), "eth0", "is no bridge"),
        (Host(net_admin=False), "br0", "CAP_NET_ADMIN"),
        (Host(obstacle="/dev/net/tun: No such file"), "br0", "/dev/net/tun"),
    ],
)
async def test_else_it_is_said_why_and_what_to_do(host: Host, bridge: str, said: str) -> None:
    refused = await bridges(host).refusal(bridge)
    assert refused is not None
    assert said in refused.reason
    assert refused.fix


async def test_a_tap_is_put_on_the_bridge() -> None:
    host = Host()
    with await bridges(host).attach("br0", "qc0123456789-0", queues=2) as tap:
        assert len(tap.taps) == 2
    assert host.enslaved == [("qc0123456789-0", 3)]


async def test_a_bridge_that_went_meanwhile_is_an_error() -> None:
    with pytest.raises(BridgeTapError, match="br9"):
        await bridges(Host()).attach("br9", "qc0123456789-0")


async def test_a_tap_that_cannot_be_put_there_is_closed_again() -> None:
    host = Host(refuses=True)
    with pytest.raises(BridgeTapError):
        await bridges(host).attach("br0", "qc0123456789-0")
    with pytest.raises(OSError):
        os.fstat(host.opened[0])


async def test_neighbours_behind_the_bridge_are_known_by_their_mac() -> None:
    table = Table((Neighbour(3, MAC, "192.0.2.7"), Neighbour(2, MAC, "198.51.100.7")))
    under_test, changed = bridges(Host(), table), asyncio.Event()
    assert under_test.neighbours("br0", MAC) == ()
    following = asyncio.create_task(under_test.run(changed.set))
    try:
        async with asyncio.timeout(5):
            await changed.wait()
            assert under_test.neighbours("br0", MAC) == ("192.0.2.7",)
            changed.clear()
            table.known = (*table.known, Neighbour(3, MAC, "192.0.2.8"))
            table.notices.put_nowait(None)
            await changed.wait()
            assert under_test.neighbours("br0", MAC) == ("192.0.2.7", "192.0.2.8")
    finally:
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following


async def test_a_host_without_such_guests_is_not_looked_at() -> None:
    table = Table((Neighbour(3, MAC, "192.0.2.7"),))
    following = asyncio.create_task(bridges(Host(), table).run(lambda: pytest.fail("looked")))
    for _ in range(10):
        await asyncio.sleep(0)
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
