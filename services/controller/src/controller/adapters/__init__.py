"""The other services over gRPC: protobuf and its errors end here."""
