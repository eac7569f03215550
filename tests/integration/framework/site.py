"""A whole stack in network namespaces of its own, and what its guests can be made to do.

The stack's namespace is a host with one cable to the world, which is a second namespace; nothing in either
reaches the machine that runs the tests. Needs root.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from user_network_world import World, made_world

from framework import guests
from framework.api_client import BlockingApiClient
from framework.attack import reached_of, tries
from framework.cloud import Cloud, Document
from framework.stack import Stack, running_stack

T = TypeVar("T")


class Site:
    """The stack inside its namespace."""

    def __init__(self, world: World, stack: Stack, cloud: Cloud) -> None:
        """Keep the parts."""
        self.world = world
        self.stack = stack
        self.cloud = cloud

    def inside(self, action: Callable[[], T]) -> T:
        """Do something on the stack's host: talk to its API, start or end its services."""
        return self.world.inside(self.world.host, action)

    def launch_ready(self, name: str, **body: Any) -> Document:
        """Launch an instance and wait until its agent answers."""
        return self.inside(lambda: self.cloud.launch_ready(name, **body))

    def get(self, name: str) -> Document:
        """GET an instance."""
        return self.inside(lambda: self.cloud.get(name))

    def delete(self, name: str) -> None:
        """Delete an instance."""
        self.inside(lambda: self.cloud.delete(name))

    def run(self, name: str, script: str) -> str:
        """Run a shell script in a guest and return what it printed."""
        answer: Document = self.inside(lambda: self.cloud.exec(name, "/bin/sh", "-c", script, timeout="60s"))
        return str(answer["stdout"])

    def probe(self, name: str, targets: list[tuple[str, int]]) -> set[tuple[str, int]]:
        """Try to connect from a guest to every target at once; return those that were reached."""
        return reached_of(self.run(name, tries(targets)))

    def serve(self, name: str, port: int, word: str) -> None:
        """Have a guest answer every connection to `port` with `word`, from when this returns."""
        self.run(
            name,
            f"(while :; do echo {word} | nc -l -p {port}; done) >/dev/null 2>&1 </dev/null &\n"
            f"until grep -q ':{port:04X} ' /proc/net/tcp /proc/net/tcp6; do usleep 50000; done",
        )

    def echo(self, name: str, port: int) -> None:
        """Have a guest give back what comes in by the one connection to `port` that it takes."""
        self.run(
            name,
            f"nc -l -p {port} -e /bin/cat >/dev/null 2>&1 </dev/null &\n"
            f"until grep -q ':{port:04X} ' /proc/net/tcp /proc/net/tcp6; do usleep 50000; done",
        )


@contextmanager
def running_site(prefix: str, **settings: Any) -> Iterator[Site]:
    """Run a stack in namespaces of its own, with the tiny image in it; `settings` are StackLayout's."""
    with made_world() as world:
        context = running_stack(prefix, **settings)
        stack = world.inside(world.host, context.__enter__)
        try:
            with BlockingApiClient(stack.base_url) as api:
                site = Site(world, stack, Cloud(stack, api))
                site.inside(lambda: site.cloud.upload("tiny", guests.tiny()))
                yield site
        finally:
            world.inside(world.host, lambda: context.__exit__(None, None, None))
