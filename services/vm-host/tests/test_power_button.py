"""What a hostile QEMU says on vm-host's monitor costs no more than what an honest one says."""

import socket

from vm_host.loop import READ, Loop
from vm_host.qmp import PowerButton


def test_repeated_negotiation_presses_the_button_once() -> None:
    loop = Loop()
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        PowerButton(loop, near).press()
        far.sendall(b'{"return": {}, "id": "qmp_capabilities"}\n' * 100)
        loop.watch(far, READ, lambda _events: loop.stop())
        loop.run()
        assert far.recv(65536).count(b"query-status") == 2, "the command and its id, once"
        loop.forget(near)
        loop.forget(far)
