"""One attempt of a probe, against servers on the loopback and agents that are scripts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import pytest
from qemu_runner.domain.probe import CloudInit, CloudInitState, Probe, ProbeKind
from qemu_runner.errors import GuestAgentUnavailableError, GuestError
from qemu_runner.guest_agent.client import ExecResult
from qemu_runner.readiness import attempts
from qemu_runner.readiness.attempts import Seen, Target, answers, cloud_init_result, connects, exits

LOOPBACK = "127.0.0.1"
GET = Probe(kind=ProbeKind.HTTP, port=80, path="/healthz?x=1")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ScriptedAgent:
    """Answers every program with one result."""

    def __init__(self, result: ExecResult | GuestError) -> None:
        self.result = result
        self.asked: list[tuple[str, ...]] = []

    async def execute(
        self, argv: tuple[str, ...], env: Mapping[str, str], stdin: bytes, timeout_s: float
    ) -> ExecResult:
        self.asked.append(argv)
        if isinstance(self.result, GuestError):
            raise self.result
        return self.result


@asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[Target]:
    serving: set[asyncio.Task[None]] = set()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever asks may be gone before the answer.
        with suppress(OSError):
            await serve(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(once(reader, writer)))

    async with await asyncio.start_server(accepted, LOOPBACK, 0) as listening:
        yield Target(LOOPBACK, listening.sockets[0].getsockname()[1])
    if serving:
        await asyncio.wait(serving)


def says(answer: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    return serve


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def hangs_up(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Close at once, as passt does for a port where nobody listens."""


async def test_a_port_that_accepts_holds() -> None:
    async with server(silent) as target:
        assert (await connects(target)).holds


async def test_a_port_where_nobody_listens_is_refused() -> None:
    async with server(silent) as target:
        pass
    assert await connects(target) == Seen(False, "connection refused")


async def test_a_forwarder_that_hangs_up_is_no_server() -> None:
    async with server(hangs_up) as target:
        assert not (await connects(Target(target.host, target.port, forwarded=True))).holds


async def test_a_forwarded_connection_that_is_kept_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_FORWARDED_SILENCE_S", 0.01)
    async with server(silent) as target:
        assert (await connects(Target(target.host, target.port, forwarded=True))).holds


@pytest.mark.parametrize(
    ("answer", "status", "seen"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", 0, Seen(True, "answered 200")),
        (b"HTTP/1.0 204\r\n\r\n", 0, Seen(True, "answered 204")),
        (b"HTTP/1.1 503 No\r\n\r\n", 0, Seen(False, "answered 503")),
        (b"HTTP/1.1 503 No\r\n\r\n", 503, Seen(True, "answered 503")),
        (b"HTTP/1.1 302 F\r\nLocation: http://192.0.2.1/\r\n\r\n", 0, Seen(False, "answered 302")),
        (b"SSH-2.0-OpenSSH\r\n", 0, Seen(False, "what it answers is no HTTP/1.1")),
        (b"x" * 1_000_000, 0, Seen(False, "what it answers is no HTTP/1.1")),
        (b"", 0, Seen(False, "closed without an answer")),
    ],
)
async def test_the_status_line_alone_decides(answer: bytes, status: int, seen: Seen) -> None:
    probe = Probe(kind=ProbeKind.HTTP, port=80, path="/", status=status)
    async with server(says(answer)) as target:
        assert await answers(target, probe) == seen


async def test_the_request_names_the_guests_own_port_and_path() -> None:
    requests = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async with server(serve) as target:
        await answers(target, GET)
    assert requests[0].startswith(b"GET /healthz?x=1 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n")


async def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_HTTP_S", 0.05)
    async with server(silent) as target:
        assert await answers(target, GET) == Seen(False, "no answer in time")


async def test_a_program_holds_by_its_exit_code() -> None:
    probe = Probe(kind=ProbeKind.EXEC, argv=("/bin/check", "-q"), exit_code=3)
    agent = ScriptedAgent(ExecResult(3, b"", b"so be it\n", truncated=False))
    assert await exits(agent, probe) == Seen(True, "exit code 3: so be it")
    assert agent.asked == [("/bin/check", "-q")]
    other = ScriptedAgent(ExecResult(0, b"", b"", truncated=False))
    assert await exits(other, probe) == Seen(False, "exit code 0")


async def test_an_agent_that_fails_is_evidence() -> None:
    agent = ScriptedAgent(GuestAgentUnavailableError("it is gone"))
    seen = await exits(agent, Probe(kind=ProbeKind.EXEC, argv=("/bin/true",)))
    assert not seen.holds
    assert "it is gone" in seen.evidence


@pytest.mark.parametrize(
    ("output", "state"),
    [
        (b'{"v1": {"datasource": "x", "errors": []}}', CloudInitState(CloudInit.DONE)),
        (b'{"v1": {"errors": ["no such module"]}}', CloudInitState(CloudInit.ERROR, "no such module")),
        (b'{"v1": {}}', None),
        (b'{"v1": 1}', None),
        (b"[" * 100_000, None),
        (b"not json", None),
    ],
)
async def test_the_result_of_cloud_init_is_read_from_its_file(
    output: bytes, state: CloudInitState | None
) -> None:
    assert await cloud_init_result(ScriptedAgent(ExecResult(0, output, b"", truncated=False))) == state


async def test_without_the_file_nothing_is_known_of_cloud_init() -> None:
    agent = ScriptedAgent(ExecResult(1, b"", b"No such file", truncated=False))
    assert await cloud_init_result(agent) is None
