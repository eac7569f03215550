"""What the store counts for Prometheus, besides the calls that servicekit measures."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge


class UploadMetrics:
    """Uploads by outcome, those that run, and the bytes that came."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._outcomes = Counter(
            "image_store_uploads", "Uploads that ended, by outcome.", ["outcome"], registry=registry
        )
        self._running = Gauge("image_store_uploads_running", "Uploads in progress.", registry=registry)
        self._bytes = Counter("image_store_upload_bytes", "Bytes that uploads brought.", registry=registry)

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Count an upload as running, and as failed if it raises."""
        with self._running.track_inprogress():
            try:
                yield
            except BaseException:
                self._outcomes.labels("failed").inc()
                raise

    def received(self, count: int) -> None:
        """Count bytes."""
        self._bytes.inc(count)

    def finished(self, *, replayed: bool) -> None:
        """Count an upload that was accepted."""
        self._outcomes.labels("replayed" if replayed else "stored").inc()


class ReadMetrics:
    """Bytes that were read out, by reader."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bytes = Counter(
            "image_store_read_bytes", "Bytes that were read out.", ["reader"], registry=registry
        )

    def sent(self, reader: str, count: int) -> None:
        """Count bytes that `reader` ("client" or "runner") was sent."""
        self._bytes.labels(reader).inc(count)
