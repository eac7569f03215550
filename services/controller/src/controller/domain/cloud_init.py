"""What a guest's cloud-init tells of itself: the guest's own word, which decides nothing but a condition."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class CloudInit(StrEnum):
    """How the guest's cloud-init has ended in this boot."""

    UNSEEN = ""
    DONE = "done"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class CloudInitStage:
    """One stage; its times are of the guest's clock."""

    name: str
    start_time: datetime | None = None
    finish_time: datetime | None = None
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CloudInitStatus:
    """What the guest's cloud-init tells of itself in this boot.

    Attributes:
        state: "running", "done" or "error".
        schema_errors: Where user-data is not as its schema wants it; without values.
    """

    state: str
    datasource: str = ""
    stages: tuple[CloudInitStage, ...] = ()
    errors: tuple[str, ...] = ()
    failed_modules: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    schema_errors: tuple[str, ...] = ()
