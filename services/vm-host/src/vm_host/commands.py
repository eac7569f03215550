"""What each request does.

Knows the table of children and the launcher, but neither sockets nor framing. A request either has its
whole effect or is refused with none.
"""

import os
import signal
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vm_host.cgroups import Cgroups
from vm_host.children import Children
from vm_host.errors import Refusal, RefusedError
from vm_host.launcher import Launcher
from vm_host.offers import Offers
from vm_host.protocol import VERSIONS
from vm_host.requests import Handle, only_fields, parse_handle, parse_spawn
from vm_host.stop_record import StopRecord

_PAGE = 128  # children of a page of `list`: about 300 bytes each, so that it fits into one message
_SIGNALS = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL, "QUIT": signal.SIGQUIT}


class Commands:
    """Carry out requests.

    Args:
        generation: Label of this build, told in hello.
        children: The table.
        launcher: Starts what enters it.
        offers: What the QEMU binaries can do.
        record: Told when an exit is acknowledged.
        cgroups: Where each child belongs.
    """

    def __init__(
        self,
        generation: str,
        children: Children,
        launcher: Launcher,
        offers: Offers,
        record: StopRecord,
        cgroups: Cgroups,
    ) -> None:
        self._children = children
        self._launcher = launcher
        self._offers = offers
        self._record = record
        self._cgroups = cgroups
        self._bounding_set_empty = launcher.bounding_set_is_emptied()
        self.identity = {
            "generation": generation,
            "startId": uuid.uuid4().hex,
            "bootId": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        }

    def run(self, operation: str, body: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Carry out a request and return its result. ``fds`` stay the caller's.

        Raises:
            RefusedError: Nothing was done, and why.
        """
        match operation:
            case "hello":
                return self._hello(body)
            case "spawn":
                return self._spawn(body, fds)
            case "signal":
                return self._signal(body)
            case "list":
                return self._list(body)
            case "ack":
                return self._ack(body)
            case "watch":
                only_fields(operation, body)
                return {"stopping": self._children.stopping}
            case _:
                raise RefusedError(Refusal.OPERATION_UNKNOWN, f"no operation {operation[:64]!r}")

    def _hello(self, body: dict[str, Any]) -> dict[str, Any]:
        only_fields("hello", body, "versions")
        versions = body.get("versions")
        common = [version for version in VERSIONS if isinstance(versions, list) and version in versions]
        if not common:
            raise RefusedError(Refusal.VERSION_UNSUPPORTED, f"this vm-host speaks versions {list(VERSIONS)}")
        return {
            "version": max(common),
            **self.identity,
            "pid": os.getpid(),
            "root": self._launcher.root,
            "boundingSetEmpty": self._bounding_set_empty,
            "stopping": self._children.stopping,
            "qemu": self._offers.describe(),
        }

    def _spawn(self, body: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        request = parse_spawn(body)
        if len(request.fd_names) != len(fds):
            raise RefusedError(
                Refusal.FIELD_INVALID, f"fds: {len(request.fd_names)} names for {len(fds)} descriptors"
            )
        existing = self._children.find(request.handle)
        if existing is not None:
            return {"child": existing.describe(), "created": False}
        if self._children.stopping:
            raise RefusedError(Refusal.STOPPING, "vm-host is stopping")
        self._children.refuse_second_incarnation(request.handle)
        launched = self._launcher.start(request, dict(zip(request.fd_names, fds, strict=True)))
        child = self._children.add(request.handle, launched.process, launched.monitor)
        self._cgroups.enter(child.handle.machine_id, child.pid)
        return {"child": child.describe(), "created": True}

    def _signal(self, body: dict[str, Any]) -> dict[str, Any]:
        only_fields("signal", body, "handle", "signal")
        name = body.get("signal")
        number = _SIGNALS.get(name) if isinstance(name, str) else None
        if number is None:
            raise RefusedError(Refusal.FIELD_INVALID, f"signal: must be one of {', '.join(_SIGNALS)}")
        self._children.deliver(parse_handle(body.get("handle")), number)
        return {}

    def _list(self, body: dict[str, Any]) -> dict[str, Any]:
        only_fields("list", body, "after")
        after = body.get("after", "")
        if not isinstance(after, str):
            raise RefusedError(Refusal.FIELD_INVALID, "after: must be the next of an earlier answer")
        described = [(_cursor(child.handle), child) for child in self._children]
        rest = [(cursor, child) for cursor, child in described if cursor > after]
        page = rest[:_PAGE]
        return {
            "children": [child.describe() for _, child in page],
            "next": page[-1][0] if len(rest) > len(page) else None,
            "stopping": self._children.stopping,
        }

    def _ack(self, body: dict[str, Any]) -> dict[str, Any]:
        only_fields("ack", body, "handle")
        self._children.acknowledge(parse_handle(body.get("handle")))
        self._record.settle(self._children)
        return {}


def _cursor(handle: Handle) -> str:
    # Sixteen digits hold every incarnation, so that text order is the order of handles.
    return f"{handle.machine_id}/{handle.role}/{handle.incarnation:016d}"
