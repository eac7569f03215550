"""What a guest tells of itself, and what becomes of it where it lies."""

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from qemu_runner.domain.guest_report import GuestFilesystem, GuestLoad, GuestMemory, GuestReport
from qemu_runner.guest_agent.report import balloon_memory, guest_report
from scripted_agent import Answer, agent, client, refusing, reply, telling

UNKNOWN = 2**64 - 1
FILES = {
    "/proc/loadavg": "0.50 0.25 0.10 1/99 4711\n",
    "/proc/meminfo": "MemTotal:  2048 kB\nMemFree: 1024 kB\nMemAvailable: 1500 kB\nX: x\nCached: 12 kB\n",
}
HONEST: dict[str, Any] = {
    "guest-info": {"version": "7.2.22"},
    "guest-get-host-name": {"host-name": "web-1"},
    "guest-get-osinfo": {"id": "debian", "pretty-name": "Debian"},
    "guest-get-timezone": {"zone": "CET", "offset": 3600},
    "guest-network-get-interfaces": [
        {"name": "lo", "ip-addresses": [{"ip-address": "127.0.0.1"}]},
        {
            "name": "eth0",
            "hardware-address": "52:54:00:00:00:01",
            "ip-addresses": [{"ip-address": "10.0.0.2"}, {"ip-address": "fe80::1"}],
        },
    ],
    "guest-get-users": [{"user": "ada", "domain": "", "login-time": 1_700_000_000.5}],
    "guest-get-fsinfo": [
        {"mountpoint": "/srv", "name": "vdb1", "type": "ext4", "total-bytes": 100, "used-bytes": 40},
        {"mountpoint": "/", "name": "vda1", "type": "ext4"},
    ],
}


def guest(answers: dict[str, Any], files: dict[str, str]) -> Answer:
    """Make an agent that also lets the files be read."""
    paths = dict(enumerate(files))
    told = telling(answers)

    async def answer(command: dict[str, Any], writer: Any) -> None:
        arguments = command.get("arguments", {})
        match command["execute"]:
            case "guest-file-open" if arguments["path"] in files:
                reply(writer, {"return": next(n for n, path in paths.items() if path == arguments["path"])})
            case "guest-file-read":
                text = files[paths[arguments["handle"]]]
                reply(writer, {"return": {"buf-b64": base64.b64encode(text.encode()).decode(), "eof": True}})
            case "guest-file-close":
                reply(writer, {"return": {}})
            case _:
                await told(command, writer)

    return answer


async def reported(tmp_path: Path, answer: Answer, balloon: GuestMemory | None = None) -> GuestReport:
    async with agent(tmp_path, answer) as path, client(path) as it:
        return await guest_report(it, balloon)


async def test_what_an_honest_guest_tells_is_told(tmp_path: Path) -> None:
    report = await reported(tmp_path, guest(HONEST, FILES))
    assert (report.info.hostname, report.info.os.pretty_name, report.agent_version) == (
        "web-1",
        "Debian",
        "7.2.22",
    )
    assert report.info.time_zone is not None
    assert (report.info.time_zone.name, report.info.time_zone.offset_s) == ("CET", 3600)
    (card,) = report.info.interfaces
    assert (card.name, [one.family for one in card.addresses]) == ("eth0", ["ipv4", "ipv6"])
    assert [(one.name, one.login_time) for one in report.users] == [
        ("ada", datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC))
    ]
    assert report.filesystems == (
        GuestFilesystem("/", "vda1", "ext4"),
        GuestFilesystem("/srv", "vdb1", "ext4", 100, 40),
    )
    assert report.load == GuestLoad(0.5, 0.25, 0.1)
    assert report.memory == GuestMemory("agent", 2048 * 1024, 1024 * 1024, 1500 * 1024, 12 * 1024)


async def test_an_agents_own_word_for_the_load_goes_before_the_file(tmp_path: Path) -> None:
    loads = {"guest-get-load": {"load1m": 1.0, "load5m": 2, "load15m": 3.5}}
    report = await reported(tmp_path, guest(HONEST | loads, FILES))
    assert report.load == GuestLoad(1.0, 2.0, 3.5)


async def test_an_agent_that_refuses_everything_leaves_everything_empty(tmp_path: Path) -> None:
    report = await reported(tmp_path, refusing("no"))
    assert report == GuestReport(time=report.time, info=report.info)
    assert (report.info.hostname, report.info.interfaces, report.info.time_zone) == ("", (), None)


async def test_the_balloon_spares_the_agent_the_question_for_memory(tmp_path: Path) -> None:
    balloon = GuestMemory("balloon", total_bytes=5)
    assert (await reported(tmp_path, guest(HONEST, FILES), balloon)).memory == balloon


LIES: list[dict[str, Any]] = [
    {"guest-get-users": [{"user": "x", "login-time": 1e300}]},
    {"guest-get-users": [{"user": "x", "login-time": True}, 7, {"user": 5}]},
    {"guest-get-users": {"user": "x"}},
    {"guest-get-fsinfo": [{"mountpoint": "/", "total-bytes": -1, "used-bytes": UNKNOWN}]},
    {"guest-get-fsinfo": [{"mountpoint": "/", "total-bytes": 2**200, "used-bytes": 1.5}]},
    {"guest-get-fsinfo": "/"},
    {"guest-get-load": {"load1m": float("nan"), "load5m": float("inf"), "load15m": -1}},
    {"guest-get-load": {"load1m": "1", "load5m": None, "load15m": 10**9}},
    {"guest-info": {"version": ["7"]}},
]


@pytest.mark.parametrize("lie", LIES)
async def test_lies_become_nothing(tmp_path: Path, lie: dict[str, Any]) -> None:
    report = await reported(tmp_path, guest(HONEST | lie, {}))
    assert [user.login_time for user in report.users] in (
        [],
        [None],
        [datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)],
    )
    assert report.load is None
    for filesystem in report.filesystems:
        assert filesystem.used_bytes in {None, 40}


async def test_lists_without_end_are_cut(tmp_path: Path) -> None:
    many = {"guest-get-users": [{"user": f"u{n}"} for n in range(5000)]}
    assert len((await reported(tmp_path, guest(HONEST | many, {}))).users) == 64


async def test_files_of_proc_may_hold_anything(tmp_path: Path) -> None:
    files = {
        "/proc/loadavg": "nan inf -1 \xff",
        "/proc/meminfo": "MemTotal: 99999999999999999 kB\nMemFree\n:::\n",
    }
    report = await reported(tmp_path, guest(HONEST, files))
    assert (report.load, report.memory) == (None, None)


def test_a_balloons_unknown_values_are_not_told() -> None:
    stats = {
        "stat-total-memory": 128 * 2**20,
        "stat-free-memory": 2**20,
        "stat-available-memory": UNKNOWN,
        "stat-disk-caches": -1,
        "stat-swap-in": 0,
    }
    memory = balloon_memory({"last-update": 1_700_000_000, "stats": stats})
    assert memory == GuestMemory("balloon", total_bytes=128 * 2**20, free_bytes=2**20, swap_in_bytes=0)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"last-update": 0, "stats": {"stat-total-memory": 5}},
        {"last-update": 5},
        {"last-update": 5, "stats": {"stat-total-memory": UNKNOWN}},
    ],
)
def test_a_balloon_that_has_told_nothing_yet_is_none(answer: object) -> None:
    assert balloon_memory(answer) is None
