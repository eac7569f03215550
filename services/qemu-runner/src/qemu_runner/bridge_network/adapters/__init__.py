"""Adapters of the bridge network: netlink, taps, nftables, dnsmasq, iptables, sockets, /proc."""
