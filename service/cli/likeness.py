"""From which cosine on pictures are near-duplicates, measured with the embedder of a collection."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, fail, note
from service.cli.thumbnails import NEEDS_PILLOW
from vecgate.client import Client
from vecgate.client.values import Floats
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import embedding_service_pb2 as embedding_pb

if TYPE_CHECKING:
    from embedders.images.likeness import Threshold

SAMPLE = 32
"""Pictures that are measured: with their copies 128 inputs of the embedder."""

ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        min=0.0,
        max=1.0,
        metavar="COSINE",
        help="Least cosine of near-duplicates. If left out, it is measured with some of the pictures.",
        show_default=False,
    ),
]


def measure_threshold(client: Client, vector: collection_pb.VectorConfig, pictures: Iterable[bytes]) -> float:
    """Return from which cosine on pictures are near-duplicates, and say so; a command that cannot measure it ends.

    Args:
        client: the connection.
        vector: the named vector, which says what embeds its pictures.
        pictures: some of the pictures; those that cannot be read are left out.

    Raises:
        VecgateError: a call failed.
    """
    try:
        from embedders.contract import InputLimits  # noqa: PLC0415 -- for pictures only
        from embedders.images.likeness import find_threshold, with_copies  # noqa: PLC0415
    except ModuleNotFoundError:
        fail(f"{NEEDS_PILLOW}; or give --threshold", EXIT_WRONG_USE)
    embedder, rows = _embedder_of(client, vector), list[list[Floats]]()
    for inputs in with_copies(pictures, InputLimits()):
        answer = client.embed(inputs, embedder=embedder, purpose=embedding_pb.PURPOSE_DOCUMENT)
        vectors = [item.vector for item in answer.items if item.vector is not None]
        if len(vectors) == len(inputs):
            rows.append(vectors)
    if len(rows) < 2:  # noqa: PLR2004 -- a pair
        fail("a threshold is measured with two pictures or more; give --threshold", EXIT_FAILED)
    found = find_threshold([each[0] for each in rows], [each[1:] for each in rows])
    note(told_threshold(found))
    return found.min_cosine


def told_threshold(found: "Threshold") -> str:
    """Return a threshold in words."""
    return (
        f"near-duplicates have a cosine of {found.min_cosine:.4f} or more, measured with {found.pictures} pictures: "
        f"{found.found:.0%} of their re-encoded, smaller and cut copies are as near, and {found.confused:.0%} have "
        "another picture as near"
    )


def image_vector(collection: collection_pb.Collection, name: str = "") -> collection_pb.VectorConfig:
    """Return the named vector of a name, or else the first that is made of pictures; without one the command ends."""
    fitting = [each for each in collection.vectors if (each.name == name if name else each.image_fields and each.space)]
    if not fitting:
        names = ", ".join(each.name for each in collection.vectors)
        what = f"has no named vector {name!r}" if name else "has no named vector of pictures"
        fail(f"the collection {collection.name} {what}; it has: {names}", EXIT_WRONG_USE)
    return fitting[0]


def _embedder_of(client: Client, vector: collection_pb.VectorConfig) -> str:
    found = next((each.name for each in client.embedders().embedders if each.space == vector.space), None)
    if found is None:
        fail(f"the server has no embedder of the named vector {vector.name!r}; give --threshold", EXIT_FAILED)
    return vector.embedder or found
