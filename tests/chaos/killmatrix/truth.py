"""What must hold at rest: what the API says is what the host is like, and nothing acted twice."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from fakerunner.host import ACTIVE, FakeHost
from fakerunner.journal import Effect, Entry
from qcontroller.controller.v1 import instance_pb2 as pb

# Ends that say nothing of the guest: the process was taken away, so an operation may have to start another.
TAKEN_AWAY: Final = frozenset({"STOPPED", "VM_HOST_EXITED", "HOST_RESTARTED", "HOST_SHUTDOWN"})


def disagreements(instances: Iterable[pb.Instance], host: FakeHost) -> list[str]:
    """Return where the state that is shown is not what the host is like, or somebody is still at work."""
    found = []
    for instance in instances:
        state = pb.InstanceState.Name(instance.status.state).removeprefix("INSTANCE_STATE_")
        machine = host.find(instance.id)
        process = machine is not None and machine.phase == ACTIVE
        run_state = machine.run_state if machine is not None else ""
        match state:
            case "RUNNING":
                true = process and run_state == "running"
            case "PAUSED":
                true = process and run_state == "paused"
            case "STOPPED":
                true = not process
            case "FAILED":
                true = not process and bool(instance.status.reason)
            case _:
                true = False
        if instance.status.operation or not true:
            at = instance.status.operation or "nobody"
            found.append(
                f"{instance.name} is {state} (held by {at}), its process is {run_state or 'not there'}"
            )
    return found


def left_over(instances: Collection[pb.Instance], host: FakeHost, pins: Collection[str]) -> list[str]:
    """Return what is on the host or in the store for no instance."""
    known = {instance.id for instance in instances}
    kinds: Mapping[str, Iterable[str]] = {
        "machine": host.machines,
        "directory": host.directories,
        "pin": pins,
    }
    return [f"{kind} {one}" for kind, ids in kinds.items() for one in ids if one not in known]


def missing(
    instances: Iterable[pb.Instance], host: FakeHost, pins: Collection[str], unmade: Collection[str] = ()
) -> list[str]:
    """Return the instances whose files or whose image's pin are gone though they exist.

    Those that are `unmade`, since a forced stop cut their launch short, get both with their first start.
    """
    return [
        f"{instance.name} without {what}"
        for instance in instances
        for what, there in (("files", instance.id in host.machines), ("a pin", instance.id in pins))
        if not there and not (instance.id in unmade and instance.status.state == pb.INSTANCE_STATE_STOPPED)
    ]


def double_actions(entries: Iterable[Entry]) -> list[str]:
    """Return what an operation did twice, or did after one of a higher fence had."""
    found: list[str] = []
    fences: dict[str, int] = {}
    last_end: dict[str, str] = {}
    spawns: Counter[tuple[str, str]] = Counter()
    others: Counter[tuple[str, str, Effect]] = Counter()
    for entry in entries:
        machine_id, operation = entry.machine_id, entry.operation_id
        if entry.request_id:
            if entry.fence < fences.get(machine_id, 0):
                found.append(f"{entry} acted under a fence below {fences[machine_id]}")
            fences[machine_id] = max(entry.fence, fences.get(machine_id, 0))
        match entry.effect:
            case Effect.SPAWN:
                spawns[machine_id, operation] += 1
                again = spawns[machine_id, operation] > 1
                if again and last_end.get(machine_id) not in TAKEN_AWAY:
                    found.append(f"{operation} started {machine_id} again after {last_end.get(machine_id)}")
            case Effect.END:
                last_end[machine_id] = entry.reason
            case Effect.RESET | Effect.REMOVE | Effect.MAKE:
                key = (machine_id, operation, entry.effect)
                others[key] += 1
                if others[key] > 1:
                    found.append(f"{operation} did {entry.effect} to {machine_id} {others[key]} times")
            case Effect.PREPARE | Effect.PAUSE | Effect.CONTINUE:
                continue
    return found


def harmed(entries: Iterable[Entry]) -> set[str]:
    """Return the machines whose process ended though nobody had asked."""
    return {entry.machine_id for entry in entries if entry.effect is Effect.END and not entry.request_id}
