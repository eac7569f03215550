"""Where a native stack keeps its state, and the configuration files of its services.

Owns the directory layout of docs/architecture.md; never starts anything.
"""

import json
import os
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
# An AF_UNIX path has 107 characters; the longest below the state directory is
# runner/machines/<uuid>/console.sock, and what the services may add stays below this.
_LONGEST_STATE_PATH: Final = 45


class LayoutError(Exception):
    """A state directory that cannot hold a stack; the message says what to do."""


@dataclass(frozen=True, slots=True)
class StackLayout:
    """One native stack: its state directory and the ports of 127.0.0.1 that it serves."""

    state: Path
    gateway_port: int = 8080
    controller_port: int = 8009
    image_store_port: int = 8010
    otlp_endpoint: str = ""
    stop_grace: str = "120s"
    accelerator: str = "auto"

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

    def socket(self, edge: str, server: str) -> str:
        """Path of the unix socket that `server` listens on at `edge`."""
        return str(self.state / "run" / edge / f"{server}.sock")

    def create(self) -> None:
        """Make the directories and write the configuration files; what is there already stays.

        Raises:
            LayoutError: The path is too long for unix sockets below it, or cannot be written.
        """
        if len(str(self.state)) > _LONGEST_STATE_PATH:
            raise LayoutError(
                f"{self.state}: longer than {_LONGEST_STATE_PATH} characters, too long for the unix sockets "
                "below it; give a shorter STATE="
            )
        previous = os.umask(0o022)
        try:
            # A machine's own uid must be able to pass through to its disk.
            self.state.mkdir(parents=True, exist_ok=True)
            self.state.chmod(0o711)
            for name in ("run", "etc", "log", "controller", "image-store"):
                (self.state / name).mkdir(mode=0o700, exist_ok=True)
            (self.state / "runner").mkdir(mode=0o711, exist_ok=True)
            for edge in EDGES:
                (self.state / "run" / edge).mkdir(mode=0o750, exist_ok=True)
            for service, document in self._configurations().items():
                path = self.config_file(service)
                path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        except OSError as exc:
            raise LayoutError(f"{exc.filename}: {exc.strerror}") from exc
        finally:
            os.umask(previous)

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
                "vmHosts": [self.socket("runner-vm-host", "vm-host")],
                "accelerator": self.accelerator,
                "telemetry": telemetry,
            },
            "vm-host": {
                "socketPath": self.socket("runner-vm-host", "vm-host"),
                "stopGrace": self.stop_grace,
                "generation": "native",
                "allowedPrograms": ["qemu-system-x86_64", "passt"],
            },
        }
