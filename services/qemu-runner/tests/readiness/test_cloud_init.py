"""What a guest is asked of its cloud-init, and when."""

import asyncio
import json
from collections.abc import Mapping

import pytest
from qemu_runner.domain.probe import CloudInit, ProbeResult
from qemu_runner.errors import GuestAgentUnavailableError
from qemu_runner.guest_agent.client import ExecResult
from qemu_runner.readiness import probing
from qemu_runner.readiness.cloud_init import cloud_init_report, schema_errors
from qemu_runner.readiness.probing import Probing, Standing

STAGE = {"start": 1767225604.0, "finished": 1767225605.0, "errors": []}
FINE = {"status.json": {"v1": {"init": STAGE}}, "result.json": {"v1": {"errors": []}}}
WARNED = b"2026-01-01 00:00:01,123 - schema.py[WARNING]: Invalid cloud-config provided: Please run\n"
FAULT = (
    b"Cloud config schema errors: write_files.0: "
    b"Additional properties are not allowed ('contnt' was unexpected)"
)


class Files:
    """A guest's agent that has these files; None: it answers nothing."""

    def __init__(self, files: Mapping[str, object] | None, log: bytes = b"", schema: bytes = b"") -> None:
        self.files, self.log, self.schema = files, log, schema
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()

    async def execute(
        self, argv: tuple[str, ...], env: dict[str, str], stdin: bytes, timeout_s: float
    ) -> ExecResult:
        name = argv[-1].rpartition("/")[2]
        self.asked.append(name)
        self.was_asked.set()
        if self.files is None:
            raise GuestAgentUnavailableError("no answer")
        if argv[0] == "/usr/bin/awk":
            return ExecResult(0, self.log, b"", truncated=False)
        if argv[0] == "/usr/bin/cloud-init":
            return ExecResult(1, b"", self.schema, truncated=False)
        found = self.files.get(name)
        if found is None:
            return ExecResult(1, b"", b"No such file", truncated=False)
        content = found if isinstance(found, bytes) else json.dumps(found).encode()
        return ExecResult(0, content, b"", truncated=False)


async def test_the_schema_is_asked_for_only_after_a_warning_of_it() -> None:
    quiet, warned = Files(FINE), Files(FINE, WARNED, FAULT)
    report = await cloud_init_report(quiet)
    assert report is not None
    assert quiet.asked == ["status.json", "result.json", "cloud-init.log"]
    report = await cloud_init_report(warned)
    assert report is not None
    assert report.doubts_schema
    assert await schema_errors(warned) == ("write_files.0: unexpected contnt",)
    assert await schema_errors(Files(None)) == ()


async def test_faults_of_the_schema_follow_the_rest_of_the_report() -> None:
    watched, agent = Watched(), Files(FINE, WARNED, FAULT)
    task = asyncio.create_task(watched.probing.run())
    watched.agent(agent)
    watched.probing.cloud_init_finished(failed=False)
    async with asyncio.timeout(5):
        while watched.probing.report is None or not watched.probing.report.schema_errors:
            watched.changes.clear()
            await watched.changes.wait()
    assert watched.probing.report.warnings
    task.cancel()
    await asyncio.wait({task})


async def test_a_log_is_not_read_where_the_files_tell_warnings() -> None:
    stage = STAGE | {"recoverable_errors": {}}
    agent = Files({"status.json": {"v1": {"init": stage}}, "result.json": {"v1": {"errors": []}}})
    await cloud_init_report(agent)
    assert agent.asked == ["status.json", "result.json"]


async def test_a_guest_that_tells_nothing_or_nonsense_gives_nothing() -> None:
    assert await cloud_init_report(Files(None)) is None
    assert await cloud_init_report(Files({})) is None
    assert await cloud_init_report(Files({"status.json": b"\xff", "result.json": b"[" * 100_000})) is None


class Watched:
    """The probes of a machine without any, as the runner observes them."""

    def __init__(self) -> None:
        self.changes = asyncio.Event()
        self.probing = Probing((), (), lambda _port: None, self.changes.set, self._recorded, self._ready)

    async def _recorded(self, held: tuple[int, ...]) -> None:
        assert held == ()

    async def _ready(self) -> None:
        """Nobody waits for it."""

    def agent(self, agent: Files | None) -> None:
        self.probing.observed(Standing(True, agent, (ProbeResult(),)))

    async def state(self, wanted: str) -> None:
        async with asyncio.timeout(5):
            while self.probing.report is None or self.probing.report.state != wanted:
                self.changes.clear()
                await self.changes.wait()


async def test_a_guest_is_asked_once_when_the_console_says_that_it_ended() -> None:
    watched, agent = (
        Watched(),
        Files({"status.json": {"v1": {"init": STAGE}}, "result.json": {"v1": {"errors": ["x"]}}}),
    )
    task = asyncio.create_task(watched.probing.run())
    watched.agent(agent)
    watched.probing.cloud_init_runs()
    await watched.state("running")
    assert agent.asked == []
    watched.probing.cloud_init_finished(failed=False)
    async with asyncio.timeout(5):
        while watched.probing.report is None or not watched.probing.report.stages:
            watched.changes.clear()
            await watched.changes.wait()
    assert watched.probing.report.errors == ("x",)
    before = len(agent.asked)
    watched.probing.nudge()
    watched.agent(None)
    watched.agent(agent)
    await asyncio.sleep(0)
    assert len(agent.asked) == before
    task.cancel()
    await asyncio.wait({task})


async def test_without_an_agent_the_consoles_word_is_what_there_is_until_one_answers() -> None:
    watched, agent = Watched(), Files(FINE)
    task = asyncio.create_task(watched.probing.run())
    watched.agent(None)
    watched.probing.cloud_init_finished(failed=True)
    await watched.state("error")
    assert watched.probing.report is not None
    assert watched.probing.report.stages == ()
    watched.agent(agent)
    await watched.state("done")
    task.cancel()
    await asyncio.wait({task})


async def test_a_guest_that_answers_nonsense_is_asked_again_by_its_next_connection_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probing, "_WRITES_WITHIN_S", 0)
    watched, nonsense, better = Watched(), Files({"status.json": b"\xff"}), Files(FINE)
    task = asyncio.create_task(watched.probing.run())
    watched.agent(nonsense)
    watched.probing.cloud_init_finished(failed=False)
    async with asyncio.timeout(5):
        await nonsense.was_asked.wait()
    await watched.state("done")
    for _ in range(20):
        watched.probing.nudge()
        await asyncio.sleep(0)
    assert nonsense.asked.count("status.json") == 1
    # The connection has to break first.
    watched.agent(None)
    await asyncio.sleep(0)
    watched.agent(better)
    async with asyncio.timeout(5):
        while watched.probing.report is None or not watched.probing.report.stages:
            watched.changes.clear()
            await watched.changes.wait()
    task.cancel()
    await asyncio.wait({task})


async def test_another_boot_knows_nothing_of_the_one_before() -> None:
    watched = Watched()
    task = asyncio.create_task(watched.probing.run())
    watched.agent(Files(FINE))
    watched.probing.cloud_init_finished(failed=False)
    await watched.state("done")
    watched.probing.begin_anew()
    assert watched.probing.report is None
    task.cancel()
    await asyncio.wait({task})


class Late(Files):
    """A guest whose cloud-init writes its result after it has printed that it has finished."""

    def __init__(self, files: Mapping[str, object], at_read: int) -> None:
        super().__init__(files)
        self._at_read = at_read

    async def execute(
        self, argv: tuple[str, ...], env: dict[str, str], stdin: bytes, timeout_s: float
    ) -> ExecResult:
        if argv[-1].endswith("result.json") and self.asked.count("result.json") + 1 < self._at_read:
            self.asked.append("result.json")
            return ExecResult(1, b"", b"No such file", truncated=False)
        return await super().execute(argv, env, stdin, timeout_s)


async def test_a_result_that_comes_after_the_consoles_word_is_waited_for() -> None:
    failed = {"v1": {"errors": ["('scripts-user', RuntimeError('no'))"]}}
    watched, agent = Watched(), Late({"status.json": {"v1": {"init": STAGE}}, "result.json": failed}, 3)
    task = asyncio.create_task(watched.probing.run())
    watched.agent(agent)
    watched.probing.cloud_init_finished(failed=False)
    async with asyncio.timeout(5):
        while watched.probing.report is None or not watched.probing.report.stages:
            watched.changes.clear()
            await watched.changes.wait()
    assert watched.probing.cloud_init.result is CloudInit.ERROR
    assert watched.probing.report.state == "error"
    assert watched.probing.report.failed_modules == ("scripts-user",)
    task.cancel()
    await asyncio.wait({task})


async def test_a_result_that_never_comes_leaves_the_consoles_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_WRITES_WITHIN_S", 0.3)
    watched, agent = Watched(), Files({"status.json": {"v1": {"init": STAGE}}})
    task = asyncio.create_task(watched.probing.run())
    watched.agent(agent)
    watched.probing.cloud_init_finished(failed=False)
    async with asyncio.timeout(5):
        while watched.probing.report is None or not watched.probing.report.stages:
            watched.changes.clear()
            await watched.changes.wait()
    assert agent.asked.count("result.json") > 2
    assert watched.probing.cloud_init.result is CloudInit.DONE
    assert watched.probing.report.state == "done"
    task.cancel()
    await asyncio.wait({task})


async def test_an_agent_that_comes_after_the_consoles_word_corrects_it() -> None:
    failed = {"v1": {"errors": ["('scripts-user', RuntimeError('no'))"]}}
    watched, agent = Watched(), Files({"status.json": {"v1": {"init": STAGE}}, "result.json": failed})
    task = asyncio.create_task(watched.probing.run())
    watched.probing.cloud_init_finished(failed=False)
    async with asyncio.timeout(5):
        while watched.probing.cloud_init.result is CloudInit.UNSEEN:
            watched.changes.clear()
            await watched.changes.wait()
        watched.agent(agent)
        while watched.probing.cloud_init.result is CloudInit.DONE:
            watched.changes.clear()
            await watched.changes.wait()
    assert watched.probing.cloud_init.result is CloudInit.ERROR
    assert "scripts-user" in watched.probing.cloud_init.detail
    task.cancel()
    await asyncio.wait({task})
