"""The initramfs of a guest: a newc cpio archive written in-process, and the closure of kernel modules in it.

Written here rather than by cpio(1), so that owners, device nodes and times are ours whoever runs the build.
Format: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

import io
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from guestbuild.errors import GuestIncompleteError

_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@dataclass(slots=True)
class Archive:
    """Collects files, directories, links and nodes owned by root, then writes them in one archive."""

    _entries: dict[str, tuple[int, bytes, tuple[int, int]]] = field(default_factory=dict)

    def add_file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file at ``path`` (relative to the root), its directories included."""
        self._add(path, stat.S_IFREG | mode, content)

    def add_directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory and the ones above it."""
        self._add(path, stat.S_IFDIR | mode, b"")

    def add_symlink(self, path: str, target: str) -> None:
        """Add a symbolic link at ``path``."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def add_character_device(self, path: str, major: int, minor: int) -> None:
        """Add a character device node, which needs no privilege inside an archive."""
        self._add(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def add_tree(self, source: Path) -> None:
        """Add every file below ``source``; a file executable by its owner stays so."""
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source).as_posix()
            if path.is_symlink():
                self.add_symlink(name, str(path.readlink()))
            elif path.is_file():
                executable = path.stat().st_mode & stat.S_IXUSR
                self.add_file(name, path.read_bytes(), 0o755 if executable else 0o644)
            else:
                self.add_directory(name)

    def _add(self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        name = path.strip("/")
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            self._entries.setdefault(str(parent), (stat.S_IFDIR | 0o755, b"", (0, 0)))
        self._entries[name] = (mode, content, device)

    def to_bytes(self) -> bytes:
        """Return the archive; the same entries give the same bytes."""
        out = io.BytesIO()
        for inode, (name, (mode, content, device)) in enumerate(self._entries.items(), start=1):
            _write_entry(out, inode, name, mode, content, device)
        _write_entry(out, 0, "TRAILER!!!", 0, b"", (0, 0))
        return out.getvalue()


def _write_entry(
    out: io.BytesIO, inode: int, name: str, mode: int, content: bytes, device: tuple[int, int]
) -> None:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(encoded), 0)
    out.write(b"070701" + b"".join(b"%08X" % value for value in fields) + encoded)
    out.write(b"\0" * (-out.tell() % 4))
    out.write(content)
    out.write(b"\0" * (-out.tell() % 4))


def module_closure(modules: Path, wanted: Sequence[str]) -> dict[str, list[str]]:
    """Return each needed module's path below ``modules`` with the paths it needs, each list in load order.

    The kernel package ships no ``modules.dep``; each module names its own dependencies in its ``.modinfo``,
    so no depmod is needed for a handful of modules.

    Args:
        modules: The ``lib/modules/<version>`` directory.
        wanted: Module names, with ``-`` or ``_``.

    Raises:
        GuestIncompleteError: The kernel package has no such module.
    """
    by_name = {_canonical(path.stem): path for path in modules.rglob("*.ko")}
    closure: dict[str, list[str]] = {}

    def visit(name: str) -> list[str]:
        path = by_name.get(_canonical(name))
        if path is None:
            raise GuestIncompleteError(f"the kernel package has no module {name}")
        relative = path.relative_to(modules).as_posix()
        if relative in closure:
            return [*closure[relative], relative]
        match = _DEPENDS.search(path.read_bytes())
        names = [part.decode() for part in match.group(1).split(b",") if part] if match else []
        needs: dict[str, None] = {}
        for needed in names:
            needs.update(dict.fromkeys(visit(needed)))
        closure[relative] = list(needs)
        return [*needs, relative]

    for name in wanted:
        visit(name)
    return closure


def modules_dep(closure: Mapping[str, Sequence[str]]) -> bytes:
    """Return the text of ``modules.dep``: modprobe loads a line's modules from its end to its beginning."""
    lines = (" ".join([f"{path}:", *reversed(needs)]) + "\n" for path, needs in closure.items())
    return "".join(lines).encode()


def _canonical(name: str) -> str:
    return name.replace("-", "_")
