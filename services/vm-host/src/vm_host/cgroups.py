"""A cgroup for each machine, where vm-host may make one.

Owns the directory ``qcontroller-<hash of the socket's path>`` below vm-host's own cgroup (v2 only) and what
is in it. It enables no controller and sets no limit: it gives the host's tools one name for everything
that belongs to a machine, to account for it, freeze it or end it (``cgroup.kill``). It must never be the
reason why a child cannot start: where it may make nothing, children stay in vm-host's cgroup.

Source: Linux, Documentation/admin-guide/cgroup-v2.rst.
"""

import hashlib
import logging
from contextlib import suppress
from pathlib import Path
from typing import Self

_log = logging.getLogger(__name__)
_PROC = Path("/proc/self")


class Cgroups:
    """The cgroups of one vm-host.

    Args:
        root: Their directory, which is made here; None where there can be none.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        if root is None:
            return
        try:
            root.mkdir(exist_ok=True)
            # What an earlier vm-host left: its children died with it.
            for path in [entry for entry in root.iterdir() if entry.is_dir()]:
                _remove(path)
        except OSError as exc:
            _log.info("no cgroups", extra={"error": str(exc)})
            self.root = None

    @classmethod
    def of(cls, socket_path: Path) -> Self:
        """Return those of the vm-host at this socket."""
        name = hashlib.sha256(bytes(socket_path.absolute())).hexdigest()[:12]
        own = _own_cgroup(_PROC)
        return cls(None if own is None else own / f"qcontroller-{name}")

    def enter(self, machine_id: str, pid: int) -> None:
        """Move a child into its machine's cgroup; a guest has not run yet, since QEMU waits for `cont`."""
        if self.root is None:
            return
        path = self.root / machine_id
        try:
            path.mkdir(exist_ok=True)
            (path / "cgroup.procs").write_text(str(pid), encoding="ascii")
        except OSError as exc:
            # It has ended already, or the host changed its mind.
            _log.info("child not moved", extra={"machineId": machine_id, "error": str(exc)})
            _remove(path)

    def leave(self, machine_id: str) -> None:
        """Remove a machine's cgroup, unless another child of it lives."""
        if self.root is not None:
            _remove(self.root / machine_id)

    def close(self) -> None:
        """Remove the directory of all."""
        if self.root is not None:
            _remove(self.root)


def _own_cgroup(proc: Path) -> Path | None:
    """Return the directory of the calling process's cgroup, if there is a v2 hierarchy."""
    try:
        memberships = (proc / "cgroup").read_text(encoding="utf-8", errors="surrogateescape")
        mounts = (proc / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    own = [line.removeprefix("0::") for line in memberships.splitlines() if line.startswith("0::")]
    for line in mounts.splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 ") and own:
            return Path(mount.split(" ")[4]) / own[0].lstrip("/")
    return None


def _remove(path: Path) -> None:
    # Not there, or not empty: both mean that there is nothing to do.
    with suppress(OSError):
        path.rmdir()
