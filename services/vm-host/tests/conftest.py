"""Fixtures: a directory that children of any uid can reach, and a vm-host in it."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from vm_host_process import FAKE_QEMU, PROGRAMS, VmHostProcess, running_vm_host


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A short path (sockets) that other uids may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="qc-vmh-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def fake_qemu(state_dir: Path) -> Path:
    """The fake QEMU, executable for every uid."""
    path = state_dir / "qemu-system-fake"
    shutil.copyfile(FAKE_QEMU, path)
    path.chmod(0o755)
    return path


@pytest.fixture
def vm_host(state_dir: Path, fake_qemu: Path) -> Iterator[VmHostProcess]:
    """A vm-host that may spawn a few plain programs and the fake QEMU."""
    with running_vm_host(state_dir, allowedPrograms=[*PROGRAMS, str(fake_qemu)]) as host:
        yield host


@pytest.fixture(scope="module")
def shared_vm_host() -> Iterator[VmHostProcess]:
    """One vm-host for all tests of a module that leave it as they found it."""
    with tempfile.TemporaryDirectory(prefix="qc-vmh-") as name:
        path = Path(name)
        path.chmod(0o755)
        with running_vm_host(path) as host:
            yield host
