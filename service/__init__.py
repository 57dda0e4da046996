"""The Vecgate service: gRPC in front (rpc), what it does (core), Weaviate behind (store)."""
