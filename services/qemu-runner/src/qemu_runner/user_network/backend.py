"""What turns the frames of guests on the `user` network into sockets."""

from enum import StrEnum


class UserBackend(StrEnum):
    """Setting of the runner."""

    PASST = "passt"
    """A process beside each QEMU, behind a guard; safe on the host's own network."""
    SLIRP = "slirp"
    """Inside QEMU; safe only where vm-host has a network of its own with nothing else on it."""
