"""What consoles tell, between the domain's values and the contract's messages."""

from qcontroller.controller.v1 import instance_pb2
from qcontroller.runner.v1 import runner_pb2

from qemu_runner.domain.console import ConsolePiece, Reading
from qemu_runner.domain.trouble import Trouble
from qemu_runner.guest_messages import time_message


def reading_of(message: runner_pb2.ReadMachineConsoleRequest) -> Reading:
    """Return what is wanted of a console."""
    return Reading(message.offset, message.length, follow=message.follow, timestamps=message.timestamps)


def console_message(piece: ConsolePiece) -> runner_pb2.ReadMachineConsoleResponse:
    """Return a piece of a console's log."""
    return runner_pb2.ReadMachineConsoleResponse(
        chunk=piece.data,
        offset=piece.offset,
        total_bytes=piece.total_bytes,
        first_kept=piece.first_kept,
        times=[
            instance_pb2.ConsoleTime(end=mark.end, time=time_message(mark.time), approximate=mark.approximate)
            for mark in piece.times
        ],
    )


def trouble_message(trouble: Trouble) -> runner_pb2.ConsoleTrouble:
    """Return what is told of one kind of trouble."""
    return runner_pb2.ConsoleTrouble(
        kind=trouble.kind,
        line=trouble.line,
        count=trouble.told_count,
        time=time_message(trouble.time),
    )
