"""A guest made of frames: just enough Ethernet, ARP, DHCP, UDP and TCP to question passt.

It sits on the other end of passt's socket, where QEMU would, and can send what no honest guest
sends. Frames on that stream are preceded by their length, 4 bytes in network order. It must only be
run in a network namespace of its own: passt forwards to every destination it is asked for.

Source: QEMU's `net/stream.c`; RFC 826 (ARP), 2131 (DHCP), 791, 768 and 9293 (IPv4, UDP, TCP).
"""

import selectors
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address

_MAC = bytes.fromhex("5254004d0001")
_BROADCAST = b"\xff" * 6
_ETHERTYPE_IPV4 = 0x0800
_ETHERTYPE_ARP = 0x0806
_TCP = 6
_UDP = 17
_SYN = 0x02
_ACK = 0x10
_RST = 0x04
_MSS_OPTION = struct.pack("!BBH", 2, 4, 1460)
_FRAME_MAX = 65_549
_DHCP_COOKIE = bytes.fromhex("63825363")
_NOWHERE = IPv4Address("0.0.0.0")  # noqa: S104 - the source of a host without address
_EVERYONE = IPv4Address("255.255.255.255")


@dataclass(frozen=True, slots=True)
class Packet:
    """An IPv4 packet with ports, as the fake guest received it."""

    source: IPv4Address
    destination: IPv4Address
    protocol: int
    source_port: int
    destination_port: int
    flags: int
    sequence: int
    payload: bytes

    @property
    def accepts(self) -> bool:
        """Whether it is the second step of TCP's handshake."""
        return self.protocol == _TCP and self.flags & (_SYN | _ACK) == _SYN | _ACK

    @property
    def opens(self) -> bool:
        """Whether it is the first step of TCP's handshake."""
        return self.protocol == _TCP and self.flags & (_SYN | _ACK) == _SYN

    @property
    def acknowledges(self) -> bool:
        """Whether it acknowledges, and is no step of the handshake but the third."""
        return self.protocol == _TCP and self.flags & (_SYN | _ACK) == _ACK

    @property
    def resets(self) -> bool:
        """Whether it refuses or breaks a TCP connection."""
        return self.protocol == _TCP and bool(self.flags & _RST)

    @property
    def is_udp(self) -> bool:
        """Whether it is a UDP datagram."""
        return self.protocol == _UDP


@dataclass(frozen=True, slots=True)
class DhcpOffer:
    """What a DHCP server offered: address, routers, name servers and the rest by option number."""

    address: IPv4Address
    options: dict[int, bytes]

    def addresses(self, option: int) -> tuple[IPv4Address, ...]:
        """Read an option that is a list of IPv4 addresses."""
        raw = self.options.get(option, b"")
        return tuple(IPv4Address(raw[at : at + 4]) for at in range(0, len(raw), 4))


class FakeGuest:
    """One end of passt's socket.

    Args:
        stream: Connected stream socket whose other end passt was given.
        address: The guest's address.
        gateway: The next hop passt plays.
    """

    def __init__(self, stream: socket.socket, address: IPv4Address, gateway: IPv4Address) -> None:
        self._stream = stream
        self._stream.setblocking(False)
        self._address = address
        self._gateway = gateway
        self._router_mac = _BROADCAST
        self._pending = b""

    def resolve_gateway(self, timeout_s: float) -> bool:
        """Ask for the gateway's MAC by ARP; tell whether passt answered in time."""
        request = struct.pack("!HHBBH", 1, _ETHERTYPE_IPV4, 6, 4, 1)
        request += _MAC + self._address.packed + bytes(6) + self._gateway.packed
        self._send_frame(_BROADCAST, _ETHERTYPE_ARP, request)
        deadline = time.monotonic() + timeout_s
        while (frame := self._receive_frame(deadline)) is not None:
            kind, body = _ethertype(frame), frame[14:]
            if kind == _ETHERTYPE_ARP and body[6:8] == b"\x00\x02":
                self._router_mac = body[8:14]
                return True
        return False

    def discover(self, timeout_s: float) -> DhcpOffer | None:
        """Ask for an address by DHCP; give the offer, or None if none came in time."""
        message = struct.pack("!BBBBIHH", 1, 1, 6, 0, 0x51434E54, 0, 0) + bytes(16)
        message += _MAC.ljust(16, b"\x00") + bytes(192) + _DHCP_COOKIE
        message += bytes([53, 1, 1, 55, 4, 1, 3, 6, 15, 255])
        self._send_ipv4(_NOWHERE, _EVERYONE, _UDP, _udp(68, 67, message), _BROADCAST)
        deadline = time.monotonic() + timeout_s
        while (packet := self.receive(deadline)) is not None:
            if packet.is_udp and packet.destination_port == 68 and packet.payload[236:240] == _DHCP_COOKIE:
                return DhcpOffer(IPv4Address(packet.payload[16:20]), _dhcp_options(packet.payload[240:]))
        return None

    def send_syn(self, destination: IPv4Address, port: int, source_port: int) -> None:
        """Begin a TCP connection to any address, sane or not."""
        self._send_tcp(destination, port, source_port, 0, _SYN)

    def accept(self, opening: Packet) -> None:
        """Take the second step of the handshake that a packet opened."""
        acknowledged = (opening.sequence + 1) % 2**32
        self._send_tcp(
            opening.source, opening.source_port, opening.destination_port, acknowledged, _SYN | _ACK
        )

    def send_udp(self, destination: IPv4Address, port: int, source_port: int, payload: bytes) -> None:
        """Send one datagram to any address, sane or not."""
        datagram = _udp(source_port, port, payload)
        self._send_ipv4(self._address, destination, _UDP, datagram, self._router_mac)

    def receive(self, deadline: float) -> Packet | None:
        """Give the next TCP or UDP packet, or None at the deadline or when passt ended.

        Args:
            deadline: On `time.monotonic()`'s clock, in seconds.
        """
        while (frame := self._receive_frame(deadline)) is not None:
            if _ethertype(frame) == _ETHERTYPE_ARP and frame[20:22] == b"\x00\x01":
                self._answer_arp(frame)
            elif _ethertype(frame) == _ETHERTYPE_IPV4 and (packet := _parse(frame[14:])) is not None:
                return packet
        return None

    def receive_opening(self, timeout_s: float) -> Packet | None:
        """Give the next attempt to connect to this guest by TCP, or None if none came in time."""
        deadline = time.monotonic() + timeout_s
        while (packet := self.receive(deadline)) is not None:
            if packet.opens:
                return packet
        return None

    def _answer_arp(self, frame: bytes) -> None:
        asker_mac, asker, wanted = frame[22:28], frame[28:32], frame[38:42]
        if wanted == self._address.packed:
            reply = struct.pack("!HHBBH", 1, _ETHERTYPE_IPV4, 6, 4, 2)
            self._send_frame(asker_mac, _ETHERTYPE_ARP, reply + _MAC + wanted + asker_mac + asker)

    def _send_tcp(
        self, destination: IPv4Address, port: int, source_port: int, acknowledged: int, flags: int
    ) -> None:
        header = struct.pack("!HHIIBBHHH", source_port, port, 1, acknowledged, 6 << 4, flags, 64_240, 0, 0)
        header += _MSS_OPTION
        checksum = _checksum(_pseudo(self._address, destination, _TCP, len(header)) + header)
        segment = header[:16] + struct.pack("!H", checksum) + header[18:]
        self._send_ipv4(self._address, destination, _TCP, segment, self._router_mac)

    def _send_ipv4(
        self, source: IPv4Address, destination: IPv4Address, protocol: int, body: bytes, mac: bytes
    ) -> None:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
        header += source.packed + destination.packed
        header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
        self._send_frame(mac, _ETHERTYPE_IPV4, header + body)

    def _send_frame(self, mac: bytes, kind: int, body: bytes) -> None:
        frame = mac + _MAC + struct.pack("!H", kind) + body
        self._stream.sendall(struct.pack("!I", len(frame)) + frame)

    def _receive_frame(self, deadline: float) -> bytes | None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._stream, selectors.EVENT_READ)
            while True:
                if len(self._pending) >= 4:
                    size = struct.unpack("!I", self._pending[:4])[0]
                    if len(self._pending) >= 4 + size:
                        frame = self._pending[4 : 4 + size]
                        self._pending = self._pending[4 + size :]
                        return frame
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                try:
                    chunk = self._stream.recv(_FRAME_MAX)
                except ConnectionError:
                    return None
                if not chunk:
                    return None
                self._pending += chunk


def _ethertype(frame: bytes) -> int:
    return int.from_bytes(frame[12:14], "big")


def _checksum(data: bytes) -> int:
    padded = data + b"\x00" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo(source: IPv4Address, destination: IPv4Address, protocol: int, length: int) -> bytes:
    return source.packed + destination.packed + struct.pack("!BBH", 0, protocol, length)


def _udp(source_port: int, port: int, payload: bytes) -> bytes:
    # Checksum 0 means "none" in UDP over IPv4.
    return struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload


def _parse(packet: bytes) -> Packet | None:
    header_bytes = (packet[0] & 0x0F) * 4
    protocol, body = packet[9], packet[header_bytes : int.from_bytes(packet[2:4], "big")]
    if protocol not in {_TCP, _UDP} or len(body) < 8:
        return None
    source_port, destination_port = struct.unpack("!HH", body[:4])
    data_at = (body[12] >> 4) * 4 if protocol == _TCP else 8
    return Packet(
        source=IPv4Address(packet[12:16]),
        destination=IPv4Address(packet[16:20]),
        protocol=protocol,
        source_port=source_port,
        destination_port=destination_port,
        flags=body[13] if protocol == _TCP else 0,
        sequence=int.from_bytes(body[4:8], "big") if protocol == _TCP else 0,
        payload=body[data_at:],
    )


def _dhcp_options(raw: bytes) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    at = 0
    while at + 1 < len(raw) and raw[at] != 255:
        if raw[at] == 0:
            at += 1
            continue
        size = raw[at + 1]
        options[raw[at]] = raw[at + 2 : at + 2 + size]
        at += 2 + size
    return options
