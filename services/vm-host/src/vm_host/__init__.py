"""vm-host: the parent of QEMU and passt processes, and nothing else.

It outlives the services that use it, so it depends on the standard library alone and changes rarely. It
knows no image, no network and no policy; the protocol is docs/vm-host-protocol.md.
"""
