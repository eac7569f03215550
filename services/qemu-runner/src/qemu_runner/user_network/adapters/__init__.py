"""Adapters of the `user` network: nftables, sockets, /proc, and passt itself under probe."""
