"""A controller that is killed while it seals secrets anew, as a process."""

import asyncio
import base64
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from controller.database import Database
from controller.domain.instance import DesiredPower, Instance, InstanceId, InstanceImage, Resources
from controller.domain.lifecycle import InstanceState
from controller.domain.readiness import Readiness
from controller.records import instance_rows, sealed_rows
from controller.records.instance_rows import Secrets
from controller.records.keyring import KEY_BYTES, key_id
from controller.records.sealed_rows import INSTANCE_SECRETS
from sqlalchemy import Connection

pytestmark = pytest.mark.real

KEY = bytes(KEY_BYTES)
CANARY = "canary-of-the-user-data"
COUNT = 130


def many(conn: Connection) -> None:
    """Add instances whose secrets are plain."""
    for n in range(COUNT):
        found = Instance(
            id=InstanceId(f"id-{n:03}"),
            name=f"web-{n}",
            image=InstanceImage("tiny", "d", "s", "raw", 1),
            arch="x86_64",
            resources=Resources(1, 64, 64),
            nics=(),
            labels={},
            readiness=Readiness(),
            node="node-1",
            state=InstanceState.STOPPED,
            desired_power=DesiredPower.STOPPED,
            create_time=datetime(2026, 1, 1, tzinfo=UTC),
        )
        instance_rows.add(conn, found, Secrets(f"{CANARY} {n}".encode(), ""))


async def started(path: Path, **environ: str) -> asyncio.subprocess.Process:
    """Start the service as an operator does."""
    settings = {
        "listen": [f"unix:{path}/c.sock"],
        "databaseUrl": f"sqlite:///{path}/controller.db",
        "imageStore": f"unix:{path}/none.sock",
        "runners": [{"node": "node-1", "target": f"unix:{path}/none.sock"}],
    }
    (path / "controller.json").write_text(json.dumps(settings))
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "controller", "--config", str(path / "controller.json")),
        env=os.environ | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def output_of(process: asyncio.subprocess.Process) -> str:
    """Return all that it printed until its end."""
    async with asyncio.timeout(40):
        return (await process.communicate())[0].decode()


async def key_ids(path: Path) -> set[str]:
    async with Database(path / "controller.db") as database:
        return await database.read(lambda conn: sealed_rows.key_ids(conn, INSTANCE_SECRETS))


@pytest.fixture
async def plain(tmp_path: Path) -> Path:
    """A database of plain secrets, and a file with a key."""
    async with Database(tmp_path / "controller.db") as database:
        await database.write(many)
    key = tmp_path / "keys"
    key.write_bytes(base64.b64encode(KEY))
    key.chmod(0o400)
    return tmp_path


def files_with_canary(path: Path) -> list[str]:
    return [file.name for file in path.glob("controller.db*") if CANARY.encode() in file.read_bytes()]


async def test_sealing_that_was_killed_goes_on_and_leaves_nothing_plain(plain: Path) -> None:
    point = plain / "point"
    point.write_text("sealing.page")
    environ: dict[str, Any] = {"QC_CONTROLLER_SECRET_KEY_FILE": str(plain / "keys")}
    killed = await started(plain, QC_FAIL_POINT_FILE=str(point), **environ)
    await output_of(killed)
    assert killed.returncode == -signal.SIGKILL
    assert await key_ids(plain) == {"", key_id(KEY)}
    # The second page of the next start, and then its end.
    point.write_text("sealing.page")
    killed = await started(plain, QC_FAIL_POINT_FILE=str(point), **environ)
    await output_of(killed)
    assert killed.returncode == -signal.SIGKILL
    whole = await started(plain, **environ)
    try:
        async with asyncio.timeout(30):
            while not await asyncio.to_thread((plain / "c.sock").exists):  # noqa: ASYNC110 - another process's socket
                await asyncio.sleep(0.05)
        assert await asyncio.to_thread(files_with_canary, plain) == []
    finally:
        whole.terminate()
        await output_of(whole)
    assert await key_ids(plain) == {key_id(KEY)}
    assert files_with_canary(plain) == []


async def test_a_start_without_the_key_of_what_is_stored_says_which(plain: Path) -> None:
    environ = {"QC_CONTROLLER_SECRET_KEY_FILE": str(plain / "keys")}
    point = plain / "point"
    point.write_text("sealing.page")
    await output_of(await started(plain, QC_FAIL_POINT_FILE=str(point), **environ))
    refused = await started(plain)
    told = await output_of(refused)
    assert refused.returncode not in {0, None}
    assert f"secretKeyFile: the database holds secrets under {key_id(KEY)}" in told
    assert base64.b64encode(KEY).decode() not in told


async def test_a_key_file_that_others_read_is_refused_at_the_start(plain: Path) -> None:
    (plain / "keys").chmod(0o444)
    refused = await started(plain, QC_CONTROLLER_SECRET_KEY_FILE=str(plain / "keys"))
    told = await output_of(refused)
    assert refused.returncode not in {0, None}
    assert "mode 0444 lets others use it" in told
    assert files_with_canary(plain)
