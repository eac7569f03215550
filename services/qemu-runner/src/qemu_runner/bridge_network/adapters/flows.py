"""Deletes connection tracking's entries of published UDP ports.

An entry remembers where its flow goes, whatever the rules say later: a client that sent before a port
was published would never reach the guest, and one that keeps sending would reach it for ever.
"""

import errno
import socket
from collections.abc import Iterable
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink import nfctsocket

from qemu_runner.bridge_network.errors import RulesetError
from qemu_runner.user_network import Protocol, PublishedPort
from qemu_runner.user_network.publishing import ANY

_NFCT: Final[Any] = nfctsocket  # it has no annotations


class Conntrack:
    """Connection tracking of this process's network namespace."""

    async def forget(self, ports: Iterable[PublishedPort]) -> None:
        wanted = [port for port in ports if port.protocol is Protocol.UDP]
        if not wanted:
            return
        try:
            async with _NFCT.AsyncNFCTSocket() as tracking:
                for port in wanted:
                    await _forget(tracking, port)
        except NetlinkError as error:
            raise RulesetError("connection tracking", str(error.args[-1])) from error


async def _forget(tracking: Any, port: PublishedPort) -> None:
    asked = _NFCT.NFCTAttrTuple(proto=socket.IPPROTO_UDP, dport=port.host)
    found = [entry async for entry in await tracking.dump(tuple_orig=asked)]
    for entry in found:
        flow = _NFCT.NFCTAttrTuple.from_netlink(socket.AF_INET, entry.get_attr("CTA_TUPLE_ORIG"))
        if flow.dport != port.host or (port.address != ANY and flow.daddr != str(port.address)):
            continue
        try:
            await tracking.entry("del", tuple_orig=flow)
        except NetlinkError as error:
            if error.code != errno.ENOENT:
                raise
