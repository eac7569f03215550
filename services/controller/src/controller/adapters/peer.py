"""One service behind the controller: its errors translated once."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message
from servicekit.rpc_errors import RpcProblem, decode, is_unreachable

from controller.domain.fault import Fault
from controller.errors import PeerAway, PeerError, PeerRefused, Refusal, StaleFence

MessageT = TypeVar("MessageT", bound=Message)


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer's name and the reason for its absence."""

    name: str
    absence: str

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise the controller's errors instead of gRPC's.

        Raises:
            PeerAway: The peer is away or too slow.
            StaleFence: It has seen a higher fence.
            PeerRefused: It refused.
        """
        try:
            yield
        except grpc.aio.AioRpcError as exc:
            raise self._error_of(decode(exc)) from exc
        except (TimeoutError, grpc.aio.UsageError) as exc:
            raise PeerAway(self.absence, f"{self.name} did not answer in time.") from exc

    def _error_of(self, problem: RpcProblem) -> PeerError:
        if is_unreachable(problem):
            return PeerAway(self.absence, f"{self.name} cannot be reached: {problem.message}")
        if problem.reason == "STALE_FENCE":
            return StaleFence(problem.message)
        faults = tuple(Fault(violation.pointer, violation.detail) for violation in problem.violations)
        return PeerRefused(
            Refusal(problem.code.name, problem.reason, problem.message, dict(problem.metadata), faults)
        )

    async def messages(
        self,
        call: "grpc.aio.UnaryStreamCall[Any, MessageT] | grpc.aio.StreamStreamCall[Any, MessageT]",
        *,
        idle_s: float | None,
    ) -> AsyncGenerator[MessageT, None]:
        """Yield the messages of a stream, at most `idle_s` apart; the call ends with the iteration."""
        try:
            stream = call.__aiter__()
            while True:
                with self.errors():
                    async with asyncio.timeout(idle_s):
                        message = await anext(stream, None)
                if message is None:
                    return
                yield message
        finally:
            call.cancel()
