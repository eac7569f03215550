"""Compose v2 and buildx, plugins of the Docker client: found, or unpacked from Debian trixie.

Both are static programs. They go where the client looks for what an administrator added, so that neither
dpkg's files nor anybody's home are touched.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from qcengine import debian

_DIRECTORY: Final = Path("/usr/local/libexec/docker/cli-plugins")
_PACKAGES: Final = {"compose": "docker-compose", "buildx": "docker-buildx"}


def missing() -> list[str]:
    """Return which plugins the Docker client lacks; a Compose older than v2 is no plugin."""
    return [name for name in _PACKAGES if not _answers(name)]


def install(names: list[str], cache: Path) -> None:
    """Unpack plugins from Debian trixie.

    Raises:
        EngineError: Apt's sources name no Debian mirror.
        BuildError: The mirror does not have them.
    """
    with tempfile.TemporaryDirectory(prefix="qc-plugins-") as scratch:
        tree = Path(scratch)
        debian.unpack_from_trixie([_PACKAGES[name] for name in names], cache, tree)
        _DIRECTORY.mkdir(parents=True, exist_ok=True)
        for name in names:
            (program,) = tree.rglob(f"cli-plugins/docker-{name}")
            shutil.copy2(program, _DIRECTORY / program.name)


def _answers(name: str) -> bool:
    try:
        done = subprocess.run(["docker", name, "version"], capture_output=True, check=False, timeout=30)
    except FileNotFoundError:
        return False
    return done.returncode == 0
