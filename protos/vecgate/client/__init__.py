"""The client of Vecgate: typed, blocking or asyncio, numpy in and out.

    from pathlib import Path

    from vecgate.client import Client, Object

    with Client("127.0.0.1:50070") as client:
        for outcome in client.import_objects("Pictures", [Object(images={"image": Path("dog.png")})]):
            print(outcome.id, outcome.error or "stored")
        for hit in client.search("Pictures", text="a happy dog", limit=3).hits:
            print(hit.distance, hit.object.properties)

`AsyncClient` has the same methods for asyncio: `await client.search(...)`, and `async for` with
`import_objects` and the listing methods.

It needs grpcio, protobuf and numpy only. The generated stubs are in `vecgate.v1`.
"""

from vecgate.client.async_client import AsyncClient
from vecgate.client.channel import SERVICE_CONFIG, channel_options
from vecgate.client.client import Client
from vecgate.client.errors import FieldViolation, Unreachable, VecgateError
from vecgate.client.filters import all_of, any_of, negate, where
from vecgate.client.searching import SearchOptions, bm25, hybrid, move, near_inputs, near_object, near_text
from vecgate.client.values import (
    Embedded,
    Embeddings,
    Health,
    Hit,
    ImportOutcome,
    Object,
    PlacedInput,
    Projection,
    Reference,
    Reranking,
    SearchResult,
    TextImage,
    decode_vector,
    encode_vector,
)

__all__ = [
    "SERVICE_CONFIG",
    "AsyncClient",
    "Client",
    "Embedded",
    "Embeddings",
    "FieldViolation",
    "Health",
    "Hit",
    "ImportOutcome",
    "Object",
    "PlacedInput",
    "Projection",
    "Reference",
    "Reranking",
    "SearchOptions",
    "SearchResult",
    "TextImage",
    "Unreachable",
    "VecgateError",
    "all_of",
    "any_of",
    "bm25",
    "channel_options",
    "decode_vector",
    "encode_vector",
    "hybrid",
    "move",
    "near_inputs",
    "near_object",
    "near_text",
    "negate",
    "where",
]
