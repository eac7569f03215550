"""Whether KVM can run a stock guest here, and why not.

A /dev/kvm that opens and answers may still be unable to (a nested or paravirtual backend): on x86 the
CPU must show vmx or svm as well. Only looks; never creates a VM.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

_KVM_GET_API_VERSION = 0xAE00  # linux/kvm.h
_API_VERSION = 12  # fixed since Linux 2.6.22 (Documentation/virt/kvm/api.rst)
_X86 = ("x86_64", "i686")


@dataclass(frozen=True, slots=True)
class KvmAccess:
    """What was found.

    Attributes:
        usable: Whether guests can use it.
        reason: Why, or why not.
        gid: Group of /dev/kvm that a QEMU must be in; None if unusable or root's.
    """

    usable: bool
    reason: str
    gid: int | None = None


def probe_kvm(
    device: Path = Path("/dev/kvm"), cpuinfo: Path = Path("/proc/cpuinfo"), machine: str = os.uname().machine
) -> KvmAccess:
    """Look whether KVM is usable."""
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        return KvmAccess(usable=False, reason=f"{device}: {exc.strerror}")
    try:
        version = fcntl.ioctl(descriptor, _KVM_GET_API_VERSION)
        gid = os.fstat(descriptor).st_gid
    except OSError as exc:
        return KvmAccess(usable=False, reason=f"{device} does not answer as KVM: {exc.strerror}")
    finally:
        os.close(descriptor)
    if version != _API_VERSION:
        return KvmAccess(usable=False, reason=f"{device} speaks API version {version}, not {_API_VERSION}")
    if machine in _X86 and not _cpu_flags(cpuinfo) & {"vmx", "svm"}:
        return KvmAccess(usable=False, reason=f"{device} opens, but the CPU shows neither vmx nor svm")
    return KvmAccess(usable=True, reason=f"{device} is usable", gid=gid or None)


def _cpu_flags(cpuinfo: Path) -> frozenset[str]:
    with cpuinfo.open(encoding="ascii", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name.strip() == "flags":
                return frozenset(value.split())
    return frozenset()
