"""QEMU's side of the socketpair whose other end passt holds.

QEMU has to inherit the descriptor when it is spawned. Handing it over later by QMP `getfd` does not
work: QEMU connects in a thread that knows no monitor, so it reads the name as a number, and `netdev_add`
succeeds while the link stays down (seen with 7.2). The proof of a connection is the event.

Source: QAPI `NetdevStreamOptions`, `FdSocketAddress`, `NETDEV_STREAM_CONNECTED`; QEMU 7.2
`util/qemu-sockets.c`, `socket_get_fd`. Pure.
"""

STREAM_CONNECTED_EVENT = "NETDEV_STREAM_CONNECTED"
"""QMP event whose `netdev-id` names the netdev that reached its descriptor; wait for it before `cont`."""

STREAM_DISCONNECTED_EVENT = "NETDEV_STREAM_DISCONNECTED"
"""QMP event whose `netdev-id` names the netdev whose passt is dead; the machine lives on."""


def stream_netdev_arguments(netdev_id: str, fd: int) -> dict[str, object]:
    """Give the arguments of QMP `netdev_add` for a descriptor that QEMU inherited.

    Args:
        netdev_id: Id of the new netdev, for the `netdev` property of `device_add`.
        fd: Number of the descriptor in QEMU; of a connected Unix stream socket.
    """
    return {
        "type": "stream",
        "id": netdev_id,
        "server": False,
        "addr": {"type": "fd", "str": str(fd)},
    }


def stream_netdev_option(netdev_id: str, fd: int | str) -> str:
    """Give the value of QEMU's `-netdev` for a descriptor (or the spawner's placeholder) it inherits."""
    return f"stream,id={netdev_id},server=off,addr.type=fd,addr.str={fd}"
