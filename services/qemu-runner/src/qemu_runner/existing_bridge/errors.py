"""What can go wrong with a tap on somebody else's bridge, as data.

Tree::

    BridgeTapError    the host refused to open a tap or to put it there (bridge, detail)
"""


class BridgeTapError(Exception):
    """The host refused a tap on this bridge, or the bridge is gone."""

    def __init__(self, bridge: str, detail: str) -> None:
        self.bridge = bridge
        self.detail = detail
        super().__init__(f"no tap on {bridge}: {detail}")
