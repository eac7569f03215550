"""The seed: what the user gave is in it byte for byte, and it is written only when it changes."""

import gzip
from pathlib import Path

import pytest
from qemu_runner.domain.machine import MachineId, Nic, Seed
from qemu_runner.store.machine_files import MachineFiles
from runner_fakes import new_id

USER_DATA = {
    "comments": b"#cloud-config\n# kept: \xc3\xa4\nruncmd: [echo]  # and this\n\n",
    "jinja": b"## template: jinja\n#cloud-config\nhostname: {{ ds.meta_data.local_hostname }}\n",
    "windows": b"#cloud-config\r\nruncmd: []\r\n",
    "script": b"#!/bin/sh\nprintf 'no newline at the end'",
    "mime": b"Content-Type: multipart/mixed; boundary=x\nMIME-Version: 1.0\n\n--x\n\n#!/bin/sh\n--x--\n",
    "gzip": gzip.compress(b"#cloud-config\n{}\n"),
    "no text": bytes(range(256)) * 9,
}
NICS = (Nic("qc0", "52:54:00:12:34:56"), Nic("user", "52:54:00:00:00:0a"))


async def seed_of(directory: Path, machine_id: MachineId, seed: Seed, nics: tuple[Nic, ...] = NICS) -> Path:
    """Make the machine's seed and return its file."""
    (directory / "machines").mkdir(exist_ok=True)
    files = MachineFiles(directory)
    await files.create(machine_id, None)
    await files.make_seed(machine_id, seed, nics, None)
    return files.directory(machine_id) / "seed.iso"


@pytest.mark.parametrize("kind", USER_DATA)
async def test_user_data_is_passed_byte_for_byte(tmp_path: Path, kind: str) -> None:
    file = await seed_of(tmp_path, new_id(), Seed(user_data=USER_DATA[kind], hostname="web-1"))
    image = file.read_bytes()
    at = image.index(USER_DATA[kind])
    # A file begins with a block, and its last block is filled up with zeros.
    assert at % 2048 == 0
    assert image[at + len(USER_DATA[kind])] == 0


async def test_a_seed_that_would_be_the_same_is_not_written(tmp_path: Path) -> None:
    machine_id, seed = new_id(), Seed(user_data=USER_DATA["comments"], hostname="web-1")
    before = (await seed_of(tmp_path, machine_id, seed)).stat()
    after = (await seed_of(tmp_path, machine_id, seed)).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_a_changed_seed_is_written_anew(tmp_path: Path) -> None:
    machine_id = new_id()
    before = (await seed_of(tmp_path, machine_id, Seed(hostname="web-1"))).read_bytes()
    after = (await seed_of(tmp_path, machine_id, Seed(hostname="web-2"))).read_bytes()
    assert b"web-2" in after
    assert after != before


@pytest.mark.parametrize(
    "other",
    [
        Seed(b"#cloud-config\n", hostname="web-1", vendor_data=b"#cloud-config\n{}\n"),
        Seed(b"#cloud-config\n", hostname="web-1", public_keys=("ssh-ed25519 AAAA",)),
        Seed(b"#cloud-config\n", hostname="web-1", network_config=b"version: 2"),
        Seed(b"#cloud-config \n", hostname="web-1"),
        Seed(b"#cloud-config\n", hostname="web-1", instance_id="x-1"),
    ],
)
async def test_each_part_changes_the_seed(tmp_path: Path, other: Seed) -> None:
    machine_id = new_id()
    before = (await seed_of(tmp_path, machine_id, Seed(b"#cloud-config\n", hostname="web-1"))).stat()
    after = (await seed_of(tmp_path, machine_id, other)).stat()
    assert (after.st_ino, after.st_mtime_ns) != (before.st_ino, before.st_mtime_ns)
