"""What outlives a fake runner: machines' files, processes, fences. One synchronous method for each effect.

A process is a number (its incarnation) that is there or not; whoever ends it, its end stays known, as vm-host
keeps it. With a directory, each change is appended to a file there, and the next life reads it: a fake runner
that is killed comes back with its machines.
"""

import base64
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from qcontroller.runner.v1 import runner_pb2 as pb

from fakerunner.journal import Effect, Entry, Journal

PREPARING: Final = pb.MACHINE_PHASE_PREPARING
PREPARED: Final = pb.MACHINE_PHASE_PREPARED
ACTIVE: Final = pb.MACHINE_PHASE_ACTIVE
EXITED: Final = pb.MACHINE_PHASE_EXITED
ABSENT: Final = pb.MACHINE_PHASE_ABSENT

_FILE: Final = "host.jsonl"
Told = Callable[[pb.Machine], None]


class FakeHost:
    """The host of one fake runner.

    Attributes:
        machines: By id; never changed in place, so that a message once told stays as it was.
        fences: Highest fence seen of each machine that is or was.
        directories: Made and not removed; one without a machine was left by a prepare that was broken off.
        resets: Identity of each machine's last reset.
        memory_mib: What machines that run may have in all.
        used_mib: What they have.
        listener: Told of every machine that has changed.
    """

    def __init__(self, directory: Path | None = None, *, memory_mib: int = 1 << 30) -> None:
        self.machines: dict[str, pb.Machine] = {}
        self.fences: dict[str, int] = {}
        self.directories: set[str] = set()
        self.resets: dict[str, str] = {}
        self.journal = Journal()
        self.memory_mib = memory_mib
        self.used_mib = 0
        self.listener: Told | None = None
        self._file: TextIOWrapper | None = None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / _FILE
            if path.exists():
                self._read(path)
            self._file = path.open("a", encoding="ascii", buffering=1)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def find(self, machine_id: str) -> pb.Machine | None:
        """Return the machine's record and process."""
        return self.machines.get(machine_id)

    def raise_fence(self, machine_id: str, fence: int) -> None:
        """Keep a fence that is the highest."""
        if fence > self.fences.get(machine_id, 0):
            self.fences[machine_id] = fence
            self._write(machine_id)

    def make(self, machine_id: str, fence: int, request_id: str) -> None:
        """Make the machine's directory."""
        if machine_id not in self.directories:
            self.directories.add(machine_id)
            self._done(machine_id, Effect.MAKE, fence, request_id)

    def record(self, machine_id: str, spec: pb.MachineSpec) -> None:
        """Write the first record, or that of a machine that is to become another."""
        machine = self._next(machine_id)
        if not machine.machine_id:
            machine.machine_id = machine_id
            machine.phase = PREPARING
        _take_spec(machine, spec)
        self._put(machine)

    def prepare(self, machine_id: str, spec: pb.MachineSpec, fence: int, request_id: str) -> None:
        """Complete the files."""
        machine = self._next(machine_id)
        if machine.phase == PREPARING:
            machine.phase = PREPARED
        _take_spec(machine, spec)
        self._put(machine)
        self._done(machine_id, Effect.PREPARE, fence, request_id, machine.incarnation)

    def spawn(self, machine_id: str, fence: int, request_id: str) -> None:
        """Start the machine's process; its guest is up and its agent answers."""
        machine = self._next(machine_id)
        if machine.phase == ACTIVE:
            raise AssertionError("a second process for one machine")
        machine.ClearField("exit")
        machine.phase = ACTIVE
        machine.run_state = "running"
        machine.incarnation += 1
        machine.accelerator = "tcg"
        machine.start_time.CopyFrom(_now())
        for number, nic in enumerate(machine.nics):
            if not nic.addresses:
                nic.addresses.add(address=f"10.77.0.{15 + number}", family="ipv4", source="user")
        _connect_agent(machine)
        self.used_mib += machine.spec.memory_mib
        self._put(machine)
        self._done(machine_id, Effect.SPAWN, fence, request_id, machine.incarnation)

    def run_state(self, machine_id: str, run_state: str, fence: int, request_id: str) -> None:
        """Pause or go on."""
        machine = self._next(machine_id)
        machine.run_state = run_state
        self._put(machine)
        effect = Effect.PAUSE if run_state == "paused" else Effect.CONTINUE
        self._done(machine_id, effect, fence, request_id, machine.incarnation)

    def reset(self, machine_id: str, fence: int, request_id: str) -> None:
        """Reset the guest: another boot of the same process."""
        self.resets[machine_id] = request_id
        machine = self._next(machine_id)
        _connect_agent(machine)
        self._put(machine)
        self._done(machine_id, Effect.RESET, fence, request_id, machine.incarnation)

    def end(
        self, machine_id: str, reason: str, *, fence: int = 0, request_id: str = "", signal: int | None = None
    ) -> bool:
        """End the machine's process; return whether there was one."""
        found = self.machines.get(machine_id)
        if found is None or found.phase != ACTIVE:
            return False
        machine = self._next(machine_id)
        machine.phase = EXITED
        machine.run_state = ""
        self.used_mib -= machine.spec.memory_mib
        machine.ClearField("agent")
        machine.exit.CopyFrom(
            pb.MachineExit(
                reason=reason,
                message=f"The process has ended: {reason}.",
                signal=signal,
                stderr_tail="qemu: last words\n",
                console_tail="login: ",
                time=_now(),
            )
        )
        self._put(machine)
        self._done(machine_id, Effect.END, fence, request_id, machine.incarnation, reason)
        return True

    def end_all(self, reason: str) -> int:
        """End every process, as the death of vm-host does; return how many there were."""
        active = [machine_id for machine_id, machine in self.machines.items() if machine.phase == ACTIVE]
        return sum(self.end(machine_id, reason) for machine_id in active)

    def remove(self, machine_id: str, fence: int, request_id: str) -> None:
        """Remove what there is but the fence."""
        there = machine_id in self.directories
        self.directories.discard(machine_id)
        self.resets.pop(machine_id, None)
        if self.machines.pop(machine_id, None) is not None:
            self._tell(pb.Machine(machine_id=machine_id, phase=ABSENT, fence=self.fences.get(machine_id, 0)))
        self._write(machine_id)
        if there:
            self._done(machine_id, Effect.REMOVE, fence, request_id)

    def ports(self, beside: str) -> set[tuple[int, str]]:
        """Return the host's ports that machines other than `beside` publish."""
        return {
            (port.host, port.protocol or "tcp")
            for machine_id, machine in self.machines.items()
            if machine_id != beside
            for nic in machine.spec.nics
            for port in nic.ports
        }

    def populate(self, machines: Iterable[pb.Machine]) -> None:
        """Take machines over as they are, fences included."""
        for machine in machines:
            self.machines[machine.machine_id] = machine
            self.directories.add(machine.machine_id)
            self.fences[machine.machine_id] = machine.fence
            self.used_mib += machine.spec.memory_mib if machine.phase == ACTIVE else 0

    def _next(self, machine_id: str) -> pb.Machine:
        machine = pb.Machine()
        found = self.machines.get(machine_id)
        if found is not None:
            machine.CopyFrom(found)
        return machine

    def _put(self, machine: pb.Machine) -> None:
        machine.fence = self.fences.get(machine.machine_id, 0)
        self.machines[machine.machine_id] = machine
        self._write(machine.machine_id)
        self._tell(machine)

    def _tell(self, machine: pb.Machine) -> None:
        if self.listener is not None:
            self.listener(machine)

    def _done(
        self,
        machine_id: str,
        effect: Effect,
        fence: int,
        request_id: str,
        incarnation: int = 0,
        reason: str = "",
    ) -> None:
        self.journal.add(Entry(machine_id, effect, fence, request_id, incarnation, reason))

    def _write(self, machine_id: str) -> None:
        if self._file is None:
            return
        machine = self.machines.get(machine_id)
        line = {
            "id": machine_id,
            "fence": self.fences.get(machine_id, 0),
            "directory": machine_id in self.directories,
            "reset": self.resets.get(machine_id, ""),
            "machine": ""
            if machine is None
            else base64.b64encode(machine.SerializeToString()).decode("ascii"),
        }
        self._file.write(json.dumps(line) + "\n")

    def _read(self, path: Path) -> None:
        for text in path.read_text(encoding="ascii").splitlines():
            line = json.loads(text)
            machine_id = line["id"]
            self.fences[machine_id] = line["fence"]
            if line["reset"]:
                self.resets[machine_id] = line["reset"]
            (self.directories.add if line["directory"] else self.directories.discard)(machine_id)
            if line["machine"]:
                self.machines[machine_id] = pb.Machine.FromString(base64.b64decode(line["machine"]))
            else:
                self.machines.pop(machine_id, None)
        active = (machine for machine in self.machines.values() if machine.phase == ACTIVE)
        self.used_mib = sum(machine.spec.memory_mib for machine in active)


def _take_spec(machine: pb.Machine, spec: pb.MachineSpec) -> None:
    known = {nic.mac: list(nic.addresses) for nic in machine.nics}
    machine.spec.CopyFrom(spec)
    # Written to the seed and forgotten: it may hold passwords.
    machine.spec.ClearField("seed")
    del machine.nics[:]
    for nic in spec.nics:
        view = machine.nics.add(network=nic.network, mac=nic.mac, ports=nic.ports)
        if nic.mac in known:
            view.addresses.extend(known[nic.mac])
        elif nic.network == "qc0":
            view.addresses.add(address="10.87.0.16", family="ipv4", source="reserved")


def _connect_agent(machine: pb.Machine) -> None:
    machine.agent.connected = True
    machine.agent.since.CopyFrom(_now())
    info = machine.agent.info
    info.hostname = machine.spec.name
    info.os.id, info.os.name = "fake", "Fake guest"


def _now() -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.now(UTC))
    return stamp
