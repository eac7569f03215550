"""What cloud-init is to do at the first boot besides the user's user-data, which it never touches.

Keys and host name are told as meta-data: cloud-init gives the keys to the default user beside those of a
user-data, and takes a host name of a user-data before this one. Packages are vendor-data, which a user-data
is laid over: its own `packages` take the place of these.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from controller.domain.fault import Fault
from controller.domain.ssh_key import key_faults

MAX_PACKAGES: Final = 256
MAX_PACKAGE_CHARACTERS: Final = 128
MAX_HOSTNAME_CHARACTERS: Final = 253

# RFC 1123, section 2.1.
_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
# Debian's (Policy, section 5.6.7) and those of others. A hyphen at the end would have apt remove it.
_PACKAGE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9+._-]*[A-Za-z0-9+])?")


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """What a launch asks for in so many words.

    Attributes:
        ssh_keys: Public keys for the image's default user.
        hostname: Host name or FQDN; empty: the instance's name.
        packages: Names of packages.
    """

    ssh_keys: tuple[str, ...] = ()
    hostname: str = ""
    packages: tuple[str, ...] = ()

    @property
    def vendor_data(self) -> bytes:
        """NoCloud's vendor-data; empty: none. Every JSON is YAML, and no text can leave its quotes."""
        if not self.packages:
            return b""
        return b"#cloud-config\n" + json.dumps({"packages": list(self.packages)}).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class FirstBootPatch:
    """What is to change; None stays."""

    ssh_keys: tuple[str, ...] | None = None
    hostname: str | None = None
    packages: tuple[str, ...] | None = None

    def __bool__(self) -> bool:
        """Tell whether anything is given."""
        return self != FirstBootPatch()

    def over(self, now: FirstBoot) -> FirstBoot:
        """Return `now` as it is to be."""
        return FirstBoot(
            now.ssh_keys if self.ssh_keys is None else self.ssh_keys,
            now.hostname if self.hostname is None else self.hostname,
            now.packages if self.packages is None else self.packages,
        )


def first_boot_faults(wish: FirstBoot) -> list[Fault]:
    """Return everything that is wrong with it."""
    return [*key_faults(wish.ssh_keys), *_hostname_faults(wish.hostname), *_package_faults(wish.packages)]


def _hostname_faults(name: str) -> list[Fault]:
    if not name:
        return []
    if len(name) > MAX_HOSTNAME_CHARACTERS or _HOSTNAME.fullmatch(name) is None:
        told = "must be a host name or FQDN: labels of 1 to 63 letters, digits and '-', not at either end '-'"
        return [Fault("/hostname", f"{told}, {MAX_HOSTNAME_CHARACTERS} characters at most (RFC 1123)")]
    if "." in name and name.rsplit(".", 1)[1].isdigit():
        return [Fault("/hostname", "must not end in a number: that is an address")]
    return []


def _package_faults(packages: Sequence[str]) -> list[Fault]:
    faults = [] if len(packages) <= MAX_PACKAGES else [Fault("/packages", f"must be at most {MAX_PACKAGES}")]
    seen: set[str] = set()
    for index, name in enumerate(packages[:MAX_PACKAGES]):
        if len(name) > MAX_PACKAGE_CHARACTERS or _PACKAGE.fullmatch(name) is None:
            told = (
                "must be a package's name alone: letters, digits and '+', '-', '.', '_', no option or version"
            )
            faults.append(Fault(f"/packages/{index}", f"{told}, at most {MAX_PACKAGE_CHARACTERS} characters"))
        elif name in seen:
            faults.append(Fault(f"/packages/{index}", "is given twice"))
        seen.add(name)
    return faults
