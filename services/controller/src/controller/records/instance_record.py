"""What machine.json keeps for the controller: enough to make an instance's row again, and no secret.

Readers take what an older or newer build wrote: unknown members are left alone, absent ones take their
default. Equal instances have equal records, so that a record also tells whether a machine is up to date.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from servicekit.quantities import QuantityError

from controller.domain.first_boot import FirstBoot
from controller.domain.instance import DesiredPower, Instance, InstanceId, InstanceImage, Resources
from controller.domain.lifecycle import InstanceState
from controller.domain.machine import MachineNic
from controller.domain.policy import Policies
from controller.records.documents import time_text
from controller.records.readiness_documents import readiness_document, readiness_from
from controller.records.stored_json import from_stored, to_stored


class RecordIncomplete(ValueError):  # noqa: N818 - it says what is wrong
    """No instance can be made of the record."""


@dataclass(frozen=True, slots=True)
class _Nics:
    items: tuple[MachineNic, ...] = ()


def record_of(instance: Instance) -> str:
    """Return what a lost database can be rebuilt from; no secrets, and equal for equal machines."""
    record: dict[str, Any] = {
        "name": instance.name,
        "id": instance.id,
        "image": to_stored(instance.image),
        "arch": instance.arch,
        "vm": to_stored(instance.resources),
        "nics": to_stored(instance.nics),
        "labels": dict(instance.labels),
        "readiness": readiness_document(instance.readiness),
        "policies": to_stored(instance.policies),
        "createTime": time_text(instance.create_time),
    }
    if instance.seed_revision:
        # What the seed was made of is secret; that it is another one must be seen all the same.
        record["seedRevision"] = instance.seed_revision
    if instance.first_boot != FirstBoot():
        record["firstBoot"] = to_stored(instance.first_boot)
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def with_policies(record: str, instance: Instance) -> str:
    """Return `record` with the labels and policies of `instance`, and everything else as it stands there.

    So it goes on telling what the machine's files were made of. A record that cannot be read stays.
    """
    try:
        document = json.loads(record)
    except ValueError:
        return record
    if not isinstance(document, dict):
        return record
    changed = document | {"labels": dict(instance.labels), "policies": to_stored(instance.policies)}
    return json.dumps(changed, sort_keys=True, separators=(",", ":"))


def name_in(record: str) -> str:
    """Return the name in a record; empty if there is none."""
    try:
        name = json.loads(record)["name"]
    except (ValueError, KeyError, TypeError):
        return ""
    return name if isinstance(name, str) else ""


def instance_from(record: str, node: str, now: datetime) -> Instance:
    """Return the instance that `record` tells of, as one that is being taken over on `node`.

    What the user wanted of its power is not in the record: what the machine does decides it.

    Raises:
        RecordIncomplete: Something is missing or makes no sense.
    """
    try:
        document = json.loads(record)
        return Instance(
            id=InstanceId(_text(document, "id")),
            name=_text(document, "name"),
            image=from_stored(InstanceImage, document["image"]),
            arch=_text(document, "arch"),
            resources=from_stored(Resources, document["vm"]),
            nics=from_stored(_Nics, {"items": document["nics"]}).items,
            labels={str(key): str(value) for key, value in document.get("labels", {}).items()},
            readiness=readiness_from(document.get("readiness", {})),
            seed_revision=int(document.get("seedRevision", 0)),
            first_boot=from_stored(FirstBoot, document.get("firstBoot", {})),
            policies=_policies(document.get("policies", {}), now),
            node=node,
            state=InstanceState.CREATING,
            desired_power=DesiredPower.STOPPED,
            create_time=datetime.fromisoformat(document["createTime"]) if "createTime" in document else now,
        )
    except (ValueError, KeyError, TypeError, AttributeError, QuantityError) as exc:
        raise RecordIncomplete(f"{type(exc).__name__}: {exc}") from exc


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document[key]
    if not isinstance(value, str) or not value:
        raise RecordIncomplete(f"{key} is no text")
    return value


def _policies(stored: Mapping[str, Any], now: datetime) -> Policies:
    policies = from_stored(Policies, stored)
    # A machine is not taken back in order to be removed at once: an end that has passed is none.
    return replace(policies, expire_time=None) if policies.expired(now) else policies
