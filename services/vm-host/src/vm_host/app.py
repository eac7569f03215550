"""Composition root: puts the parts together and runs them in the main thread."""

import logging
import os
import resource
import signal

from vm_host.cgroups import Cgroups
from vm_host.children import Children
from vm_host.commands import Commands
from vm_host.launcher import Launcher
from vm_host.loop import Loop
from vm_host.offers import Offers
from vm_host.programs import Programs
from vm_host.server import Server, lock
from vm_host.settings import Settings
from vm_host.shutdown import Shutdown
from vm_host.stop_record import StopRecord

_log = logging.getLogger(__name__)

_DESCRIPTORS = 65536


def serve(settings: Settings) -> None:
    """Serve until a signal asks to stop and every child has ended.

    Raises:
        SocketInUseError: Another vm-host serves this socket.
        OSError: The socket cannot be made.
    """
    held = lock(settings.socket_path)
    _raise_descriptor_limit()
    loop = Loop()
    children = Children(loop)
    programs = Programs(settings.allowed_programs)
    record = StopRecord(settings.socket_path)
    record.restore(children)
    offers = Offers(programs)
    offers.describe()  # now, so that no client waits for it
    cgroups = Cgroups.of(settings.socket_path)
    children.subscribe(lambda child: cgroups.leave(child.handle.machine_id))
    commands = Commands(settings.generation, children, Launcher(programs), offers, record, cgroups)
    server = Server(loop, settings.socket_path, commands, children)

    def done() -> None:
        record.write(commands.identity, children)
        server.close()
        cgroups.close()
        loop.stop()

    shutdown = Shutdown(loop, children, server, settings.stop_grace_s, done)
    loop.on_signals((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), lambda _number: shutdown.begin())
    server.listen()
    place = {"socket": str(settings.socket_path), "cgroups": str(cgroups.root or "")}
    _log.info("listening", extra={**place, **commands.identity})
    loop.run()
    _log.info("stopped", extra=commands.identity)
    os.close(held)


def _raise_descriptor_limit() -> None:
    """Allow many descriptors: each child costs two here, and a client's message up to 64."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
