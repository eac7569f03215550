"""The public gRPC services: protobuf in, protobuf out."""
