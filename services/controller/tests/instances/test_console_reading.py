"""Reading and following consoles: what comes next is found again whatever was away in between."""

import asyncio
from typing import Any

import grpc
import pytest
from controller_fakes import Cloud, reason_of
from qcontroller.controller.v1 import instance_pb2 as pb


async def read(cloud: Cloud, **wish: Any) -> bytes:
    stream = cloud.instances.ReadConsole(pb.ReadConsoleRequest(name="web-1", **wish), timeout=10)
    return b"".join([piece.chunk async for piece in stream])


class Follower:
    """One stream that follows, and what has come."""

    def __init__(self, cloud: Cloud, **wish: Any) -> None:
        request = pb.ReadConsoleRequest(name="web-1", follow=True, **wish)
        self._stream = cloud.instances.ReadConsole(request, timeout=20)
        self._pieces = self._stream.__aiter__()
        self.seen = b""

    async def until(self, end: bytes) -> bytes:
        async with asyncio.timeout(15):
            while not self.seen.endswith(end):
                self.seen += (await anext(self._pieces)).chunk
        return self.seen

    async def rest(self) -> bytes:
        async with asyncio.timeout(15):
            return b"".join([piece.chunk async for piece in self._pieces])

    def hang_up(self) -> None:
        self._stream.cancel()


async def test_a_console_is_read_in_part_and_with_times(cloud: Cloud) -> None:
    await cloud.launch()
    assert await read(cloud) == b"login: "
    assert await read(cloud, offset=-3) == b"n: "
    request = pb.ReadConsoleRequest(name="web-1", timestamps=True)
    (piece,) = [one async for one in cloud.instances.ReadConsole(request, timeout=10)]
    assert [(mark.end, mark.time.seconds, mark.approximate) for mark in piece.times] == [
        (7, 1767225600, False)
    ]


async def test_what_the_guest_prints_comes_as_it_does(cloud: Cloud) -> None:
    await cloud.launch()
    follower = Follower(cloud)
    await follower.until(b"login: ")
    cloud.runner.prints(b"root\n")
    assert await follower.until(b"root\n") == b"login: root\n"
    follower.hang_up()


async def test_a_runner_that_was_away_costs_no_byte(cloud: Cloud) -> None:
    await cloud.launch()
    follower = Follower(cloud)
    await follower.until(b"login: ")
    cloud.runner.prints(b"before\n")
    cloud.runner.break_off()
    cloud.runner.prints(b"meanwhile\n")
    cloud.runner.away = False
    assert await follower.until(b"meanwhile\n") == b"login: before\nmeanwhile\n"
    follower.hang_up()


async def test_a_runner_that_is_away_at_the_beginning_is_an_error(cloud: Cloud) -> None:
    await cloud.launch()
    cloud.runner.break_off()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(cloud, follow=True)
    assert reason_of(caught.value)[0] == "RUNNER_UNAVAILABLE"


async def test_a_deleted_instance_ends_what_follows(cloud: Cloud) -> None:
    await cloud.launch()
    follower = Follower(cloud)
    await follower.until(b"login: ")
    await cloud.instances.DeleteInstance(pb.DeleteInstanceRequest(name="web-1", force=True), timeout=10)
    assert await follower.rest() == b""


async def test_a_part_of_a_followed_console_ends_by_itself(cloud: Cloud) -> None:
    await cloud.launch()
    follower = Follower(cloud, offset=5, length=6)
    await follower.until(b": ")
    cloud.runner.prints(b"root\n")
    assert await follower.rest() == b"root"


async def test_the_console_of_no_instance_is_not_found(cloud: Cloud) -> None:
    for follow in (False, True):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(cloud, follow=follow)
        assert reason_of(caught.value)[0] == "INSTANCE_NOT_FOUND"
