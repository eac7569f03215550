"""Where the demo's stack runs: plain processes, or containers; a place of its own either way.

A stage starts and ends one stack and shows what it stores. It must never touch a stack that is running.
"""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from qcstack import lifecycle
from qcstack.compose import ComposeStack
from qcstack.demo.screen import Screen
from qcstack.free_bridge import choose_bridge
from qcstack.layout import StackLayout
from qcstack.processes import ProcessId

# Not below a private home: a machine's own uid must be able to reach its disk.
_STATE_PARENT: Final = Path("/var/tmp")  # noqa: S108 - only names that nobody can guess are made there
_STATE_PREFIX: Final = "qc-demo-"
_PROJECT: Final = "qcontroller-demo"
# What outlives an instance on purpose: the cache of base images, fences of deleted machines, DHCP's files.
_KEPT_BY_RUNNER: Final = ("images", "tombstones", "bridge-network")


class Stage(Protocol):
    """One way to run the demo's stack."""

    @property
    def layout(self) -> StackLayout:
        """The ports."""

    @property
    def title(self) -> str:
        """How the stack runs, for the reader."""

    @property
    def gone(self) -> str:
        """What has gone with the stack, for the reader."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Beginnings of paths in `tree` that outlive an instance on purpose."""

    def prepare(self, screen: Screen) -> None:
        """Do what takes long and leaves something on purpose."""

    def opened(self) -> AbstractContextManager[None]:
        """Make the place that the stack's state lives in, and remove it."""

    def begin(self) -> None:
        """Start the stack and wait until it is ready."""

    def end(self) -> None:
        """End the stack."""

    def tree(self) -> Path | None:
        """Directory in which machines leave files while the stack runs."""

    def show_logs(self) -> None:
        """Print the last lines of every service to stderr."""


class NativeStage:
    """Plain processes; a killed demo leaves its directory to the next one, while its stack ends by itself."""

    # Databases, logs and sockets of the running services stay besides.
    kept: tuple[str, ...] = (
        *("controller", "image-store", "log", "run", "etc"),
        *(f"runner/{name}" for name in _KEPT_BY_RUNNER),
    )
    gone = "the state directory is gone"

    def __init__(self, layout: StackLayout) -> None:
        """Take the ports and settings of `layout`, not its state directory."""
        self.layout = replace(layout, stop_grace="20s")

    @property
    def title(self) -> str:
        """The directory and the defaults."""
        return f"in {self.layout.state} (SQLite, image directory)"

    def prepare(self, screen: Screen) -> None:
        """Nothing is needed."""

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Work in a fresh state directory."""
        _sweep()
        # A running stack may have the bridge that the layout names.
        bridge = choose_bridge()
        path = _STATE_PARENT / f"{_STATE_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        self.layout = replace(self.layout, state=path, bridge=bridge.name, bridge_subnet=bridge.subnet)
        # A signal between making the directory and `try` would leave it.
        try:
            path.mkdir(mode=0o700)
            yield
        finally:
            if path.exists():
                shutil.rmtree(path)

    def begin(self) -> None:
        """Start a supervisor that ends with this process."""
        me = ProcessId.of(os.getpid())
        lifecycle.wait_ready(self.layout, lifecycle.launch_supervisor(self.layout, owner=me))

    def end(self) -> None:
        """End the services in order."""
        lifecycle.down(self.layout)

    def tree(self) -> Path | None:
        """The state directory."""
        return self.layout.state

    def show_logs(self) -> None:
        """Print the ends of the log files."""
        for log in sorted((self.layout.state / "log").glob("*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
            sys.stderr.write(f"--- {log.name}\n" + "\n".join(lines) + os.linesep)


class ContainerStage:
    """A compose project of its own, removed with its volumes; its images stay."""

    kept: tuple[str, ...] = _KEPT_BY_RUNNER
    gone = "containers, networks and volumes are gone"
    title = "in containers"

    def __init__(self, layout: StackLayout) -> None:
        """Take the ports and settings of `layout`."""
        bridge = choose_bridge()
        self.layout = layout = replace(layout, bridge=bridge.name, bridge_subnet=bridge.subnet)
        self._stack = ComposeStack(layout, project=_PROJECT)

    def prepare(self, screen: Screen) -> None:
        """Build the images."""
        with screen.step("Build the images (quick where nothing changed)"):
            self._stack.build(screen.say)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Remove what a killed demo left, before and after."""
        self._stack.down(volumes=True)
        yield

    def begin(self) -> None:
        """Start the containers."""
        self._stack.up()

    def end(self) -> None:
        """Remove containers and volumes."""
        self._stack.down(volumes=True)

    def tree(self) -> Path | None:
        """The runner's volume, as the host sees it; only root may look."""
        if os.geteuid() != 0:
            return None
        done = subprocess.run(
            ["docker", "volume", "inspect", "--format", "{{.Mountpoint}}", f"{_PROJECT}_runner"],
            capture_output=True,
            text=True,
            check=True,
        )
        return Path(done.stdout.strip())

    def show_logs(self) -> None:
        """Print the ends of the containers' logs."""
        self._stack.run("logs", "--tail", "8", timeout_s=60)


def _sweep() -> None:
    """Remove the state of the caller's demos that were killed; their stacks ended with them."""
    for path in _STATE_PARENT.glob(f"{_STATE_PREFIX}*-*"):
        pid = path.name.removeprefix(_STATE_PREFIX).partition("-")[0]
        # Anybody may make names here: a link could lead to the state of a real stack.
        if not pid.isdigit() or Path(f"/proc/{pid}").exists() or path.is_symlink():
            continue
        if path.stat().st_uid != os.geteuid():
            continue
        layout = StackLayout(path)
        found = lifecycle.status(layout)
        # One that is still ending its services is left to the next demo.
        if found.supervisor is None and not found.left:
            layout.remove()
