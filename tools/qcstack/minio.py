"""A MinIO of one's own on the loopback interface, for tests and benchmarks."""

import os
import secrets
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_ROOT: Final = Path(__file__).resolve().parents[2]
_READY_S: Final = 60.0
_END_S: Final = 15.0
_POLL_S: Final = 0.05


class MinioMissingError(Exception):
    """There is no MinIO and none can be built; the message says what to do."""


def minio_binary() -> Path:
    """Return the path of the binary, which is built first if need be: that takes minutes.

    Raises:
        MinioMissingError: It cannot be built.
    """
    built = subprocess.run([_ROOT / "tools" / "minio"], capture_output=True, text=True, check=False)
    if built.returncode:
        raise MinioMissingError(built.stderr.strip())
    return Path(built.stdout.strip())


class MinioServer:
    """A server with credentials and a port of its own; a context manager, and the process ends with it."""

    def __init__(self, directory: Path, data: Path | None = None) -> None:
        """Keep keys, log and, unless `data` is given, all data in `directory`.

        If there are certs/public.crt and certs/private.key in `directory`, the server speaks TLS.
        """
        self._binary = minio_binary()
        self._data = data or directory / "data"
        self._log = directory / "minio.log"
        self._certificates = directory / "certs"
        self.access_key_file = directory / "access-key"
        self.secret_key_file = directory / "secret-key"
        for made in (directory, self._data, self._certificates):
            made.mkdir(parents=True, exist_ok=True)
        for file, length in ((self.access_key_file, 8), (self.secret_key_file, 16)):
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(length) + "\n", encoding="ascii")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start the server on its port, and wait until it is ready."""
        environment = {
            "PATH": os.defpath,
            "HOME": str(self._certificates),
            "MINIO_ROOT_USER": self.access_key_file.read_text(encoding="ascii").strip(),
            "MINIO_ROOT_PASSWORD": self.secret_key_file.read_text(encoding="ascii").strip(),
            "MINIO_BROWSER": "off",
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "--"),
                    *(self._binary, "server", "--address", self.endpoint),
                    *("--certs-dir", self._certificates, self._data),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        give_up = time.monotonic() + _READY_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"MinIO is not ready:\n{self._log.read_text(encoding='utf-8')[-2000:]}")
            # Nobody is told when the server is ready, and its "live" and "ready" say so before it is.
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """End the server at once, as a crash would; nothing happens where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_END_S)
            self._process = None

    def freeze(self) -> None:
        """Let the server stand still: it takes connections, and answers nothing."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._running().send_signal(signal.SIGCONT)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("MinIO does not run")
        return self._process

    def _is_ready(self) -> bool:
        certificate = self._certificates / "public.crt"
        is_secure = certificate.exists()
        url = f"{'https' if is_secure else 'http'}://{self.endpoint}/minio/health/cluster"
        trusting = ssl.create_default_context(cafile=certificate) if is_secure else None
        try:
            with urllib.request.urlopen(url, timeout=2, context=trusting) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
