"""Measure a stack of its own and print ratios; see README.md. Asserts nothing about speed."""

import argparse
import contextlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from qcstack import lifecycle
from qcstack.demo.rest import RestClient
from qcstack.free_bridge import choose_bridge
from qcstack.layout import StackLayout
from qcstack.processes import ProcessId
from raw_qemu import argv_of, by_hand

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
BARE_APP = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
body = open(sys.argv[1], "rb").read()
async def answer(request):
    return Response(body, media_type="application/json")
app = Starlette(routes=[Route("/v1/instances/{name}", answer)])
uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="launches of each kind")
    parser.add_argument("--upload-mib", type=int, default=512)
    arguments = parser.parse_args()
    guest = small_guest()
    with stack() as layout, tempfile.TemporaryDirectory(dir="/var/tmp", prefix="qc-bench-") as scratch:
        rest = RestClient(layout.gateway_port, lambda _curl: None)
        memory(layout)
        rest.upload("/v1/images/tiny", guest, lambda _done, _total: None)
        launches(rest, Path(scratch), arguments.rounds)
        gets(layout, rest, Path(scratch))
        uploads(layout, rest, Path(scratch), arguments.upload_mib)


def small_guest() -> Path:
    """Build the small guest where it is not built, and return its image."""
    built = subprocess.run(
        [ROOT / "packer/guests/tiny/build"],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return Path(built.stdout.splitlines()[-1])


@contextlib.contextmanager
def stack() -> Iterator[StackLayout]:
    gateway, controller, image_store = free_ports(3)
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="qc-bench-") as state:
        layout = replace(StackLayout(Path(state), stop_grace="5s"), gateway_port=gateway)
        layout = replace(layout, controller_port=controller, image_store_port=image_store)
        bridge = choose_bridge()
        layout = replace(layout, bridge=bridge.name, bridge_subnet=bridge.subnet)
        # However a benchmark ends, its stack ends with it.
        process = lifecycle.launch_supervisor(layout, owner=ProcessId.of(os.getpid()))
        try:
            lifecycle.wait_ready(layout, process)
            yield layout
        finally:
            lifecycle.down(layout)
            process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def memory(layout: StackLayout) -> None:
    total = 0.0
    for name, service in lifecycle.status(layout).services.items():
        assert service.process is not None
        pss = pss_mib(service.process.pid)
        total += pss
        print(f"  idle memory of {name:12} {pss:7.1f} MiB PSS")
    print(f"idle memory of the control plane: {total:.1f} MiB PSS")


def pss_mib(pid: int) -> float:
    """Return the memory of a process, what it shares counted in proportion."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    found = re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def launches(rest: RestClient, scratch: Path, rounds: int) -> None:
    to_running, to_agent, by_hand_reply, by_hand_agent = [], [], [], []
    spec = {"image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "nics": [], "start": True}
    for number in range(rounds):
        name = f"bench-{number}"
        begin = time.monotonic()
        instance = rest.call("POST", "/v1/instances", {"name": name, **spec}, wait_s=60).body
        to_running.append(time.monotonic() - begin)
        rest.call("GET", f"/v1/instances/{name}/wait?condition=Ready&timeout=120")
        to_agent.append(time.monotonic() - begin)
        argv = argv_of(instance["id"])
        rest.call("POST", f"/v1/instances/{name}/stop", {"force": True}, wait_s=60)
        reply, agent = by_hand(argv, scratch)
        by_hand_reply.append(reply)
        by_hand_agent.append(agent)
        rest.call("DELETE", f"/v1/instances/{name}", wait_s=60)
    ratio("launch → agent through the API", to_agent, "the same QEMU by hand", by_hand_agent)
    ratio("POST → QMP running", to_running, "raw exec → first QMP reply", by_hand_reply)


def gets(layout: StackLayout, rest: RestClient, scratch: Path) -> None:
    rest.call("POST", "/v1/instances", {"name": "bench-get", "image": "tiny"}, wait_s=60)
    body = scratch / "body.json"
    body.write_text(json.dumps(rest.call("GET", "/v1/instances/bench-get").body), encoding="utf-8")
    (port,) = free_ports(1)
    bare = subprocess.Popen([sys.executable, "-c", BARE_APP, str(body), str(port)])
    try:
        bare_rate = requests_per_second(port)
    finally:
        bare.kill()
        bare.wait()
    rate = requests_per_second(layout.gateway_port)
    print(
        f"GET of an instance: {rate:.0f}/s; bare Starlette, same bytes: {bare_rate:.0f}/s; "
        f"ratio {rate / bare_rate:.2f}"
    )
    rest.call("DELETE", "/v1/instances/bench-get", wait_s=60)


def requests_per_second(port: int, seconds: float = 3.0) -> float:
    request = b"GET /v1/instances/bench-get HTTP/1.1\r\nHost: localhost\r\n\r\n"
    give_up = time.monotonic() + 15
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            break
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)
    with connection:
        stream = connection.makefile("rb")
        count = 0
        begin = time.monotonic()
        while (now := time.monotonic()) - begin < seconds:
            connection.sendall(request)
            length = 0
            while (line := stream.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            stream.read(length)
            count += 1
        return count / (now - begin)


def uploads(layout: StackLayout, rest: RestClient, scratch: Path, size_mib: int) -> None:
    disk = random_disk(scratch / "disk.raw", size_mib)

    def straight() -> None:
        target = layout.state / "straight"
        with disk.open("rb") as source, target.open("wb") as sink:
            while chunk := source.read(MIB):
                sink.write(chunk)
            sink.flush()
            os.fsync(sink.fileno())
        target.unlink()

    plain = size_mib / timed(straight)
    through = size_mib / timed(lambda: rest.upload("/v1/images/bench", disk, lambda _done, _total: None))
    print(
        f"upload: {through:.0f} MiB/s; straight to the disk: {plain:.0f} MiB/s; ratio {through / plain:.2f}"
    )
    rest.call("DELETE", "/v1/images/bench")


def random_disk(path: Path, size_mib: int) -> Path:
    """Write a raw disk that is taken for one, and return its path."""
    block = bytearray(os.urandom(MIB))
    block[510:512] = b"\x55\xaa"
    block[446:462] = (
        bytes([0x80, 0, 2, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little")
    )
    with path.open("wb") as file:
        for _ in range(size_mib):
            file.write(block)
    return path


def timed(action: Callable[[], object]) -> float:
    begin = time.monotonic()
    action()
    return time.monotonic() - begin


def ratio(what: str, ours: list[float], compared: str, theirs: list[float]) -> None:
    one, other = statistics.median(ours), statistics.median(theirs)
    print(f"{what}: {one:.3f} s; {compared}: {other:.3f} s; ratio {one / other:.2f} (medians of {len(ours)})")


if __name__ == "__main__":
    main()
