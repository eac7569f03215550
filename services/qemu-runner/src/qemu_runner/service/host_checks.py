"""Checks of the host that belong to no part of the runner: its clock, and the container engine beside it.

They look and change nothing.
"""

import asyncio
import ctypes
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qemu_runner.user_network import Check, CheckStatus

# The engine makes this file in every container (podman: the other one).
_INSIDE: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
_SOCKET: Final = Path("/run/docker.sock")
_ENGINE_SETTINGS: Final = Path("/etc/docker/daemon.json")
_NOT_SYNCHRONISED: Final = 5  # TIME_ERROR
_TIMEX_BYTES: Final = 512  # more than `struct timex` of any ABI; zeros ask for nothing to be set


async def host_checks() -> list[Check]:
    """Return all of them."""
    state = await asyncio.to_thread(_clock_state)
    engine = await asyncio.to_thread(live_restore_check, _SOCKET, _ENGINE_SETTINGS, _INSIDE)
    return [clock_check(state), engine]


def clock_check(state: int | None) -> Check:
    """Report whether the clock follows another one.

    Args:
        state: What adjtimex(2) returned; None: it may not be asked here.
    """
    if state is None:
        return Check(
            "clock", CheckStatus.WARN, "the kernel does not tell.", "look at the host: `timedatectl`."
        )
    if state == _NOT_SYNCHRONISED:
        return Check(
            "clock",
            CheckStatus.WARN,
            "the clock follows no other: logs, certificates and an S3 store's signatures depend on it.",
            "run a time service (chrony, systemd-timesyncd), or have the host's hypervisor set the clock.",
        )
    return Check("clock", CheckStatus.PASS, "the clock is synchronised.")


def live_restore_check(socket: Path, settings: Path, inside: Sequence[Path] = ()) -> Check:
    """Report whether a restart of the container engine ends containers, and so machines in them.

    Args:
        socket: The engine's.
        settings: The engine's.
        inside: Files of which one exists where this process is in a container itself, and sees neither.
    """
    name = "engine-live-restore"
    if not socket.exists() and any(file.exists() for file in inside):
        return Check(
            name,
            CheckStatus.WARN,
            "the engine's settings cannot be seen from this container: without live-restore, its restart "
            "ends all machines.",
            "ask on the host: `docker info --format '{{.LiveRestoreEnabled}}'` (`make doctor` does), and set "
            f'"live-restore": true in {settings}.',
        )
    if not socket.exists():
        return Check(name, CheckStatus.PASS, "no container engine is seen here.")
    try:
        found = json.loads(settings.read_text(encoding="utf-8"))
        kept = isinstance(found, dict) and found.get("live-restore") is True
    except (OSError, ValueError):
        kept = False
    if kept:
        return Check(name, CheckStatus.PASS, "containers survive a restart of the engine.")
    return Check(
        name,
        CheckStatus.WARN,
        "a restart of the engine ends its containers: machines end too if vm-host runs in one.",
        f'set "live-restore": true in {settings} and reload the engine.',
    )


def _clock_state() -> int | None:
    libc = ctypes.CDLL(None, use_errno=True)
    state = int(libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)))
    return None if state < 0 else state
