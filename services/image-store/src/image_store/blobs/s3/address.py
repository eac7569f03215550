"""Where a bucket is, who may use it, and how long its service may take."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class S3Limits:
    """Times in seconds. A call waits for at most `1 + retries` connections and two answers."""

    connect_s: float = 3.0
    read_s: float = 15.0
    retries: int = 2


@dataclass(frozen=True, slots=True)
class S3Address:
    """A bucket. `prefix` is empty or ends in a slash; `ca_file` is for TLS, None: those of the system."""

    endpoint: str
    bucket: str
    access_key_file: Path
    secret_key_file: Path
    region: str = "us-east-1"
    secure: bool = False
    ca_file: Path | None = None
    prefix: str = ""
    limits: S3Limits = S3Limits()
