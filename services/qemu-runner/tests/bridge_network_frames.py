"""Frames that guests of the tests send, honest ones and others; and a DHCP client made of them.

Source: RFC 826 (ARP), 791 (IPv4), 768 (UDP), 2131 and 2132 (DHCP), 1035 (DNS).
"""

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

BROADCAST = "ff:ff:ff:ff:ff:ff"
NOWHERE = IPv4Address("0.0.0.0")
EVERYONE = IPv4Address("255.255.255.255")
DISCOVER, OFFER, REQUEST, ACK, NAK = 1, 2, 3, 5, 6
_COOKIE = bytes.fromhex("63825363")


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ethernet(source: str, destination: str, kind: int, body: bytes) -> bytes:
    return mac_bytes(destination) + mac_bytes(source) + struct.pack("!H", kind) + body


def udp_frame(
    source_mac: str,
    destination_mac: str,
    source: tuple[IPv4Address, int],
    destination: tuple[IPv4Address, int],
    payload: bytes,
) -> bytes:
    # Checksum 0 means "none" in UDP over IPv4.
    datagram = struct.pack("!HHHH", source[1], destination[1], 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 0, 0, 64, 17, 0)
    header += source[0].packed + destination[0].packed
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    return ethernet(source_mac, destination_mac, 0x0800, header + datagram)


def arp_reply(frame_mac: str, claimed_mac: str, claimed: IPv4Address, asker: IPv4Address) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    body += mac_bytes(claimed_mac) + claimed.packed + mac_bytes(BROADCAST) + asker.packed
    return ethernet(frame_mac, BROADCAST, 0x0806, body)


def dhcp(
    kind: int, mac: str, *, boot_reply: bool = False, yours: IPv4Address = NOWHERE, hostname: str = ""
) -> bytes:
    message = struct.pack("!BBBBIHH", 2 if boot_reply else 1, 1, 6, 0, 0x51434E54, 0, 0x8000)
    message += bytes(4) + yours.packed + bytes(8) + mac_bytes(mac).ljust(16, b"\0") + bytes(192) + _COOKIE
    options = bytes([53, 1, kind, 55, 5, 1, 3, 6, 12, 15])
    if kind == REQUEST:
        options += bytes([50, 4]) + yours.packed
        message = message[:16] + bytes(4) + message[20:]
    if hostname:
        options += bytes([12, len(hostname)]) + hostname.encode()
    return message + options + b"\xff"


@dataclass(frozen=True)
class DhcpAnswer:
    """What a server said."""

    kind: int
    address: IPv4Address
    options: dict[int, bytes]


def ask_dhcp(
    wire: socket.socket, mac: str, timeout_s: float = 3.0, *, hostname: str = ""
) -> DhcpAnswer | None:
    """Discover and request an address; give the server's last word, or None if it never spoke."""
    offer = _exchange(wire, mac, dhcp(DISCOVER, mac, hostname=hostname), timeout_s)
    if offer is None or offer.kind != OFFER:
        return offer
    return _exchange(wire, mac, dhcp(REQUEST, mac, yours=offer.address, hostname=hostname), timeout_s)


def frames(wire: socket.socket, timeout_s: float) -> Iterator[bytes]:
    """Give the frames that come in, until the time is over."""
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        wire.settimeout(left)
        try:
            frame, place = wire.recvfrom(65535)
        except TimeoutError:
            return
        if place[2] != socket.PACKET_OUTGOING:
            yield frame


def sees(wire: socket.socket, needle: bytes, timeout_s: float) -> bool:
    """Tell whether a frame with these bytes comes in."""
    return any(needle in frame for frame in frames(wire, timeout_s))


def ask_dns(wire: socket.socket, server: IPv4Address, name: str, kind: int = 1) -> list[bytes]:
    """Ask a server; give the data of the answers, none if it knows no such name."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)
    wire.settimeout(5.0)
    wire.sendto(query, (str(server), 53))
    answer = wire.recv(4096)
    count, at, found = struct.unpack_from("!H", answer, 6)[0], len(query), []
    for _ in range(count):
        at = answer.index(b"\0", at) + 1 if answer[at] < 0xC0 else at + 2
        size = struct.unpack_from("!H", answer, at + 8)[0]
        found.append(answer[at + 10 : at + 10 + size])
        at += 10 + size
    return found


def answer_dns(query: bytes, address: IPv4Address) -> bytes:
    """Answer any query for an address with this one."""
    body = query[12:]
    name_end = body.index(b"\0") + 5
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + address.packed
    return query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + body[:name_end] + record


def _exchange(wire: socket.socket, mac: str, message: bytes, timeout_s: float) -> DhcpAnswer | None:
    wire.send(udp_frame(mac, BROADCAST, (NOWHERE, 68), (EVERYONE, 67), message))
    for frame in frames(wire, timeout_s):
        at = frame.find(_COOKIE)
        if frame[23:24] == b"\x11" and frame[36:38] == b"\0\x44" and at > 0:
            return _parsed(frame, at)
    return None


def _parsed(frame: bytes, at: int) -> DhcpAnswer:
    yours = IPv4Address(frame[42 + 16 : 42 + 20])
    options: dict[int, bytes] = {}
    at += 4
    while frame[at] != 255:
        size = frame[at + 1]
        options[frame[at]] = frame[at + 2 : at + 2 + size]
        at += 2 + size
    return DhcpAnswer(options[53][0], yours, options)


def _checksum(header: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
