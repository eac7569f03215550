"""A database that its machines have moved on from: a backup, or that of a controller that was replaced."""

import asyncio
import shutil
import sqlite3
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from controller_fakes import Cloud, FakeRunner, FakeStore, reason_of, running_cloud
from qcontroller.controller.v1 import host_pb2, instance_pb2, operation_pb2


class Backup:
    """A controller whose database is copied while it is away, and brought back later."""

    def __init__(self, path: Path) -> None:
        self.path = path / "state"
        self.copy = path / "copy"
        self.path.mkdir()
        self.runner = FakeRunner()
        self.store = FakeStore()

    def controller(self, path: Path | None = None) -> AbstractAsyncContextManager[Cloud]:
        return running_cloud(path or self.path, self.runner, self.store)

    async def save(self) -> None:
        await asyncio.to_thread(shutil.copytree, self.path, self.copy)

    async def restore(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self.path)
        await asyncio.to_thread(self.copy.rename, self.path)


@pytest.fixture
def backup(tmp_path: Path) -> Backup:
    return Backup(tmp_path)


def copy_live(path: Path, to: Path) -> None:
    """Copy a database that is in use, as SQLite's own backup does."""
    to.mkdir()
    with (
        closing(sqlite3.connect(path / "controller.db")) as source,
        closing(sqlite3.connect(to / "controller.db")) as copy,
    ):
        source.backup(copy)


async def orphans(cloud: Cloud) -> list[host_pb2.Orphan]:
    answer = await cloud.nodes.ListOrphans(host_pb2.ListOrphansRequest(node="node-1"), timeout=10)
    return list(answer.orphans)


async def cursor_of(cloud: Cloud) -> str:
    stream = cloud.events.WatchEvents(host_pb2.WatchEventsRequest())
    await stream.initial_metadata()
    await cloud.launch("cursor", start=False)
    event = (await anext(stream.__aiter__())).event
    stream.cancel()
    return str(event.cursor)


async def test_a_machine_that_moved_on_obeys_a_database_from_before(backup: Backup) -> None:
    async with backup.controller() as cloud:
        await cloud.launch()
    await backup.save()
    async with backup.controller() as cloud:
        for _ in range(3):
            await cloud.verb("Stop")
            await cloud.verb("Start")
    await backup.restore()
    async with backup.controller() as cloud:
        assert (await cloud.verb("Stop")).status.state == instance_pb2.INSTANCE_STATE_STOPPED
        await cloud.done(await cloud.ask("Delete"))
    assert backup.runner.machines == {}


async def test_what_was_launched_after_the_backup_is_an_orphan_and_comes_back(backup: Backup) -> None:
    async with backup.controller() as cloud:
        await cloud.launch("old")
    await backup.save()
    async with backup.controller() as cloud:
        new = await cloud.launch("new")
    await backup.restore()
    async with backup.controller() as cloud:
        (orphan,) = await orphans(cloud)
        assert (orphan.id, orphan.name, orphan.reason) == (new.id, "new", "NOT_IN_DATABASE")
        request = instance_pb2.ImportInstanceRequest(node="node-1", id=new.id)
        await cloud.done((await cloud.instances.ImportInstance(request, timeout=10)).mutation)
        assert (await cloud.get("new")).status.state == instance_pb2.INSTANCE_STATE_RUNNING


async def test_what_was_deleted_after_the_backup_can_be_deleted_again(backup: Backup) -> None:
    async with backup.controller() as cloud:
        await cloud.launch()
    await backup.save()
    async with backup.controller() as cloud:
        await cloud.done(await cloud.ask("Delete", force=True))
    await backup.restore()
    async with backup.controller() as cloud:
        lost = await cloud.until(lambda found: found.status.state == instance_pb2.INSTANCE_STATE_FAILED)
        assert lost.status.reason == "MACHINE_LOST"
        await cloud.done(await cloud.ask("Delete"))


async def test_cursors_of_the_time_that_is_gone_have_expired(backup: Backup) -> None:
    async with backup.controller() as cloud:
        await cloud.launch()
    await backup.save()
    async with backup.controller() as cloud:
        await cloud.verb("Stop")
        cursor = await cursor_of(cloud)
    await backup.restore()
    async with backup.controller() as cloud:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(cloud.events.WatchEvents(host_pb2.WatchEventsRequest(cursor=cursor)).__aiter__())
        assert reason_of(refused.value)[0] == "CURSOR_EXPIRED"


async def test_a_database_that_is_not_behind_keeps_its_cursors(backup: Backup) -> None:
    async with backup.controller() as cloud:
        await cloud.launch()
        cursor = await cursor_of(cloud)
    async with backup.controller() as cloud:
        stream = cloud.events.WatchEvents(host_pb2.WatchEventsRequest(cursor=cursor))
        assert (await anext(stream.__aiter__())).event.instance == "cursor"
        stream.cancel()


async def test_a_controller_whose_machines_were_imported_elsewhere_is_shut_out_and_says_so(
    backup: Backup, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with backup.controller() as before:
        lost = await before.launch()
        async with backup.controller(other) as after:
            request = instance_pb2.ImportInstanceRequest(node="node-1", id=lost.id)
            await after.done((await after.instances.ImportInstance(request, timeout=10)).mutation)
            machine = backup.runner.machines[lost.id]
            operation = await before.ended((await before.ask("Stop", force=True)).operation.id)
            assert operation.state == operation_pb2.OPERATION_STATE_FAILED
            assert operation.error.reason == "STALE_FENCE"
            assert replace(backup.runner.machines[lost.id], revision=0) == replace(machine, revision=0)
            assert (await before.get()).status.state == instance_pb2.INSTANCE_STATE_RUNNING
            assert (await after.verb("Stop")).status.state == instance_pb2.INSTANCE_STATE_STOPPED


async def test_a_controller_that_was_shut_out_stays_so_when_it_is_started_again(
    backup: Backup, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with backup.controller() as before:
        lost = await before.launch()
    async with backup.controller(other) as after:
        request = instance_pb2.ImportInstanceRequest(node="node-1", id=lost.id)
        await after.done((await after.instances.ImportInstance(request, timeout=10)).mutation)
        async with backup.controller() as before:
            operation = await before.ended((await before.ask("Stop")).operation.id)
            assert operation.error.reason == "STALE_FENCE"
            assert backup.runner.machines[lost.id].running


async def test_a_controller_that_wakes_up_late_does_not_take_its_machines_back(
    backup: Backup, tmp_path: Path
) -> None:
    # The copy is the same database: both have the machines' identity, and the later one counts further.
    async with backup.controller() as before:
        lost = await before.launch()
        await asyncio.to_thread(copy_live, backup.path, tmp_path / "later")
        async with backup.controller(tmp_path / "later") as later:
            for _ in range(3):
                await later.verb("Stop")
                await later.verb("Start")
            backup.runner.break_off()
            backup.runner.away = False
            backup.runner.watched.clear()
            await backup.runner.watched.wait()
            operation = await before.ended((await before.ask("Stop")).operation.id)
            assert operation.error.reason == "STALE_FENCE"
            assert backup.runner.machines[lost.id].running
