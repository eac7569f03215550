"""Time QMP event → SSE client against a bare QMP reader of the same QEMU.

What both are timed from is a SIGTERM, upon which QEMU tells SHUTDOWN at once. A reader of the monitor has
that line; a client of the API has the instance's event that says that it no longer runs.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from qcstack.demo.rest import EventStream, RestClient
from raw_qemu import command, monitor, process_of, rewired
from run import small_guest, stack

NAME = "bench-events"
SPEC = {"name": NAME, "image": "tiny", "vm": {"cpus": 1, "memory": "128M"}, "nics": [], "start": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    told, read = [], []
    with stack() as layout, tempfile.TemporaryDirectory(dir="/var/tmp", prefix="qc-bench-") as scratch:
        rest = RestClient(layout.gateway_port, lambda _curl: None)
        rest.upload("/v1/images/tiny", small_guest(), lambda _done, _total: None)
        instance = rest.call("POST", "/v1/instances", SPEC, wait_s=60).body
        for number in range(arguments.rounds):
            if number:
                rest.call("POST", f"/v1/instances/{NAME}/start", {}, wait_s=60)
            pid, argv = process_of(instance["id"])
            told.append(to_client(rest, pid))
            read.append(to_reader(argv, Path(scratch)))
    median, slowest = statistics.median(told), statistics.quantiles(told, n=100, method="inclusive")[98]
    bare = statistics.median(read)
    print(
        f"QMP event → SSE client: median {median * 1000:.1f} ms, p99 {slowest * 1000:.1f} ms "
        f"(of {len(told)}); → bare QMP reader: median {bare * 1000:.1f} ms; ratio {median / bare:.1f}"
    )


def to_client(rest: RestClient, pid: int) -> float:
    """End QEMU; return the seconds until an SSE client knows, and wait until all of it has been told."""
    events = rest.events()
    try:
        # The first thing in a stream is that it has begun.
        next(iter(events))
        begin = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        seconds = told_within(events, begin)
        until_failed(events)
        return seconds
    finally:
        events.close()


def told_within(events: EventStream, begin: float) -> float:
    for event in events:
        if event.get("type") == "instance.updated":
            conditions = {one["type"]: one["status"] for one in event["resource"]["status"]["conditions"]}
            if conditions["MachineRunning"] != "TRUE":
                return time.monotonic() - begin
    raise RuntimeError("the events ended")


def until_failed(events: EventStream) -> None:
    """Return when the system's own operation about the end is over: then the instance can be started."""
    for event in events:
        if event.get("type") == "operation.finished":
            return
    raise RuntimeError("the events ended")


def to_reader(argv: list[str], scratch: Path) -> float:
    """Start the same QEMU by hand, end it, and return the seconds until its monitor tells SHUTDOWN."""
    words, paths = rewired(argv, scratch)
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        lines = monitor(paths)
        command(lines, "cont")
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        while json.loads(lines.readline()).get("event") != "SHUTDOWN":
            pass
        return time.monotonic() - begin
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
