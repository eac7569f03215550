"""The console's log between the runner's messages and the domain."""

from datetime import UTC

from qcontroller.runner.v1 import runner_pb2

from controller.domain.console import ConsoleChunk, ConsoleTime


def console_chunk_of(message: runner_pb2.ReadMachineConsoleResponse) -> ConsoleChunk:
    """Return a piece that a runner sent."""
    return ConsoleChunk(
        message.chunk,
        message.offset,
        message.total_bytes,
        message.first_kept,
        tuple(ConsoleTime(one.end, one.time.ToDatetime(UTC), one.approximate) for one in message.times),
    )
