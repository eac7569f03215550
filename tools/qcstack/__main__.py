"""Command line of the stack: `python -m qcstack up|down|status|logs|doctor|clean|demo|supervise`."""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Final

from qcstack import compose, doctor, lifecycle
from qcstack.compose import ComposeStack
from qcstack.demo.run import run_demo
from qcstack.demo.stages import ContainerStage, NativeStage
from qcstack.layout import LayoutError, StackLayout
from qcstack.processes import ProcessId
from qcstack.supervisor import Supervisor

_READY: Final = "qcontroller is ready at {url}\nSwagger UI: {url}/v1/swagger/index.html"


def default_state() -> Path:
    """Return the state directory of `make up`: the system's for root, the user's own otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/qcontroller")
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "qcontroller"


def main() -> int:
    """Run one command; 0 if it did what it says, 1 with one sentence on stderr otherwise."""
    parser = argparse.ArgumentParser(prog="qcstack", description=__doc__)
    commands = ["up", "down", "status", "logs", "doctor", "supervise", "demo", "clean"]
    parser.add_argument("command", choices=commands)
    parser.add_argument(
        "--mode",
        default="native",
        choices=["auto", "native", "compose"],
        help="containers, or plain processes; auto: containers where an engine answers",
    )
    parser.add_argument("--state", type=Path, default=default_state(), help="state directory")
    parser.add_argument("--port", type=int, default=8080, help="gateway's port on 127.0.0.1")
    parser.add_argument("--controller-port", type=int, default=8009)
    parser.add_argument("--image-store-port", type=int, default=8010)
    parser.add_argument("--otlp-endpoint", default="")
    parser.add_argument("--stop-grace", default="120s")
    parser.add_argument("--accelerator", default="auto", choices=["auto", "kvm", "tcg"])
    parser.add_argument("--default-network", default="auto", choices=["auto", "qc0", "user"])
    parser.add_argument("--bridge", default="qc0", help="name of the bridge that the stack makes and owns")
    parser.add_argument("--bridge-subnet", default="10.76.0.0/16", help="its subnet, used nowhere else here")
    parser.add_argument("--owner", type=_process, help="supervise: PID:TICKS; end when this process ends")
    parser.add_argument("--guest", type=Path, help="image that the demo launches")
    arguments = parser.parse_args()
    layout = StackLayout(
        state=arguments.state.absolute(),
        gateway_port=arguments.port,
        controller_port=arguments.controller_port,
        image_store_port=arguments.image_store_port,
        otlp_endpoint=arguments.otlp_endpoint,
        stop_grace=arguments.stop_grace,
        accelerator=arguments.accelerator,
        default_network=arguments.default_network,
        bridge=arguments.bridge,
        bridge_subnet=arguments.bridge_subnet,
    )
    try:
        if arguments.command == "doctor":
            return doctor.report(layout)
        if arguments.command != "supervise" and _in_containers(arguments.mode, arguments.command, layout):
            return _run_in_containers(arguments.command, layout, arguments.guest)
        return _run(arguments.command, layout, arguments.guest, arguments.owner)
    except (lifecycle.StackError, LayoutError) as exc:
        sys.stderr.write(f"qcontroller: {exc}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _process(text: str) -> ProcessId:
    pid, _, ticks = text.partition(":")
    return ProcessId(int(pid), int(ticks))


def _in_containers(mode: str, command: str, layout: StackLayout) -> bool:
    """Decide where the command works: a native stack that runs is never overlooked."""
    lacking = compose.lacking() if mode != "native" else None
    if mode == "compose":
        if lacking:
            raise lifecycle.StackError(f"{lacking}: `tools/engine start` (as root, on Debian) helps")
        return True
    if mode == "native" or (command != "up" and lifecycle.status(layout).supervisor is not None):
        return False
    # A demo without a mode is the quick one: it builds no images.
    if command == "demo":
        return False
    if command == "up":
        print(
            f"starting plain processes: {lacking}"
            if lacking
            else "starting containers (MODE=native for plain processes)",
            file=sys.stderr,
        )
    return lacking is None


def _run_in_containers(command: str, layout: StackLayout, guest: Path | None) -> int:
    stack = ComposeStack(layout)
    match command:
        case "up":
            if not stack.containers():
                lifecycle.refuse_taken_ports(layout)
            stack.build(lambda text: print(f"compose: {text}", file=sys.stderr))
            stack.up()
            print(_READY.format(url=layout.base_url))
        case "down":
            stack.down()
            print("the containers are gone; images, disks and databases stay until `make clean`")
        case "status":
            return compose.show_status(stack)
        case "logs":
            stack.replace_process("logs", "--follow", "--tail", "50")
        case "clean":
            stack.down(volumes=True)
            print("the containers and their volumes are gone")
        case "demo":
            return run_demo(ContainerStage(layout), guest)
    return 0


def _run(command: str, layout: StackLayout, guest: Path | None, owner: ProcessId | None) -> int:
    match command:
        case "up":
            lifecycle.up(layout)
            print(_READY.format(url=layout.base_url))
        case "down":
            lifecycle.down(layout)
            print("qcontroller is stopped; images, disks and databases stay until `make clean`")
        case "status":
            layout.refuse_foreign()
            return _show_status(layout)
        case "logs":
            layout.refuse_foreign()
            files = sorted(str(path) for path in (layout.state / "log").glob("*.log"))
            if not files:
                raise lifecycle.StackError(f"no logs in {layout.state / 'log'}: start a stack with `make up`")
            os.execvp("tail", ["tail", "-n", "50", "-F", *files])
        case "clean":
            lifecycle.clean(layout)
            print(f"removed {layout.state}")
        case "supervise":
            layout.create()
            logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
            asyncio.run(Supervisor(layout, owner).run())
        case "demo":
            return run_demo(NativeStage(layout), guest)
    return 0


def _show_status(layout: StackLayout) -> int:
    found = lifecycle.status(layout)
    if found.supervisor is None:
        if found.left:
            print(f"the supervisor is gone, and left {', '.join(found.left)}: `make down` ends them")
        else:
            print("qcontroller is not running")
        return 1
    for name, service in found.services.items():
        process = f"pid {service.process.pid}" if service.process else "starting"
        exits = f"; ended before: {', '.join(service.exits)}" if service.exits else ""
        print(f"{name:12} {process:12} started {service.starts} time(s){exits}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
