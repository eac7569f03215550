"""Programs whose output is told while they run, with an agent whose shell is this host's."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest
from local_agent import LocalAgent
from qemu_runner.domain.guest_program import Channel, Output, Program, ProgramEnd
from qemu_runner.errors import GuestError, GuestExecTimeoutError, GuestProgramNotFoundError
from qemu_runner.guest_agent.client import GuestAgent
from qemu_runner.guest_agent.streaming import run
from scripted_agent import agent, client

Parts = AsyncGenerator[Output | ProgramEnd, None]


@pytest.fixture
def host() -> LocalAgent:
    return LocalAgent()


@pytest.fixture
async def guest(host: LocalAgent, tmp_path: Path) -> AsyncIterator[GuestAgent]:
    before = left()
    async with agent(tmp_path, host) as path, client(path) as it:
        yield it
        assert left() == before, "nothing stays in the guest"
        assert host.handles == {}
    await host.close()


def left() -> set[str]:
    return {path.name for path in Path("/tmp").glob(".qcontroller-*")}


def shell(script: str, *, timeout_s: float = 20, **env: str) -> Program:
    return Program(("/bin/sh", "-c", script), env, b"", timeout_s)


async def told(parts: Parts) -> tuple[bytes, bytes, ProgramEnd]:
    seen = [part async for part in parts]
    end = seen.pop()
    assert isinstance(end, ProgramEnd)
    outputs = [part for part in seen if isinstance(part, Output)]
    assert outputs[0].content == b"", "that it has begun is told first"
    return (
        b"".join(part.content for part in outputs if part.channel is Channel.STDOUT),
        b"".join(part.content for part in outputs if part.channel is Channel.STDERR),
        end,
    )


async def test_both_outputs_and_the_code_are_told(guest: GuestAgent) -> None:
    program = shell("echo out; echo err >&2; exit 3")
    assert await told(run(guest, program)) == (b"out\n", b"err\n", ProgramEnd(3, truncated=False))


async def test_output_comes_while_the_program_runs(guest: GuestAgent, tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    parts = run(guest, shell('echo first; until [ -e "$GO" ]; do sleep 0.05; done; echo last', GO=str(go_on)))
    seen = b""
    async with asyncio.timeout(20), contextlib.aclosing(parts):
        async for part in parts:
            if isinstance(part, Output):
                seen += part.content
                if seen == b"first\n":
                    go_on.touch()
    assert seen == b"first\nlast\n"


async def test_bytes_are_bytes(guest: GuestAgent) -> None:
    out, _, _ = await told(run(guest, shell("head -c 300000 /dev/zero; printf '\\377\\200'")))
    assert out == bytes(300_000) + b"\xff\x80"


async def test_the_program_reads_what_is_given_and_has_its_environment_alone(guest: GuestAgent) -> None:
    program = Program(("/bin/sh", "-c", 'cat; echo "$A-$HOME"'), {"A": "b c"}, b"given\n", 20)
    assert (await told(run(guest, program)))[0] == b"given\nb c-\n"


async def test_a_signal_is_told_as_128_and_its_number(guest: GuestAgent) -> None:
    assert (await told(run(guest, shell("kill -TERM $$"))))[2].exit_code == 143


@pytest.mark.parametrize("name", ["/no/such", "no-such-program-anywhere", "/tmp"])
async def test_a_missing_program_is_told(guest: GuestAgent, name: str) -> None:
    with pytest.raises(GuestProgramNotFoundError):
        await told(run(guest, Program((name,), {}, b"", 20)))


async def test_a_program_that_ends_with_127_is_not_missing(guest: GuestAgent) -> None:
    assert (await told(run(guest, shell("exit 127"))))[2] == ProgramEnd(127, truncated=False)


async def test_a_program_whose_time_is_over_is_ended(guest: GuestAgent, host: LocalAgent) -> None:
    with pytest.raises(GuestExecTimeoutError) as caught:
        await told(run(guest, shell("exec sleep 60", timeout_s=0.3)))
    assert caught.value.ended
    await eventually_ended(host)


async def test_a_program_nobody_listens_to_is_ended(guest: GuestAgent, host: LocalAgent) -> None:
    parts = run(guest, shell("exec sleep 60"))
    await anext(parts)
    await parts.aclose()
    await eventually_ended(host)


async def test_output_beyond_the_limit_ends_the_program(guest: GuestAgent, host: LocalAgent) -> None:
    program = Program(("/bin/sh", "-c", "exec head -c 60000000 /dev/zero; exec sleep 60"), {}, b"", 20)
    out, _, end = await told(run(guest, program, most_bytes=200_000))
    assert end.truncated
    assert len(out) <= 200_000
    await eventually_ended(host)


async def test_a_background_child_does_not_hold_up_the_end(guest: GuestAgent) -> None:
    async with asyncio.timeout(15):
        out, _, end = await told(run(guest, shell("sleep 17 & echo done")))
    assert (out, end.exit_code) == (b"done\n", 0)


async def test_a_guest_that_serves_output_without_end_is_cut_off(guest: GuestAgent, host: LocalAgent) -> None:
    host.lies["guest-file-read"] = {"count": 3, "buf-b64": "YWFh", "eof": False}
    out, _, end = await told(run(guest, shell("true"), most_bytes=300))
    assert (out, end.truncated) == (b"aaa" * 100, True)


async def test_an_agent_that_forgets_the_program_costs_an_error(guest: GuestAgent, host: LocalAgent) -> None:
    parts = run(guest, shell("true"))
    await anext(parts)
    host.broken["guest-exec-status"] = "PID 1 does not exist"
    with pytest.raises(GuestError):
        async for _ in parts:
            pass
    host.broken.clear()
    # What could not be removed then is removed here.
    for name in left():
        for path in (Path("/tmp") / name).iterdir():
            path.unlink()
        (Path("/tmp") / name).rmdir()


async def eventually_ended(host: LocalAgent) -> None:
    async with asyncio.timeout(10):
        await asyncio.gather(*host.outputs.values())
