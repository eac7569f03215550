"""Makes MinIO's credentials once, in a volume that only MinIO and the image store mount.

Run to its end before either starts. Keys that are there stay: objects outlive any number of starts.
"""

import os
import secrets
from pathlib import Path

DIRECTORY = Path("/run/qcontroller/s3-credentials")


def main() -> None:
    """Write what is missing; whole or not at all."""
    os.umask(0o037)  # the owner, and the group of the directory to read
    for name, length in (("access-key", 15), ("secret-key", 30)):
        path = DIRECTORY / name
        if not path.exists():
            fresh = path.with_suffix(".new")
            fresh.write_text(secrets.token_urlsafe(length), encoding="ascii")
            fresh.replace(path)


if __name__ == "__main__":
    main()
