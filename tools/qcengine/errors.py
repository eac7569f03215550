"""What can go wrong here.

EngineError
├── EngineMissingError      no engine answers, and none can be installed or started
└── MirrorUnknownError      apt's sources name no Debian mirror
"""


class EngineError(Exception):
    """The base of them all; the message says what to do."""


class EngineMissingError(EngineError):
    """No engine answers, and none can be had."""


class MirrorUnknownError(EngineError):
    """Apt's sources name no Debian mirror."""
