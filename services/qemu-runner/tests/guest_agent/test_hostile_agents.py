"""The agent's client against agents that answer well, badly, late, without end, or not at all."""

import asyncio
import base64
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from qemu_runner.errors import (
    GuestAgentRefusedError,
    GuestAgentUnavailableError,
    GuestExecTimeoutError,
    GuestProgramNotFoundError,
)
from qemu_runner.guest_messages import info_message
from scripted_agent import Answer, agent, channel, client, echo, port, refusing, reply, telling

SHORT_S = 0.3


async def test_an_answer_is_returned(tmp_path: Path) -> None:
    async with agent(tmp_path, echo) as path, channel(path) as it:
        assert await it.call("guest-ping", deadline_s=1) == "guest-ping"


async def test_a_late_answer_is_never_taken_for_the_next_commands(tmp_path: Path) -> None:
    async def late(command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if command["execute"] == "first":
            asyncio.get_running_loop().call_later(SHORT_S * 1.5, reply, writer, {"return": "too late"})
        else:
            await echo(command, writer)

    async with agent(tmp_path, late) as path, channel(path) as it:
        with pytest.raises(GuestAgentUnavailableError):
            await it.call("first", deadline_s=SHORT_S)
        assert await it.call("second", deadline_s=2) == "second"


async def test_a_silent_agent_costs_its_deadline(tmp_path: Path) -> None:
    async def silent(_command: dict[str, Any], _writer: asyncio.StreamWriter) -> None:
        return

    async with agent(tmp_path, silent) as path, channel(path) as it:
        with pytest.raises(GuestAgentUnavailableError, match="no answer to guest-ping"):
            await it.call("guest-ping", deadline_s=SHORT_S)


async def test_an_answer_without_end_is_cut_off(tmp_path: Path) -> None:
    async def endless(_command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x" * 2**20)
            await writer.drain()

    async with agent(tmp_path, endless) as path, channel(path) as it:
        with pytest.raises(GuestAgentUnavailableError, match="no end"):
            await it.call("guest-ping", deadline_s=20)


_GARBAGE = [b"\x00\x01\n", b"[1, 2]\n", b'"text"\n', b"{\n", b"[" * 100_000 + b"\n", b"{}\n"]


@pytest.mark.parametrize("garbage", _GARBAGE)
async def test_garbage_is_no_answer_and_the_next_command_is_well(tmp_path: Path, garbage: bytes) -> None:
    async def once(command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if command["execute"] == "first":
            writer.write(garbage)
        else:
            await echo(command, writer)

    async with agent(tmp_path, once) as path, channel(path) as it:
        with pytest.raises(GuestAgentUnavailableError):
            await it.call("first", deadline_s=1)
        assert await it.call("second", deadline_s=1) == "second"


async def test_an_agent_that_hangs_up_is_away(tmp_path: Path) -> None:
    async def hang_up(_command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with agent(tmp_path, hang_up) as path, channel(path) as it:
        with pytest.raises(GuestAgentUnavailableError, match="closed"):
            await it.call("guest-ping", deadline_s=1)


async def test_an_error_of_the_agent_is_told_in_bounds(tmp_path: Path) -> None:
    async with agent(tmp_path, refusing("no" * 10_000)) as path, channel(path) as it:
        with pytest.raises(GuestAgentRefusedError) as caught:
            await it.call("guest-ping", deadline_s=1)
    assert len(caught.value.detail) == 500


async def test_an_answer_of_brackets_alone_is_not_parsed(tmp_path: Path) -> None:
    async def brackets(command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if command["execute"] == "first":
            writer.write(b'{"return": [' + b"[]," * 4_000_000 + b"[]]}\n")
        else:
            await echo(command, writer)

    async with agent(tmp_path, brackets) as path, channel(path) as it:
        await it.call("warm-up", deadline_s=2)
        tracemalloc.start()
        try:
            with pytest.raises(GuestAgentUnavailableError, match="parts"):
                await it.call("first", deadline_s=20)
            assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
        finally:
            tracemalloc.stop()
        assert await it.call("second", deadline_s=2) == "second"


async def test_a_second_answer_to_one_command_is_not_the_next_ones(tmp_path: Path) -> None:
    async def twice(command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"return": "%s"}\n{"return": "slipped in"}\n' % command["execute"].encode())

    async with agent(tmp_path, twice) as path, channel(path) as it:
        assert [await it.call(name, deadline_s=2) for name in ("a", "b", "c")] == ["a", "b", "c"]


async def test_answers_to_another_synchronisation_are_passed_over(tmp_path: Path) -> None:
    async def others_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            command = json.loads(line.lstrip(b"\xff"))
            if command["execute"] == "guest-sync-delimited":
                for number in (-1, 2**64, "x", command["arguments"]["id"]):
                    writer.write(b"\xff")
                    reply(writer, {"return": number})
            else:
                await echo(command, writer)

    async with port(tmp_path, others_first) as path, channel(path) as it:
        assert await it.call("guest-ping", deadline_s=2) == "guest-ping"


async def test_wrong_ids_alone_cost_the_deadline(tmp_path: Path) -> None:
    async def wrong(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b'\xff{"return": 7}\n')

    async with port(tmp_path, wrong) as path, channel(path) as it:
        with pytest.raises(GuestAgentUnavailableError, match="no answer"):
            await it.call("guest-ping", deadline_s=SHORT_S)


@pytest.mark.parametrize("flood", [b"x" * 2**20, b"\xff" * 2**20, b"\xff{}\n" * 2**18, b"\n" * 2**20])
async def test_a_flood_instead_of_a_synchronisation_has_an_end(tmp_path: Path, flood: bytes) -> None:
    async def pour(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(flood)
            await writer.drain()

    async with port(tmp_path, pour) as path, channel(path) as it:
        with pytest.raises(GuestAgentUnavailableError):
            await it.call("guest-ping", deadline_s=20)


async def test_a_port_that_nobody_reads_does_not_fill_the_memory(tmp_path: Path) -> None:
    async def deaf(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with port(tmp_path, deaf) as path, channel(path) as it:
        # More than what the socket and the other end's reader take.
        big = {"input-data": "x" * (16 * 2**20)}
        for _ in range(3):
            with pytest.raises(GuestAgentUnavailableError, match="no answer"):
                await it.call("guest-exec", big, deadline_s=SHORT_S)
        queued = it._writer.transport.get_write_buffer_size()
    assert queued < 20 * 2**20


async def test_bytes_that_come_singly_are_put_together(tmp_path: Path) -> None:
    async def drip(command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        for byte in json.dumps({"return": command["execute"]}).encode() + b"\n":
            writer.write(bytes([byte]))
            await writer.drain()

    async with agent(tmp_path, drip) as path, channel(path) as it:
        assert await it.call("guest-ping", deadline_s=5) == "guest-ping"


async def test_commands_of_two_callers_take_turns(tmp_path: Path) -> None:
    async with agent(tmp_path, echo) as path, channel(path) as it:
        answers = await asyncio.gather(*(it.call(f"command-{n}", deadline_s=2) for n in range(20)))
    assert answers == [f"command-{n}" for n in range(20)]


async def test_information_of_wrong_types_stays_empty(tmp_path: Path) -> None:
    async def lie(command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        lies: dict[str, object] = {
            "guest-get-host-name": {"host-name": 7},
            "guest-get-osinfo": ["id"],
            "guest-get-timezone": {"zone": [], "offset": 10**30},
            "guest-network-get-interfaces": [
                "eth0",
                {"hardware-address": "52:54:00:00:00:01", "ip-addresses": [{"ip-address": "not one"}, 5]},
                {"hardware-address": "x", "ip-addresses": []},
            ],
        }
        reply(writer, {"return": lies[command["execute"]]})

    async with agent(tmp_path, lie) as path, client(path) as it:
        info = await it.info()
    assert (info.hostname, info.os.id, info.time_zone) == ("", "", None)
    assert [(one.mac, one.addresses) for one in info.interfaces] == [("52:54:00:00:00:01", ())]


async def test_long_and_unprintable_texts_are_cut(tmp_path: Path) -> None:
    async def long(command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if command["execute"] == "guest-get-host-name":
            reply(writer, {"return": {"host-name": "\x1b[31m" + "h" * 100_000}})
        else:
            reply(writer, {"error": {"desc": "disabled"}})

    async with agent(tmp_path, long) as path, client(path) as it:
        info = await it.info()
    assert len(info.hostname) <= 256
    assert info.hostname.isprintable()


def program(*statuses: dict[str, object]) -> Answer:
    """Make an agent whose program has these statuses, the last one for ever."""
    left = list(statuses)

    async def answer(command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if command["execute"] == "guest-exec":
            reply(writer, {"return": {"pid": 42}})
        else:
            reply(writer, {"return": left.pop(0) if len(left) > 1 else left[0]})

    return answer


async def test_a_programs_end_is_waited_for(tmp_path: Path) -> None:
    ended: dict[str, object] = {
        "exited": True,
        "exitcode": 3,
        "out-data": base64.b64encode(b"out").decode(),
        "err-data": "%%%",
    }
    async with agent(tmp_path, program({"exited": False}, ended)) as path, client(path) as it:
        result = await it.execute(("/bin/true",), {"A": "b"}, b"in", 5)
    assert (result.exit_code, result.stdout, result.stderr, result.truncated) == (3, b"out", b"", False)


async def test_output_beyond_the_limit_is_cut_and_said_to_be(tmp_path: Path) -> None:
    big = base64.b64encode(bytes(2**20 + 1)).decode()
    ended: dict[str, object] = {"exited": True, "exitcode": 0, "out-data": big}
    async with agent(tmp_path, program(ended)) as path, client(path) as it:
        result = await it.execute(("/bin/true",), {}, b"", 5)
    assert (len(result.stdout), result.truncated) == (2**20, True)


async def test_a_program_that_does_not_end_is_ended_and_told(tmp_path: Path) -> None:
    async with agent(tmp_path, program({"exited": False})) as path, client(path) as it:
        with pytest.raises(GuestExecTimeoutError) as caught:
            await it.execute(("/bin/sleep", "60"), {}, b"", SHORT_S)
    assert caught.value.ended


async def test_a_missing_program_is_told_from_a_refusal(tmp_path: Path) -> None:
    async def missing(_command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        text = (
            "Guest agent command failed, error was "
            '"Failed to execute child process (No such file or directory)"'
        )
        reply(writer, {"error": {"desc": text}})

    async with agent(tmp_path, missing) as path, client(path) as it:
        with pytest.raises(GuestProgramNotFoundError):
            await it.execute(("/no/such",), {}, b"", 5)


@pytest.mark.parametrize("pid", [0, -5, "7", None, 2**40])
async def test_a_process_id_that_is_none_is_no_answer(tmp_path: Path, pid: object) -> None:
    async def started(_command: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        reply(writer, {"return": {"pid": pid}})

    async with agent(tmp_path, started) as path, client(path) as it:
        with pytest.raises(GuestAgentUnavailableError):
            await it.execute(("/bin/true",), {}, b"", 5)


async def test_what_a_guest_tells_of_itself_has_room_in_16_kib(tmp_path: Path) -> None:
    wide = "\N{CUNEIFORM SIGN A}" * 256
    scoped = [{"ip-address": f"fe80::{n}%{wide}"} for n in range(64)]
    plain = {
        "name": "eth0",
        "hardware-address": "52:54:00:00:00:01",
        "ip-addresses": [{"ip-address": "10.0.0.2"}],
    }
    cards = [
        plain,
        *(
            {"name": wide, "hardware-address": f"52:54:00:00:01:{n:02x}", "ip-addresses": scoped}
            for n in range(63)
        ),
    ]
    answers = {
        "guest-get-host-name": {"host-name": wide},
        "guest-get-osinfo": dict.fromkeys(
            ("id", "name", "pretty-name", "version", "kernel-release", "machine"), wide
        ),
        "guest-network-get-interfaces": cards,
        "guest-get-timezone": {"zone": wide, "offset": 0},
    }
    async with agent(tmp_path, telling(answers)) as path, client(path) as guest:
        info = await guest.info()
    assert info_message(info).ByteSize() <= 16 * 1024
    assert (info.hostname, info.interfaces[0].addresses[0].address) == (wide, "10.0.0.2")
