"""What a guest is doing now, asked of its agent on demand and never by itself.

Load and memory have no command in the agents of today's distributions: they are read from /proc by the
agent's file commands, which run no program.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from qemu_runner.domain.guest_report import (
    GuestFilesystem,
    GuestLoad,
    GuestMemory,
    GuestReport,
    GuestUser,
)
from qemu_runner.guest_agent.answers import content, entries, handle, member, moment, real, size, text
from qemu_runner.guest_agent.client import GuestAgent

_SMALL_BYTES: Final = 8192
_BALLOON: Final[Mapping[str, str]] = {
    "total_bytes": "stat-total-memory",
    "free_bytes": "stat-free-memory",
    "available_bytes": "stat-available-memory",
    "cached_bytes": "stat-disk-caches",
    "swap_in_bytes": "stat-swap-in",
    "swap_out_bytes": "stat-swap-out",
    "major_faults": "stat-major-faults",
}
_MEMINFO: Final[Mapping[str, str]] = {
    "MemTotal": "total_bytes",
    "MemFree": "free_bytes",
    "MemAvailable": "available_bytes",
    "Cached": "cached_bytes",
}


async def guest_report(agent: GuestAgent, balloon: GuestMemory | None) -> GuestReport:
    """Ask for everything; what the agent does not know stays empty.

    Args:
        agent: The guest's agent.
        balloon: What its balloon tells of its memory; None: nothing, so the agent is asked.

    Raises:
        GuestAgentUnavailableError: It answers no more.
    """
    info = await agent.info()
    return GuestReport(
        time=datetime.now(UTC),
        info=info,
        agent_version=text(await agent.ask("guest-info"), "version"),
        users=_users(await agent.ask("guest-get-users")),
        filesystems=_filesystems(await agent.ask("guest-get-fsinfo")),
        load=await _load(agent),
        memory=balloon if balloon is not None else _meminfo(await _small_file(agent, "/proc/meminfo")),
    )


def balloon_memory(answer: object) -> GuestMemory | None:
    """Return what `guest-stats` of a balloon tells (QEMU's docs/interop/virtio-balloon-stats).

    None where the guest has told nothing yet: its driver is not loaded, or is young.
    """
    if not size(answer, "last-update"):
        return None
    stats = member(answer, "stats")
    told = {name: size(stats, key) for name, key in _BALLOON.items()}
    return GuestMemory("balloon", **told) if told["total_bytes"] else None


def _users(answer: object) -> tuple[GuestUser, ...]:
    found = (
        GuestUser(text(entry, "user"), text(entry, "domain"), moment(entry, "login-time"))
        for entry in entries(answer)
    )
    return tuple(user for user in found if user.name)


def _filesystems(answer: object) -> tuple[GuestFilesystem, ...]:
    found = (
        GuestFilesystem(
            text(entry, "mountpoint"),
            text(entry, "name"),
            text(entry, "type"),
            size(entry, "total-bytes"),
            size(entry, "used-bytes"),
        )
        for entry in entries(answer)
    )
    return tuple(sorted((one for one in found if one.mountpoint), key=lambda one: one.mountpoint))


async def _load(agent: GuestAgent) -> GuestLoad | None:
    told = await agent.ask("guest-get-load")
    averages = [real(member(told, key)) for key in ("load1m", "load5m", "load15m")]
    if None in averages:
        averages = [_decimal(word) for word in (await _small_file(agent, "/proc/loadavg")).split()[:3]]
    one, five, fifteen = (*averages, None, None, None)[:3]
    if one is None or five is None or fifteen is None:
        return None
    return GuestLoad(one, five, fifteen)


def _meminfo(told: str) -> GuestMemory | None:
    amounts: dict[str, int] = {}
    for line in told.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if name in _MEMINFO and words and words[0].isascii() and words[0].isdigit() and len(words[0]) < 16:
            amounts[_MEMINFO[name]] = int(words[0]) * 1024
    return GuestMemory("agent", **amounts) if "total_bytes" in amounts else None


async def _small_file(agent: GuestAgent, path: str) -> str:
    """Return the beginning of a small file; "" where the agent does not let us read it."""
    opened = await agent.ask("guest-file-open", {"path": path, "mode": "r"})
    if opened is None:
        return ""
    number = handle(opened)
    try:
        answer = await agent.ask("guest-file-read", {"handle": number, "count": _SMALL_BYTES})
    finally:
        await agent.ask("guest-file-close", {"handle": number})
    return content(member(answer, "buf-b64"), _SMALL_BYTES).decode("ascii", "replace")


def _decimal(word: str) -> float | None:
    try:
        return real(float(word))
    except ValueError:
        return None
