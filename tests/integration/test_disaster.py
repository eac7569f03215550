"""The controller's database is lost, old, or another controller's: no machine is lost by it.

Judged from the guest (boot id) and the host (processes), and only then by the API's own word.
"""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest
from framework import guests
from framework.api_client import BlockingApiClient
from framework.cloud import Cloud, Document, document
from framework.stack import Stack, eventually, free_ports, running_stack
from qcontroller.controller.v1 import instance_pb2, operation_pb2
from qcontroller.controller.v1.instance_pb2_grpc import InstanceServiceStub
from qcontroller.controller.v1.operation_pb2_grpc import OperationServiceStub

DATABASE = "controller.db"

pytestmark = [
    pytest.mark.native("a database is taken away and put back as a file"),
    pytest.mark.sqlite("a database is taken away and put back as a file"),
]


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A stack of this module's own, whose controller may lose its memory."""
    with running_stack("qc-dis-") as stack, BlockingApiClient(stack.base_url) as api:
        cloud = Cloud(stack, api)
        cloud.upload("tiny", guests.tiny())
        yield cloud


@pytest.fixture
def cloud(lossy: Cloud) -> Iterator[Cloud]:
    """The stack, without a machine before and after."""
    yield lossy
    for instance in document(lossy.api.request("GET", "/v1/instances"))["instances"]:
        lossy.delete(instance["name"])
    for orphan in orphans(lossy):
        remove(lossy, orphan["id"])
    assert lossy.leaks() == []
    assert document(lossy.api.request("GET", "/v1/images/tiny"))["usedBy"] == []


def plain(cloud: Cloud) -> Stack:
    """Return the stack, which is one of plain processes."""
    assert isinstance(cloud.stack, Stack)
    return cloud.stack


def orphans(cloud: Cloud) -> list[Document]:
    """Return the node's orphans."""
    response = cloud.api.request("GET", "/v1/nodes/node-1/orphans")
    assert response.status_code == 200, response.text
    return list(document(response)["orphans"])


def take(cloud: Cloud, machine_id: str, **more: str) -> Document:
    """Import an orphan and return the instance."""
    body = {"node": "node-1", "id": machine_id, **more}
    response = cloud.api.request("POST", "/v1/instances/import", json=body, headers={"Prefer": "wait=60"})
    assert response.status_code == 201, response.text
    return document(response)


def remove(cloud: Cloud, machine_id: str) -> None:
    """Remove an orphan for good."""
    response = cloud.api.request(
        "DELETE",
        f"/v1/nodes/node-1/orphans/{machine_id}",
        params={"force": "true"},
        headers={"Prefer": "wait=60"},
    )
    assert response.status_code == 204, response.text


def database(stack: Stack) -> Path:
    """Return where the controller keeps its database."""
    return stack.layout.state / "controller"


@contextmanager
def without_controller(stack: Stack) -> Iterator[None]:
    """Have no controller run; afterwards wait for the next one."""
    with stack.away("controller"):
        yield
    stack.wait_ready()


def lose_database(stack: Stack) -> None:
    """Remove the controller's database while nobody has it open."""
    with without_controller(stack):
        for path in database(stack).iterdir():
            path.unlink()


@contextmanager
def second_controller(stack: Stack, path: Path) -> Iterator[grpc.Channel]:
    """Run another controller with a new database before the same runner; yield a channel to it."""
    (port,) = free_ports(1)
    configuration = json.loads(stack.layout.config_file("controller").read_text(encoding="utf-8"))
    configuration |= {"listen": [f"127.0.0.1:{port}"], "databaseUrl": f"sqlite:///{path / DATABASE}"}
    file, log = path / "controller.json", path / "controller.log"
    file.write_text(json.dumps(configuration), encoding="utf-8")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "controller", "--config", str(file)], stdout=output, stderr=output
        )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=60)
            yield channel
    finally:
        process.terminate()
        assert process.wait(timeout=60) in {0, -signal.SIGTERM}, log.read_text(encoding="utf-8")


def failed(cloud: Cloud, location: str) -> Document | None:
    """Return the operation there once it has failed."""
    operation = document(cloud.api.request("GET", location))
    return operation if operation["state"] == "FAILED" else None


def addresses(instance: Document) -> list[str]:
    """Return the addresses of an instance's cards."""
    return [address["address"] for nic in instance["status"]["nics"] for address in nic["addresses"]]


def test_a_lost_database_costs_neither_a_running_guest_nor_a_disk(cloud: Cloud) -> None:
    running, stopped = cloud.launch_ready(labels={"team": "web"}), cloud.launch_ready()
    cloud.exec(stopped["name"], "/bin/true")
    stopped = cloud.verb(stopped["name"], "stop", force=True)
    boot_id = cloud.boot_id(running["name"])
    processes = cloud.stack.qemu_processes(running["id"])
    lose_database(plain(cloud))

    assert document(cloud.api.request("GET", "/v1/instances"))["instances"] == []
    found = {orphan["id"]: orphan for orphan in orphans(cloud)}
    assert found.keys() == {running["id"], stopped["id"]}
    assert [found[each["id"]]["running"] for each in (running, stopped)] == [True, False]
    assert {orphan["reason"] for orphan in found.values()} == {"OTHER_DATABASE"}
    assert all(orphan["importable"] and orphan["sizeBytes"] > 0 for orphan in found.values())
    assert cloud.stack.qemu_processes(running["id"]) == processes, "a quarantined machine runs on"

    back, off = take(cloud, running["id"]), take(cloud, stopped["id"])
    assert back["status"]["state"] == "RUNNING"
    assert off["status"]["state"] == "STOPPED"
    for before, after in ((running, back), (stopped, off)):
        for member in ("id", "name", "image", "imageDigest", "vm", "labels", "readiness", "createTime"):
            assert after[member] == before[member], member
    assert addresses(cloud.wait_ready(back["name"])) == addresses(running)
    assert cloud.boot_id(back["name"]) == boot_id
    assert cloud.stack.qemu_processes(running["id"]) == processes
    assert orphans(cloud) == []
    assert sorted(document(cloud.api.request("GET", "/v1/images/tiny"))["usedBy"]) == sorted(
        [back["name"], off["name"]]
    )

    assert cloud.verb(back["name"], "stop")["status"]["state"] == "STOPPED"
    assert cloud.verb(off["name"], "start")["status"]["state"] == "RUNNING"
    cloud.wait_ready(off["name"])
    cloud.verb(back["name"], "start")
    cloud.wait_ready(back["name"])
    assert cloud.boot_id(back["name"]) != boot_id


def test_a_name_that_is_taken_is_a_conflict_and_another_one_can_be_given(cloud: Cloud) -> None:
    lost = cloud.launch_ready("twin")
    lose_database(plain(cloud))
    cloud.launch("twin", start=False)
    body = {"node": "node-1", "id": lost["id"]}
    refused = cloud.api.request("POST", "/v1/instances/import", json=body)
    assert (refused.status_code, document(refused)["reason"]) == (409, "INSTANCE_ALREADY_EXISTS")
    assert take(cloud, lost["id"], name="twin-2")["id"] == lost["id"]
    again = cloud.api.request("POST", "/v1/instances/import", json=body)
    assert (again.status_code, document(again)["reason"]) == (409, "MACHINE_ALREADY_MANAGED")


def test_a_database_from_a_backup_has_its_machines_and_the_later_ones_are_orphans(cloud: Cloud) -> None:
    known = cloud.launch_ready()
    directory = database(plain(cloud))
    copy = directory.with_name("backup.db")
    with closing(sqlite3.connect(directory / DATABASE)) as source, closing(sqlite3.connect(copy)) as to:
        source.backup(to)
    for _ in range(2):
        cloud.verb(known["name"], "stop", force=True)
        cloud.verb(known["name"], "start")
    cloud.wait_ready(known["name"])
    later = cloud.launch_ready()
    boot_ids = [cloud.boot_id(each["name"]) for each in (known, later)]
    with without_controller(plain(cloud)):
        for path in directory.iterdir():
            path.unlink()
        shutil.move(copy, directory / DATABASE)

    (orphan,) = orphans(cloud)
    assert (orphan["id"], orphan["reason"]) == (later["id"], "NOT_IN_DATABASE")
    take(cloud, later["id"])
    for each in (known, later):
        cloud.wait_ready(each["name"])
    assert [cloud.boot_id(each["name"]) for each in (known, later)] == boot_ids
    for each in (known, later):
        assert cloud.verb(each["name"], "stop", force=True)["status"]["state"] == "STOPPED"


def test_a_controller_that_was_frozen_while_another_took_over_changes_nothing(
    cloud: Cloud, tmp_path: Path
) -> None:
    instance = cloud.launch_ready("contested")
    boot_id = cloud.boot_id("contested")
    with cloud.stack.frozen("controller"), second_controller(plain(cloud), tmp_path) as channel:
        instances, operations = InstanceServiceStub(channel), OperationServiceStub(channel)
        request = instance_pb2.ImportInstanceRequest(node="node-1", id=instance["id"])
        mutation = instances.ImportInstance(request, timeout=60).mutation
        waiting = operation_pb2.WaitOperationRequest(id=mutation.operation.id, timeout="60s")
        final = operations.WaitOperation(waiting, timeout=90).operation
        assert final.state == operation_pb2.OPERATION_STATE_SUCCEEDED, final
    # Thawed, it still takes the machine for its own.
    response = cloud.api.request("POST", "/v1/instances/contested/stop", json={"force": True})
    assert response.status_code == 202, response.text
    location = response.headers["Location"]
    operation = eventually(lambda: failed(cloud, location), "it is refused")
    assert operation["error"]["reason"] == "STALE_FENCE"
    assert len(plain(cloud).qemu_processes(instance["id"])) == 1
    assert cloud.boot_id("contested") == boot_id
    lose_database(plain(cloud))
    assert [orphan["id"] for orphan in orphans(cloud)] == [instance["id"]]
