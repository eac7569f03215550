"""The published image and what it was made of.

Owns the output directory: the image, its manifest beside it and the lock between two builders. An image
appears whole or not at all; a manifest never describes another image than the one beside it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from guestbuild.packages import Package

FORMAT = 1


class ImageSlot:
    """One image name in one output directory."""

    def __init__(self, directory: Path, name: str) -> None:
        """Stand for ``directory/name`` (a qcow2 file)."""
        self.image = directory / name
        self._manifest = self.image.with_suffix(".json")
        self._lock = directory / f".{name}.lock"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep other builders of this image waiting."""
        self.image.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def is_current(self, key: str) -> bool:
        """Tell whether the published image was made from the inputs of ``key``."""
        return self.image.is_file() and self._described().get("key") == key

    def has_recipe(self, recipe: str) -> bool:
        """Tell whether the published image was made by this recipe, from whatever package versions."""
        return self.image.is_file() and self._described().get("recipe") == recipe

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Yield a directory on the output's file system that is removed afterwards."""
        with tempfile.TemporaryDirectory(prefix=".build-", dir=self.image.parent) as path:
            yield Path(path)

    def publish(self, built: Path, *, key: str, recipe: str, packages: Sequence[Package]) -> None:
        """Put a finished image in its place."""
        manifest = built.with_suffix(".json.new")
        described = {
            "key": key,
            "recipe": recipe,
            "size_bytes": built.stat().st_size,
            "packages": {package.name: package.version for package in packages},
        }
        manifest.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        with built.open("rb") as file:
            os.fsync(file.fileno())
        built.chmod(0o644)
        self._manifest.unlink(missing_ok=True)
        built.replace(self.image)
        manifest.replace(self._manifest)

    def _described(self) -> dict[str, object]:
        try:
            described = json.loads(self._manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return described if isinstance(described, dict) else {}


def recipe_digest(roots: Sequence[Path]) -> str:
    """Return a digest of every file below ``roots``: names, modes and contents."""
    digest = hashlib.sha256(b"%d\n" % FORMAT)
    for root in roots:
        for path in sorted([root] if root.is_file() else root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                executable = bool(path.stat().st_mode & 0o100)
                digest.update(f"{path.relative_to(root.parent)}\0{executable}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def content_key(recipe: str, packages: Sequence[Package]) -> str:
    """Return the key of an image: its recipe and the digest of every package in it."""
    lines = [recipe, *sorted(f"{package.pin} {package.sha256}" for package in packages)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
