"""The store's gRPC services: messages in, messages out, nothing decided."""
