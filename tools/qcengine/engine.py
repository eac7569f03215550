"""Docker Engine on a host without one: installed from Debian, started without a service manager, ended.

Owns one dockerd with directories of its own. An engine that it did not start is used and never touched.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from signal import SIGTERM
from typing import Final

from qcstack.processes import ProcessId

from qcengine import debian, plugins
from qcengine.errors import EngineError, EngineMissingError
from qcengine.footprint import Footprint

RUN: Final = Path("/run/qcontroller-engine")
DATA: Final = Path("/var/lib/qcontroller-engine")
_RECORD: Final = RUN / "engine.json"
_LOG: Final = RUN / "dockerd.log"
_UP_WITHIN_S: Final = 60.0
# Containers get their own grace periods, of which vm-host's is the longest.
_DOWN_WITHIN_S: Final = 180.0
_SAFE_BUILDER: Final = 23


def answers() -> bool:
    """Tell whether an engine answers the Docker client; a client alone is no engine."""
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def builds_in_parallel() -> bool:
    """Tell whether several images may be built at the same time.

    Engines before 23 mix up builds that share stages, or die of them.
    """
    done = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    major = done.stdout.partition(".")[0]
    return major.isdecimal() and int(major) >= _SAFE_BUILDER


def start(cache: Path, say: Callable[[str], None]) -> None:
    """Make sure that an engine answers, with Compose v2 and buildx; say what is done and why.

    Raises:
        EngineError: It cannot be had here.
        BuildError: Apt or the mirror refused.
    """
    if answers():
        say("an engine answers already; it is used as it is")
    else:
        _start_own(say)
    if lacking := plugins.missing():
        say(f"the Docker client lacks {' and '.join(lacking)}: unpacking them from Debian {debian.SUITE}")
        plugins.install(lacking, cache)
        if lacking := plugins.missing():
            raise EngineError(f"the Docker client does not take the plugins {', '.join(lacking)}")


def stop(say: Callable[[str], None], *, data: bool) -> None:
    """End the engine that `start` started and put the host's network back; `data` removes images too.

    Raises:
        EngineError: It does not end.
    """
    if not _RECORD.exists():
        say("no engine was started here; nothing to end")
    else:
        record = json.loads(_RECORD.read_text(encoding="utf-8"))
        process = ProcessId(record["pid"], record["startTicks"])
        process.signal(SIGTERM)
        if not process.wait_gone(_DOWN_WITHIN_S):
            raise EngineError(f"dockerd (pid {process.pid}) does not end; its log is {_LOG}")
        _unmount()
        Footprint(**record["before"]).restore()
        shutil.rmtree(RUN)
        say("dockerd has ended; its bridges, chains and settings are gone")
    if data and DATA.exists():
        _unmount()
        shutil.rmtree(DATA)
        say(f"removed {DATA}")


def _start_own(say: Callable[[str], None]) -> None:
    if os.geteuid() != 0:
        raise EngineMissingError("no Docker engine answers, and only root can start one")
    # nftables tells what tables there were before, iproute2 removes bridges.
    needed = {
        "dockerd": "docker.io",
        "docker": "docker.io",
        "iptables": "iptables",
        "nft": "nftables",
        "ip": "iproute2",
    }
    lacking = sorted({package for program, package in needed.items() if shutil.which(program) is None})
    if lacking:
        say(f"no Docker engine answers: installing {', '.join(lacking)} from Debian")
        debian.install(lacking)
        if answers():
            say("the host's service manager has started it")
            return
    if _RECORD.exists():
        # It died, and what it left must not be taken for what the host had before it.
        stop(say, data=False)
    say(f"starting dockerd as a process of its own: log {_LOG}, data {DATA}")
    RUN.mkdir(mode=0o711, exist_ok=True)
    before = Footprint.look()
    with _LOG.open("ab") as log:
        process = subprocess.Popen(
            [
                "dockerd",
                *("--data-root", DATA, "--exec-root", RUN / "exec", "--pidfile", RUN / "dockerd.pid"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    identity = ProcessId.of(process.pid)
    record = {"pid": identity.pid, "startTicks": identity.start_ticks, "before": before.document()}
    _RECORD.write_text(json.dumps(record), encoding="utf-8")
    give_up = time.monotonic() + _UP_WITHIN_S
    while not answers():
        if process.poll() is not None or time.monotonic() > give_up:
            last = _LOG.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=_DOWN_WITHIN_S)
            stop(say, data=False)
            raise EngineError("dockerd does not start:\n" + "\n".join(last))
        # Nobody announces a daemon's socket to a process that is not its service manager.
        time.sleep(0.1)


def _unmount() -> None:
    """Detach what a killed engine left mounted below its directories; the innermost first."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    for path in sorted((line.split()[1] for line in mounts), key=len, reverse=True):
        if Path(path).is_relative_to(RUN) or Path(path).is_relative_to(DATA):
            subprocess.run(["umount", path], check=False, stderr=sys.stderr)
