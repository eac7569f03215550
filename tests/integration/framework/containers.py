"""One stack in containers for tests: a project and ports of its own, containers looked at from the host.

Uses what a user has too, docker and compose, and /proc, which does not repeat what the engine was told. It is
what the suite needs of any stack (`Subject`), and tells more of containers.
"""

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qcstack.compose import ROOT, ComposeStack
from qcstack.layout import StackLayout
from qcstack.processes import ProcessId

from framework.api_client import BlockingApiClient
from framework.cloud import Cloud
from framework.stack import eventually, free_ports, keep_machines, qemu_processes

SERVICES: Final = ("gateway", "controller", "image-store", "minio", "qemu-runner", "vm-host")
PROJECT: Final = "qcontroller-test"
_LISTENING: Final = {"gateway": 8080, "controller": 8009, "image-store": 8010, "minio": 9000}


@dataclass(frozen=True, slots=True)
class Containers:
    """A running project."""

    compose: ComposeStack

    @property
    def base_url(self) -> str:
        """URL of the gateway."""
        return self.compose.layout.base_url

    @property
    def state_dir(self) -> str:
        """The runner's state directory, inside its container and vm-host's."""
        return f"/var/lib/{self.compose.project}"

    @property
    def layout(self) -> StackLayout:
        """Ports and bridge."""
        return self.compose.layout

    @property
    def machines_dir(self) -> Path:
        """Where the runner keeps its machines, through the runner's own file system."""
        return Path(f"/proc/{self.pid('qemu-runner')}/root{self.state_dir}/machines")

    def machine_dir(self, instance_id: str) -> Path:
        """Return where the runner keeps the machine's files."""
        return self.machines_dir / instance_id

    def pending_uploads(self) -> list[str]:
        """Return the marks of uploads in MinIO's bucket that are not yet images."""
        bucket = Path(f"/proc/{self.pid('minio')}/root/var/lib/minio/images/uploads")
        return [path.name for path in bucket.glob("*")]

    def qemu_processes(self, instance_id: str) -> list[int]:
        """Return the pids of the QEMU processes that run `instance_id`, as the host sees them."""
        return qemu_processes(instance_id)

    def assert_nothing_is_left(self) -> None:
        """Look for what a project of this name and bridge could leave, but for volumes and images.

        Others work on this host meanwhile, so what they start and end does not count.
        """
        label = f"label=com.docker.compose.project={self.compose.project}"
        assert self.docker("ps", "--all", "--quiet", "--filter", label) == ""
        assert self.docker("network", "ls", "--quiet", "--filter", label) == ""
        assert not [words for words in _commands() if self._is_ours(words)]
        assert not Path("/sys/class/net", self.compose.layout.bridge).exists()
        owner = f"node-1 {self.state_dir}"
        # Tables carry a digest of their owner in their names.
        assert hashlib.sha256(owner.encode()).hexdigest()[:8] not in _tables()
        aliases = [path.read_text(encoding="utf-8") for path in Path("/sys/class/net").glob("*/ifalias")]
        assert not [alias for alias in aliases if owner in alias]

    def _is_ours(self, words: list[str]) -> bool:
        # dnsmasq names its bridge, QEMU its machine's directory.
        return any(self.state_dir in word or f"={self.compose.layout.bridge}" in word for word in words)

    def inspect(self, service: str) -> dict[str, Any]:
        """Return what the engine knows of the service's container."""
        (found,) = json.loads(self.docker("container", "inspect", self._container(service)))
        return dict(found)

    def docker(self, *arguments: str) -> str:
        """Run a docker command on the project's engine and return what it prints."""
        return docker(*arguments, environment=self.compose.environment)

    def pid(self, service: str) -> int:
        """Return the container's PID 1, as the host sees it."""
        return int(self.inspect(service)["State"]["Pid"])

    def runner_pid(self) -> int:
        """Return the runner's own process, the child of its container's PID 1."""
        parent = self.pid("qemu-runner")
        return eventually(lambda: _child(parent, b"qemu_runner"), "the runner is running")

    def process(self, service: str) -> ProcessId:
        """Return the process that runs `service` now: PID 1 of its container, but for the runner's."""
        pid = self.runner_pid() if service == "qemu-runner" else self.pid(service)
        assert pid, f"{service} does not run"
        return ProcessId.of(pid)

    def starts(self, service: str) -> int:
        """Return when `service`'s process was started, in the kernel's ticks."""
        try:
            return self.process(service).start_ticks
        except (AssertionError, FileNotFoundError, ProcessLookupError):
            # Between two of them.
            return 0

    def log(self, service: str) -> list[str]:
        """Return the lines of the container's log."""
        # Not by compose, which mingles them with control sequences.
        command = ["docker", "logs", self._container(service)]
        done = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **self.compose.environment},
            timeout=60,
        )
        return done.stdout.splitlines()

    def logs(self) -> dict[str, str]:
        """Return what each service has said so far."""
        return {service: "\n".join(self.log(service)) for service in SERVICES}

    def gateways(self) -> list[str]:
        """Return the host's addresses on the networks of the project."""
        return sorted({gateway for name in SERVICES for gateway in self.of_networks(name, "Gateway")})

    def inner_doors(self) -> list[tuple[str, int]]:
        """Return every port that a container listens on, on every address that it has."""
        return [
            (address, port)
            for service, port in _LISTENING.items()
            for address in self.of_networks(service, "IPAddress")
        ]

    def of_networks(self, service: str, field: str) -> list[str]:
        """Return what the engine says of each network that the container is on."""
        networks = self.inspect(service)["NetworkSettings"]["Networks"]
        return [network[field] for network in networks.values() if network[field]]

    def keep_evidence(self, folder: Path) -> None:
        """Copy logs, records and consoles."""
        for service, text in self.logs().items():
            (folder / f"{service}.log").write_text(text, encoding="utf-8")
        keep_machines(self.machines_dir, folder)

    def status(self, pid: int) -> dict[str, str]:
        """Return /proc's status of a process."""
        return read_status(pid)

    def recreate(self, *services: str) -> None:
        """Replace containers by new ones of the same images, as an upgrade does."""
        self.compose.run(
            *("up", "--detach", "--no-build", "--no-deps", "--force-recreate", "--wait", *services),
            timeout_s=300,
        )

    def kill(self, service: str) -> None:
        """End the container's main process by SIGKILL from outside; the engine starts it again."""
        before = self.inspect(service)["State"]
        os.kill(before["Pid"], signal.SIGKILL)
        eventually(
            lambda: self._is_healthy_again(service, before["StartedAt"]), f"{service} is healthy again", 180
        )

    def kill_and_wait_restarted(self, service: str) -> None:
        """End `service` by SIGKILL and wait until the stack is ready again with a new one."""
        before = self.process(service)
        assert before.signal(signal.SIGKILL)
        eventually(lambda: self.starts(service) > before.start_ticks, f"{service} is started again")
        self.wait_ready()

    @contextmanager
    def frozen(self, service: str) -> Iterator[None]:
        """Hold `service` still (SIGSTOP): it neither answers nor hangs up."""
        process = self.process(service)
        assert process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.signal(signal.SIGCONT)

    @contextmanager
    def away(self, service: str) -> Iterator[None]:
        """End the container by SIGKILL; the engine does not start again what was ended through it."""
        self.compose.run("kill", service, timeout_s=120)
        try:
            yield
        finally:
            self.compose.run("start", service, timeout_s=120)

    def wait_ready(self) -> None:
        """Wait until /readyz says READY."""
        self.compose.up()

    def _is_healthy_again(self, service: str, before: str) -> bool:
        state = self.inspect(service)["State"]
        return bool(state["StartedAt"] != before and state["Health"]["Status"] == "healthy")

    def _container(self, service: str) -> str:
        (name,) = self.compose.ask("ps", "--all", "--quiet", service).split()
        return name


def docker(*arguments: str, within_s: float = 120, environment: Mapping[str, str] | None = None) -> str:
    """Run a docker command and return what it prints."""
    done = subprocess.run(
        ["docker", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        timeout=within_s,
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def read_status(pid: int) -> dict[str, str]:
    """Return /proc/<pid>/status by field."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def qemu_of(instance_id: str) -> ProcessId | None:
    """Return the QEMU process that runs the instance, whatever container it is in."""
    found = qemu_processes(instance_id)
    assert len(found) < 2, f"{instance_id} runs twice: {found}"
    return ProcessId.of(found[0]) if found else None


@contextmanager
def running(
    project: str = PROJECT,
    *,
    overrides: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    root: Path = ROOT,
    bridge: str = "qct0",
    subnet: str = "10.71.0.0/16",
    accelerator: str = "tcg",
) -> Iterator[Containers]:
    """Run a project whose images are built; remove it with its volumes afterwards."""
    gateway, controller, image_store = free_ports(3)
    layout = StackLayout(
        Path("/nonexistent"),
        gateway_port=gateway,
        controller_port=controller,
        image_store_port=image_store,
        accelerator=accelerator,
        bridge=bridge,
        bridge_subnet=subnet,
    )
    compose = ComposeStack(layout, project, overrides, environment or {}, root)
    compose.down(volumes=True)
    try:
        compose.up()
        yield Containers(compose)
    finally:
        compose.down(volumes=True)


@contextmanager
def client(containers: Containers) -> Iterator[Cloud]:
    """Talk to the project's gateway; every answer is held against openapi.yaml."""
    with BlockingApiClient(containers.base_url) as api:
        yield Cloud(containers, api)


def _commands() -> Iterator[list[str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                yield (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except (FileNotFoundError, ProcessLookupError):
                continue


def _tables() -> str:
    # Not the ruleset: older versions of nft die of what newer ones wrote in a container.
    return subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout


def _child(parent: int, word: bytes) -> int | None:
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split():
        if word in Path(f"/proc/{pid}/cmdline").read_bytes():
            return int(pid)
    return None
