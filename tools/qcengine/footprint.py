"""What an engine changes on the host's network, and how it is put back.

An engine that ends leaves its bridges, its chains, the policy of FORWARD and `ip_forward` as they were while
it ran. Only what was not there before it started is removed; what others made meanwhile is never touched.
"""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

_FORWARD: Final = Path("/proc/sys/net/ipv4/ip_forward")
_LINKS: Final = Path("/sys/class/net")
_BRIDGE: Final = re.compile(r"docker0|br-[0-9a-f]{12}")
_CHAIN: Final = re.compile(r":(DOCKER[A-Z0-9-]*) ")
_TABLES: Final = ("filter", "nat")
_FLAVOURS: Final = (("iptables", "ip"), ("ip6tables", "ip6"))


@dataclass(frozen=True, slots=True)
class Footprint:
    """The host's network as an engine finds it.

    Attributes:
        links: Names of all links.
        ip_forward: The sysctl.
        rules: Lines of `iptables-save` and `ip6tables-save`, by program and table.
        tables: Tables of nftables, as "family name".
    """

    links: list[str]
    ip_forward: str
    rules: dict[str, list[str]]
    tables: list[str]

    @classmethod
    def look(cls) -> Self:
        """Return what is there now."""
        return cls(
            links=sorted(path.name for path in _LINKS.iterdir()),
            ip_forward=_FORWARD.read_text(encoding="ascii").strip(),
            rules={
                f"{program} {table}": _lines([f"{program}-save", "-t", table])
                for program, _ in _FLAVOURS
                for table in _TABLES
            },
            tables=[line.removeprefix("table ") for line in _lines(["nft", "list", "tables"])],
        )

    def document(self) -> dict[str, Any]:
        """Return it as JSON's types."""
        return asdict(self)

    def restore(self) -> None:
        """Put back what an engine that has ended left different."""
        now = Footprint.look()
        for program, family in _FLAVOURS:
            for table in _TABLES:
                key = f"{program} {table}"
                restore_table(program, table, self.rules[key], now.rules[key])
                emptied = all(line[0] in "#:*C" for line in _lines([f"{program}-save", "-t", table]))
                if emptied and f"{family} {table}" not in self.tables:
                    _quietly(["nft", "delete", "table", family, table])
        for link in sorted(set(now.links) - set(self.links)):
            if _BRIDGE.fullmatch(link):
                _quietly(["ip", "link", "delete", link])
        if now.ip_forward != self.ip_forward:
            _FORWARD.write_text(self.ip_forward, encoding="ascii")


def restore_table(program: str, table: str, before: Sequence[str], now: Sequence[str]) -> None:
    """Remove from one table what an engine added, given the lines of `iptables-save` before it and now."""
    for line in now:
        if line.startswith("-A ") and line not in before and _is_docker(line):
            _quietly([program, "-t", table, "-D", *line.split()[1:]])
    known = set(_CHAIN.findall("\n".join(before)))
    chains = [name for name in _CHAIN.findall("\n".join(now)) if name not in known]
    for verb in ("-F", "-X"):
        for chain in chains:
            _quietly([program, "-t", table, verb, chain])
    dropped = any(line.startswith(":FORWARD DROP") for line in now)
    if table == "filter" and dropped and not any(line.startswith(":FORWARD DROP") for line in before):
        _quietly([program, "-P", "FORWARD", "ACCEPT"])


def _is_docker(rule: str) -> bool:
    # The engine's own rules name its chains or its bridges.
    return "DOCKER" in rule or bool(re.search(rf"-[io] ({_BRIDGE.pattern})\b", rule))


def _lines(command: Sequence[str]) -> list[str]:
    """Return what a program that only reads prints; nothing where it is missing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        return []
    return [line for line in done.stdout.splitlines() if line]


def _quietly(command: Sequence[str]) -> None:
    # Something else may have removed it already, which is as good.
    subprocess.run(command, capture_output=True, check=False, timeout=30)
