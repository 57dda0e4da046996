"""Weaviate as the store: the only user of weaviate-client."""

import logging
import os
import warnings

_verbosity = os.environ.get("GRPC_VERBOSITY")
# The client pulls in a part of Authlib that warns about its future at import, past every filter.
with warnings.catch_warnings(record=True):
    import weaviate as _client

from service.store.weaviate.store import WeaviateStore  # noqa: E402 -- only after the quiet import above

__all__ = ["WeaviateStore"]

# The client logs whole objects that were refused, pictures and vectors included; their errors reach us anyway.
logging.getLogger(_client.logger.logger.name).setLevel(logging.CRITICAL + 1)
if _verbosity is not None:
    # The client overwrites what its user has set.
    os.environ["GRPC_VERBOSITY"] = _verbosity
