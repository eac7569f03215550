"""What a stack could leave on a host: processes, links, rules, switches, mounts, files. Before and after.

Reads only; what it compares is named in its answer, so that "nothing is left" can be checked by hand.
"""

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qcstack.layout import StackLayout

# Programs that a stack runs; others come and go on a host without it.
_OURS: Final = (
    "qemu-system-",
    "passt",
    "dnsmasq",
    "vm_host",
    "qemu_runner",
    "image_store",
    "controller",
    "gateway",
)


@dataclass(frozen=True, slots=True)
class HostSnapshot:
    """Named sets of things on this host."""

    things: Mapping[str, frozenset[str]]

    def left_since(self, earlier: "HostSnapshot") -> dict[str, list[str]]:
        """Return what is here now and was not `earlier`, by kind; empty lists are left out."""
        return {
            kind: sorted(now - earlier.things.get(kind, frozenset()))
            for kind, now in self.things.items()
            if now - earlier.things.get(kind, frozenset())
        }


def take(tree: Path | None = None, *, without: tuple[str, ...] = ()) -> HostSnapshot:
    """Look at the host now; `tree` adds the paths below it, except those that begin with one of `without`."""
    things = {
        "processes": _processes(),
        "links": frozenset(path.name for path in Path("/sys/class/net").iterdir()),
        "mounts": _mounts(),
        "rules": _rules(),
        "switches": _switches(),
    }
    if tree is not None:
        things["files"] = frozenset(
            name for path in tree.rglob("*") if not (name := str(path.relative_to(tree))).startswith(without)
        )
    return HostSnapshot(things)


def without_the_stacks_own(left: Mapping[str, list[str]], layout: StackLayout) -> dict[str, list[str]]:
    """Return what is `left` but for what belongs to a running stack and goes with it.

    That is its packet filter, its bridge with the dnsmasq that serves it, and the forwarding it needs.
    """
    state = str(layout.state)

    def goes_with_it(kind: str, name: str) -> bool:
        match kind:
            case "links":
                return name == layout.bridge
            case "processes":
                return "dnsmasq" in name and (state in name or layout.bridge in name)
            case _:
                return kind in {"rules", "switches"}

    kept = {kind: [one for one in names if not goes_with_it(kind, one)] for kind, names in left.items()}
    return {kind: names for kind, names in kept.items() if names}


def _processes() -> frozenset[str]:
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        text = [word.decode(errors="replace") for word in words if word]
        program = Path(text[0]).name if text else ""
        module = text[2] if len(text) > 2 and text[1] == "-m" else ""
        if program.startswith(_OURS) or module in _OURS:
            found.add(f"{entry.name} {' '.join(text)[:160]}")
    return frozenset(found)


def _switches() -> frozenset[str]:
    """What the host forwards, and who may send to its loopback."""
    root = Path("/proc/sys/net/ipv4")
    files = [root / "ip_forward", *root.glob("conf/*/forwarding"), *root.glob("conf/*/route_localnet")]
    found = set()
    for path in files:
        try:
            value = path.read_text(encoding="ascii").strip()
        except OSError:
            # Its interface went meanwhile.
            continue
        if value != "0":
            found.add(f"{path.relative_to(root)}={value}")
    return frozenset(found)


def _rules() -> frozenset[str]:
    """Tables of the packet filter; empty where the caller may not read them or none can exist."""
    nft = shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if nft is None or os.geteuid() != 0:
        return frozenset()
    result = subprocess.run([nft, "-j", "list", "ruleset"], capture_output=True, check=False, timeout=10)
    if result.returncode:
        return frozenset()
    items = [pair for item in json.loads(result.stdout)["nftables"] for pair in item.items()]
    told = Counter(_told(kind, thing) for kind, thing in items if kind in {"table", "chain", "rule"})
    return frozenset(f"{words} #{n + 1}" for words, count in told.items() for n in range(count))


def _told(kind: str, thing: dict[str, Any]) -> str:
    """Describe an object by what it does: an engine that moves a rule of its own gives it another handle."""
    place = (str(thing.get(key, "")) for key in ("family", "table", "chain", "name"))
    does = [part for part in thing.get("expr", ()) if "counter" not in part]
    return " ".join((kind, *filter(None, place), *([json.dumps(does)] if does else [])))


def _mounts() -> frozenset[str]:
    """Mounts but for the one that a container engine makes with its first container on the host's network."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if "/netns/default nsfs" not in line)
