"""One stream per runner, for as long as the service lives: what it reports, and that it is away.

Nothing polls: the stream tells changes, its end tells that the runner is gone, and the channel's keepalive
ends it where the runner is frozen.
"""

import logging
from typing import Final

from controller.domain.machine import Machine
from controller.domain.node import Node
from controller.errors import PeerAway, PeerError
from controller.instances.fences import Fences
from controller.instances.observations import Observations
from controller.operations import Clock
from controller.ports import Runner, SnapshotComplete

_log = logging.getLogger(__name__)

_FIRST_WAIT_S: Final = 0.1
_MOST_WAIT_S: Final = 2.0


class RunnerWatch:
    """Follows one runner."""

    def __init__(self, runner: Runner, observations: Observations, fences: Fences, clock: Clock) -> None:
        self._runner = runner
        self._fences = fences
        self._observations = observations
        self._clock = clock
        self._wait_s = _FIRST_WAIT_S

    async def run(self) -> None:
        """Watch and watch again, for ever."""
        while True:
            try:
                await self._follow()
                detail = "The runner has ended its stream."
            except PeerError as exc:
                detail = exc.message
            except Exception:  # noqa: BLE001 - loops go on, logged
                # A defect or an outage of the database must not end observing.
                _log.exception("watching failed", extra={"node": self._runner.node})
                detail = ""
            if detail:
                await self._away(detail)
            await self._clock.sleep(self._wait_s)
            self._wait_s = min(2 * self._wait_s, _MOST_WAIT_S)

    async def _away(self, detail: str) -> None:
        try:
            await self._observations.runner_is_away(self._runner.node, detail)
        except Exception:  # noqa: BLE001 - loops go on, logged
            _log.exception("noting the runner's absence failed", extra={"node": self._runner.node})

    async def _follow(self) -> None:
        node = self._runner.node
        snapshot: dict[str, Machine] | None = {}
        heard = False
        async for report in self._runner.watch():
            if not heard:
                # Revisions count anew with every life of a runner; what calls answer from here on is later.
                self._observations.forget_order()
                heard = True
            match report:
                case Machine() if snapshot is not None:
                    snapshot[report.id] = report
                case Machine():
                    await self._observations.saw(report)
                case SnapshotComplete():
                    await self._fences.raise_once(self._runner, snapshot or {})
                    await self._observations.snapshot(node, snapshot or {})
                    snapshot = None
                    self._wait_s = _FIRST_WAIT_S
                case Node():
                    await self._observations.node_is(report)
        raise PeerAway("RUNNER_UNAVAILABLE", "The runner has ended its stream.")
