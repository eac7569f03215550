"""The `bridge:<ifname>` networks: bridges that somebody else made, whose own network serves the guests.

What the runner calls is `ExistingBridges` (module `facade`), built by `build_existing_bridges` (module
`wiring`). It puts taps on such a bridge and changes nothing else of it: no address, no rule, no DHCP.
"""

from qemu_runner.existing_bridge.errors import BridgeTapError
from qemu_runner.existing_bridge.facade import ExistingBridges

__all__ = ["BridgeTapError", "ExistingBridges"]
