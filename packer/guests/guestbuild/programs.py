"""Runs the programs a build is made of, and says beforehand which are missing.

Owns no state. It never passes text through a shell and never lets a program run without a deadline.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from guestbuild.errors import CommandFailedError, ToolMissingError

# mkfs.fat, mke2fs and debugfs live where an ordinary user's PATH does not lead.
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))

PROGRAM_DEADLINE_S = 900.0


def require(programs: Mapping[str, str]) -> None:
    """Check that every program is there.

    Args:
        programs: Program name (or absolute path of a file) to the Debian package that holds it.

    Raises:
        ToolMissingError: With the packages to install.
    """
    missing = {
        package
        for program, package in programs.items()
        if not (
            Path(program).exists() if program.startswith("/") else shutil.which(program, path=SEARCH_PATH)
        )
    }
    if missing:
        raise ToolMissingError(sorted(missing))


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = PROGRAM_DEADLINE_S,
) -> str:
    """Run one program to its end and return its standard output.

    Raises:
        CommandFailedError: It ended with an error or took longer than ``timeout_s``.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise CommandFailedError(words, -1, f"no end after {timeout_s:.0f} s") from exc
    except OSError as exc:
        raise CommandFailedError(words, -1, str(exc)) from exc
    if done.returncode != 0:
        raise CommandFailedError(words, done.returncode, done.stdout + done.stderr)
    return done.stdout
