"""Compare `compose up` to healthy, `down` and idle memory with a native stack; images are built before."""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from qcstack import lifecycle
from qcstack.compose import ComposeStack, lacking
from qcstack.free_bridge import choose_bridge
from qcstack.layout import SERVICES, StackLayout
from run import free_ports, pss_mib, stack, timed

PROJECT = "qcontroller-bench"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-build", action="store_true", help="take the images as they are")
    arguments = parser.parse_args()
    what = lacking() or ("" if os.geteuid() == 0 else "reading other users' memory needs root")
    if what:
        print(f"compose up, down and the containers' memory: not measured, {what}")
        return
    with project() as compose:
        if not arguments.no_build:
            compose.build(lambda text: print(text, file=sys.stderr))
        up_s = timed(compose.up)
        in_containers = {
            row["Service"]: sum(map(pss_mib, pids_of(row["ID"]))) for row in compose.containers()
        }
        down_s = timed(lambda: compose.down(volumes=True))
    begin = time.monotonic()
    with stack() as layout:
        ready_s = time.monotonic() - begin
        natively = sum(pss_mib(service_pid(layout, name)) for name in SERVICES)
        begin = time.monotonic()
    end_s = time.monotonic() - begin
    for service, mib in in_containers.items():
        if mib:
            print(f"  idle memory of the container {service:12} {mib:7.1f} MiB PSS")
    alike = sum(in_containers[name] for name in SERVICES)
    print(
        f"idle memory of the five services in containers: {alike:.1f} MiB PSS; natively: {natively:.1f} MiB; "
        f"ratio {alike / natively:.2f}"
    )
    print(
        f"compose up → healthy: {up_s:.1f} s; native start → ready: {ready_s:.1f} s; "
        f"ratio {up_s / ready_s:.2f}"
    )
    print(f"compose down: {down_s:.1f} s; native down: {end_s:.1f} s; ratio {down_s / end_s:.2f}")


@contextlib.contextmanager
def project() -> Iterator[ComposeStack]:
    """Give a compose project of its own, on free ports and a free bridge; nothing of it stays but images."""
    bridge = choose_bridge()
    layout = replace(StackLayout(Path("/nowhere")), bridge=bridge.name, bridge_subnet=bridge.subnet)
    gateway, controller, image_store = free_ports(3)
    layout = replace(layout, gateway_port=gateway, controller_port=controller, image_store_port=image_store)
    compose = ComposeStack(layout, project=PROJECT)
    try:
        yield compose
    finally:
        compose.down(volumes=True)


def pids_of(container: str) -> list[int]:
    done = subprocess.run(
        ["docker", "top", container, "-eo", "pid"], capture_output=True, text=True, check=False
    )
    # One-shot containers have ended.
    return [int(line) for line in done.stdout.splitlines()[1:]]


def service_pid(layout: StackLayout, name: str) -> int:
    process = lifecycle.status(layout).services[name].process
    if process is None:
        raise RuntimeError(f"{name} does not run")
    return process.pid


if __name__ == "__main__":
    main()
