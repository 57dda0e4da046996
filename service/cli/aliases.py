"""`vecgate aliases`: create, list, show, update and delete other names of collections."""

from typing import Annotated

import typer

from service.cli.connection import AddressOption, connected
from service.cli.output import JsonOption, YesOption, confirm, print_json, print_table, say

app = typer.Typer(help="Create, list, show, update and delete other names of collections.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The alias's name.")]
CollectionArgument = Annotated[str, typer.Argument(metavar="COLLECTION", help="The collection that it leads to.")]


@app.command("create")
def create(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Begins with a capital letter.")],
    collection: CollectionArgument,
    address: AddressOption = None,
) -> None:
    """Give a collection another name."""
    with connected(context, address) as client:
        created = client.create_alias(name, collection)
    say(f"{created.name} leads to {created.collection}")


@app.command("list")
def list_(
    context: typer.Context,
    *,
    collection: Annotated[
        str, typer.Option("--collection", help="Only the aliases of this collection.", show_default=False)
    ] = "",
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List aliases and the collections that they lead to."""
    with connected(context, address) as client:
        found = [(each.name, each.collection) for each in client.list_aliases(collection)]
    if as_json:
        print_json([{"name": name, "collection": target} for name, target in found])
    elif found:
        print_table(("alias", "collection"), found, whole=("alias", "collection"))
    else:
        say(f"{collection} has no aliases." if collection else "There are no aliases.")


@app.command("show")
def show(
    context: typer.Context, *, name: NameArgument, as_json: JsonOption = False, address: AddressOption = None
) -> None:
    """Show which collection an alias leads to."""
    with connected(context, address) as client:
        found = client.get_alias(name)
    if as_json:
        print_json({"name": found.name, "collection": found.collection})
    else:
        say(f"{found.name} leads to {found.collection}")


@app.command("update")
def update(
    context: typer.Context, *, name: NameArgument, collection: CollectionArgument, address: AddressOption = None
) -> None:
    """Switch an alias to another collection; calls by it use that from now on."""
    with connected(context, address) as client:
        before = client.update_alias(name, collection)
    say(f"{name} leads to {collection}, and led to {before} before")


@app.command("delete")
def delete(
    context: typer.Context,
    *,
    name: NameArgument,
    yes: YesOption = False,
    address: AddressOption = None,
) -> None:
    """Delete an alias; its collection stays."""
    with connected(context, address) as client:
        if not yes:
            confirm(f"Delete the alias {name} of {client.get_alias(name).collection}?")
        client.delete_alias(name)
    say(f"{name} is deleted")
