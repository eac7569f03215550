"""The console's log over HTTP: parts, what has been given back, times, and following."""

import asyncio
import re

import grpc
import httpx
import pytest
from framework.api_client import ApiClient
from gateway_fakes import Stand
from qcontroller.controller.v1 import instance_pb2 as pb
from servicekit.rpc_errors import RpcProblem

PATH = "/v1/instances/web-1/console"


async def test_a_whole_log_tells_its_length_and_where_it_begins(client: ApiClient) -> None:
    response = await client.get(PATH)
    assert response.headers["content-length"] == "13"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["console-offset"] == "0"


async def test_a_log_is_read_from_an_offset_on(client: ApiClient) -> None:
    response = await client.get(f"{PATH}?offset=6")
    assert (response.status_code, response.content) == (200, b"login: ")
    assert response.headers["console-offset"] == "6"
    beyond = await client.get(f"{PATH}?offset=99")
    assert (beyond.content, beyond.headers["console-offset"]) == (b"", "13")


async def test_what_has_been_given_back_is_told_and_not_filled_up(client: ApiClient, rest: Stand) -> None:
    rest.controller.console_kept = 4
    whole = await client.get(PATH)
    assert (whole.content, whole.headers["console-offset"]) == (b"x\nlogin: ", "4")
    part = await client.get(PATH, headers={"Range": "bytes=0-7"})
    assert (part.status_code, part.content) == (206, b"x\nlo")
    assert (part.headers["content-range"], part.headers["content-length"]) == ("bytes 4-7/13", "4")


async def test_a_range_of_what_has_been_given_back_is_416_and_says_what_is_left(
    client: ApiClient, rest: Stand
) -> None:
    rest.controller.console_kept = 4
    response = await client.get(PATH, headers={"Range": "bytes=0-3"})
    assert (response.status_code, response.headers["content-range"]) == (416, "bytes */13")
    assert response.json()["metadata"] == {"totalBytes": "13", "firstByte": "4"}


async def test_a_condition_on_a_range_never_holds(client: ApiClient) -> None:
    headers = {"Range": "bytes=0-4", "If-Range": '"x"'}
    response = await client.get(PATH, headers=headers)
    assert (response.status_code, response.content) == (200, b"Linux\nlogin: ")


@pytest.mark.parametrize(
    ("query", "headers", "pointer"),
    [
        ("?tail=5&offset=5", {}, "/query/offset"),
        ("?tail=5", {"Range": "bytes=0-1"}, "/header/Range"),
        ("?follow=true", {"Range": "bytes=0-1"}, "/header/Range"),
        ("?timestamps=true", {"Range": "bytes=0-1"}, "/header/Range"),
        ("?follow=perhaps", {}, "/query/follow"),
        ("?timestamps=1", {}, "/query/timestamps"),
        ("?offset=-1", {}, "/query/offset"),
        ("?offset=99999999999999999999", {}, "/query/offset"),
        ("?lines=3", {}, "/query/lines"),
    ],
)
async def test_what_cannot_be_had_is_refused(
    client: ApiClient, query: str, headers: dict[str, str], pointer: str
) -> None:
    response = await client.get(PATH + query, headers=headers)
    assert response.status_code == 400
    assert [fault["pointer"] for fault in response.json()["errors"]] == [pointer]


async def test_each_line_has_the_time_at_which_it_began(client: ApiClient) -> None:
    response = await client.get(f"{PATH}?timestamps=true")
    assert response.content == (b"2026-01-01T00:00:00.000000Z Linux\n2026-01-01T00:00:00.000000Z~ login: ")
    assert "accept-ranges" not in response.headers
    assert "content-length" not in response.headers


async def test_blank_lines_have_times_and_the_end_has_none(client: ApiClient, rest: Stand) -> None:
    rest.controller.console = b"\na\r\n\n"
    text = (await client.get(f"{PATH}?timestamps=true")).text
    assert re.sub(r"\d{4}-\S+~? ", "T ", text) == "T \nT a\r\nT \n"


async def test_a_log_that_is_given_back_faster_than_it_is_read_breaks_off(
    wire: ApiClient, rest: Stand
) -> None:
    rest.controller.skipped = 4096
    rest.controller.printed.put_nowait(b"more")
    with pytest.raises(httpx.RemoteProtocolError):
        await wire.get(f"{PATH}?follow=true")


async def test_a_runner_that_stays_away_breaks_the_answer_off(wire: ApiClient, rest: Stand) -> None:
    rest.controller.printed.put_nowait(RpcProblem(grpc.StatusCode.UNAVAILABLE, "RUNNER_UNAVAILABLE", "Away."))
    with pytest.raises(httpx.RemoteProtocolError):
        await wire.get(f"{PATH}?follow=true")


async def test_a_log_is_followed_until_its_end(wire: ApiClient, rest: Stand) -> None:
    rest.controller.printed.put_nowait(b"root\n")
    rest.controller.printed.put_nowait(None)
    async with asyncio.timeout(10):
        response = await wire.get(f"{PATH}?follow=true&tail=7")
    assert response.content == b"login: root\n"
    assert response.headers["console-offset"] == "6"
    assert rest.controller.last(pb.ReadConsoleRequest).follow


async def test_a_quiet_console_is_answered_at_once(wire: ApiClient) -> None:
    async with asyncio.timeout(10), wire.stream("GET", f"{PATH}?follow=true&offset=13") as response:
        assert response.status_code == 200


async def test_a_follower_who_hangs_up_ends_the_stream(wire: ApiClient, rest: Stand) -> None:
    async with wire.stream("GET", f"{PATH}?follow=true") as response:
        await anext(response.aiter_bytes())
    await asyncio.wait_for(rest.controller.readers_gone.wait(), 10)


async def test_a_gateway_that_stops_ends_what_follows_in_good_order(wire: ApiClient, rest: Stand) -> None:
    async with wire.stream("GET", f"{PATH}?follow=true") as response:
        async with asyncio.timeout(10):
            parts = response.aiter_bytes()
            assert (await anext(parts)).startswith(b"Linu")
            rest.closing.set()
            async for _ in parts:
                pass


async def test_a_head_follows_nothing(wire: ApiClient, rest: Stand) -> None:
    response = await wire.head(f"{PATH}?follow=true")
    assert (response.status_code, response.content) == (200, b"")
    await asyncio.wait_for(rest.controller.readers_gone.wait(), 10)


async def test_too_many_followers_are_503(client: ApiClient, rest: Stand) -> None:
    rest.controller.answers["ReadConsole"] = RpcProblem(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "CONSOLE_FOLLOWERS_EXHAUSTED", "16 follow.", {"limit": "16"}
    )
    response = await client.get(f"{PATH}?follow=true")
    assert (response.status_code, response.json()["reason"]) == (503, "CONSOLE_FOLLOWERS_EXHAUSTED")
    assert response.headers["retry-after"] == "5"
