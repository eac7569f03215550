"""Command line of the native stack: `python -m qcstack up|down|status|logs|supervise|demo`."""

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

from qcstack import lifecycle
from qcstack.demo.run import run_demo
from qcstack.layout import LayoutError, StackLayout
from qcstack.processes import ProcessId
from qcstack.supervisor import Supervisor


def default_state() -> Path:
    """Return the state directory of `make up`: the system's for root, the user's own otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/qcontroller")
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(home) / "qcontroller"


def main() -> int:
    """Run one command; 0 if it did what it says, 1 with one sentence on stderr otherwise."""
    parser = argparse.ArgumentParser(prog="qcstack", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status", "logs", "supervise", "demo", "clean"])
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
        return _run(arguments.command, layout, arguments.guest, arguments.owner)
    except (lifecycle.StackError, LayoutError) as exc:
        sys.stderr.write(f"qcontroller: {exc}\n")
        return 1
    except KeyboardInterrupt:
        return 130


def _process(text: str) -> ProcessId:
    pid, _, ticks = text.partition(":")
    return ProcessId(int(pid), int(ticks))


def _run(command: str, layout: StackLayout, guest: Path | None, owner: ProcessId | None) -> int:
    match command:
        case "up":
            lifecycle.up(layout)
            print(
                f"qcontroller is ready at {layout.base_url}\n"
                f"Swagger UI: {layout.base_url}/v1/swagger/index.html"
            )
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
            return run_demo(layout, guest)
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
