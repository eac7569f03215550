"""machine.json as text: the one place that knows its keys.

Unknown keys are ignored, so that an older runner can read what a newer one wrote; missing ones get
their defaults.
"""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

from qemu_runner.domain.boot import ReachedPhase
from qemu_runner.domain.machine import (
    DiskFormat,
    Image,
    Layer,
    MachineId,
    MachineSpec,
    Nic,
    PortMapping,
)
from qemu_runner.domain.probe import Probe, ProbeKind
from qemu_runner.domain.record import ExitReason, Holding, MachineExit, MachineRecord, Run
from qemu_runner.domain.trouble import Trouble, TroubleKind

SCHEMA: Final = 1


class RecordUnreadableError(Exception):
    """The text is not a machine.json of a schema that this release reads."""


def encode_record(record: MachineRecord) -> str:
    """Return `record` as JSON text."""
    return json.dumps({"schema": SCHEMA, **asdict(record)}, default=_plain, indent=1) + "\n"


def decode_record(text: str) -> MachineRecord:
    """Return the record that `text` holds.

    Raises:
        RecordUnreadableError: It holds none.
    """
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise RecordUnreadableError(f"schema {document['schema']!r} is unknown")
        return _record(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise RecordUnreadableError(f"{type(exc).__name__}: {exc}") from exc


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in machine.json")


def _record(document: dict[str, Any]) -> MachineRecord:
    return MachineRecord(
        machine_id=MachineId(document["machine_id"]),
        fence=int(document["fence"]),
        spec=_spec(document["spec"]),
        prepared=bool(document.get("prepared")),
        incarnation=int(document.get("incarnation", 0)),
        uid=document.get("uid"),
        user_index=document.get("user_index"),
        holdings=tuple(
            Holding(holding["mac"], holding.get("address", ""), holding.get("tap", ""))
            for holding in document.get("holdings", ())
        ),
        layers=tuple(
            Layer(layer["path"], DiskFormat(layer["format"]), layer["digest"])
            for layer in document.get("layers", ())
        ),
        seed_hash=document.get("seed_hash", ""),
        reset_request=document.get("reset_request", ""),
        boots=int(document.get("boots", 0)),
        boot_time=_time(document["boot_time"]) if document.get("boot_time") else None,
        run=_run(document.get("run")),
        last_run=_run(document.get("last_run")),
        exit=_exit(document.get("exit")),
    )


def _spec(document: dict[str, Any]) -> MachineSpec:
    image = document["image"]
    return MachineSpec(
        name=document["name"],
        arch=document["arch"],
        cpus=int(document["cpus"]),
        memory_mib=int(document["memory_mib"]),
        disk_bytes=int(document["disk_bytes"]),
        image=Image(image["stored_digest"], DiskFormat(image["format"]), int(image["virtual_size_bytes"])),
        nics=tuple(
            Nic(
                nic["network"],
                nic["mac"],
                tuple(PortMapping(**port) for port in nic["ports"]),
                nic.get("address", ""),
                nic.get("planned", ""),
            )
            for nic in document["nics"]
        ),
        cluster_id=document.get("cluster_id", ""),
        instance_record=document.get("instance_record", ""),
        probes=tuple(_probe(probe) for probe in document.get("probes", ())),
    )


def _probe(document: dict[str, Any]) -> Probe:
    known = _known(Probe, document)
    return Probe(**{**known, "kind": ProbeKind(known["kind"]), "argv": tuple(known.get("argv", ()))})


def _run(document: dict[str, Any] | None) -> Run | None:
    if document is None:
        return None
    return Run(
        **{
            **_known(Run, document),
            "start_time": _time(document["start_time"]),
            "kernel_start": _time(document["kernel_start"]) if document.get("kernel_start") else None,
            "held": tuple(int(number) for number in document.get("held", ())),
            "phases": tuple(
                ReachedPhase(phase["name"], _time(phase["start_time"]), _time(phase["end_time"]))
                for phase in document.get("phases", ())
            ),
            "extra_arguments": tuple(document.get("extra_arguments", ())),
            "troubles": tuple(
                Trouble(
                    TroubleKind(trouble["kind"]),
                    trouble["line"],
                    int(trouble["count"]),
                    _time(trouble["time"]),
                    int(trouble["last_offset"]),
                )
                for trouble in document.get("troubles", ())
            ),
        }
    )


def _exit(document: dict[str, Any] | None) -> MachineExit | None:
    if document is None:
        return None
    return MachineExit(
        **{
            **_known(MachineExit, document),
            "reason": ExitReason(document["reason"]),
            "time": _time(document["time"]),
        }
    )


def _known(kind: type[Run | MachineExit | Probe], document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key in kind.__dataclass_fields__}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
