"""MinIO's health check: liveness only."""

import urllib.request

with urllib.request.urlopen("http://127.0.0.1:9000/minio/health/live", timeout=5):
    pass
