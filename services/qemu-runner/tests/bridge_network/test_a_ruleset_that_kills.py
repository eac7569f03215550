"""Rules that kill whoever reads them end a program, never the runner."""

from pathlib import Path

import pytest
from qemu_runner.bridge_network.adapters.nftables import Nftables
from qemu_runner.bridge_network.errors import RulesetError


async def test_the_program_is_asked_first_and_its_death_is_told(tmp_path: Path) -> None:
    dying = tmp_path / "nft"
    dying.write_text("#!/bin/sh\ncat >/dev/null\nkill -SEGV $$\n", encoding="utf-8")
    dying.chmod(0o755)
    ruleset = Nftables(program=str(dying))
    with pytest.raises(RulesetError, match="died of signal 11"):
        await ruleset.apply([])
