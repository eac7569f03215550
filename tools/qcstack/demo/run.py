"""The steps of `make demo`: REST calls, and looks at the host before and after.

Where the stack runs and how it is started and ended is a stage's matter (`stages`).
"""

import http.client
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from qcstack import host_snapshot, lifecycle
from qcstack.demo.interruption import Interruption
from qcstack.demo.rest import CallError, EventStream, RestClient
from qcstack.demo.screen import Screen
from qcstack.demo.stages import Stage

_INSTANCE: Final = "/v1/instances/demo-1"
_IMAGE: Final = "/v1/images/tiny"
_READY_WITHIN_S: Final = 120


def run_demo(stage: Stage, guest: Path | None) -> int:
    """Run the whole demo; 0 if every step did what it says and nothing is left."""
    if guest is None or not guest.is_file():
        raise lifecycle.StackError("no guest image: run `make demo`, which builds it, or give --guest=FILE")
    lifecycle.refuse_taken_ports(stage.layout)
    screen = Screen()
    stage.prepare(screen)
    interruption = Interruption()
    interruption.arm()
    before = host_snapshot.take()
    with stage.opened():
        try:
            try:
                _run_stack(stage, guest, screen)
            finally:
                # From here on nothing may come between the stack and its end: a signal that arrives before
                # this takes effect is the first, and no later one raises.
                interruption.disarm()
                screen.cleaning()
        except KeyboardInterrupt:
            screen.line("\ninterrupted: cleaning up, which further signals do not hasten")
            return 130
        except CallError as exc:
            screen.line(f"\nthe gateway refused: {exc}")
            stage.show_logs()
            return 1
        except lifecycle.StackError as exc:
            screen.line(f"\nthe stack does not start: {exc}")
            stage.show_logs()
            return 1
        except (OSError, http.client.HTTPException) as exc:
            screen.line(f"\nthe gateway broke off: {exc!r}")
            stage.show_logs()
            return 1
        finally:
            with screen.step("Stop the stack"):
                stage.end()
    left = host_snapshot.take().left_since(before)
    with screen.step("Compare the host with what it was before"):
        if left:
            for kind, names in left.items():
                screen.say(f"left behind, {kind}: {', '.join(names)}")
            return 1
        screen.say(f"processes, links, mounts and packet filter rules are as before; {stage.gone}")
    screen.line(f"\nThe whole demo took {screen.elapsed_s():.1f} s.")
    return 0


def _run_stack(stage: Stage, guest: Path, screen: Screen) -> None:
    with screen.step(f"Start the stack {stage.title}"):
        stage.begin()
        screen.call(f"curl {stage.layout.base_url}/readyz")
    rest = RestClient(stage.layout.gateway_port, screen.call)
    with screen.step("Upload the guest image"):
        image = rest.upload(_IMAGE, guest, screen.progress).body
        screen.say(f"{image['name']} {image['format']} {image['digest']}")
    before = host_snapshot.take(stage.tree(), without=stage.kept)
    with screen.step("Launch an instance; its conditions turn true one by one"):
        _launch(rest, screen)
    with screen.step("Look at it"):
        _look(rest, screen)
    with screen.step("Run a command in the guest"):
        answer = rest.call("POST", f"{_INSTANCE}/exec", {"argv": ["/bin/uname", "-a"]}).body
        screen.say(f"exit {answer['exitCode']}: {answer['stdout'].strip()}")
    with screen.step("Stop it gracefully"):
        stopped = rest.call("POST", f"{_INSTANCE}/stop", {}, wait_s=60).body
        screen.say(f"state {stopped['status']['state']}")
    with screen.step("Delete it and its image"):
        rest.call("DELETE", _INSTANCE, wait_s=60)
        rest.call("DELETE", _IMAGE)
    with screen.step("Compare host and state directory with what they were before the launch"):
        left = host_snapshot.take(stage.tree(), without=stage.kept).left_since(before)
        left = host_snapshot.without_the_stacks_own(left, stage.layout)
        if left:
            raise CallError(f"left behind: {left}")
        leaks = rest.call("GET", "/v1/nodes/node-1/leaks").body["leaks"]
        if leaks:
            raise CallError(f"leaks: {leaks}")
        screen.say("processes, links, mounts and machine files are as before; no leaks")


def _launch(rest: RestClient, screen: Screen) -> None:
    events = rest.events()
    begin = time.monotonic()
    spec = {"name": "demo-1", "image": "tiny", "vm": {"cpus": 1, "memory": "256M"}, "start": True}
    try:
        # Answered at once: the instance's address can be read while its disk is still being made.
        try:
            rest.call("POST", "/v1/instances", spec)
        except CallError as exc:
            if exc.reason != "NETWORK_UNAVAILABLE":
                raise
            # Without root, and with a passt that leads guests to the host. The agent needs no network.
            screen.say(f"refused: {exc}")
            screen.say("so it is launched without a network card:")
            rest.call("POST", "/v1/instances", {**spec, "nics": []})
        _follow_conditions(events, rest, begin, screen)
    finally:
        events.close()


def _follow_conditions(events: EventStream, rest: RestClient, begin: float, screen: Screen) -> None:
    seen: set[str] = set()
    for event in events:
        if time.monotonic() - begin > _READY_WITHIN_S:
            break
        if event.get("instance") != "demo-1":
            continue
        if event["type"] == "operation.finished" and event["resource"]["state"] != "SUCCEEDED":
            raise CallError(f"the launch failed: {event['resource'].get('error')}")
        if not event["type"].startswith("instance."):
            continue
        status = event["resource"]["status"]
        for condition in status["conditions"]:
            if condition["status"] == "TRUE" and condition["type"] not in seen:
                seen.add(condition["type"])
                note = _reserved(status, seen) if condition["reason"] == "AddressReserved" else ""
                screen.say(f"{time.monotonic() - begin:6.2f} s  {condition['type']}{note}")
        # What the agent tells of the guest follows its first answer.
        if "Ready" in seen and "guest" in status:
            return
    # The wait names what is missing and shows the console's last lines.
    rest.call("GET", f"{_INSTANCE}/wait?condition=Ready&timeout=1")


def _reserved(status: dict[str, Any], seen: set[str]) -> str:
    addresses = ", ".join(a["address"] for nic in status["nics"] for a in nic["addresses"])
    return f": {addresses} is reserved" + ("" if "MachineRunning" in seen else ", before the boot has begun")


def boot_table(phases: Sequence[dict[str, Any]]) -> list[str]:
    """Return the phases of a boot as lines of a table, in the order in which they began."""
    if not phases:
        return []
    begun = {phase["name"]: datetime.fromisoformat(phase["startTime"]) for phase in phases}
    first = min(begun.values())
    lines = [f"{'phase':<18} {'begins':>8} {'lasts':>8}"]
    for phase in sorted(phases, key=lambda phase: begun[phase["name"]]):
        begins_s, lasts_s = (begun[phase["name"]] - first).total_seconds(), phase["durationMs"] / 1000
        lines.append(f"{phase['name']:<18} {begins_s:6.2f} s {lasts_s:6.2f} s")
    return lines


def _look(rest: RestClient, screen: Screen) -> None:
    instance: dict[str, Any] = rest.call("GET", _INSTANCE).body
    status = instance["status"]
    addresses = [a["address"] for nic in status["nics"] for a in nic["addresses"]]
    screen.say(f"state {status['state']} on {status['node']} by {status['accelerator']}")
    if addresses:
        screen.say(f"addresses {', '.join(addresses)} on the network {status['nics'][0]['network']}")
    guest = status["guest"]
    screen.say(
        f"guest {guest['hostname']}: {guest['os']['prettyName']}, kernel {guest['os']['kernelRelease']}"
    )
    for line in boot_table(status["bootPhases"]):
        screen.say(line)
