"""`vecgate tenants`: create, list, update and delete a collection's tenants."""

from enum import Enum
from typing import Annotated

import typer

from service.cli.connection import AddressOption, connected
from service.cli.output import JsonOption, YesOption, confirm, print_json, print_table, say
from vecgate.v1 import tenant_pb2 as pb

app = typer.Typer(help="Create, list, update and delete a collection's tenants.", no_args_is_help=True)

PREFIX = "TENANT_ACTIVITY_STATUS_"
CollectionArgument = Annotated[str, typer.Argument(metavar="COLLECTION", help="A collection with tenants.")]
NamesArgument = Annotated[list[str], typer.Argument(metavar="TENANT...", help="The tenants' names.")]


class Status(Enum):
    """The activity status of a tenant, by Weaviate's name."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    OFFLOADED = "offloaded"


@app.command("create")
def create(
    context: typer.Context,
    *,
    collection: CollectionArgument,
    names: NamesArgument,
    inactive: Annotated[bool, typer.Option("--inactive", help="Create them inactive.")] = False,
    address: AddressOption = None,
) -> None:
    """Add tenants to a collection; existing tenants stay unchanged."""
    status = Status.INACTIVE if inactive else Status.ACTIVE
    with connected(context, address) as client:
        client.create_tenants(collection, _tenants(names, status))
    say(f"{collection} has {', '.join(names)}")


@app.command("list")
def list_(
    context: typer.Context,
    *,
    collection: CollectionArgument,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """List a collection's tenants and their activity status."""
    with connected(context, address) as client:
        found = [
            (each.name, pb.TenantActivityStatus.Name(each.activity_status).removeprefix(PREFIX).lower())
            for each in client.list_tenants(collection)
        ]
    if as_json:
        print_json([{"name": name, "activity_status": status} for name, status in found])
    elif found:
        print_table(("tenant", "activity"), found, whole=("tenant",))
    else:
        say(f"{collection} has no tenants yet.")


@app.command("update")
def update(
    context: typer.Context,
    *,
    collection: CollectionArgument,
    names: NamesArgument,
    status: Annotated[Status, typer.Option("--status", help="The new activity status.")],
    address: AddressOption = None,
) -> None:
    """Change the activity status of tenants."""
    with connected(context, address) as client:
        client.update_tenants(collection, _tenants(names, status))
    say(f"{', '.join(names)}: {status.value}")


@app.command("delete")
def delete(
    context: typer.Context,
    *,
    collection: CollectionArgument,
    names: NamesArgument,
    yes: YesOption = False,
    address: AddressOption = None,
) -> None:
    """Delete tenants and all their objects."""
    if not yes:
        confirm(f"Delete {', '.join(names)} of {collection} with all their objects?")
    with connected(context, address) as client:
        client.delete_tenants(collection, names)
    say(f"{', '.join(names)}: deleted")


def _tenants(names: list[str], status: Status) -> list[pb.Tenant]:
    number = pb.TenantActivityStatus.Value(f"{PREFIX}{status.name}")
    return [pb.Tenant(name=name, activity_status=number) for name in names]
