"""The console's log and what it tells, through the whole stack: judged from the guest and the log itself."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, Document
from framework.stack import eventually, running_stack

LINES = 2000
NUMBERED = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo num-$i-; done; echo num-end"
OOPS = "<1>BUG: kernel NULL pointer dereference, address: 0000000000000008"


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    """A stack of this module's own, which may be broken, with the tiny image in it."""
    with running_stack("qc-console-") as running, BlockingApiClient(running.base_url) as api:
        found = Cloud(running, api)
        found.upload("tiny", guests.tiny())
        yield found


def begin(cloud: Cloud, name: str, script: str, to: str) -> None:
    """Have the guest print something that nobody waits for."""
    cloud.exec(name, "/bin/sh", "-c", f"(sleep 0.3; {script}) >{to} 2>&1 &")


def health(cloud: Cloud, name: str) -> Document:
    conditions = cloud.get(name)["status"]["conditions"]
    found: Document = next(one for one in conditions if one["type"] == "GuestHealthy")
    return found


def test_a_follower_gets_every_line_over_the_death_of_the_runner(cloud: Cloud) -> None:
    name = cloud.launch_ready()["name"]
    began = datetime.now(UTC)
    begin(cloud, name, f"echo; {NUMBERED}", "/dev/ttyS0")
    seen, killed = b"", False
    path = f"/v1/instances/{name}/console"
    with cloud.api.stream("GET", f"{path}?follow=true", timeout=120) as response:
        assert response.headers["console-offset"] == "0"
        for part in response.iter_bytes():
            seen += part
            if b"num-100-" in seen and not killed:
                cloud.stack.kill_and_wait_restarted("qemu-runner")
                killed = True
            if b"num-end" in seen:
                break
    assert killed
    assert [int(n) for n in re.findall(rb"num-(\d+)-", seen)] == list(range(1, LINES + 1))

    whole = cloud.api.get(path)
    assert whole.content.startswith(seen)
    ranged = cloud.api.get(path, headers={"Range": "bytes=10-29"})
    assert (ranged.status_code, ranged.content) == (206, seen[10:30])
    times = [
        (datetime.fromisoformat(found[1]), found[2])
        for line in cloud.api.get(f"{path}?timestamps=true").text.splitlines()
        if (found := re.match(r"(\S+?Z)(~?) num-\d+-", line))
    ]
    assert len(times) == LINES
    assert times[0][0] >= began - timedelta(seconds=1)
    assert [moment for moment, _ in times] == sorted(moment for moment, _ in times)
    assert {"", "~"} == {mark for _, mark in times}, (
        "what came while nobody watched is marked, and nothing else"
    )


def test_trouble_is_a_condition_until_the_guest_boots_again(cloud: Cloud) -> None:
    name = cloud.launch_ready()["name"]
    assert health(cloud, name)["status"] == "TRUE"
    begin(cloud, name, f"echo '{OOPS}'", "/dev/kmsg")
    told = eventually(
        lambda: found if (found := health(cloud, name))["status"] == "FALSE" else None, f"{name} is ill"
    )
    assert told["reason"] == "KERNEL_OOPS"
    assert re.match(r"KERNEL_OOPS: \[ *\d+\.\d+\] BUG: kernel NULL pointer", told["message"])
    begin(cloud, name, "tail /dev/zero", "/dev/null")
    eventually(lambda: "OUT_OF_MEMORY" in health(cloud, name)["message"] or None, f"{name} is out of memory")
    begin(cloud, name, "reboot -f", "/dev/null")
    eventually(lambda: health(cloud, name)["status"] == "TRUE" or None, f"{name} has booted anew")
