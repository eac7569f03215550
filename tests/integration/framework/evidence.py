"""What a failed test leaves for its reader: logs, consoles, argument lists, what the API said."""

import shutil
from pathlib import Path

from framework.guests import ROOT
from framework.subject import Subject


def keep(stack: Subject, test: str) -> Path:
    """Copy the evidence of `stack` to build/evidence/<test> and return that folder."""
    folder = ROOT / "build" / "evidence" / test
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stack.keep_evidence(folder)
    return folder
