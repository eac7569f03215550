"""What the migration that keeps failures makes of instances that had failed before it."""

import json
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from controller.database.migrate import configuration
from controller.records import instance_rows

OLD_ROW: dict[str, str | int] = {
    "id": "i",
    "name": "web",
    "image": json.dumps(
        {"name": "t", "digest": "d", "stored_digest": "s", "format": "raw", "virtual_size_bytes": 1}
    ),
    "arch": "x86_64",
    "cpus": 1,
    "memory_mib": 64,
    "disk_mib": 1,
    "nics": json.dumps({"items": []}),
    "labels": "{}",
    "readiness": json.dumps({"probes": ["agent"], "deadline_s": 180.0}),
    "node": "node-1",
    "state": "FAILED",
    "reason": "QEMU_EXITED",
    "message": "QEMU exited with code 1.",
    "desired_power": "RUNNING",
    "generation": 1,
    "revision": 1,
    "observed_generation": 1,
    "create_time": "2026-01-01 00:00:00.000000",
    "machine": json.dumps(
        {"id": "i", "phase": "EXITED", "exit": {"reason": "QEMU_EXITED", "stderr_tail": "words"}}
    ),
    "conditions": json.dumps({"items": []}),
}


def test_an_instance_that_had_failed_keeps_its_reason_and_last_words(tmp_path: Path) -> None:
    config = configuration()
    before = ScriptDirectory.from_config(config).get_revision("0005")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/c.db")
    with engine.begin() as conn:
        config.attributes["connection"] = conn
        command.upgrade(config, str(before.down_revision))
        columns = ", ".join(OLD_ROW)
        values = ", ".join(f":{name}" for name in OLD_ROW)
        conn.execute(sa.text(f"INSERT INTO instances ({columns}) VALUES ({values})"), OLD_ROW)  # noqa: S608
        command.upgrade(config, "heads")
        found = instance_rows.find(conn, "i")
    engine.dispose()
    assert found is not None
    assert found.failure is not None
    assert (found.failure.reason, found.failure.stderr_tail) == ("QEMU_EXITED", "words")
