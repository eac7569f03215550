"""Failures of a guest build.

::

    BuildError                   the build cannot go on; the message says what to do
    ├── ToolMissingError         a program of packages.txt is not installed
    ├── PackagesUnavailableError apt cannot resolve or fetch what the guest is made of
    ├── CommandFailedError       a program ended with an error; carries its last output
    └── GuestIncompleteError     the packages do not hold what the recipe expects

They are printed by ``main`` and end the build with status 1; nothing half-made is left at the output path.
"""

from collections.abc import Sequence


class BuildError(Exception):
    """A guest image cannot be built; the text says why and what to do."""


class ToolMissingError(BuildError):
    """Programs the builder runs are not installed."""

    def __init__(self, packages: Sequence[str]) -> None:
        """Name the Debian packages that hold the missing programs."""
        self.packages = tuple(packages)
        super().__init__(
            "programs are missing; as root run: apt-get install --no-install-recommends "
            + " ".join(self.packages)
        )


class PackagesUnavailableError(BuildError):
    """Apt knows no such package or cannot fetch it."""


class CommandFailedError(BuildError):
    """A program of the build ended with an error."""

    def __init__(self, argv: Sequence[str], status: int, output: str) -> None:
        """Keep what ran, how it ended and the tail of what it said."""
        self.argv = tuple(argv)
        self.status = status
        self.output = output
        super().__init__(f"{' '.join(self.argv[:6])} ended with status {status}:\n{output[-4000:]}")


class GuestIncompleteError(BuildError):
    """A file the guest needs is in none of its packages."""
