"""Start of a child: from a request to a process that holds nothing it does not need.

Owns the command line in front of the program: ``setpriv`` (uid, groups, no new privileges, empty
bounding set, death signal), then a fixed line of shell that ends if the parent died before the death
signal was armed, and raises its ``oom_score_adj``, so that a guest dies before the control plane when the
host runs out of memory. It must run in the main thread, since the death signal is bound to the parent
thread, and must never use ``preexec_fn``.
"""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from vm_host.errors import Refusal, RefusedError
from vm_host.kvm import probe_kvm
from vm_host.programs import FIXED_PATH, Programs
from vm_host.requests import QMP_FD, STDERR_FD, Role, SpawnRequest

# $0 is vm-host's pid; the program and its arguments are "$@" and never part of the script. Only the parent
# of *after* prctl(2) is watched by the kernel, so who lost it before has to see it by itself.
_GATE = (
    '[ "$PPID" = "$0" ] || exit 1; { echo 500 >/proc/self/oom_score_adj; } 2>/dev/null; unset PWD; exec "$@"'
)
_NOBODY = 65534
_TOKEN = re.compile(r"\{fd:([a-z][a-z0-9-]*)\}")


@dataclass(frozen=True, slots=True)
class Launched:
    """A process that was started, and vm-host's own monitor of it if its arguments asked for one."""

    process: subprocess.Popen[bytes]
    monitor: socket.socket | None


class Launcher:
    """Start allowed programs."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._uid = os.getuid()

    @property
    def root(self) -> bool:
        """Whether children can be given uids of their own."""
        return self._uid == 0

    def start(self, request: SpawnRequest, fds: Mapping[str, int]) -> Launched:
        """Start the program of ``request`` with the descriptors it names; they stay the caller's.

        Raises:
            RefusedError: Nothing was started, and why.
        """
        program = self._programs.resolve(request.argv[0])
        self._check_identity(request)
        try:
            near, far = _monitor(request.argv)
        except OSError as exc:
            raise RefusedError(Refusal.SPAWN_FAILED, f"cannot make a monitor: {exc}") from exc
        try:
            numbers = dict(fds) if far is None else {**fds, QMP_FD: far.fileno()}
            arguments = substitute(request.argv[1:], numbers)
            process = self._popen([*self._wrapper(request), program, *arguments], request, numbers)
        except RefusedError:
            if near is not None:
                near.close()
            raise
        finally:
            if far is not None:
                far.close()
        return Launched(process, near)

    def bounding_set_is_emptied(self) -> bool:
        """Launch a probe as a child would be and look into its bounding set.

        Without CAP_SETPCAP setpriv reports success and leaves the set full: only /proc tells.
        """
        if not self.root:
            return False
        probe = [*self._confine(_NOBODY, _NOBODY, ()), "/bin/cat", "/proc/self/status"]
        try:
            status = subprocess.run(probe, capture_output=True, check=True, timeout=5.0, text=True).stdout
        except (OSError, subprocess.SubprocessError):
            return False
        found = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
        return found is not None and int(found[1], 16) == 0

    def _check_identity(self, request: SpawnRequest) -> None:
        if self.root and request.uid is None:
            raise RefusedError(Refusal.FIELD_INVALID, "uid: vm-host is root and runs no child as root")
        if not self.root and request.uid is not None:
            raise RefusedError(
                Refusal.PRIVILEGE_UNAVAILABLE, f"uid: vm-host is not root; children keep its uid {self._uid}"
            )
        if not self.root and request.groups:
            raise RefusedError(Refusal.PRIVILEGE_UNAVAILABLE, "groups: vm-host is not root")

    def _wrapper(self, request: SpawnRequest) -> list[str]:
        gate = [_tool("sh"), "-c", _GATE, str(os.getpid())]
        if request.uid is None or request.gid is None:
            return [_tool("setpriv"), "--no-new-privs", "--pdeathsig=KILL", "--", *gate]
        groups = set(request.groups)
        if request.handle.role is Role.QEMU and (gid := probe_kvm().gid) is not None:
            groups.add(gid)
        return [*self._confine(request.uid, request.gid, tuple(sorted(groups))), *gate]

    @staticmethod
    def _confine(uid: int, gid: int, groups: tuple[int, ...]) -> list[str]:
        return [
            _tool("setpriv"),
            f"--reuid={uid}",
            f"--regid={gid}",
            f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups",
            "--no-new-privs",
            "--inh-caps=-all",
            "--ambient-caps=-all",
            "--bounding-set=-all",
            "--pdeathsig=KILL",
            "--",
        ]

    @staticmethod
    def _popen(
        command: list[str], request: SpawnRequest, numbers: Mapping[str, int]
    ) -> subprocess.Popen[bytes]:
        environment = {"PATH": FIXED_PATH, "LANG": "C.UTF-8"}
        if request.tmp_dir is not None:
            environment["TMPDIR"] = request.tmp_dir
        output = numbers.get(STDERR_FD, subprocess.DEVNULL)
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Descriptors keep the number they have here: it is what stands in the arguments.
                pass_fds=[number for name, number in numbers.items() if name != STDERR_FD],
                env=environment,
                cwd=request.cwd,
                # A terminal's Ctrl-C is for vm-host, which then asks its guests in good order.
                start_new_session=True,
            )
        except OSError as exc:
            raise RefusedError(Refusal.SPAWN_FAILED, f"cannot start {request.argv[0]}: {exc}") from exc


def substitute(arguments: tuple[str, ...], numbers: Mapping[str, int]) -> list[str]:
    """Replace each ``{fd:NAME}`` by the number of that descriptor.

    Raises:
        RefusedError: A name has no descriptor, or a descriptor has no place: it would leak into the child.
    """
    used: set[str] = set()

    def number(token: re.Match[str]) -> str:
        name = token[1]
        if name not in numbers or name == STDERR_FD:
            raise RefusedError(Refusal.FIELD_INVALID, f"argv: no descriptor was passed for {token[0]}")
        used.add(name)
        return str(numbers[name])

    replaced = [_TOKEN.sub(number, argument) for argument in arguments]
    unused = sorted(set(numbers) - used - {STDERR_FD})
    if unused:
        raise RefusedError(Refusal.FIELD_INVALID, f"fds: {unused[0]} does not occur in argv")
    return replaced


def _monitor(argv: tuple[str, ...]) -> tuple[socket.socket | None, socket.socket | None]:
    if not any(f"{{fd:{QMP_FD}}}" in argument for argument in argv):
        return None, None
    near, far = socket.socketpair()
    near.setblocking(False)
    return near, far


def _tool(name: str) -> str:
    found = shutil.which(name, path=FIXED_PATH)
    if found is None:
        raise RefusedError(Refusal.SPAWN_FAILED, f"{name} is not installed")
    return found
