"""The files of one machine: its directory, disk, seed, logs and sockets.

Everything in a machine's directory belongs to the machine's uid where it must, and to the runner
otherwise; other machines' uids cannot enter it. Blocks: `MachineFiles` calls it in threads.
"""

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qemu_runner.domain.arch import VARIABLES_BYTES
from qemu_runner.domain.iso9660 import build_iso
from qemu_runner.domain.machine import DiskFormat, Image, Layer, MachineId, Nic, Seed
from qemu_runner.domain.nocloud import seed_files
from qemu_runner.domain.qcow2 import HEADER_BYTES, empty_overlay, overlay_size
from qemu_runner.errors import DiskFullError, DiskUnsafeError, QemuUnavailableError
from qemu_runner.store.files import disk_errors, replace_file, sync_directory
from qemu_runner.store.machine_store import RECORD_NAME
from qemu_runner.store.threads import in_thread

OVERLAY: Final = "overlay.qcow2"
BASE: Final = "base"
SEED: Final = "seed.iso"
VARIABLES: Final = "vars.fd"
CONSOLE_LOG: Final = "console.log"
CONSOLE_TIMES: Final = "console.times"
QEMU_LOG: Final = "qemu.log"
PASST_LOG: Final = "passt.log"
QEMU_ARGV: Final = "qemu-argv.json"
# Short, since a path of a unix socket has 107 characters at most.
SOCKETS: Final = ("qmp", "agent", "identity", "console")
_RESIZE_S: Final = 30.0
_LISTEN_BACKLOG: Final = 1


class MachineFiles:
    """The directories of all machines, each by its id.

    Args:
        state_dir: The runner's state directory.
        qemu_img: Program that grows disks.
    """

    def __init__(self, state_dir: Path, qemu_img: str = "qemu-img") -> None:
        self._machines = state_dir / "machines"
        self._qemu_img = qemu_img

    def directory(self, machine_id: MachineId) -> Path:
        """Return the machine's directory, whether it exists or not."""
        return self._machines / machine_id

    async def create(self, machine_id: MachineId, uid: int | None) -> None:
        """Make the directory; harmless if it exists."""
        await in_thread(self._create, machine_id, uid)

    async def exists(self, machine_id: MachineId) -> bool:
        """Tell whether the directory exists."""
        return await in_thread(self.directory(machine_id).is_dir)

    async def make_disk(
        self, machine_id: MachineId, image: Image, cached: Path, size_bytes: int, uid: int | None
    ) -> tuple[Layer, ...]:
        """Make the disk on the cached image, anew if a preparation that was cut off had begun one.

        Returns:
            Its layers, topmost first.

        Raises:
            DiskFullError: There is no room.
        """
        await in_thread(_make_disk, self.directory(machine_id), image, cached, size_bytes, uid)
        return (Layer(OVERLAY, DiskFormat.QCOW2), Layer(BASE, image.format, image.stored_digest))

    async def grow_disk(
        self, machine_id: MachineId, layers: tuple[Layer, ...], size_bytes: int
    ) -> tuple[Layer, ...]:
        """Grow the disk to `size_bytes` if it is smaller; return its layers.

        Raises:
            DiskFullError: There is no room.
            DiskUnsafeError: The machine's process made something else of its disk.
        """
        overlay = self.directory(machine_id) / OVERLAY
        if await in_thread(_virtual_size, overlay) < size_bytes:
            await self._grow(overlay, size_bytes)
        return layers

    async def make_seed(self, machine_id: MachineId, seed: Seed, nics: Sequence[Nic], uid: int | None) -> str:
        """Write the NoCloud seed unless it is there as it is to be; return a hash of what it was made of.

        Raises:
            DiskFullError: There is no room.
        """
        directory = self.directory(machine_id)
        return await in_thread(_make_seed, directory / SEED, machine_id, seed, nics, uid)

    async def make_variables(self, machine_id: MachineId, uid: int | None) -> None:
        """Make an empty store of UEFI variables, unless the machine has one: what the guest wrote stays.

        Raises:
            DiskFullError: There is no room.
        """
        await in_thread(_make_variables, self.directory(machine_id) / VARIABLES, uid)

    async def open_logs(self, machine_id: MachineId, uid: int | None) -> tuple[dict[str, int], int]:
        """Make the logs of a new start; the caller closes the descriptors.

        Returns:
            Descriptors by file name for what QEMU and passt say, and the length of the console log.
        """
        return await in_thread(_open_logs, self.directory(machine_id), uid)

    async def keep_argv(self, machine_id: MachineId, argv: tuple[str, ...]) -> None:
        """Keep the argument list of the start that is about to be, for people and for evidence.

        Raises:
            DiskFullError: There is no room.
        """
        await in_thread(_keep_argv, self.directory(machine_id), argv)

    async def listen(self, machine_id: MachineId) -> dict[str, socket.socket]:
        """Bind the machine's sockets anew and listen; the caller closes them when QEMU has them."""
        return await in_thread(_listen, self.directory(machine_id))

    async def tail(self, machine_id: MachineId, name: str, length: int) -> str:
        """Return the last `length` bytes of a log as text; "" if there is none."""
        return await in_thread(_tail, self.directory(machine_id) / name, length)

    async def remove(self, machine_id: MachineId) -> None:
        """Remove the directory with everything in it; harmless if there is none."""
        await in_thread(_remove, self.directory(machine_id))

    async def remove_sockets(self, machine_id: MachineId) -> None:
        """Remove the sockets that nobody listens on any more."""
        await in_thread(_unlink_all, self.directory(machine_id), SOCKETS)

    def _create(self, machine_id: MachineId, uid: int | None) -> None:
        path = self.directory(machine_id)
        with disk_errors(path):
            path.mkdir(exist_ok=True)
            if uid is not None:
                os.chown(path, 0, uid)
            # The machine's own group passes through, and nobody else.
            path.chmod(0o710)
            sync_directory(path.parent)

    async def _grow(self, overlay: Path, size_bytes: int) -> None:
        # Without its backing file: nothing that a header names is ever opened.
        node = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(overlay)}}
        process = await asyncio.create_subprocess_exec(
            *(self._qemu_img, "resize", "-q", f"json:{json.dumps(node)}", str(size_bytes)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(_RESIZE_S):
                _, said = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            text = said.decode(errors="replace").strip()
            if "No space left" in text:
                raise DiskFullError(str(overlay))
            raise QemuUnavailableError(f"qemu-img resize failed: {text}")


def _make_disk(directory: Path, image: Image, cached: Path, size_bytes: int, uid: int | None) -> None:
    base, owner = directory / BASE, -1 if uid is None else uid
    with disk_errors(directory):
        # A link of its own: the cache may forget the image, and no other machine's can reach it.
        base.unlink(missing_ok=True)
        base.hardlink_to(cached)
        data = empty_overlay(size_bytes, BASE, image.format)
        replace_file(directory / OVERLAY, data, mode=0o600, uid=owner, gid=owner)


def _virtual_size(overlay: Path) -> int:
    try:
        with overlay.open("rb") as file:
            return overlay_size(file.read(HEADER_BYTES))
    except FileNotFoundError as exc:
        raise DiskUnsafeError(str(overlay), "it is not there any more") from exc
    except ValueError as exc:
        raise DiskUnsafeError(str(overlay), str(exc)) from exc


def _make_seed(path: Path, machine_id: MachineId, seed: Seed, nics: Sequence[Nic], uid: int | None) -> str:
    if seed.keep and path.exists():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    image = build_iso("cidata", seed_files(machine_id, seed, nics))
    owner, group = (-1, -1) if uid is None else (0, uid)
    if not path.exists() or path.read_bytes() != image:
        replace_file(path, image, mode=0o440, uid=owner, gid=group)
    return hashlib.sha256(image).hexdigest()


def _make_variables(path: Path, uid: int | None) -> None:
    if path.exists():
        return
    fresh = path.with_name(path.name + ".new")
    with disk_errors(path), fresh.open("wb") as file:
        # The firmware finds no header in the zeros and begins a store; the file has no blocks until then.
        file.truncate(VARIABLES_BYTES)
        fresh.chmod(0o600)
        if uid is not None:
            os.chown(fresh, uid, uid)
        fresh.replace(path)


def _open_logs(directory: Path, uid: int | None) -> tuple[dict[str, int], int]:
    opened: dict[str, int] = {}
    with disk_errors(directory):
        for name in (QEMU_LOG, PASST_LOG):
            path = directory / name
            path.unlink(missing_ok=True)
            opened[name] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        console = directory / CONSOLE_LOG
        descriptor = os.open(console, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if uid is not None:
                os.fchown(descriptor, uid, uid)
            return opened, os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)


def _keep_argv(directory: Path, argv: tuple[str, ...]) -> None:
    path = directory / QEMU_ARGV
    with disk_errors(directory):
        path.write_text(json.dumps(argv, indent=1))
        path.chmod(0o600)


def _listen(directory: Path) -> dict[str, socket.socket]:
    listening: dict[str, socket.socket] = {}
    try:
        for name in SOCKETS:
            path = directory / name
            # Bound beside and renamed: whoever connects meets the old socket or the new one.
            temporary = directory / f".{secrets.token_hex(2)}"
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listening[name] = listener
            listener.bind(str(temporary))
            temporary.chmod(0o600)
            temporary.replace(path)
            listener.listen(_LISTEN_BACKLOG)
    except BaseException:
        for listener in listening.values():
            listener.close()
        raise
    return listening


def _tail(path: Path, length: int) -> str:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - length))
            data = file.read(length)
    except FileNotFoundError:
        return ""
    return data.replace(b"\0", b"").decode(errors="replace")


def _unlink_all(directory: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (directory / name).unlink(missing_ok=True)


def _remove(directory: Path) -> None:
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        # The record goes last: until then a crash leaves a machine that can be deleted again.
        if path.name == RECORD_NAME:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    (directory / RECORD_NAME).unlink(missing_ok=True)
    directory.rmdir()
    sync_directory(directory.parent)
