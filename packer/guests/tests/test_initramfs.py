"""The archive writer and the module closure, without a kernel."""

import subprocess
from pathlib import Path

import pytest
from guestbuild.errors import GuestIncompleteError
from guestbuild.initramfs import Archive, module_closure, modules_dep


def module(directory: Path, name: str, depends: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.ko").write_bytes(
        b"\x7fELF..\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"
    )


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    module(tmp_path / "kernel/virtio", "virtio_ring", "")
    module(tmp_path / "kernel/virtio", "virtio", "virtio_ring")
    module(tmp_path / "kernel/virtio", "virtio_pci", "virtio_ring,virtio")
    module(tmp_path / "kernel/net", "virtio-net", "virtio,net_failover")
    module(tmp_path / "kernel/net", "net_failover", "failover")
    module(tmp_path / "kernel/net", "failover", "")
    return tmp_path


def test_a_dependency_is_loaded_before_what_needs_it(modules: Path) -> None:
    needs = [Path(path).stem for path in module_closure(modules, ["virtio_net"])["kernel/net/virtio-net.ko"]]
    assert needs == ["virtio_ring", "virtio", "failover", "net_failover"]


def test_the_closure_holds_every_needed_module_and_no_other(modules: Path) -> None:
    assert {Path(path).stem for path in module_closure(modules, ["virtio_pci"])} == {
        "virtio_ring",
        "virtio",
        "virtio_pci",
    }


def test_modules_dep_lists_the_first_to_load_last(modules: Path) -> None:
    lines = modules_dep(module_closure(modules, ["virtio_pci"])).decode().splitlines()
    assert "kernel/virtio/virtio_pci.ko: kernel/virtio/virtio.ko kernel/virtio/virtio_ring.ko" in lines


def test_an_unknown_module_is_refused(modules: Path) -> None:
    with pytest.raises(GuestIncompleteError, match="no module floppy"):
        module_closure(modules, ["floppy"])


def test_the_same_entries_give_the_same_bytes() -> None:
    def archive() -> bytes:
        made = Archive()
        made.add_file("etc/name", b"x")
        made.add_character_device("dev/null", 1, 3)
        return made.to_bytes()

    assert archive() == archive()


def test_a_later_file_replaces_an_earlier_one() -> None:
    archive = Archive()
    archive.add_symlink("sbin/poweroff", "/bin/busybox")
    archive.add_file("sbin/poweroff", b"#!/bin/sh\n", 0o755)
    assert archive.to_bytes().count(b"sbin/poweroff\0") == 1


def test_cpio_reads_back_what_was_written(tmp_path: Path) -> None:
    archive = Archive()
    archive.add_file("a/b/file", b"odd", 0o640)
    archive.add_symlink("a/link", "b/file")
    listing = subprocess.run(
        ["cpio", "-itv", "--quiet"], input=archive.to_bytes(), capture_output=True, check=True, cwd=tmp_path
    ).stdout.decode()
    assert [line.split()[0] for line in listing.splitlines()] == [
        "drwxr-xr-x",
        "drwxr-xr-x",
        "-rw-r-----",
        "lrwxrwxrwx",
    ]
