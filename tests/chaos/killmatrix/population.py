"""Many instances at once: rows in a controller's database and their machines on a fake host, in agreement.

Written by the controller's own code, as launches would have left them; only the launches are spared.
"""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from controller.adapters.machine_messages import machine_of
from controller.database import Database
from controller.domain.condition import View, derive
from controller.domain.instance import DesiredPower, Instance, InstanceId, InstanceImage, Resources
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import MachineNic
from controller.domain.readiness import Readiness
from controller.records import instance_rows
from controller.records.instance_record import record_of
from controller.records.instance_rows import Secrets
from fakerunner.host import ACTIVE, FakeHost
from qcontroller.controller.v1 import instance_pb2
from qcontroller.runner.v1 import runner_pb2 as pb
from sqlalchemy import Connection

from killmatrix.image_store import DIGEST, NAME, FakeImageStore

_NODE: Final = "node-1"
_BATCH: Final = 500
_RARE: Final = 10
_SPACE: Final = uuid.UUID("5ca1e000-0000-4000-8000-000000000000")


def instance_id(number: int) -> str:
    """Return the id of the instance of that number."""
    return str(uuid.uuid5(_SPACE, str(number)))


async def populate(database: Path, host: FakeHost, store: FakeImageStore, count: int) -> None:
    """Have `count` instances run; ten carry the label "rare", all one of a hundred "group" values."""
    instances = list(_instances(count))
    host.populate(machine for _, machine in instances)
    store.pins.update(instance.id for instance, _ in instances)
    async with Database(database) as opened:
        for begin in range(0, count, _BATCH):
            batch = [instance for instance, _ in instances[begin : begin + _BATCH]]

            def work(conn: Connection, batch: list[Instance] = batch) -> None:
                for instance in batch:
                    instance_rows.add(conn, instance, Secrets(b"", ""))

            await opened.write(work)


def _instances(count: int) -> Iterator[tuple[Instance, pb.Machine]]:
    now = datetime.now(UTC)
    image = InstanceImage(NAME, DIGEST, DIGEST, "qcow2", 64 << 20)
    for number in range(count):
        labels = {"group": f"g{number % 100}"}
        if number * _RARE // count != (number - 1) * _RARE // count:
            labels["rare"] = "yes"
        mac = f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
        bare = Instance(
            id=InstanceId(instance_id(number)),
            name=f"vm-{number:05d}",
            image=image,
            arch="x86_64",
            resources=Resources(1, 256, 64),
            nics=(MachineNic("user", mac),),
            labels=labels,
            readiness=Readiness(),
            node=_NODE,
            state=InstanceState.RUNNING,
            desired_power=DesiredPower.RUNNING,
            observed_generation=1,
            create_time=now,
        )
        machine = _machine(bare, mac, now)
        view = View(
            machine_of(machine), has_nics=True, readiness=bare.readiness, reachable=True, speed_factor=1
        )
        yield replace(bare, machine=view.machine, conditions=derive(view, (), now)), machine


def _machine(instance: Instance, mac: str, now: datetime) -> pb.Machine:
    address = instance_pb2.NicAddress(address="10.77.0.15", family="ipv4", source="user")
    machine = pb.Machine(
        machine_id=instance.id,
        phase=ACTIVE,
        run_state="running",
        incarnation=1,
        accelerator="tcg",
        nics=[instance_pb2.NicStatus(network="user", mac=mac, addresses=[address])],
        fence=1,
        spec=pb.MachineSpec(
            name=instance.name,
            arch="x86_64",
            cpus=1,
            memory_mib=256,
            disk_bytes=64 << 20,
            image=pb.MachineImage(stored_digest=DIGEST, format="qcow2", virtual_size_bytes=64 << 20),
            nics=[pb.MachineNic(network="user", mac=mac)],
            instance_record=record_of(instance),
        ),
    )
    machine.agent.connected = True
    machine.agent.since.FromDatetime(now)
    machine.agent.info.hostname = instance.name
    machine.agent.info.os.id = "fake"
    machine.start_time.FromDatetime(now)
    return machine
