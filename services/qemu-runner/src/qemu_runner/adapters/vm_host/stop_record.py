"""The note that a vm-host leaves beside its socket when it stopped in good order.

Read-only: vm-host writes it (``<socket>.stopped``) as its last act, and a later vm-host at the same
socket reports the exits in it until they are acknowledged. The runner reads it only where no
vm-host has come back, to tell "was shut down" from "died".
"""

from dataclasses import dataclass
from pathlib import Path

from qemu_runner.adapters.vm_host import codec
from qemu_runner.adapters.vm_host.messages import ChildExit

_MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StopRecord:
    """What a vm-host said last.

    Attributes:
        start_id: Which vm-host process (``VmHostHello.start_id``).
        exits: The exits that nobody had acknowledged.
    """

    start_id: str
    exits: tuple[ChildExit, ...]


def read_stop_record(socket_path: Path) -> StopRecord | None:
    """Return the record beside this socket, or None if there is none. Blocks: call it in a thread.

    Raises:
        codec.AnswerInvalid: The file is not such a record.
        OSError: It is there and cannot be read.
    """
    path = socket_path.with_name(socket_path.name + ".stopped")
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    start_id, exits = codec.parse_stop_record(data)
    return StopRecord(start_id, exits)
