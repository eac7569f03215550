"""What each QEMU binary here offers: version, machine types, accelerators.

Asked from the binaries themselves and remembered until a binary changes, so that one installed later is
seen and an unchanged one costs nothing. A binary that is missing or broken is an offer with an error:
vm-host serves without it.
"""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from vm_host.errors import RefusedError
from vm_host.kvm import KvmAccess, probe_kvm
from vm_host.programs import FIXED_PATH, Programs

_PREFIX = "qemu-system-"
_PROBE_TIMEOUT_S = 5.0
_FIRMWARE = {"x86_64": ("bios-256k.bin",), "aarch64": ("/usr/share/AAVMF/AAVMF_CODE.fd",)}
"""Files without which no guest begins, by name or path; packages of their own in most distributions."""
_FAULT_KEPT_S = 60.0
"""How long a binary that failed is not asked again: one that hangs would hang vm-host with every hello."""
_VERSION = re.compile(r"version (\S+)")
_ALIAS = re.compile(r"\(alias of ([^)]+)\)")

_Identity = tuple[str, int, int, int, int]


class Offers:
    """The offers of all allowed programs that are called ``qemu-system-<arch>``."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._known: dict[str, tuple[_Identity, dict[str, Any]]] = {}
        self._faults: dict[str, tuple[_Identity, float, str]] = {}

    def describe(self) -> list[dict[str, Any]]:
        """Return the offers as hello tells them; asks binaries that are new or have changed."""
        kvm = probe_kvm()
        return [self._offer(name, kvm) for name in self._programs if name.startswith(_PREFIX)]

    def _offer(self, name: str, kvm: KvmAccess) -> dict[str, Any]:
        arch = name.removeprefix(_PREFIX)
        offer: dict[str, Any] = {
            "arch": arch,
            "program": name,
            "version": "",
            "machineTypes": [],
            "machineAliases": {},
            "accelerators": [],
            "missingFirmware": [],
            "error": "",
        }
        try:
            path = self._programs.resolve(name)
            identity = _identity(path)
        except RefusedError as exc:
            return offer | {"error": exc.message}
        except OSError as exc:
            return offer | {"error": f"{name} does not work: {exc}"}
        if fault := self._learn(name, path, identity):
            return offer | {"error": fault}
        answers = dict(self._known[name][1])
        accelerators = [_accelerator(kind, arch, kvm) for kind in answers["accelerators"]]
        # Looked for every time: firmware comes and goes without the binary changing.
        missing = _missing_firmware(arch, answers.pop("directories"))
        return offer | answers | {"accelerators": accelerators, "missingFirmware": missing}

    def _learn(self, name: str, path: str, identity: _Identity) -> str:
        """Know the answers of this very binary, or return why it has none."""
        if name in self._known and self._known[name][0] == identity:
            return ""
        if name in self._faults:
            failed, asked, fault = self._faults[name]
            if failed == identity and time.monotonic() - asked < _FAULT_KEPT_S:
                return fault
        try:
            self._known[name] = (identity, _ask(path))
        except (OSError, subprocess.SubprocessError) as exc:
            fault = f"{name} does not work: {exc}"
            self._faults[name] = (identity, time.monotonic(), fault)
            return fault
        self._faults.pop(name, None)
        return ""


def _identity(path: str) -> _Identity:
    found = Path(path).stat()
    return path, found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _ask(path: str) -> dict[str, Any]:
    version = _VERSION.search(_output(path, "--version"))
    types: list[str] = []
    aliases: dict[str, str] = {}
    for line in _output(path, "-machine", "help").splitlines()[1:]:
        name, _, text = line.partition(" ")
        alias = _ALIAS.search(text)
        if alias is not None:
            aliases[name] = alias[1]
        elif name:
            types.append(name)
    return {
        "version": version[1] if version else "unknown",
        "machineTypes": types,
        "machineAliases": aliases,
        "accelerators": [line.strip() for line in _output(path, "-accel", "help").splitlines()[1:]],
        "directories": _output(path, "-L", "help").splitlines(),
    }


def _missing_firmware(arch: str, directories: list[str]) -> list[str]:
    return [
        file
        for file in _FIRMWARE.get(arch, ())
        if not any(Path(directory, file).is_file() for directory in directories)
    ]


def _output(path: str, *arguments: str) -> str:
    done = subprocess.run(
        [path, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=_PROBE_TIMEOUT_S,
        env={"PATH": FIXED_PATH, "LANG": "C.UTF-8"},
        cwd="/",
    )
    return done.stdout.decode(errors="replace")


def _accelerator(kind: str, arch: str, kvm: KvmAccess) -> dict[str, Any]:
    if kind == "tcg":
        return {"name": kind, "usable": True, "reason": "emulation works everywhere"}
    if kind != "kvm":
        return {"name": kind, "usable": False, "reason": "not used by this product"}
    if arch != os.uname().machine:
        return {"name": kind, "usable": False, "reason": f"the host is {os.uname().machine}"}
    return {"name": kind, "usable": kvm.usable, "reason": kvm.reason}
