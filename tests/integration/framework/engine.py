"""A Docker engine of a test's own, in the network namespace of a test's host: started and ended at will.

It shares nothing with an engine of the machine: its directories, socket, bridges, chains and mounts are its
own, and go with the namespaces. Needs root and `dockerd`.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from user_network_world import World

from framework.stack import eventually

_UP_WITHIN_S: Final = 120.0
# vm-host's grace period is the longest of all containers'.
_DOWN_WITHIN_S: Final = 180.0
# What the engine itself takes from the host: nothing of its configuration.
_NO_CONFIGURATION: Final = "{}\n"


class Engine:
    """One dockerd; `start` may follow `stop` or `kill` as often as a test likes.

    Args:
        world: In whose host it runs.
        directory: Where its files go.
        data: Its images and containers.
        live_restore: Whether containers outlive it.
        holder: A process in the mount namespace that it is to see; it outlives the engine's restarts.
    """

    def __init__(
        self, world: World, directory: Path, data: Path, holder: int, *, live_restore: bool = False
    ) -> None:
        self._world = world
        self._directory = directory
        self._data = data
        self._holder = holder
        self._live_restore = live_restore
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "daemon.json").write_text(_NO_CONFIGURATION, encoding="ascii")

    @property
    def environment(self) -> dict[str, str]:
        """Variables that lead a Docker client to it."""
        return {"DOCKER_HOST": f"unix://{self._socket}"}

    @property
    def _socket(self) -> Path:
        return self._directory / "docker.sock"

    @property
    def log(self) -> str:
        """What it has said."""
        return (self._directory / "dockerd.log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert self._process is None
        options: list[str | Path] = [
            *("--config-file", self._directory / "daemon.json", "--data-root", self._data),
            *("--exec-root", self._directory / "exec", "--pidfile", self._directory / "dockerd.pid"),
            *("--host", f"unix://{self._socket}", *(["--live-restore"] if self._live_restore else [])),
        ]
        with (self._directory / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["nsenter", f"--target={self._holder}", "--mount", "--net", "dockerd", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._answers, "the engine answers", _UP_WITHIN_S)

    def stop(self) -> None:
        """End it as a service manager does; without live-restore it ends its containers first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it by SIGKILL: it ends nothing any more, and the next one finds what runs."""
        self._end(signal.SIGKILL)

    def docker(self, *arguments: str, within_s: float = 120) -> str:
        """Run a docker command against it and return what it prints."""
        done = subprocess.run(
            ["docker", *arguments],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            timeout=within_s,
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def take_images(self, names: Sequence[str]) -> None:
        """Load images from the machine's own engine."""
        with subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE) as saving:
            subprocess.run(
                ["docker", "load", "--quiet"],
                stdin=saving.stdout,
                stdout=subprocess.DEVNULL,
                check=True,
                env={**os.environ, **self.environment},
                timeout=600,
            )
        assert saving.returncode == 0, f"docker save {' '.join(names)}"

    def end_everything(self) -> None:
        """Remove its containers and end it; one that has ended is started again to do so."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        if not self._data.exists():
            return
        if self._process is None:
            self.start()
        if containers := self.docker("ps", "--all", "--quiet").split():
            self.docker("rm", "--force", *containers)
        self.stop()

    def _end(self, number: int) -> None:
        assert self._process is not None
        # Until somebody has reaped it, a dockerd that is started takes the old containerd's pid for
        # a containerd that runs, and waits for it in vain.
        pid = (self._directory / "exec" / "containerd" / "containerd.pid").read_text(encoding="ascii")
        self._process.send_signal(number)
        self._process.wait(_DOWN_WITHIN_S)
        self._process = None
        eventually(lambda: not Path("/proc", pid).exists(), "its containerd is gone", _DOWN_WITHIN_S)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"dockerd does not start:\n{self.log[-2000:]}"
        done = subprocess.run(
            ["docker", "version"],
            check=False,
            capture_output=True,
            env={**os.environ, **self.environment},
            timeout=60,
        )
        return done.returncode == 0


@contextmanager
def engine_in(
    world: World,
    *,
    data: Path | None = None,
    live_restore: bool = False,
    devices: Sequence[Sequence[str]] = (),
) -> Iterator[Engine]:
    """Prepare an engine in the host of `world`, not yet started; end it and all that is in it afterwards.

    Args:
        world: A test's world.
        data: Where images are, if there are some already; they stay.
        live_restore: Whether containers outlive it.
        devices: Commands that change what it sees of the machine's files, before it starts.
    """
    # No namespace of its own: it keeps /dev and the cgroups where the machine has them.
    holder = subprocess.Popen(
        [
            *("nsenter", f"--net=/run/netns/{world.host}"),
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", "echo; exec sleep infinity"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    directory = Path(tempfile.mkdtemp(prefix="qct-engine-", dir="/var/tmp"))
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n", "a namespace of mounts cannot be had"
        for command in devices:
            subprocess.run(["nsenter", f"--target={holder.pid}", "--mount", *command], check=True, timeout=30)
        engine = Engine(world, directory, data or directory / "data", holder.pid, live_restore=live_restore)
        try:
            yield engine
        finally:
            engine.end_everything()
    finally:
        holder.kill()
        holder.communicate(timeout=10)
        shutil.rmtree(directory)
