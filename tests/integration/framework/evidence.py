"""What a failed test leaves for its reader: logs, consoles, argument lists, what the API said."""

import shutil
from pathlib import Path

from framework.guests import ROOT
from framework.stack import Stack

_KEPT_PER_MACHINE = ("machine.json", "console.log", "stderr.log", "qmp.log")


def keep(stack: Stack, test: str) -> Path:
    """Copy the evidence of `stack` to build/evidence/<test> and return that folder."""
    folder = ROOT / "build" / "evidence" / test
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for log in (stack.layout.state / "log").glob("*.log"):
        shutil.copy(log, folder)
    for machine in (stack.layout.state / "runner" / "machines").glob("*"):
        target = folder / machine.name
        target.mkdir()
        for name in _KEPT_PER_MACHINE:
            if (machine / name).is_file():
                shutil.copy(machine / name, target)
    return folder
