"""From which cosine on pictures are near-duplicates, measured with some of the input where the embedders run."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice

from embedders.contract import Embedding, ImageInput, InputLimits, Outcome
from embedders.errors import AnswerInvalid, EmbedderUnavailable, InputRejected
from embedders.images.likeness import Threshold, find_threshold
from service.bulk.patience import BulkStopped, patiently
from service.bulk.reading import Reading
from service.core.embedder_pool import EmbedderPool
from service.core.objects.vectorizing import BULK_DOCUMENTS
from service.domain import NamedVector
from service.settings import Settings
from service.sources.errors import InvalidSource
from service.sources.fragments import Fragment, read
from service.wiring import build_decoders, build_embedders, replicas

SAMPLE = 32
"""Pictures that are measured: with their copies 128 inputs of the embedder."""
PLACES = 4
"""Fragments that they come from, where these have enough: a part of a file is read of each."""
MOST_PLACES = 64
"""Fragments that are looked into where they have few pictures."""
MOST_UNREAD = 4
"""Fragments that cannot be read, after which no more are tried: what is down is often down for all."""
SAMPLE_PATIENCE_S = 10.0
"""How long an origin of pictures is waited for at most: others do as well."""
TOO_FEW = "a threshold is measured with two pictures or more; give --threshold"


@dataclass(frozen=True, slots=True)
class Measuring:
    """What is measured.

    Attributes:
        settings: the embedders.
        collection: the name of the collection.
        vector: the named vector, which says what embeds its pictures.
        pictures: some of the pictures; those that cannot be read are left out.
        patience_s: how long to wait for an embedder that is down.
    """

    settings: Settings
    collection: str
    vector: NamedVector
    pictures: Sequence[bytes]
    patience_s: float


def some_pictures(found: Sequence[Fragment], reading: Reading, vector: NamedVector) -> list[bytes]:
    """Return pictures of the first rows of some fragments, of which a named vector is made: at least two.

    Raises:
        InvalidSource: there are fewer, and this could not be read.
        BulkStopped: there are fewer.
    """
    web = replace(reading.web, patience_s=min(reading.web.patience_s, SAMPLE_PATIENCE_S))
    # A picture of another vector, which nobody may make here, must not end a fragment's part.
    reading = replace(reading.of_vectors({vector.name}), web=web)
    names = {each.name for each in vector.image_fields}
    places, pictures, unread = min(PLACES, len(found)), list[bytes](), list[InvalidSource]()
    for number, each in enumerate(_spread(found)):
        left = SAMPLE - len(pictures)
        if not left or len(unread) == MOST_UNREAD:
            break
        try:
            pictures.extend(islice(_pictures_of(each, reading, names), -(-left // max(1, places - number))))
        except InvalidSource as error:
            unread.append(error)
    if len(pictures) < 2:  # noqa: PLR2004 -- a pair
        raise unread[-1] if unread else BulkStopped(TOO_FEW)
    return pictures


def _spread(found: Sequence[Fragment]) -> list[Fragment]:
    """Return fragments from all over the input: first a few, then some between them."""
    some = found[:: max(1, -(-len(found) // MOST_PLACES))]
    step = max(1, -(-len(some) // PLACES))
    return [*some[::step], *(each for at, each in enumerate(some) if at % step)]


def _pictures_of(fragment: Fragment, reading: Reading, names: set[str]) -> Iterator[bytes]:
    for row in reading.rows("", islice(chain.from_iterable(read(fragment, reading.plan.columns)), SAMPLE)):
        if row.object is not None:
            pictures = {**row.object.images, **row.pictures}
            yield from (content for name, content in pictures.items() if name in names)


def measure(what: Measuring) -> Threshold:
    """Return from which cosine on pictures are near-duplicates. Runs in a process of Ray.

    Raises:
        BulkStopped: two pictures are not there to be measured.
        EmbedderError: the embedder does not work.
        SpaceMismatch: no embedder has the space of the named vector.
    """
    return asyncio.run(_measure(what))


async def _measure(what: Measuring) -> Threshold:
    decoders = build_decoders(what.settings)
    pool = EmbedderPool(build_embedders(what.settings, decoders), replicas=replicas(what.settings))
    try:
        await pool.start()
        await pool.first_checks()
        rows = []
        for content in what.pictures:
            try:
                inputs = [content, *await decoders.copies(content, InputLimits())]
            except (InputRejected, EmbedderUnavailable):
                # Others do as well, and a run tells what is wrong with this one.
                continue
            attempt = partial(_embed, pool, what, inputs)
            outcomes = await patiently(attempt, (EmbedderUnavailable, AnswerInvalid), what.patience_s)
            vectors = [each.vector for each in outcomes if isinstance(each, Embedding)]
            if len(vectors) == len(inputs):
                rows.append(vectors)
    finally:
        await pool.close()
        await decoders.close()
    if len(rows) < 2:  # noqa: PLR2004 -- a pair
        raise BulkStopped(TOO_FEW)
    return find_threshold([each[0] for each in rows], [each[1:] for each in rows])


async def _embed(pool: EmbedderPool, what: Measuring, inputs: Sequence[bytes]) -> list[Outcome]:
    embedders = pool.for_vector(what.collection, what.vector)
    _, outcomes = await pool.embed_with_first(embedders, [ImageInput(each) for each in inputs], BULK_DOCUMENTS)
    return outcomes
