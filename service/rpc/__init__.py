"""The gRPC side: server, interceptors, and one thin servicer for each service."""
