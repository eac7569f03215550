"""What many instances cost: facts about pages, calls and rows, not about time."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from controller.domain.instance import Instance
from controller.domain.machine import MachinePhase
from controller.instances import observations
from controller.instances.observations import Observations
from controller.records import instance_rows
from controller_fakes import FakeRunner, FakeStore, running_cloud
from qcontroller.controller.v1 import instance_pb2 as pb
from sqlalchemy import Connection, text

PAGE = 4


async def test_a_restart_reads_by_the_page_and_asks_the_runner_only_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observations, "_PAGE", PAGE)
    runner, store = FakeRunner(), FakeStore()
    async with running_cloud(tmp_path, runner, store) as cloud:
        ids = sorted([(await cloud.launch(f"vm-{number}", start=False)).id for number in range(10)])
    pages: list[int] = []
    read = instance_rows.page_on_node

    def counted(conn: Connection, node: str, after: str, size: int) -> Sequence[Instance]:
        page = read(conn, node, after, size)
        pages.append(len(page))
        return page

    monkeypatch.setattr(instance_rows, "page_on_node", counted)
    runner.watchers.clear()
    runner.calls.clear()
    last = runner.machines[ids[-1]]
    runner.machines[last.id] = replace(last, phase=MachinePhase.ACTIVE, run_state="running", incarnation=1)
    async with running_cloud(tmp_path, runner, store) as cloud:
        listed = await cloud.instances.ListInstances(pb.ListInstancesRequest(), timeout=10)
        (name,) = [instance.name for instance in listed.instances if instance.id == last.id]
        await cloud.until(lambda found: found.status.state == pb.INSTANCE_STATE_RUNNING, name)
    assert max(pages) == PAGE
    assert sum(pages) % 10 == 0, "every pass reads each of them once"
    assert runner.calls.count("watch") == 1
    assert runner.calls.count("get") <= 2, "only the one that differs is looked at"


async def test_a_readiness_deadline_concerns_its_own_instance_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived: list[str] = []
    derive = Observations.derive

    async def counted(self: Observations, instance_ids: Sequence[str]) -> None:
        derived.extend(instance_ids)
        await derive(self, instance_ids)

    monkeypatch.setattr(Observations, "derive", counted)
    async with running_cloud(tmp_path) as cloud:
        one = await cloud.launch("vm-1")
        await cloud.launch("vm-2")
        cloud.runner.report(one.id, boot_time=datetime.now(UTC) - timedelta(seconds=359.9))
        await cloud.until(
            lambda found: "READINESS_TIMEOUT" in {each.reason for each in found.status.conditions}, "vm-1"
        )
    assert derived == [one.id]


async def test_pages_of_a_node_follow_an_index(tmp_path: Path) -> None:
    def plan(conn: Connection) -> list[str]:
        query = str(instance_rows._ON_NODE.compile(compile_kwargs={"render_postcompile": True}))
        given = {"wanted": "n", "after": "", "size": 1, "coalesce_1": ""}
        rows = conn.execute(text(f"EXPLAIN QUERY PLAN {query}"), given)
        return [row[3] for row in rows]

    async with running_cloud(tmp_path) as cloud:
        steps = await cloud.database.read(plan)
    assert not any(step.startswith("SCAN instances") or "TEMP B-TREE" in step for step in steps), steps
