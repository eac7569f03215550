"""What is asked of a console's log and what is told of it. Offsets count from the log's first byte ever."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """What somebody wants to read.

    Attributes:
        offset: Where it begins; negative: from the end.
        length: How many bytes at most; 0: to the end.
        follow: Go on with what comes, until the log is gone.
        timestamps: Tell when the bytes came.
    """

    offset: int = 0
    length: int = 0
    follow: bool = False
    timestamps: bool = False


@dataclass(frozen=True, slots=True)
class TimeMark:
    """When the bytes up to `end`, and from the mark before on, were there.

    Attributes:
        end: Offset behind the last of them.
        time: When the log was seen to have grown so far (UTC).
        approximate: Nobody watched then, or it is long ago: they came then or before.
    """

    end: int
    time: datetime
    approximate: bool = False


@dataclass(frozen=True, slots=True)
class ConsolePiece:
    """A piece of a log.

    Attributes:
        offset: Of its first byte.
        data: Its bytes; none: the log has no more at the moment.
        total_bytes: Length of the log then.
        first_kept: Offset of the first byte that is still there.
        times: Of its bytes, where that was asked for.
    """

    offset: int
    data: bytes
    total_bytes: int
    first_kept: int
    times: tuple[TimeMark, ...] = ()
