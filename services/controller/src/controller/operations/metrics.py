"""The engine's Prometheus metrics.

It owns their names; every module that measures is handed this object.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from controller.database import Database
from controller.database.writer import GroupCommit

_COMMIT_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5)
_STEP_BUCKETS = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)


class Metrics:
    """All metrics, registered in the registry handed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.finished = Counter(
            "qcontroller_operations_finished", "Operations that ended.", ["kind", "state"], registry=registry
        )
        self.queue_seconds = Histogram(
            "qcontroller_operation_queue_seconds", "Submit to first claim.", ["kind"], registry=registry
        )
        self.queue_age_seconds = Gauge(
            "qcontroller_operation_queue_age_seconds",
            "How long the oldest operation that has not begun has waited.",
            registry=registry,
        )
        self.step_seconds = Histogram(
            "qcontroller_operation_step_seconds",
            "Time in a step, its retries included.",
            ["kind", "step", "result"],
            buckets=_STEP_BUCKETS,
            registry=registry,
        )
        self.retries = Counter(
            "qcontroller_operation_retries",
            "Steps tried again, by class of error.",
            ["kind", "error"],
            registry=registry,
        )
        self.takeovers = Counter(
            "qcontroller_operation_takeovers", "Claims of operations begun before.", registry=registry
        )
        self.lost_leases = Counter(
            "qcontroller_operation_lost_leases",
            "Writes refused since the row had moved on.",
            registry=registry,
        )
        self.leases_lost = Counter(
            "qcontroller_engine_leases_lost",
            "Times that this process was not renewed in time and had to begin anew.",
            registry=registry,
        )
        self.claim_seconds = Histogram(
            "qcontroller_operation_claim_seconds",
            "One look for work.",
            buckets=_COMMIT_BUCKETS,
            registry=registry,
        )
        self.loop_errors = Counter(
            "qcontroller_engine_loop_errors", "Errors that a loop survived.", ["loop"], registry=registry
        )
        self.running = Gauge("qcontroller_operations_running", "Operations at work now.", registry=registry)
        self.needs_attention = Gauge(
            "qcontroller_operations_needing_attention",
            "Operations that neither go on nor back and are retried slowly.",
            registry=registry,
        )
        self.feed_lag_seconds = Gauge(
            "qcontroller_feed_lag_seconds",
            "Age of the newest event when it was handed out.",
            registry=registry,
        )
        self.feed_invisible_seconds = Gauge(
            "qcontroller_feed_invisible_seconds",
            "Age of the oldest event that no reader may see yet: a transaction is held open somewhere.",
            registry=registry,
        )
        self.watchers = Gauge("qcontroller_feed_watchers", "Open watchers.", registry=registry)
        self.commit_seconds = Histogram(
            "qcontroller_database_commit_seconds",
            "One group of writes.",
            buckets=_COMMIT_BUCKETS,
            registry=registry,
        )
        self.writer_queue = Gauge("qcontroller_database_writer_queue", "Writes waiting.", registry=registry)
        self.wal_bytes = Gauge(
            "qcontroller_database_wal_bytes",
            "Size of the write-ahead log: it grows while no checkpoint gets through.",
            registry=registry,
        )

    def watch(self, database: Database) -> None:
        """Measure the database's commits and its queue."""
        self.writer_queue.set_function(lambda: database.waiting_writes)
        self.wal_bytes.set_function(lambda: database.wal_bytes)
        database.measure_commits(self._measure_commit)

    def _measure_commit(self, commit: GroupCommit) -> None:
        self.commit_seconds.observe(commit.seconds)
