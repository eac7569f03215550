"""Keeps our rules in DOCKER-USER, through the flavour of iptables that the chain was made with.

Looking for the chain starts no iptables: merely running `iptables-legacy` would create a legacy table.

Source: iptables(8), iptables-restore(8), xtables-nft(8).
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from qemu_runner.bridge_network.engine import CHAIN, restore_input, standing
from qemu_runner.bridge_network.errors import EngineRulesError
from qemu_runner.bridge_network.ports import Ruleset

_LEGACY_TABLES: Final = Path("/proc/thread-self/net/ip_tables_names")
_TIMEOUT_S: Final = 10.0
_SUBJECT: Final = "iptables"


class IptablesEngineRules:
    """The chain in each flavour that has it.

    Args:
        owner: Whose rules.
        ruleset: To look for the chain in nftables.
    """

    def __init__(self, owner: str, ruleset: Ruleset) -> None:
        self._owner = owner
        self._ruleset = ruleset
        self._settled: dict[str, tuple[list[str], list[str]]] = {}

    async def ensure(self, rules: Sequence[str]) -> bool:
        found = False
        if await self._in_nftables():
            found |= await self._ensure("iptables-nft", rules)
        if await self.unannounced():
            found |= await self._ensure("iptables-legacy", rules)
        return found

    async def unannounced(self) -> bool:
        return "filter" in await asyncio.to_thread(_legacy_tables)

    async def _in_nftables(self) -> bool:
        for entry in await self._ruleset.listing("ip", "filter") or ():
            chain = entry.get("chain") if isinstance(entry, dict) else None
            if isinstance(chain, dict) and chain.get("name") == CHAIN:
                return True
        return False

    async def _ensure(self, program: str, rules: Sequence[str]) -> bool:
        code, listing, _ = await _run([program, "-w", "5", "-S", CHAIN])
        if code != 0:
            return False
        ours = standing(listing, self._owner)
        wanted = list(rules)
        # An iptables that prints a rule in other words than ours must not make us write for ever.
        if ours == wanted or self._settled.get(program) == (wanted, ours):
            return True
        swap = restore_input(ours, rules)
        code, _, words = await _run([f"{program}-restore", "-w", "5", "--noflush"], swap)
        if code != 0:
            raise EngineRulesError(
                _SUBJECT, words.strip().splitlines()[0] if words.strip() else f"code {code}"
            )
        _, listing, _ = await _run([program, "-w", "5", "-S", CHAIN])
        self._settled[program] = (wanted, standing(listing, self._owner))
        return True


def _legacy_tables() -> list[str]:
    try:
        return _LEGACY_TABLES.read_text(encoding="ascii").split()
    except OSError:
        return []


async def _run(argv: Sequence[str], stdin: str = "") -> tuple[int, str, str]:
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise EngineRulesError(_SUBJECT, f"{argv[0]} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            stdout, stderr = await process.communicate(stdin.encode())
    except TimeoutError as error:
        raise EngineRulesError(_SUBJECT, f"{argv[0]} did not answer within {_TIMEOUT_S:.0f} s") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode or 0, stdout.decode(errors="replace"), stderr.decode(errors="replace")
