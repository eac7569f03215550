"""The REST gateway: HTTP in, gRPC out, no state of its own."""
