"""`vecgate objects`: list, show, change and delete the objects of a collection."""

import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from service.cli.conditions import parse_conditions
from service.cli.connection import AddressOption, TenantOption, connected
from service.cli.output import (
    EXIT_FAILED,
    EXIT_WRONG_USE,
    YesOption,
    confirm,
    describe_value,
    fail,
    note,
    print_json,
    print_table,
    say,
    shorten,
)
from vecgate.client import Client, Object, VecgateError
from vecgate.v1 import filter_pb2
from vecgate.v1 import object_service_pb2 as object_pb
from vecgate.v1 import property_pb2 as property_pb

app = typer.Typer(help="List, show, change and delete objects.", no_args_is_help=True)

CollectionArgument = Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection's name.")]
BLOBS = (property_pb.DATA_TYPE_BLOB, property_pb.DATA_TYPE_BLOB_HASH)
TEXTUAL = (property_pb.DATA_TYPE_TEXT, property_pb.DATA_TYPE_DATE, property_pb.DATA_TYPE_UUID)
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The object's id.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Objects with year>=2020, name=dog, name~d* ...; all must hold.",
        show_default=False,
    ),
]


@app.command("list")
def list_(
    context: typer.Context,
    *,
    collection: CollectionArgument,
    where: WhereOption = None,
    sort: Annotated[
        list[str] | None,
        typer.Option(
            "--sort",
            metavar="NAME",
            help="Property to sort by; -NAME for the greatest first. Repeatable.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Objects to show; 0 for all.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object in JSON a line.")] = False,
    tenant: TenantOption = "",
    address: AddressOption = None,
) -> None:
    """List the objects of a collection, by id or sorted."""
    with connected(context, address) as client:
        filters = parse_conditions(client.get_collection(collection), where) if where else None
        found = client.list_objects(
            collection, filters=filters, sort=sort or (), tenant=tenant, page_size=min(limit, 100)
        )
        objects = islice(found, limit or None)
        if as_json:
            for each in objects:
                print_json(_as_json(each), indent=None)
            return
        rows = [(each.id, shorten(_describe(each))) for each in objects]
    if rows:
        print_table(("id", "properties"), rows, whole=("id",))
    else:
        say(f"{collection} holds no objects.")


@app.command("get")
def get(
    context: typer.Context,
    *,
    collection: CollectionArgument,
    id_: IdArgument,
    vectors: Annotated[bool, typer.Option("--vectors", help="With its vectors.")] = False,
    tenant: TenantOption = "",
    address: AddressOption = None,
) -> None:
    """Show an object as JSON."""
    with connected(context, address) as client:
        names = [each.name for each in client.get_collection(collection).vectors] if vectors else []
        found = client.get_object(collection, id_, return_vectors=names, tenant=tenant)
    print_json(_as_json(found))


@app.command("update")
def update(
    context: typer.Context,
    *,
    collection: CollectionArgument,
    id_: IdArgument,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="New value of a property; lists and places in JSON. Repeatable.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option("--image", metavar="NAME=FILE", help="New picture. Repeatable.", show_default=False),
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option("--unset", metavar="NAME", help="Property to clear. Repeatable.", show_default=False),
    ] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that the model cannot read whole.")] = False,
    tenant: TenantOption = "",
    address: AddressOption = None,
) -> None:
    """Change properties and pictures of an object; its vectors are updated."""
    if not (values or images or unset):
        fail("give at least one of --set, --image and --unset", EXIT_WRONG_USE)
    with connected(context, address) as client:
        types = {each.name: each.data_type for each in client.get_collection(collection).properties}
        properties = dict(_parse_value(types, each) for each in values or ())
        pictures = {name: Path(file).read_bytes() for name, file in map(_parse_image, images or ())}
        if both := (properties.keys() | pictures.keys()) & set(unset or ()):
            fail(f"--unset {min(both)}: the same command sets it; leave one of them out", EXIT_WRONG_USE)
        mask = [f"properties.{name}" for name in properties] + [f"images.{name}" for name in pictures]
        for name in unset or ():
            blob = types.get(name) in BLOBS
            mask.append(f"{'images' if blob else 'properties'}.{name}")
        change = Object(properties, pictures, id=id_)
        try:
            vectors = client.update_object(collection, change, update_mask=mask, truncate=truncate, tenant=tenant)
        except ValueError as error:
            fail(str(error), EXIT_WRONG_USE)
    say(f"{id_} is changed")
    for each in vectors:
        origin = object_pb.VectorOrigin.Name(each.origin).removeprefix("VECTOR_ORIGIN_").lower()
        say(f"  {each.name}: {origin}" + (f" by {each.embedder}" if each.embedder else ""))


@app.command("backfill")
def backfill(
    context: typer.Context,
    *,
    collection: CollectionArgument,
    vectors: Annotated[
        list[str] | None,
        typer.Option("--vector", metavar="NAME", help="Named vector to fill; repeatable.", show_default=False),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also enter vectors that Weaviate's index has lost in a crash.")
    ] = False,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that the model cannot read whole.")] = False,
    token: Annotated[
        str, typer.Option("--from", metavar="TOKEN", help="Continue where an earlier call stopped.", show_default=False)
    ] = "",
    tenant: TenantOption = "",
    address: AddressOption = None,
) -> None:
    """Compute the vectors that objects lack, and change nothing else."""
    seen = filled = repaired = failed = 0
    with connected(context, address) as client:
        try:
            for each in client.backfill_vectors(
                collection, vectors or (), verify=verify, truncate=truncate, page_token=token, tenant=tenant
            ):
                token = each.page_token
                seen, filled, repaired = seen + each.seen, filled + each.filled, repaired + each.repaired
                failed += len(each.failures)
                for failure in each.failures:
                    note(f"{failure.id} did not get its vectors: {failure.error.message}")
        except (KeyboardInterrupt, VecgateError):
            if token:
                note(f"continue with --from {token}")
            raise
        finally:
            also = f", {repaired} entered into the index again" if verify else ""
            say(f"{collection}: {seen} objects seen, {filled} filled{also}, {failed} failed")
    if failed:
        raise typer.Exit(EXIT_FAILED)


@app.command("delete")
def delete(
    context: typer.Context,
    *,
    collection: CollectionArgument,
    id_: Annotated[str, typer.Argument(metavar="[ID]", help="The object's id.", show_default=False)] = "",
    where: WhereOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count them, and delete none.")] = False,
    yes: YesOption = False,
    tenant: TenantOption = "",
    address: AddressOption = None,
) -> None:
    """Delete an object, or all that match conditions."""
    if bool(id_) == bool(where):
        fail("give one of ID and --where CONDITION", EXIT_WRONG_USE)
    with connected(context, address) as client:
        if where:
            filters = parse_conditions(client.get_collection(collection), where)
            _delete_fitting(client, collection, filters, tenant=tenant, dry_run=dry_run, yes=yes)
        elif dry_run:
            client.get_object(collection, id_, tenant=tenant)
            say("1 object would be deleted")
        else:
            client.delete_object(collection, id_, tenant=tenant)
            say(f"{id_} is deleted")


def _delete_fitting(
    client: Client, collection: str, filters: filter_pb2.Filter, *, tenant: str, dry_run: bool, yes: bool
) -> None:
    if dry_run or not yes:
        count = client.delete_objects(collection, filters, dry_run=True, tenant=tenant).matched
        if dry_run:
            say(f"{count} {'object' if count == 1 else 'objects'} would be deleted")
            return
        confirm(f"Delete {count} {'object' if count == 1 else 'objects'} of {collection}?")
    report = client.delete_objects(collection, filters, tenant=tenant)
    say(f"{report.deleted} {'object is' if report.deleted == 1 else 'objects are'} deleted")
    for each in report.failures:
        note(f"{each.id} is not deleted: {each.error.message}")
    if report.failed:
        raise typer.Exit(EXIT_FAILED)


def _parse_value(types: Mapping[str, property_pb.DataType.ValueType], text: str) -> tuple[str, Any]:
    """Return name and value of NAME=VALUE; the server checks the value."""
    name, equals, value = text.partition("=")
    if not equals:
        fail(f"--set {text}: write it as NAME=VALUE", EXIT_WRONG_USE)
    if types.get(name) in TEXTUAL:
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        fail(f"--set {text}: {value!r} must be a number, truth value, list or location in JSON", EXIT_WRONG_USE)


def _parse_image(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not equals:
        fail(f"--image {text}: write it as NAME=FILE", EXIT_WRONG_USE)
    return name, file


def _describe(found: Object) -> str:
    return ", ".join(f"{name}: {describe_value(found.properties[name])}" for name in sorted(found.properties))


def _as_json(found: Object) -> dict[str, Any]:
    shown: dict[str, Any] = {"id": found.id, "properties": dict(sorted(found.properties.items()))}
    if found.vectors:
        # The shortest digits that give the same float32.
        vectors = sorted(found.vectors.items())
        shown["vectors"] = {name: [float(str(value)) for value in np.asarray(vector)] for name, vector in vectors}
    return shown
