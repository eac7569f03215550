"""Programs and files of a guest through the API, against its agent asked by hand in the same QEMU."""

import argparse
import base64
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qcstack.demo.rest import RestClient
from qcstack.layout import StackLayout
from raw_qemu import argv_of, command, connected, monitor, rewired, wait_for_port
from run import small_guest, stack

NAME = "bench-agent"
SPEC = {"name": NAME, "image": "tiny", "vm": {"cpus": 1, "memory": "512M"}, "nics": [], "start": True}
MIB = 2**20
PIECE = 256 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="programs of each kind")
    parser.add_argument("--mib", type=int, default=16, help="size of the file")
    arguments = parser.parse_args()
    with stack() as layout, tempfile.TemporaryDirectory(dir="/var/tmp", prefix="qc-bench-") as scratch:
        rest = RestClient(layout.gateway_port, lambda _curl: None)
        rest.upload("/v1/images/tiny", small_guest(), lambda _done, _total: None)
        instance = rest.call("POST", "/v1/instances", SPEC, wait_s=60).body
        rest.call("GET", f"/v1/instances/{NAME}/wait?condition=AgentConnected&timeout=300")
        ours = through_api(layout, rest, Path(scratch), arguments.rounds, arguments.mib)
        argv = argv_of(instance["id"])
        rest.call("POST", f"/v1/instances/{NAME}/stop", {"force": True}, wait_s=60)
        with agent_by_hand(argv, Path(scratch)) as agent:
            bare = by_hand(agent, arguments.rounds, arguments.mib)
    tell("exec /bin/true", "ms", 1000 * ours[0], 1000 * bare[0])
    tell("push", "MiB/s", arguments.mib / ours[1], arguments.mib / bare[1])
    tell("pull", "MiB/s", arguments.mib / ours[2], arguments.mib / bare[2])


def through_api(
    layout: StackLayout, rest: RestClient, scratch: Path, rounds: int, mib: int
) -> tuple[float, float, float]:
    """Return the seconds of a program, of a push and of a pull."""
    times = []
    for _ in range(rounds):
        begin = time.monotonic()
        rest.call("POST", f"/v1/instances/{NAME}/exec", {"argv": ["/bin/true"]})
        times.append(time.monotonic() - begin)
    file = scratch / "file"
    file.write_bytes(os.urandom(mib * MIB))
    path = f"/v1/instances/{NAME}/files?path=/tmp/file"
    begin = time.monotonic()
    rest.upload(path, file, lambda _done, _total: None)
    pushed = time.monotonic() - begin
    begin = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{layout.gateway_port}{path}", timeout=600) as response:
        assert response.read() == file.read_bytes()
    return statistics.median(times), pushed, time.monotonic() - begin


def by_hand(agent: Any, rounds: int, mib: int) -> tuple[float, float, float]:
    """Return the same of the agent's own commands; nothing is counted, renamed or checked."""
    times = []
    for _ in range(rounds):
        begin = time.monotonic()
        pid = ask(agent, "guest-exec", path="/bin/true", **{"capture-output": True})["pid"]
        while not ask(agent, "guest-exec-status", pid=pid)["exited"]:
            pass
        times.append(time.monotonic() - begin)
    piece = base64.b64encode(os.urandom(PIECE)).decode()
    begin = time.monotonic()
    handle = ask(agent, "guest-file-open", path="/tmp/file", mode="w+")
    for _ in range(mib * MIB // PIECE):
        ask(agent, "guest-file-write", handle=handle, **{"buf-b64": piece})
    ask(agent, "guest-file-close", handle=handle)
    pushed = time.monotonic() - begin
    begin = time.monotonic()
    handle = ask(agent, "guest-file-open", path="/tmp/file", mode="r")
    while ask(agent, "guest-file-read", handle=handle, count=PIECE)["count"]:
        pass
    return statistics.median(times), pushed, time.monotonic() - begin


@contextlib.contextmanager
def agent_by_hand(argv: list[str], scratch: Path) -> Iterator[Any]:
    """Start the same QEMU with sockets of our own, and yield its agent's as a file."""
    words, paths = rewired(argv, scratch)
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        lines = monitor(paths)
        command(lines, "cont")
        wait_for_port(lines)
        connection = connected(next(path for name, path in paths.items() if "agent" in name))
        connection.settimeout(60)
        agent = connection.makefile("rwb")
        ask(agent, "guest-ping")
        yield agent
    finally:
        process.kill()
        process.wait()


def ask(agent: Any, name: str, **arguments: object) -> Any:
    """Return what the agent returns."""
    agent.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
    agent.flush()
    return json.loads(agent.readline())["return"]


def tell(what: str, unit: str, ours: float, bare: float) -> None:
    """Print one comparison."""
    print(f"{what}: {ours:.1f} {unit} through the API, {bare:.1f} {unit} by hand; ratio {ours / bare:.2f}")


if __name__ == "__main__":
    main()
