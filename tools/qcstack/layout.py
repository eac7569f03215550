"""Where a native stack keeps its state, and the configuration files of its services.

Owns the directory layout of docs/architecture.md; never starts anything.
"""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EDGES: Final = (
    "gateway-controller",
    "gateway-image-store",
    "controller-image-store",
    "controller-runner",
    "runner-image-store",
    "runner-vm-host",
)
# Name and Python package, in the order in which they are started.
SERVICES: Final = {
    "vm-host": "vm_host",
    "image-store": "image_store",
    "qemu-runner": "qemu_runner",
    "controller": "controller",
    "gateway": "gateway",
}
# The order in which they end. No new work first; then vm-host, whose guests power down while the runner is
# there to see and record it; the runner may need the image store until it ends.
ENDING: Final = ("gateway", "controller", "vm-host", "qemu-runner", "image-store")
# How long a service may take to end; vm-host has its grace period besides.
_END_WITHIN_S: Final = 30.0
_DURATION: Final = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,9})?)(s|m)")
# What a stack makes in its state directory, and so what may be removed from it.
_OWN: Final = ("run", "etc", "log", "controller", "image-store", "runner", "lock", "supervisor.lock")
# An AF_UNIX path has 107 characters; the longest below the state directory is
# runner/machines/<uuid>/console.sock, and what the services may add stays below this.
_LONGEST_STATE_PATH: Final = 45


class LayoutError(Exception):
    """A state directory that cannot hold a stack; the message says what to do."""


@dataclass(frozen=True, slots=True)
class StackLayout:
    """One native stack: its state directory, the ports of 127.0.0.1 that it serves, its own bridge."""

    state: Path
    gateway_port: int = 8080
    controller_port: int = 8009
    image_store_port: int = 8010
    otlp_endpoint: str = ""
    stop_grace: str = "120s"
    accelerator: str = "auto"
    default_network: str = "auto"
    bridge: str = "qc0"
    bridge_subnet: str = "10.76.0.0/16"

    @property
    def base_url(self) -> str:
        """URL of the gateway."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def status_file(self) -> Path:
        """File in which the supervisor tells which processes it runs."""
        return self.state / "run" / "supervisor.json"

    def log_file(self, service: str) -> Path:
        """File that gets the stderr of `service`."""
        return self.state / "log" / f"{service}.log"

    def config_file(self, service: str) -> Path:
        """Configuration file of `service`."""
        return self.state / "etc" / f"{service}.json"

    def service_arguments(self, service: str) -> list[str]:
        """Return the arguments of `service`'s process after the interpreter; they tell whose it is."""
        return ["-m", SERVICES[service], "--config", str(self.config_file(service))]

    def end_within_s(self, service: str) -> float:
        """Return the seconds after which `service` is killed when it was asked to end.

        Raises:
            LayoutError: The grace period cannot be read.
        """
        return _END_WITHIN_S + (_seconds(self.stop_grace) if service == "vm-host" else 0.0)

    def socket(self, edge: str, server: str) -> str:
        """Path of the unix socket that `server` listens on at `edge`."""
        return str(self.state / "run" / edge / f"{server}.sock")

    def claim(self) -> None:
        """Make the state directory, or find one that is this user's and a stack's; change nothing else.

        Raises:
            LayoutError: It is somebody else's, holds other things, cannot be made, or its path is too long
                for unix sockets below it; or the ports or the grace period make no sense.
        """
        ports = (self.gateway_port, self.controller_port, self.image_store_port)
        if len(set(ports)) < len(ports) or not all(0 < port < 65536 for port in ports):
            raise LayoutError(f"ports {', '.join(map(str, ports))}: give three different ones of 1 to 65535")
        _seconds(self.stop_grace)
        if len(str(self.state)) > _LONGEST_STATE_PATH:
            raise LayoutError(
                f"{self.state}: longer than {_LONGEST_STATE_PATH} characters, too long for the unix sockets "
                "below it; give a shorter STATE="
            )
        try:
            self.state.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.refuse_foreign()
            # A machine's own uid must be able to pass through to its disk.
            self.state.chmod(0o711)
        except OSError as exc:
            raise LayoutError(f"{exc.filename}: {exc.strerror}") from exc

    def refuse_foreign(self) -> None:
        """Check that the state directory, if there is one, is this user's and a stack's or empty.

        Raises:
            LayoutError: It is not: a stack would change what it did not make.
        """
        try:
            owner = self.state.stat().st_uid
            if owner != os.geteuid():
                raise LayoutError(
                    f"{self.state} belongs to uid {owner}, and you are uid {os.geteuid()}: "
                    "run this as its owner, or give another STATE="
                )
            names = {entry.name for entry in self.state.iterdir()}
        except FileNotFoundError:
            return
        except OSError as exc:
            raise LayoutError(f"{exc.filename}: {exc.strerror}") from exc
        if names and "etc" in names and self.config_file("vm-host").exists():
            return
        if other := sorted(names - set(_OWN)):
            raise LayoutError(
                f"{self.state} holds other things ({', '.join(other[:3])}): give a STATE= of the stack's own"
            )

    def create(self) -> None:
        """Make the directories and write the configuration files; data that is there already stays.

        Raises:
            LayoutError: As `claim`, or something cannot be written.
        """
        previous = os.umask(0o022)
        try:
            self.claim()
            for name in ("run", "etc", "log", "controller", "image-store"):
                (self.state / name).mkdir(mode=0o700, exist_ok=True)
            (self.state / "runner").mkdir(mode=0o711, exist_ok=True)
            for edge in EDGES:
                (self.state / "run" / edge).mkdir(mode=0o750, exist_ok=True)
            for service, document in self._configurations().items():
                _replace(self.config_file(service), json.dumps(document, indent=2) + "\n")
        except OSError as exc:
            raise LayoutError(f"{exc.filename}: {exc.strerror}") from exc
        finally:
            os.umask(previous)

    def clear_run(self) -> None:
        """Remove sockets, locks and status of a stack that has ended.

        What vm-host wrote when it stopped stays: a runner that was away then has yet to read how its
        machines ended.
        """
        run = self.state / "run"
        for path in sorted(run.rglob("*"), reverse=True) if run.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.suffix != ".stopped":
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything that a stack made here, and the directory if nothing else is in it.

        Raises:
            LayoutError: The directory is not a stack's, or something cannot be removed.
        """
        if not self.state.exists():
            return
        self.refuse_foreign()
        try:
            # The configuration goes last: it is what shows that the directory is a stack's.
            for name in sorted(_OWN, key="etc".__eq__):
                path = self.state / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            if not any(self.state.iterdir()):
                self.state.rmdir()
        except OSError as exc:
            raise LayoutError(f"{exc.filename}: {exc.strerror}") from exc

    def _configurations(self) -> dict[str, dict[str, object]]:
        telemetry = {"otlpEndpoint": self.otlp_endpoint}
        return {
            "gateway": {
                "listen": f"127.0.0.1:{self.gateway_port}",
                "controller": f"unix:{self.socket('gateway-controller', 'controller')}",
                "imageStore": f"unix:{self.socket('gateway-image-store', 'image-store')}",
                "telemetry": telemetry,
            },
            "controller": {
                "listen": [
                    f"unix:{self.socket('gateway-controller', 'controller')}",
                    f"127.0.0.1:{self.controller_port}",
                ],
                "databaseUrl": f"sqlite:///{self.state / 'controller' / 'controller.db'}",
                "imageStore": f"unix:{self.socket('controller-image-store', 'image-store')}",
                "runners": [
                    {"node": "node-1", "target": f"unix:{self.socket('controller-runner', 'runner')}"}
                ],
                "telemetry": telemetry,
            },
            "image-store": {
                "listen": [
                    f"unix:{self.socket('gateway-image-store', 'image-store')}",
                    f"127.0.0.1:{self.image_store_port}",
                ],
                "controllerListen": [f"unix:{self.socket('controller-image-store', 'image-store')}"],
                "runnerListen": [f"unix:{self.socket('runner-image-store', 'image-store')}"],
                "databaseUrl": f"sqlite:///{self.state / 'image-store' / 'image-store.db'}",
                "directory": {"path": str(self.state / "image-store")},
                "telemetry": telemetry,
            },
            "qemu-runner": {
                "listen": [f"unix:{self.socket('controller-runner', 'runner')}"],
                "node": "node-1",
                "stateDir": str(self.state / "runner"),
                "imageStore": f"unix:{self.socket('runner-image-store', 'image-store')}",
                # The second is nobody's until QEMU is upgraded (docs/upgrading.md).
                "vmHosts": [self.socket("runner-vm-host", name) for name in ("vm-host", "vm-host-b")],
                "accelerator": self.accelerator,
                "defaultNetwork": self.default_network,
                "bridgeNetwork": {"interface": self.bridge, "subnet": self.bridge_subnet},
                "telemetry": telemetry,
            },
            "vm-host": {
                "socketPath": self.socket("runner-vm-host", "vm-host"),
                "stopGrace": self.stop_grace,
                "generation": "native",
                "allowedPrograms": ["qemu-system-x86_64", "qemu-system-aarch64", "passt"],
            },
        }


def _seconds(duration: str) -> float:
    """Return the seconds of a duration as vm-host reads it, so that it is refused here and not there."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise LayoutError(f'{duration!r}: the grace period must be a duration such as "90s" or "2m"')
    return float(match[1]) * (60 if match[2] == "m" else 1)


def _replace(path: Path, text: str) -> None:
    # Whole or not at all: a service that is started again just now reads it.
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
