"""`up`, `down`, `clean`, `status` and `logs` of a stack in containers.

Owns one compose project. vm-host's image is built only when the tag of its content is absent, so that nothing
but a change of vm-host itself ends VMs: not a change of another service, not a pruned build cache.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qcstack import lifecycle
from qcstack.layout import StackLayout

ROOT: Final = Path(__file__).resolve().parents[2]
PROJECT: Final = "qcontroller"
_VM_HOST: Final = "vm-host"
_BUILD_ATTEMPTS: Final = 3
_READY_WITHIN_S: Final = 180
_ASK_WITHIN_S: Final = 60.0


def lacking() -> str | None:
    """Return what keeps this host from running containers, or None."""
    for command, what in (
        (["docker", "info"], "no Docker engine answers"),
        (["docker", "compose", "version"], "the Docker client has no Compose v2"),
        (["docker", "buildx", "version"], "the Docker client has no buildx (builds need its secrets)"),
    ):
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=_ASK_WITHIN_S)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return what
        if done.returncode:
            return what
    return None


def keeps_containers() -> bool:
    """Tell whether containers survive a restart of the engine (live-restore), where one answers."""
    done = subprocess.run(
        ["docker", "info", "--format", "{{.LiveRestoreEnabled}}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_ASK_WITHIN_S,
    )
    return done.stdout.strip() == "true"


def lost_files(said: str) -> bool:
    """Tell whether a build failed because BuildKit missed files that it had been sent.

    Engine 20.10 keeps a folder between builds and brings it up to date; a build that follows another one of
    the same folder at once now and then finds it without its own part.
    """
    return "failed to compute cache key" in said and "not found" in said


@dataclass(frozen=True, slots=True)
class ComposeStack:
    """One compose project.

    Attributes:
        layout: Its ports, OTLP endpoint and accelerator; the state directory is not used.
        project: Its name.
        overrides: What is laid over compose.yaml: NAME for `compose.NAME.yaml`, or a path below the root.
        environment: Further variables of the compose files.
        root: The checkout.
    """

    layout: StackLayout
    project: str = PROJECT
    overrides: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    root: Path = ROOT

    def build(self, say: Callable[[str], None]) -> None:
        """Build the images that are missing or old.

        Raises:
            StackError: A build failed, or there is no base image to build on.
        """
        prepared = subprocess.run(
            [sys.executable, self.root / "tools" / "base-images"], stdout=subprocess.DEVNULL, check=False
        )
        if prepared.returncode:
            raise lifecycle.StackError("there is no base image to build on (above)")
        services = [name for name in self.services() if name != _VM_HOST]
        if not image_exists(self._image(_VM_HOST)):
            services.append(_VM_HOST)
        say(f"building what is missing or changed of {', '.join(services)}")
        # One after the other: builds of one folder at the same time, each sending its own part of it, now and
        # then find a file of their part missing ("failed to compute cache key … not found").
        for service in services:
            self._build(service, say)

    def _build(self, service: str, say: Callable[[str], None]) -> None:
        for attempt in range(1, _BUILD_ATTEMPTS + 1):
            done = subprocess.run(
                self.command("build", "--quiet", service),
                env=self._variables(),
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
                timeout=3600,
            )
            sys.stderr.write(done.stderr)
            if done.returncode == 0:
                return
            if attempt == _BUILD_ATTEMPTS or not lost_files(done.stderr):
                raise lifecycle.StackError(f"docker compose build {service} failed (above)")
            say(f"the engine lost files that it had been sent: building {service} once more")

    def up(self) -> None:
        """Start what is not running and wait until every container is healthy and /readyz says READY.

        Raises:
            StackError: It does not come up.
        """
        self.run(
            *("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(_READY_WITHIN_S)), timeout_s=600
        )
        lifecycle.wait_answering(self.layout)

    def down(self, *, volumes: bool = False) -> None:
        """End every container: guests are powered down; images and volumes stay, unless asked for.

        Raises:
            StackError: Compose failed.
        """
        self.run("down", *(["--volumes"] if volumes else []), timeout_s=600)

    def services(self) -> list[str]:
        """Return the names of the project's services that have a build of their own."""
        return sorted(name for name, service in self._document().items() if "build" in service)

    def images(self) -> list[str]:
        """Return the names of the project's images."""
        return sorted({str(service["image"]) for service in self._document().values()})

    def _image(self, service: str) -> str:
        return str(self._document()[service]["image"])

    def _document(self) -> dict[str, dict[str, object]]:
        services: dict[str, dict[str, object]] = json.loads(self.ask("config", "--format", "json"))[
            "services"
        ]
        return services

    def containers(self) -> list[dict[str, str]]:
        """Return what `docker compose ps` tells of each container, ended ones included."""
        text = self.ask("ps", "--all", "--format", "json")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def run(self, *arguments: str, timeout_s: float) -> None:
        """Run one compose command; what it prints goes to stderr.

        Raises:
            StackError: It failed.
        """
        done = subprocess.run(
            self.command(*arguments),
            env=self._variables(),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
            timeout=timeout_s,
        )
        if done.returncode:
            raise lifecycle.StackError(f"docker compose {arguments[0]} failed (above)")

    def ask(self, *arguments: str) -> str:
        """Return what a compose command prints.

        Raises:
            StackError: It failed.
        """
        done = subprocess.run(
            self.command(*arguments),
            env=self._variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_ASK_WITHIN_S,
        )
        if done.returncode:
            raise lifecycle.StackError(f"docker compose {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    def replace_process(self, *arguments: str) -> None:
        """Become a compose command."""
        os.execvpe("docker", self.command(*arguments), self._variables())

    def command(self, *arguments: str) -> list[str]:
        """Return the argument list of a compose command of this project."""
        overrides = (name if name.endswith(".yaml") else f"compose.{name}.yaml" for name in self.overrides)
        files = ["compose.yaml", *overrides]
        options = [word for name in files for word in ("--file", str(self.root / name))]
        return [
            *("docker", "compose", "--project-name", self.project, "--project-directory", str(self.root)),
            *options,
            *arguments,
        ]

    def _variables(self) -> dict[str, str]:
        layout = self.layout
        return {
            **os.environ,
            "QC_PORT": str(layout.gateway_port),
            "QC_PORT_CONTROLLER": str(layout.controller_port),
            "QC_PORT_IMAGE_STORE": str(layout.image_store_port),
            "QC_ACCELERATOR": layout.accelerator,
            "QC_BRIDGE": layout.bridge,
            "QC_BRIDGE_SUBNET": layout.bridge_subnet,
            **dict.fromkeys(("QC_OTLP_ENDPOINT", "QC_RUNNER_OTLP_ENDPOINT"), layout.otlp_endpoint),
            **self.environment,
        }


def image_exists(name: str) -> bool:
    """Tell whether the engine has the image."""
    done = subprocess.run(
        ["docker", "image", "inspect", name], capture_output=True, check=False, timeout=_ASK_WITHIN_S
    )
    return done.returncode == 0


def show_status(stack: ComposeStack, write: Callable[[str], object] = print) -> int:
    """Print one line for each container; 0 if every one runs and is healthy."""
    containers = stack.containers()
    if not containers:
        write("qcontroller is not running in containers")
        return 1
    for container in containers:
        write(f"{container['Service']:12} {container['State']:10} {container['Status']}")
    return 0 if all(_is_well(container) for container in containers) else 1


def _is_well(container: Mapping[str, str]) -> bool:
    if container["State"] == "exited":
        # A one-shot service has done its work.
        return str(container["ExitCode"]) == "0"
    return container["Health"] in {"healthy", ""}
