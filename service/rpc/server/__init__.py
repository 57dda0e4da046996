"""The gRPC server: listening, interceptors, health, reflection."""
