"""Secrets at rest: sealed where keys are configured, sealed anew where others sealed them, and never lost."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from controller.database import Target
from controller.errors import SecretUnreadable
from controller.operations import Permanent
from controller.operations.rows import meta
from controller.plans.translation import step_errors
from controller.records import image_sources, instance_rows
from controller.records.keyring import KEY_BYTES, Keyring, key_id
from controller.records.schema import image_sources as image_sources_table
from controller.records.schema import instance_secrets, instance_secrets_wanted
from controller_databases import KINDS, empty_database
from controller_fakes import Cloud, FakeRunner, reason_of, running_cloud
from qcontroller.controller.v1 import instance_pb2 as pb
from servicekit.settings import SettingsError
from sqlalchemy import Connection, Table, select, text, update

CANARY = "canary-of-the-user-data"
ONE, TWO = Keyring([bytes(KEY_BYTES)]), Keyring([b"\1" * KEY_BYTES])
BOTH = Keyring([b"\1" * KEY_BYTES, bytes(KEY_BYTES)])
SECRET = pb.CloudInit(userdata=f"#cloud-config\n# {CANARY}\n", network_config=f"version: 2 # {CANARY}\n")


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """Each claim holds on each database."""
    with empty_database(request.param, tmp_path) as found:
        yield found


@pytest.fixture
def runner() -> FakeRunner:
    """The machines stay while controllers come and go."""
    return FakeRunner()


def files_with(folder: Path, words: str) -> list[str]:
    """Return which files of a SQLite database hold these words."""
    return files_holding(folder, words.encode())


def files_holding(folder: Path, content: bytes) -> list[str]:
    return [file.name for file in folder.glob("controller.db*") if content in file.read_bytes()]


def rows_of(conn: Connection, table: Table) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in conn.execute(select(table))]


async def stored(cloud: Cloud) -> bytes:
    """Return everything that the tables of secrets hold, whatever it is."""
    found = [
        await cloud.database.read(partial(rows_of, table=table))
        for table in (instance_secrets, instance_secrets_wanted, image_sources_table)
    ]
    return repr(found).encode()


async def sealed_by(cloud: Cloud) -> set[str]:
    return set(
        await cloud.database.read(
            lambda conn: conn.execute(select(instance_secrets.c.key_id)).scalars().all()
        )
    )


async def user_data(cloud: Cloud, instance_id: str) -> str:
    secrets = await cloud.database.read(lambda conn: instance_rows.secrets_of(conn, instance_id))
    return secrets.user_data.decode()


async def test_with_a_key_nothing_plain_is_ever_in_the_files(tmp_path: Path) -> None:
    async with running_cloud(tmp_path, keys=ONE) as cloud:
        instance = await cloud.launch(start=False, cloud_init=SECRET)
        wanted = pb.CloudInitPatch(userdata=f"#cloud-config\n# wanted {CANARY}\n")
        request = pb.UpdateInstanceRequest(name="web-1", cloud_init=wanted)
        await cloud.done((await cloud.instances.UpdateInstance(request, timeout=10)).mutation)
        await cloud.database.write(lambda conn: image_sources.keep(conn, "s", f"https://me:{CANARY}@h/i"))
        assert (
            await cloud.database.read(lambda conn: image_sources.find(conn, "s"))
            == f"https://me:{CANARY}@h/i"
        )
        assert files_with(tmp_path, CANARY) == []
        await cloud.verb("Start")
        assert CANARY.encode() in cloud.runner.specs[instance.id].user_data
    assert files_with(tmp_path, CANARY) == []


async def test_without_a_key_they_are_plain_and_told_to_be(tmp_path: Path) -> None:
    # What the other tests look for can be found.
    async with running_cloud(tmp_path) as cloud:
        await cloud.launch(start=False, cloud_init=SECRET)
        assert files_with(tmp_path, CANARY)
        assert await sealed_by(cloud) == {""}


async def test_what_was_plain_is_sealed_at_the_start_and_gone_from_the_files(
    tmp_path: Path, target: Target, runner: FakeRunner
) -> None:
    async with running_cloud(tmp_path, runner, database=target) as cloud:
        kept = await cloud.launch(start=False, cloud_init=SECRET)
        # What a deleted instance leaves in pages that are free.
        await cloud.launch("gone", start=False, cloud_init=pb.CloudInit(userdata=CANARY * 2000))
        await cloud.done(await cloud.ask("Delete", "gone"))
        await cloud.database.write(lambda conn: image_sources.keep(conn, "s", CANARY))
    async with running_cloud(tmp_path, runner, database=target, keys=ONE) as cloud:
        assert CANARY.encode() not in await stored(cloud)
        assert await sealed_by(cloud) == {ONE.sealing_id}
        assert await user_data(cloud, kept.id) == SECRET.userdata
        assert await cloud.database.read(lambda conn: image_sources.find(conn, "s")) == CANARY
        assert files_with(tmp_path, CANARY) == []


async def test_the_key_is_rotated_by_putting_another_before_it(
    tmp_path: Path, target: Target, runner: FakeRunner
) -> None:
    async with running_cloud(tmp_path, runner, database=target, keys=ONE) as cloud:
        kept = await cloud.launch(start=False, cloud_init=SECRET)
        row = await cloud.database.read(partial(rows_of, table=instance_secrets))
        old = next(value for value in row[0] if isinstance(value, bytes))
        # Nothing can be found where PostgreSQL has the files.
        assert bool(files_holding(tmp_path, old)) is isinstance(target, Path)
    async with running_cloud(tmp_path, runner, database=target, keys=BOTH) as cloud:
        assert await sealed_by(cloud) == {TWO.sealing_id}
        assert files_holding(tmp_path, old) == []
    # The old one is not needed any more.
    async with running_cloud(tmp_path, runner, database=target, keys=TWO) as cloud:
        assert await user_data(cloud, kept.id) == SECRET.userdata


@pytest.mark.parametrize("keys", [Keyring(), TWO])
async def test_without_the_key_the_start_is_refused_with_its_id_and_nothing_is_lost(
    tmp_path: Path, target: Target, runner: FakeRunner, keys: Keyring
) -> None:
    async with running_cloud(tmp_path, runner, database=target, keys=ONE) as cloud:
        kept = await cloud.launch(start=False, cloud_init=SECRET)
    with pytest.raises(SettingsError, match=key_id(bytes(KEY_BYTES))):
        async with running_cloud(tmp_path, runner, database=target, keys=keys):
            pass
    async with running_cloud(tmp_path, runner, database=target, keys=ONE) as cloud:
        assert await user_data(cloud, kept.id) == SECRET.userdata


async def test_secrets_whose_key_is_lost_can_be_given_up_and_the_machine_keeps_its_seed(
    tmp_path: Path, target: Target, runner: FakeRunner
) -> None:
    async with running_cloud(tmp_path, runner, database=target, keys=ONE) as cloud:
        kept = await cloud.launch(start=False, cloud_init=SECRET)
        lost = text("DELETE FROM instance_secrets WHERE key_id = :lost")
        await cloud.database.write(lambda conn: conn.execute(lost, {"lost": ONE.sealing_id}))
    async with running_cloud(tmp_path, runner, database=target, keys=TWO) as cloud:
        await cloud.verb("Start")
        assert runner.specs[kept.id].user_data.decode() == SECRET.userdata


async def test_rows_that_were_swapped_open_nothing(tmp_path: Path, target: Target) -> None:
    async with running_cloud(tmp_path, database=target, keys=ONE) as cloud:
        first = await cloud.launch("first", start=False, cloud_init=SECRET)
        second = await cloud.launch("second", start=False, cloud_init=pb.CloudInit(userdata="x"))
        taken = select(instance_secrets.c.user_data).where(instance_secrets.c.instance_id == first.id)
        await cloud.database.write(
            lambda conn: conn.execute(
                update(instance_secrets)
                .where(instance_secrets.c.instance_id == second.id)
                .values(user_data=taken.scalar_subquery())
            )
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await cloud.ask("Start", "second")
        assert reason_of(refused.value)[0] == "SECRET_UNREADABLE"
        # What needs no secret goes on.
        await cloud.done(await cloud.ask("Delete", "second"))
        assert (await cloud.verb("Start", "first")).status.state == pb.INSTANCE_STATE_RUNNING


async def test_an_instance_whose_secrets_do_not_open_is_mended_by_giving_both_halves(
    tmp_path: Path, target: Target
) -> None:
    async with running_cloud(tmp_path, database=target, keys=ONE) as cloud:
        kept = await cloud.launch(start=False, cloud_init=SECRET)
        await cloud.database.write(
            lambda conn: conn.execute(update(instance_secrets).values(user_data=b"spoilt"))
        )
        half = pb.UpdateInstanceRequest(name="web-1", cloud_init=pb.CloudInitPatch(userdata="#!/bin/true"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await cloud.instances.UpdateInstance(half, timeout=10)
        assert reason_of(refused.value)[0] == "SECRET_UNREADABLE"
        both = pb.CloudInitPatch(userdata="#!/bin/true", network_config="version: 2\n")
        request = pb.UpdateInstanceRequest(name="web-1", cloud_init=both)
        await cloud.done((await cloud.instances.UpdateInstance(request, timeout=10)).mutation)
        await cloud.verb("Start")
        assert cloud.runner.specs[kept.id].user_data == b"#!/bin/true"


def test_a_step_whose_secret_does_not_open_fails_for_good() -> None:
    with pytest.raises(Permanent) as failed, step_errors():
        raise SecretUnreadable("instance i user_data", "no key")
    assert failed.value.problem.reason == "SECRET_UNREADABLE"


async def test_a_row_that_does_not_open_is_left_and_the_others_are_sealed_anew(
    tmp_path: Path, target: Target, runner: FakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_cloud(tmp_path, runner, database=target, keys=ONE) as cloud:
        bad = await cloud.launch("bad", start=False, cloud_init=SECRET)
        await cloud.launch("good", start=False, cloud_init=SECRET)
        spoil = update(instance_secrets).where(instance_secrets.c.instance_id == bad.id)
        await cloud.database.write(lambda conn: conn.execute(spoil.values(user_data=b"spoilt")))
    async with running_cloud(tmp_path, runner, database=target, keys=BOTH) as cloud:
        assert await sealed_by(cloud) == {ONE.sealing_id, TWO.sealing_id}
    assert "cannot be sealed anew" in caplog.text


async def test_a_controller_without_keys_notes_that_plain_secrets_come_in(tmp_path: Path) -> None:
    async def noted(cloud: Cloud) -> bool:
        return bool(
            await cloud.database.read(lambda conn: conn.execute(select(meta.c.plain_remains)).scalar_one())
        )

    async with running_cloud(tmp_path, keys=ONE) as cloud:
        assert not await noted(cloud)
    async with running_cloud(tmp_path) as cloud:
        assert not await noted(cloud)
        # As another controller does that has started long ago and still has no key.
        await cloud.launch(start=False, cloud_init=SECRET)
        assert await noted(cloud)
        await cloud.done(await cloud.ask("Delete"))
    async with running_cloud(tmp_path, keys=ONE) as cloud:
        assert files_with(tmp_path, CANARY) == []
        assert not await noted(cloud)


async def test_sealed_rows_of_an_update_pass_on_without_their_key(tmp_path: Path, target: Target) -> None:
    async with running_cloud(tmp_path, database=target, keys=ONE) as cloud:
        kept = await cloud.launch(start=False)
        wanted = instance_rows.Secrets(CANARY.encode(), "")
        await cloud.database.write(lambda conn: instance_rows.want_secrets(conn, kept.id, wanted))
        await cloud.database.write(
            lambda conn: instance_rows.take_wanted_secrets(
                conn.execution_options(qcontroller_keyring=Keyring()), kept.id
            )
        )
        await cloud.database.write(lambda conn: conn.execution_options(qcontroller_keyring=ONE))
        assert await user_data(cloud, kept.id) == CANARY


def test_keys_are_in_no_representation() -> None:
    assert json.dumps(repr(ONE)).count("object at") == 1
