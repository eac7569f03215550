"""What the network named "default" stands for, as the settings say."""

from enum import StrEnum


class DefaultNetwork(StrEnum):
    """AUTO is qc0 where this runner may make it, else the user network; each launch keeps what it was."""

    AUTO = "auto"
    QC0 = "qc0"
    USER = "user"
