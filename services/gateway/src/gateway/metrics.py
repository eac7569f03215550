"""Prometheus figures of the gateway's HTTP side."""

from prometheus_client import CollectorRegistry, Histogram


class HttpMetrics:
    """Durations by method, route template and status; no client can add label values."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "http_server_request_duration_seconds",
            "Time to answer an HTTP request.",
            ["method", "route", "status"],
            registry=registry,
        )

    def observe(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one answer."""
        known = method if method in {"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"} else "other"
        self._seconds.labels(known, route, str(status)).observe(duration_s)
