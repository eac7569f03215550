"""Phases of a boot, read from what the guest prints on its console. Pure; the guest is hostile.

Two dialects: lines of guests that know us, `qcontroller-phase: NAME uptime=SECONDS`, and what a Debian
with systemd and cloud-init prints anyway. Uptimes are the guest's own; where its uptime 0 lies on the
host's clock is worked out here from when a line arrived.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

FIRMWARE: Final = "firmware"
BOOTLOADER: Final = "bootloader"
KERNEL: Final = "kernel"
USERSPACE: Final = "userspace"
NETWORK: Final = "network"
CLOUD_INIT: Final = "cloud-init"
AGENT: Final = "agent"
READY: Final = "ready"
PANIC: Final = "panic"
"""Not a phase: the kernel has panicked and stands still, as its last line says."""

_MAX_LINE_BYTES: Final = 4096
_MAX_UPTIME_S: Final = 86_400.0

_MARK: Final = re.compile(
    rb"^qcontroller-phase: (userspace|network|cloud-init|agent) uptime=(\d{1,6}(?:\.\d{1,9})?)"
    rb"(?: result=(error)\b)?"
)
# The first words of what comes after the firmware: isolinux and its kin, GRUB, OVMF on its way to either.
_BOOTLOADER: Final = re.compile(
    rb"(?:^|\x1b\S{0,16})\s{0,8}(?:(?:SYS|EXT|ISO|PXE)LINUX \d|GRUB loading|Welcome to GRUB!"
    rb"|GNU GRUB  version|Booting `|BdsDxe: starting Boot)"
)
_KERNEL: Final = re.compile(rb"^\[ *0\.000000\] Linux version ")
# The last words of a kernel that does not reboot by itself (panic=0); one that does goes on.
_PANIC: Final = re.compile(rb"^(?:\[ *(\d{1,6}\.\d{1,9})\])? ?---\[ end Kernel panic - not syncing: ")
_INIT: Final = re.compile(
    rb"^\[ *(\d{1,6}\.\d{1,9})\] (?:Run /\S+ as init process|systemd\[1\]: systemd \S+ running)"
)
# Of Debian's initramfs, and of systemd where the kernel is told to be quiet; neither tells an uptime.
_FIRST_PROGRAM: Final = re.compile(rb"^(?:Loading, please wait\.\.\.$|Welcome to .{1,100}!$)")
_STAMP: Final = re.compile(rb"^\[ *(\d{1,6}\.\d{1,9})\] ")
_CLOUD_INIT: Final = re.compile(
    rb"Cloud-init v\. \S+ finished at .{1,200} Up (\d{1,6}(?:\.\d{1,9})?) seconds"
)
_STAGE: Final = re.compile(
    rb"Cloud-init v\. \S+ running '(init-local|init|modules:config|modules:final)' at .{1,200}?"
    rb" Up (\d{1,6}(?:\.\d{1,9})?) seconds"
)
_STAGES: Final = {
    "init-local": "cloud-init-local",
    "init": "cloud-init-network",
    "modules:config": "cloud-init-config",
    "modules:final": "cloud-init-final",
}
_NETWORK_IS_UP: Final = _STAGES["init"]


@dataclass(frozen=True, slots=True)
class Milestone:
    """Something that the console said was reached.

    Attributes:
        name: Phase that is reached by it.
        uptime_s: The guest's uptime then; 0 before there is a kernel.
        failed: Whether the guest says that it ended with an error.
    """

    name: str
    uptime_s: float
    failed: bool = False

    @property
    def is_network(self) -> bool:
        """Whether the guest's network is up by now."""
        return self.name in {NETWORK, _NETWORK_IS_UP}

    @property
    def is_cloud_init_stage(self) -> bool:
        """Whether a stage of cloud-init has begun."""
        return self.name in _STAGES.values()


@dataclass(frozen=True, slots=True)
class ReachedPhase:
    """One phase of a boot, complete."""

    name: str
    start_time: datetime
    end_time: datetime


class ConsoleParser:
    """Cuts the console's bytes into lines and finds milestones in them; constant memory."""

    def __init__(self) -> None:
        self._pending = b""
        self._uptime = b""

    def feed(self, chunk: bytes) -> list[Milestone]:
        """Take the next bytes; return what they tell."""
        *lines, rest = (self._pending + chunk).replace(b"\r", b"").split(b"\n")
        # A guest may print for ever without a line's end; what matters stands at a line's beginning.
        self._pending = rest[:_MAX_LINE_BYTES]
        return [found for line in lines if (found := self._milestone(line[:_MAX_LINE_BYTES])) is not None]

    def _milestone(self, line: bytes) -> Milestone | None:
        if stamp := _STAMP.match(line):
            self._uptime = stamp[1]
        found = _milestone(line)
        if found is None and self._uptime and _FIRST_PROGRAM.match(line):
            # It ran no earlier than the kernel spoke last.
            return _at(USERSPACE, self._uptime)
        return found


def _milestone(line: bytes) -> Milestone | None:
    if _KERNEL.match(line):
        return Milestone(KERNEL, 0.0)
    if match := _PANIC.match(line):
        return _at(PANIC, match[1] or b"0")
    if match := _MARK.match(line):
        return _at(match[1].decode(), match[2], failed=match[3] is not None)
    if match := _INIT.match(line):
        return _at(USERSPACE, match[1])
    if match := _CLOUD_INIT.search(line):
        return _at(CLOUD_INIT, match[1])
    if match := _STAGE.search(line):
        return _at(_STAGES[match[1].decode()], match[2])
    if _BOOTLOADER.search(line):
        return Milestone(BOOTLOADER, 0.0)
    return None


def _at(name: str, uptime: bytes, *, failed: bool = False) -> Milestone | None:
    seconds = float(uptime)
    return Milestone(name, seconds, failed) if seconds <= _MAX_UPTIME_S else None


class BootClock:
    """Turns milestones into phases with times of the host's clock.

    Args:
        start_time: When the guest began to boot.
        kernel_start: Uptime 0 on the host's clock where it is known already.
        phases: What is known already.
    """

    def __init__(
        self, start_time: datetime, kernel_start: datetime | None, phases: tuple[ReachedPhase, ...]
    ) -> None:
        self._start_time = start_time
        self.kernel_start = kernel_start
        self.phases = list(phases)
        self._agent_begun: datetime | None = None
        self._stage: tuple[str, datetime] | None = None

    def reached(self, milestone: Milestone, seen_at: datetime) -> list[ReachedPhase]:
        """Record a milestone that was seen at `seen_at`; return the phases that it completes."""
        if milestone.name == KERNEL:
            # Printed before the serial console works, so its arrival says nothing about uptime 0.
            return []
        if milestone.name == BOOTLOADER:
            # No later than the kernel, whose own clock tells more than a line's arrival does.
            return [] if self.kernel_start else self._complete(FIRMWARE, self._start_time, seen_at)
        moment = self._moment(milestone.uptime_s, seen_at)
        found = self._before_kernel()
        match milestone.name:
            case "userspace":
                found += self._complete(KERNEL, self.kernel_start or self._start_time, moment)
            case "agent":
                self._agent_begun = self._agent_begun or moment
                found += self._complete(USERSPACE, self._end_of(KERNEL), moment)
            case name if name in _STAGES.values():
                if name == _NETWORK_IS_UP:
                    found += self._complete(NETWORK, self._end_of(KERNEL), moment)
                found += self._end_stage(moment)
                self._stage = name, moment
            case name:
                found += self._end_stage(moment) if name == CLOUD_INIT else []
                found += self._complete(name, self._end_of(KERNEL), moment)
        return found

    def agent_answered(self, seen_at: datetime) -> list[ReachedPhase]:
        """Record the agent's first answer; return the phases that it completes."""
        if self._has(AGENT):
            return []
        kernel_end = self._end_of(KERNEL)
        # A guest that prints no phases still has been through them when its agent answers.
        found = self._complete(KERNEL, self.kernel_start or self._start_time, kernel_end)
        begun = self._agent_begun or (self._end_of(USERSPACE) if self._has(USERSPACE) else seen_at)
        found += self._complete(USERSPACE, kernel_end, begun)
        return found + self._complete(AGENT, begun, seen_at)

    def ready(self, seen_at: datetime) -> list[ReachedPhase]:
        """Record that all that was asked of the guest holds: the last phase, since the one before."""
        begun = max((phase.end_time for phase in self.phases), default=self._start_time)
        return self._complete(READY, min(begun, seen_at), seen_at)

    def _before_kernel(self) -> list[ReachedPhase]:
        """Complete what came before the kernel; a bootloader that prints nothing counts as firmware."""
        if self.kernel_start is None or self._has(BOOTLOADER):
            return []
        if not self._has(FIRMWARE):
            return self._complete(FIRMWARE, self._start_time, self.kernel_start)
        begun = self._end_of(FIRMWARE)
        return self._complete(BOOTLOADER, begun, self.kernel_start) if begun < self.kernel_start else []

    def _end_stage(self, moment: datetime) -> list[ReachedPhase]:
        if self._stage is None:
            return []
        name, begun = self._stage
        self._stage = None
        return self._complete(name, begun, moment)

    def _moment(self, uptime_s: float, seen_at: datetime) -> datetime:
        uptime = timedelta(seconds=uptime_s)
        if self.kernel_start is None:
            self.kernel_start = max(self._start_time, seen_at - uptime)
        # Nothing happened after it was seen, whatever the guest's clock says.
        return min(self.kernel_start + uptime, seen_at)

    def _has(self, name: str) -> bool:
        return any(phase.name == name for phase in self.phases)

    def _end_of(self, name: str) -> datetime:
        ends = [phase.end_time for phase in self.phases if phase.name == name]
        return ends[0] if ends else self.kernel_start or self._start_time

    def _complete(self, name: str, start: datetime, end: datetime) -> list[ReachedPhase]:
        if self._has(name):
            return []
        phase = ReachedPhase(name, start, max(start, end))
        self.phases.append(phase)
        return [phase]
