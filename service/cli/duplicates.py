"""`vecgate duplicates`: groups of near-duplicates among the objects of a collection."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from service.cli.conditions import parse_conditions
from service.cli.connection import AddressOption, TenantOption, connected
from service.cli.duplicates_page import write_page
from service.cli.grouping import Found, Question, find_groups
from service.cli.likeness import SAMPLE, ThresholdOption, image_vector, measure_threshold
from service.cli.objects import CollectionArgument, WhereOption
from service.cli.output import EXIT_WRONG_USE, JsonOption, fail, note, print_json, print_table, say, shorten
from service.cli.thumbnails import picture_property
from vecgate.client import Client
from vecgate.v1 import collection_service_pb2 as collection_pb
from vecgate.v1 import property_pb2 as property_pb

FIRST_OBJECTS = 10_000
"""Objects that are looked up if nothing else is said; a filtered listing has no more."""

NAMING = ("path", "name", "title", "file")
"""Properties that may say what an object is, best first."""


def duplicates(
    context: typer.Context,
    *,
    collection: CollectionArgument,
    vector: Annotated[
        str,
        typer.Option(
            "--vector", metavar="NAME", help="Named vector; the first of pictures if left out.", show_default=False
        ),
    ] = "",
    threshold: ThresholdOption = None,
    where: WhereOption = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Objects to look up; 0 for all.")] = FIRST_OBJECTS,
    as_json: JsonOption = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", dir_okay=False, metavar="FILE", help="Write a page with pictures.", show_default=False),
    ] = None,
    tenant: TenantOption = "",
    address: AddressOption = None,
) -> None:
    """Find groups of near-duplicates among the objects of a collection.

    Each object is searched by its own vector. Objects are in one group if each is near another one of it.
    """
    if threshold == 0:
        fail("--threshold must be more than 0", EXIT_WRONG_USE)
    with connected(context, address) as client:
        config = client.get_collection(collection, tenant)
        compared = image_vector(config, vector)
        filters = parse_conditions(config, where) if where else None
        if threshold is None:
            threshold = measure_threshold(client, compared, _sample(client, config, compared, tenant))
        question = Question(config, compared, threshold, _naming(config), filters, tenant)
        found = find_groups(client, question, limit)
        if html is not None:
            write_page(client, question, found, html)
    _show(question, found, as_json=as_json)


def _naming(collection: collection_pb.Collection) -> str:
    texts = [each.name for each in collection.properties if each.data_type == property_pb.DATA_TYPE_TEXT]
    return next((each for each in NAMING if each in texts), next(iter(texts), ""))


def _sample(
    client: Client, collection: collection_pb.Collection, vector: collection_pb.VectorConfig, tenant: str
) -> Iterator[bytes]:
    """Yield some stored pictures of a named vector."""
    property_ = picture_property(collection)
    if property_ is None or property_ not in {each.name for each in vector.image_fields}:
        fail(f"the named vector {vector.name} is made of no stored pictures; give --threshold", EXIT_WRONG_USE)
    objects = client.list_objects(collection.name, page_size=SAMPLE, return_images=property_, tenant=tenant)
    return (each.images[property_] for each in islice(objects, SAMPLE) if property_ in each.images)


def _show(question: Question, found: Found, *, as_json: bool) -> None:
    """Print what was found."""
    if as_json:
        groups = [
            [{"id": each.id, "name": each.name, "cosine": round(each.cosine, 6)} for each in group]
            for group in found.groups
        ]
        print_json(
            {
                "collection": question.collection.name,
                "vector": question.vector.name,
                "min_cosine": question.min_cosine,
                "objects": found.seen,
                "without_vector": found.without_vector,
                "groups": groups,
            }
        )
        return
    rows = [
        (str(number), each.id, shorten(each.name), f"{each.cosine:.4f}")
        for number, group in enumerate(found.groups, start=1)
        for each in group
    ]
    if rows:
        print_table(("group", "id", question.naming or "name", "cosine"), rows, whole=("id",))
    say(
        f"{question.collection.name}: {len(found.groups)} groups with {len(rows)} objects among {found.seen}",
        style="bold",
    )
    if found.without_vector:
        note(f"{found.without_vector} objects lack the vector {question.vector.name!r} and were not looked up")
