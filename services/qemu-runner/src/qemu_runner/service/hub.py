"""Hands observations to whoever watches, without ever waiting for a slow one.

Observations are level-based, so a watcher that lags gets the newest of each machine: what it holds
is bounded by the number of machines.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from qemu_runner.domain.machine import MachineId
from qemu_runner.domain.observation import Observation


class SnapshotComplete:
    """The word that all machines there are have been told."""


class NodeChanged:
    """The word that the host, not a machine, changed."""


class Heartbeat:
    """The word that nothing changed: the runner lives."""


SNAPSHOT_COMPLETE: Final = SnapshotComplete()
NODE_CHANGED: Final = NodeChanged()
HEARTBEAT: Final = Heartbeat()
Notice = Observation | SnapshotComplete | NodeChanged | Heartbeat

# A watcher that hears nothing for a few of these takes the runner for frozen or cut off.
HEARTBEAT_S: Final = 5.0


class _Watcher:
    def __init__(self) -> None:
        self.machines: dict[MachineId, Observation] = {}
        self.node = False
        self.woken = asyncio.Event()


class Hub:
    """All watchers."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()

    def publish(self, observation: Observation) -> None:
        """Tell every watcher of a machine."""
        for watcher in self._watchers:
            watcher.machines[observation.machine_id] = observation
            watcher.woken.set()

    def node_changed(self) -> None:
        """Tell every watcher of the host."""
        for watcher in self._watchers:
            watcher.node = True
            watcher.woken.set()

    async def watch(self, snapshot: Callable[[], Iterable[Observation]]) -> AsyncIterator[Notice]:
        """Yield the snapshot, the word that it is complete, the node, then every change."""
        with self._joined() as watcher:
            # Taken after joining: what changes from here on is queued, so nothing falls between.
            for observation in list(snapshot()):
                yield observation
            yield SNAPSHOT_COMPLETE
            yield NODE_CHANGED
            while True:
                try:
                    await asyncio.wait_for(watcher.woken.wait(), HEARTBEAT_S)
                except TimeoutError:
                    yield HEARTBEAT
                    continue
                watcher.woken.clear()
                node, watcher.node = watcher.node, False
                machines, watcher.machines = watcher.machines, {}
                for observation in machines.values():
                    yield observation
                if node:
                    yield NODE_CHANGED

    @contextmanager
    def _joined(self) -> Iterator[_Watcher]:
        watcher = _Watcher()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
