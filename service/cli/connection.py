"""The connection of a command to the server, and the end of a command whose call failed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import grpc
import typer

from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, describe_error, describe_os_error, fail
from vecgate.client import Client, VecgateError

DEFAULT_ADDRESS = "127.0.0.1:50070"
# As long as the server gives a call by default: large models need minutes for a chunk of pictures on a CPU.
TIMEOUT_S = 300.0
# How long an evaluation takes is up to the collection, and the server ends it.
EVALUATION_TIMEOUT_S = 24 * 3600.0

GlobalAddressOption = Annotated[
    str,
    typer.Option("--address", envvar="VECGATE_ADDRESS", metavar="HOST:PORT", help="The server's address."),
]
# There is no option with the key itself: other users of the machine see the words of a command.
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        envvar="VECGATE_API_KEY_FILE",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="Holds the key that says who calls; or set VECGATE_API_KEY.",
        show_default=False,
    ),
]
TlsOption = Annotated[
    bool,
    typer.Option("--tls", envvar="VECGATE_TLS", help="Use TLS, with the authorities that this system trusts."),
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        envvar="VECGATE_CA_FILE",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="Use TLS, with the authorities in this PEM file.",
        show_default=False,
    ),
]
CertOption = Annotated[
    Path | None,
    typer.Option(
        "--cert-file",
        envvar="VECGATE_CERT_FILE",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="Own certificate and its private key in one PEM file, where the server asks for one.",
        show_default=False,
    ),
]
ExplorerOption = Annotated[
    str,
    typer.Option(
        "--explorer-url",
        envvar="VECGATE_EXPLORER_URL",
        metavar="URL",
        help="Where `search --open` finds the explorer; port 8070 of the server's host if left out.",
        show_default=False,
    ),
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
    """Where the commands find the server, and how they prove who they are.

    Attributes:
        address: the server's.
        api_key: says who calls; empty for nobody.
        credentials: for TLS; None for clear text.
        explorer_url: of the server's page for browsers; empty for the default port of its host.
    """

    address: str
    api_key: str = field(default="", repr=False)
    credentials: grpc.ChannelCredentials | None = None
    explorer_url: str = ""

    def client(self, address: str | None, timeout_s: float = TIMEOUT_S) -> Client:
        """Return a client, of another address if one is given; a key that cannot be sent ends the command."""
        target = address or self.address
        try:
            return Client(target, timeout_s=timeout_s, api_key=self.api_key, credentials=self.credentials)
        except ValueError as error:
            fail(f"the API key cannot be sent: {error}", EXIT_WRONG_USE)


def credentials_of(*, tls: bool, ca: Path | None, cert: Path | None) -> grpc.ChannelCredentials | None:
    """Return what a channel over TLS needs, or None where nothing asks for TLS; unreadable files end the command."""
    if not (tls or ca or cert):
        return None
    try:
        own = None if cert is None else cert.read_bytes()
        return grpc.ssl_channel_credentials(None if ca is None else ca.read_bytes(), own, own)
    except OSError as error:
        fail(describe_os_error(error), EXIT_WRONG_USE)


@contextmanager
def connected(context: typer.Context, address: str | None, timeout_s: float = TIMEOUT_S) -> Iterator[Client]:
    """Yield a client; a failed call or an unreadable file ends the command with one line and its exit code.

    Args:
        context: of the command.
        address: given with the command itself; None means the one given before it.
        timeout_s: for each of its calls.
    """
    given = context.find_object(Connection) or Connection(DEFAULT_ADDRESS)
    with given.client(address, timeout_s) as client:
        try:
            yield client
        except VecgateError as error:
            fail(*describe_error(error, target=client.target))
        except BrokenPipeError:
            raise  # Nobody reads the output any more, as behind `| head`: the command ends without a word.
        except OSError as error:
            fail(describe_os_error(error), EXIT_FAILED)
