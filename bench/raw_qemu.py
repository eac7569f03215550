"""QEMU as the stack starts it, but by hand: what the rest of the stack is measured against."""

import contextlib
import json
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any


def argv_of(instance_id: str) -> list[str]:
    return process_of(instance_id)[1]


def process_of(instance_id: str) -> tuple[int, list[str]]:
    """Return pid and argument list of the instance's QEMU."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_bytes().decode().rstrip("\0").split("\0")
            if Path(words[0]).name.startswith("qemu-system-") and instance_id in words:
                return int(entry.parent.name), words
    raise RuntimeError("the instance's QEMU is not there")


def by_hand(argv: list[str], scratch: Path) -> tuple[float, float]:
    """Start `argv` with sockets of our own in the place of the passed ones; time first reply and agent."""
    words, paths = rewired(argv, scratch)
    agent_path = next(path for name, path in paths.items() if "agent" in name)
    begin = time.monotonic()
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        lines = monitor(paths)
        reply = time.monotonic() - begin
        command(lines, "cont")
        agent = connected(agent_path)
        wait_for_port(lines)
        agent.settimeout(0.05)
        while True:
            # An agent that has opened its port does not read it at once: asked again until it answers.
            agent.sendall(b'{"execute": "guest-ping"}\n')
            with contextlib.suppress(TimeoutError):
                if agent.recv(4096):
                    break
        return reply, time.monotonic() - begin
    finally:
        process.kill()
        process.wait()


def rewired(argv: list[str], scratch: Path) -> tuple[list[str], dict[str, Path]]:
    """Return `argv` with sockets in `scratch` in the place of the passed ones, and their paths by name."""
    paths: dict[str, Path] = {}
    words = []
    for word in argv:
        chardev = re.match(r"socket,id=([^,]+),(.*)fd=\d+(.*)", word)
        if chardev is None:
            words.append(word)
            continue
        path = scratch / f"{chardev[1]}.sock"
        path.unlink(missing_ok=True)
        paths[chardev[1]] = path
        rest = re.sub(r",?(server|wait)=\w+", "", chardev[2] + chardev[3]).strip(",")
        words.append(f"socket,id={chardev[1]},path={path},server=on,wait=off" + (f",{rest}" if rest else ""))
    return words, paths


def monitor(paths: dict[str, Path]) -> Any:
    """Connect to QEMU's monitor and return it as a file, with the greeting done."""
    qmp_path = next(path for name, path in paths.items() if "qmp" in name and "vmhost" not in name)
    lines = connected(qmp_path).makefile("rwb")
    lines.readline()
    command(lines, "qmp_capabilities")
    return lines


def wait_for_port(lines: Any) -> None:
    """Return when the guest has opened a port, which only the agent does in this guest.

    What is written before would pile up in QEMU's socket until it takes no more.
    """
    while True:
        event = json.loads(lines.readline())
        if event.get("event") == "VSERPORT_CHANGE" and event["data"]["open"]:
            return


def command(lines: Any, name: str) -> None:
    lines.write(json.dumps({"execute": name}).encode() + b"\n")
    lines.flush()
    while "return" not in json.loads(lines.readline()):
        pass


def connected(path: Path) -> socket.socket:
    give_up = time.monotonic() + 30
    connection = socket.socket(socket.AF_UNIX)
    while True:
        try:
            connection.connect(str(path))
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.001)
        else:
            return connection
