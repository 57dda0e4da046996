"""Embedding in bulk: one pipeline on Ray Data, from tables of pictures into a collection or Parquet, each row once.

See README.md beside this file. The only package that uses Ray.
"""

PATIENCE_S = 600.0
"""How long a job waits for a Weaviate or a NIM that does not answer."""
