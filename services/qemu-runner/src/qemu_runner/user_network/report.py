"""What the `user` network tells the doctor and the list of leaks.

Plain values in the shape of the API's `doctor` and `leaks`; wording lives with the check that
produces it.
"""

from dataclasses import dataclass
from enum import StrEnum


class CheckStatus(StrEnum):
    """Outcome of one check of the doctor."""

    PASS = "PASS"  # noqa: S105 - a verdict
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding of the doctor.

    Attributes:
        name: Stable, lower-case, hyphenated.
        status: Verdict.
        detail: What was seen.
        fix: What to do; empty when nothing is wrong.
    """

    name: str
    status: CheckStatus
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Leak:
    """An object on the host that carries our mark and that no machine needs.

    Attributes:
        kind: As in the API: `rule` for everything of nftables.
        name: What to call it on the host's command line.
        owner: The mark it carries.
    """

    kind: str
    name: str
    owner: str
