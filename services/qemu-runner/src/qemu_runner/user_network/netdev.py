"""QEMU's side of the socketpair whose other end passt holds.

Source: QAPI `NetdevStreamOptions` and `getfd` (QEMU 7.2 and later). Pure.
"""


def stream_netdev_arguments(netdev_id: str, fd_name: str) -> dict[str, object]:
    """Give the arguments of QMP `netdev_add` for a descriptor handed over by `getfd`.

    Args:
        netdev_id: Id of the new netdev, for the `netdev` property of `device_add`.
        fd_name: The `fdname` that `getfd` was called with. It must not begin with a digit, or QEMU
            reads it as a number.

    Raises:
        ValueError: If the name begins with a digit or is empty.
    """
    if not fd_name or fd_name[0].isdigit():
        raise ValueError(f"{fd_name!r} cannot be the name of a descriptor")
    return {
        "type": "stream",
        "id": netdev_id,
        "server": False,
        "addr": {"type": "fd", "str": fd_name},
    }


def stream_netdev_option(netdev_id: str, fd: int) -> str:
    """Give the value of QEMU's `-netdev` for a descriptor that QEMU inherits."""
    return f"stream,id={netdev_id},server=off,addr.type=fd,addr.str={fd}"
