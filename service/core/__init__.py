"""What the service does: embed, collections, importing, searching. No gRPC, no protobuf, no Weaviate, no HTTP."""
