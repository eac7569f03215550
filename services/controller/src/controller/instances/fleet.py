"""The nodes that there are: their runners, and what is known of each at the moment.

It owns the last known form of every node. It never decides anything about an instance.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from controller.domain.node import Node, NodeState
from controller.errors import NodeNotFound, PeerAway
from controller.operations import Clock
from controller.ports import Runner

RUNNER_UNAVAILABLE: Final = "RUNNER_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Standing:
    """How a node stands.

    Attributes:
        reachable: None until the first contact.
        since: When that last changed.
        node: Last known form.
        detail: Why it is not reachable.
    """

    reachable: bool | None
    since: datetime
    node: Node
    detail: str = ""


class Fleet:
    """The runners by node, in order of the settings."""

    def __init__(self, runners: Iterable[Runner], clock: Clock) -> None:
        self._runners = {runner.node: runner for runner in runners}
        self._clock = clock
        now = clock.now()
        self._standings = {
            name: Standing(None, now, Node(name=name, state=NodeState.UNREACHABLE, message="Not seen yet."))
            for name in self._runners
        }

    @property
    def runners(self) -> tuple[Runner, ...]:
        """All runners."""
        return tuple(self._runners.values())

    def runner(self, node: str) -> Runner:
        """Return the runner of a node.

        Raises:
            NodeNotFound: There is no such node.
        """
        try:
            return self._runners[node]
        except KeyError:
            raise NodeNotFound(node) from None

    def standing(self, node: str) -> Standing:
        """Return how a node stands; one that is not in the settings any more is unreachable."""
        found = self._standings.get(node)
        if found is not None:
            return found
        unknown = Node(name=node, state=NodeState.UNREACHABLE, message="No runner is configured for it.")
        return Standing(False, self._clock.now(), unknown, unknown.message)

    def choose(self) -> Runner:
        """Return the node for a new instance: the first that can be reached.

        Raises:
            PeerAway: None can.
        """
        for name, runner in self._runners.items():
            if self._standings[name].reachable is not False:
                return runner
        raise PeerAway(RUNNER_UNAVAILABLE, "No runner can be reached.")

    def reachable_runner(self, node: str) -> Runner:
        """Return the runner of a node unless it is known to be away.

        Raises:
            PeerAway: It is.
        """
        standing = self.standing(node)
        if standing.reachable is False or node not in self._runners:
            raise PeerAway(RUNNER_UNAVAILABLE, f"The runner of {node} cannot be reached: {standing.detail}")
        return self._runners[node]

    def heard(self, node: str, form: Node | None = None) -> bool:
        """Note a sign of life, and the node's form with it; return whether anything is new."""
        before = self._standings[node]
        since = before.since if before.reachable else self._clock.now()
        after = Standing(True, since, form or before.node)
        self._standings[node] = after
        return after != before

    def lost(self, node: str, detail: str) -> bool:
        """Note that the runner is away; return whether that is new."""
        before = self._standings[node]
        if before.reachable is False:
            return False
        form = replace(before.node, state=NodeState.UNREACHABLE, message=detail)
        self._standings[node] = Standing(False, self._clock.now(), form, detail)
        return True
