"""What an installed passt does, as the probe saw it, and whether it may be offered.

Versions do not tell (Debian's builds call themselves "unknown version"), so a probe with a fake guest
decides. This module owns the values and the decision; finding out belongs to `adapters.probe`.
"""

from dataclasses import dataclass

from qemu_runner.user_network.passt import PasstOptions
from qemu_runner.user_network.publishing import ANY, PublishedPort

GUARD_FIX = (
    "start the runner with CAP_NET_ADMIN and a range of uids for machines (as root it has both), "
    "or install a passt of 2025 or later."
)


@dataclass(frozen=True, slots=True)
class PasstBehaviour:
    """What one passt binary was seen to do.

    Attributes:
        binary_sha256: Hash of the binary that was probed, lower-case hex.
        version: First line of `--version`, for people only.
        options: Options this build understands.
        leaks_loopback: Whether a packet that the guest sent to 127.0.0.1 or 0.0.0.0 reached a
            listener on the host's loopback.
        reaches_host_addresses: Whether a guest reaches the host's other addresses; true for every
            known version, since to passt they are destinations like any other.
        udp_loopback_replies: Whether a client on the loopback gets the answers of a published UDP port.
        udp_address_replies: Whether a client of a UDP port published on another address does.
        greeting_first: Whether a server in the guest that speaks first (SMTP, MySQL, VNC) is told of its
            client before that says something; passt before October 2024 keeps the handshake's last
            step for the first data.
    """

    binary_sha256: str
    version: str
    options: PasstOptions
    leaks_loopback: bool
    reaches_host_addresses: bool
    udp_loopback_replies: bool
    udp_address_replies: bool
    greeting_first: bool

    def returns_udp(self, port: PublishedPort) -> bool:
        """Tell whether the answers of this published UDP port find their way back."""
        if port.address.is_loopback or port.address == ANY:
            return self.udp_loopback_replies
        return self.udp_address_replies


@dataclass(frozen=True, slots=True)
class Available:
    """The network can be offered.

    Attributes:
        guarded: Whether the nft guard stands before all addresses of this host; without it only the
            loopback is out of the guests' reach.
        udp_publishing: Whether UDP ports can be published on the loopback.
        behaviour: What the probe saw.
    """

    guarded: bool
    udp_publishing: bool
    behaviour: PasstBehaviour


@dataclass(frozen=True, slots=True)
class Refused:
    """The network cannot be offered.

    Attributes:
        reason: What is wrong, as a sentence.
        fix: What to do about it.
    """

    reason: str
    fix: str


Availability = Available | Refused


def decide(behaviour: PasstBehaviour, *, guarded: bool) -> Availability:
    """Decide whether this passt may be given to guests.

    Args:
        behaviour: What the probe saw.
        guarded: Whether the nft guard can be applied on this host.
    """
    if behaviour.leaks_loopback and not guarded:
        return Refused(
            reason="this passt hands a guest's packets to 127.0.0.1 or 0.0.0.0 to the host's loopback, "
            "and without CAP_NET_ADMIN nothing can stop them.",
            fix=GUARD_FIX,
        )
    return Available(guarded=guarded, udp_publishing=behaviour.udp_loopback_replies, behaviour=behaviour)
