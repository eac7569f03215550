"""A base image equivalent to the official Python one, made from Debian packages where that cannot be pulled.

Owns its recipe and its name. The tag is a digest of what decides the content: the recipe, Debian's suite and
the host's CA bundle. The same tag is therefore the same recipe, not the same day: a base that exists is used
until `refresh` asks for a new one, since a new base restarts every VM (vm-host's image stands on it).
"""

import hashlib
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from guestbuild.errors import ToolMissingError
from guestbuild.programs import require, run

from qcengine import debian
from qcengine.errors import EngineError

OFFICIAL: Final = "python:3.13-slim"
REPOSITORY: Final = "qcontroller-base"
CA_BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_PACKAGES: Final = ("ca-certificates", "python3", "python3-venv")
# Documentation and translations are a third of the files.
_LEFT_OUT: Final = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")
_PROGRAMS: Final = {"mmdebstrap": "mmdebstrap"}
_PULL_WITHIN_S: Final = 300.0


def available() -> str | None:
    """Return the base that is here already: the official one, or the one made here; None if neither is."""
    for name in (OFFICIAL, local_name()):
        if _is_here(name):
            return name
    return None


def provide(say: Callable[[str], None], *, refresh: bool = False) -> str:
    """Return the name of a base image that is here: pulled, or made where pulling fails.

    Raises:
        EngineError: Docker takes no image.
        BuildError: A program or a package is missing.
    """
    found = None if refresh else available()
    if found is not None:
        return found
    try:
        pulled = subprocess.run(
            ["docker", "pull", "-q", OFFICIAL], capture_output=True, check=False, timeout=_PULL_WITHIN_S
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as exc:
        raise EngineError(f"docker pull {OFFICIAL}: {exc}") from exc
    if pulled.returncode == 0:
        return OFFICIAL
    say(f"{OFFICIAL} cannot be pulled here: making an equivalent from Debian {debian.SUITE}")
    try:
        require(_PROGRAMS)
    except ToolMissingError:
        debian.install(list(_PROGRAMS.values()))
    name = local_name()
    _make(name)
    return name


def local_name() -> str:
    """Return the name, with its tag, that a base made here has."""
    digest = hashlib.sha256("\n".join((debian.SUITE, *_PACKAGES, *_LEFT_OUT)).encode())
    if CA_BUNDLE.exists():
        digest.update(CA_BUNDLE.read_bytes())
    return f"{REPOSITORY}:{digest.hexdigest()[:12]}"


def _make(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="qc-base-", dir="/var/tmp") as scratch:
        archive = Path(scratch) / "base.tar"
        sources = Path(scratch) / "sources.list"
        sources.write_text("\n".join(debian.trixie_sources()) + "\n", encoding="utf-8")
        options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
        if CA_BUNDLE.exists():
            # A host that trusts an authority of its own would find no package index from inside a build.
            options.append(f"--customize-hook=copy-in {CA_BUNDLE} {CA_BUNDLE.parent}")
        run(
            [
                *("mmdebstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", *options),
                *(debian.SUITE, archive, sources),
            ]
        )
        run(["docker", "import", archive, name])


def _is_here(name: str) -> bool:
    done = subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False, timeout=60)
    return done.returncode == 0
