"""What a build of the images is told about this host: base image, trust, pip's settings, MinIO.

Owns `.env`, which Compose reads by itself, so that a plain `docker compose` sees the same images as `make
up`. It never touches an `.env` that somebody else wrote.
"""

import configparser
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qcengine import base_images, engine
from qcengine.errors import EngineError

GUEST_PACKAGES: Final = "QC_GUEST_PACKAGES"
"""Variable that names what vm-host's image gets besides, for guests of other architectures."""
_HEADER: Final = "# Written by `make up` and `make base-images`.\n"
# What decides from where pip fetches and whom it trusts; the rest is a matter of taste.
_PIP_KEYS: Final = (
    "index-url",
    "extra-index-url",
    "trusted-host",
    "proxy",
    "default-timeout",
    "timeout",
    "retries",
)
_PIP_LINE: Final = re.compile(r"(?:global|user|site|install|:env:)\.([a-z-]+)='(.*)'")


@dataclass(frozen=True, slots=True)
class Project:
    """One checkout whose images are built.

    Attributes:
        root: The checkout.
    """

    root: Path

    @property
    def cache(self) -> Path:
        """Where generated files go."""
        return self.root / ".cache" / "compose"

    def vm_host_tag(self, base: str) -> str:
        """Return the tag of vm-host's image: a digest of everything in this checkout that it is made of."""
        service = self.root / "services" / "vm-host"
        digest = hashlib.sha256(base.encode())
        if packages := os.environ.get(GUEST_PACKAGES, ""):
            digest.update(f"\0{packages}".encode())
        for path in (service / "Dockerfile", *sorted((service / "src").rglob("*.py"))):
            digest.update(f"\0{path.relative_to(service)}\0".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()[:12]

    def prepare(self, say: Callable[[str], None], *, refresh: bool = False) -> dict[str, str]:
        """Make sure that a base is here, write `.env`, and return what it says.

        Raises:
            EngineError: There is no base, or `.env` is somebody else's.
            BuildError: The base cannot be made.
        """
        base = base_images.provide(say, refresh=refresh)
        values = {"QC_BASE": base, "QC_TAG_VM_HOST": self.vm_host_tag(base)}
        if packages := os.environ.get(GUEST_PACKAGES, ""):
            values[GUEST_PACKAGES] = packages
        self.cache.mkdir(parents=True, exist_ok=True)
        if base_images.CA_BUNDLE.exists():
            values["QC_CA"] = str(base_images.CA_BUNDLE)
        configuration = self.cache / "pip.conf"
        # It may hold a password of the index.
        configuration.touch(mode=0o600)
        configuration.write_text(pip_configuration(trusted="QC_CA" in values), encoding="utf-8")
        values["QC_PIP_CONF"] = str(configuration)
        if not engine.builds_in_parallel():
            values["COMPOSE_PARALLEL_LIMIT"] = "1"
        values["QC_MINIO_SOURCE"] = values["QC_PAGE_SOURCE"] = "build"
        if base != base_images.OFFICIAL:
            # Where no Python image can be pulled, no Go image can, nor one of Node.
            self._take_minio()
            values["QC_MINIO_SOURCE"] = values["QC_PAGE_SOURCE"] = "host"
            # Where npm is missing it says so, and the page does.
            subprocess.run([self.root / "tools" / "console-page"], check=False)
        self._write(values)
        return values

    def _take_minio(self) -> None:
        """Put the binary that is built on this host, once, where the image takes it from.

        Raises:
            EngineError: It cannot be built.
        """
        built = subprocess.run(
            [self.root / "tools" / "minio"], stdout=subprocess.PIPE, text=True, check=False
        )
        if built.returncode:
            raise EngineError("MinIO cannot be built (above)")
        source, target = Path(built.stdout.strip()), self.cache / "minio"
        if not target.exists() or not os.path.samestat(source.stat(), target.stat()):
            target.unlink(missing_ok=True)
            try:
                target.hardlink_to(source)
            except OSError:
                # QC_CACHE may lie on another file system.
                shutil.copy2(source, target)

    def _write(self, values: dict[str, str]) -> None:
        path = self.root / ".env"
        if path.exists() and not path.read_text(encoding="utf-8").startswith(_HEADER):
            raise EngineError(f"{path} was not written by this tool: move it away")
        lines = [f"{name}={value}\n" for name, value in values.items()]
        fresh = path.with_suffix(".new")
        fresh.write_text(_HEADER + "".join(lines), encoding="utf-8")
        fresh.replace(path)


def pip_configuration(*, trusted: bool) -> str:
    """Return the host's pip configuration for a build: its index, proxy and trust, as a file.

    Args:
        trusted: Whether the host's CA bundle is handed in as a secret beside it.
    """
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    found = {match[1]: match[2] for match in map(_PIP_LINE.match, listed.splitlines()) if match}
    variables = {key: os.environ.get(f"PIP_{key.upper().replace('-', '_')}") for key in _PIP_KEYS}
    found |= {key: value for key, value in variables.items() if value}
    parser = configparser.RawConfigParser()
    parser["global"] = {key: found[key] for key in _PIP_KEYS if key in found}
    if trusted:
        parser["global"]["cert"] = "/run/secrets/ca"
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()
