"""Composition of the existing bridges from their real adapters. It must do no work on the host."""

from qemu_runner.bridge_network.adapters.facts import HostFacts
from qemu_runner.bridge_network.adapters.links import NetlinkLinks
from qemu_runner.bridge_network.adapters.taps import TunTaps
from qemu_runner.existing_bridge.adapters.neighbour_table import NetlinkNeighbours
from qemu_runner.existing_bridge.bridges import HostBridges


def build_existing_bridges(owner: str) -> HostBridges:
    """Build the bridges of one runner.

    Args:
        owner: Mark of the runner.
    """
    return HostBridges(NetlinkLinks(), TunTaps(), HostFacts(), NetlinkNeighbours(), f"bridge tap of {owner}")
