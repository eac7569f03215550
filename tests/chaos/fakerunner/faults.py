"""The script of what goes wrong, and where: before or after the effect of a call.

Points are named "<call>.before" (the call has come, nothing is done) and "<call>.after" (all is done, nothing
is answered), with the calls plan, prepare, start, stop, pause, resume, reset, delete, quiesce, get, watch;
and "prepare.half": the directory is there, the record is not. A scripted fault is used up by the first call
that reaches it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from servicekit.rpc_errors import RpcProblem

Act = Callable[[], Awaitable[None]]
Observer = Callable[[str, str], Awaitable[None] | None]


@dataclass(slots=True)
class _Scripted:
    act: Act
    machine_id: str
    passes: int


class Faults:
    """Reached points consult it.

    Attributes:
        observer: Told of every point and machine that is reached; may hold the call up, raise, or kill.
    """

    def __init__(self) -> None:
        self._scripted: dict[str, list[_Scripted]] = {}
        self.observer: Observer | None = None

    def script(self, point: str, act: Act, *, machine_id: str = "", passes: int = 0) -> None:
        """Have `act` happen at `point`, once.

        Args:
            point: Where.
            act: What.
            machine_id: For this machine only; empty: any.
            passes: How many calls pass unharmed before.
        """
        self._scripted.setdefault(point, []).append(_Scripted(act, machine_id, passes))

    def forget(self) -> None:
        """Drop what has not happened yet."""
        self._scripted.clear()

    async def reach(self, point: str, machine_id: str) -> None:
        """Let happen what the script says for this point."""
        if self.observer is not None:
            told = self.observer(point, machine_id)
            if told is not None:
                await told
        waiting = self._scripted.get(point)
        if not waiting:
            return
        for scripted in list(waiting):
            if scripted.machine_id not in {"", machine_id}:
                continue
            if scripted.passes:
                scripted.passes -= 1
                continue
            waiting.remove(scripted)
            await scripted.act()


def delay(seconds: float) -> Act:
    """Take this long."""
    return lambda: asyncio.sleep(seconds)


def hang() -> Act:
    """Never go on; a caller that hangs up ends it."""

    async def act() -> None:
        await asyncio.Event().wait()

    return act


def refuse(problem: RpcProblem) -> Act:
    """Answer with an error."""

    async def act() -> None:
        raise problem

    return act
