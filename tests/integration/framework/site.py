"""A whole stack in network namespaces of its own, and what its guests can be made to do.

The stack's namespace is a host with one cable to the world, which is a second namespace; nothing in either
reaches the machine that runs the tests. In containers there is an engine of its own in it. Needs root.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

from user_network_world import World, made_world

from framework import guests
from framework.api_client import BlockingApiClient
from framework.attack import reached_of, tries
from framework.cloud import Cloud, Document
from framework.containers import running
from framework.engine import Engine
from framework.stack import running_stack
from framework.subject import Subject

T = TypeVar("T")


class Site:
    """The stack inside its namespace."""

    def __init__(self, world: World, stack: Subject, cloud: Cloud) -> None:
        """Keep the parts, and what the host has before any guest."""
        self.world = world
        self.stack = stack
        self.cloud = cloud
        self.links_before = self.links()

    def links(self) -> set[str]:
        """Return the names of the host's links, but for those that an engine gives to its containers."""
        names = {
            line.split(": ")[1].split("@")[0] for line in self.world.run("ip", "-o", "link").splitlines()
        }
        return {name for name in names if not name.startswith("veth")}

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


# Makes a site; told how names of files and links begin.
SiteOf = Callable[[str], AbstractContextManager[Site]]


@contextmanager
def running_site(prefix: str, **settings: Any) -> Iterator[Site]:
    """Run plain processes in namespaces of their own; `settings` are StackLayout's."""
    with made_world() as world, _site(world, running_stack(prefix, **settings)) as site:
        yield site


@contextmanager
def containers_site(world: World, engine: Engine, *, accelerator: str = "tcg") -> Iterator[Site]:
    """Run containers of an engine that runs in the host of `world` and has their images."""
    project = running(
        "qcontroller-site",
        environment=engine.environment,
        bridge="qct4",
        subnet="10.75.0.0/16",
        accelerator=accelerator,
    )
    with _site(world, project) as site:
        yield site


@contextmanager
def _site(world: World, context: AbstractContextManager[Subject]) -> Iterator[Site]:
    """Run a stack inside the host of `world`, with the tiny image in it."""
    with ExitStack() as ends:
        stack = world.inside(world.host, context.__enter__)
        ends.callback(world.inside, world.host, lambda: context.__exit__(None, None, None))
        api = ends.enter_context(BlockingApiClient(stack.base_url))
        site = Site(world, stack, Cloud(stack, api))
        site.inside(lambda: site.cloud.upload("tiny", guests.tiny()))
        yield site
