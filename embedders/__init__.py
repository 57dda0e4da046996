"""Embedders: they turn texts and images into vectors. This package knows nothing of gRPC, protobuf or Weaviate."""
