"""The connection of a command to the server, and the end of a command whose call failed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from service.cli.output import EXIT_FAILED, describe_error, fail
from vecgate.client import Client, VecgateError

__all__ = ["DEFAULT_ADDRESS", "AddressOption", "Connection", "GlobalAddressOption", "TenantOption", "connected"]

DEFAULT_ADDRESS = "127.0.0.1:50070"
# As long as the server gives a call by default: large models need minutes for a chunk of pictures on a CPU.
TIMEOUT_S = 300.0

GlobalAddressOption = Annotated[
    str,
    typer.Option("--address", envvar="VECGATE_ADDRESS", metavar="HOST:PORT", help="The server's address."),
]
# Without the variable, which would win over an address given before the command.
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="As before the command.", show_default=False),
]
TenantOption = Annotated[
    str,
    typer.Option("--tenant", metavar="NAME", help="Needed if the collection has tenants.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the commands find the server."""

    address: str


@contextmanager
def connected(context: typer.Context, address: str | None) -> Iterator[Client]:
    """Yield a client; a failed call or an unreadable file ends the command with one line and its exit code.

    Args:
        context: of the command.
        address: given with the command itself; None means the one given before it.
    """
    given = context.find_object(Connection)
    target = address or (given.address if given else DEFAULT_ADDRESS)
    with Client(target, timeout_s=TIMEOUT_S) as client:
        try:
            yield client
        except VecgateError as error:
            fail(*describe_error(error, target=target))
        except OSError as error:
            fail(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), EXIT_FAILED)
