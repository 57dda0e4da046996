"""The connection of a command to the server, and the end of a command whose call failed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, describe_error, fail
from vecgate.client import Client, VecgateError, tls_credentials

__all__ = [
    "DEFAULT_ADDRESS",
    "AddressOption",
    "ApiKeyFileOption",
    "Connection",
    "GlobalAddressOption",
    "TenantOption",
    "TlsCaOption",
    "TlsCertOption",
    "TlsKeyOption",
    "TlsOption",
    "connected",
]

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
TlsOption = Annotated[
    bool, typer.Option("--tls", envvar="VECGATE_TLS", help="Connect over TLS, and trust the public authorities.")
]
TlsCaOption = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca",
        envvar="VECGATE_TLS_CA",
        metavar="FILE",
        help="Connect over TLS, and trust the authorities of a file.",
    ),
]
TlsCertOption = Annotated[
    Path | None,
    typer.Option("--tls-cert", envvar="VECGATE_TLS_CERT", metavar="FILE", help="Your own certificate, for mTLS."),
]
TlsKeyOption = Annotated[
    Path | None,
    typer.Option("--tls-key", envvar="VECGATE_TLS_KEY", metavar="FILE", help="The private key of --tls-cert."),
]
# A key itself among the arguments could be read by everybody on the machine.
ApiKeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        envvar="VECGATE_API_KEY_FILE",
        metavar="FILE",
        help="File with your key for the server; the variable VECGATE_API_KEY may hold the key itself.",
    ),
]
TenantOption = Annotated[
    str,
    typer.Option("--tenant", metavar="NAME", help="Needed if the collection has tenants.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the commands find the server, and what they show to it.

    Attributes:
        address: host and port.
        tls: whether to connect over TLS; the files say it, too.
        ca_file: authorities to trust instead of the public ones.
        cert_file: the caller's own certificate.
        key_file: its private key.
        api_key_file: holds the caller's key for the server.
    """

    address: str
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    api_key_file: Path | None = None

    def open(self, address: str | None) -> Client:
        """Return a client for an address, or for this one.

        Raises:
            ValueError: only one of certificate and key is given, or the file of the key has none.
            OSError: a file cannot be read.
        """
        secure = self.tls or self.ca_file is not None or self.cert_file is not None or self.key_file is not None
        credentials = (
            tls_credentials(ca_file=self.ca_file, cert_file=self.cert_file, key_file=self.key_file) if secure else None
        )
        return Client(address or self.address, timeout_s=TIMEOUT_S, credentials=credentials, api_key=self._api_key())

    def _api_key(self) -> str | None:
        if self.api_key_file is None:
            return os.environ.get("VECGATE_API_KEY") or None
        key = self.api_key_file.read_text(encoding="utf-8").strip()
        if not key:
            raise ValueError(f"the key file {self.api_key_file} is empty")
        return key


@contextmanager
def connected(context: typer.Context, address: str | None) -> Iterator[Client]:
    """Yield a client; a failed call or an unreadable file ends the command with one line and its exit code.

    Args:
        context: of the command.
        address: given with the command itself; None means the one given before it.
    """
    given = context.find_object(Connection) or Connection(DEFAULT_ADDRESS)
    try:
        client = given.open(address)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}", EXIT_WRONG_USE)
    except ValueError as error:
        fail(str(error).replace("cert_file and key_file", "--tls-cert and --tls-key"), EXIT_WRONG_USE)
    with client:
        try:
            yield client
        except VecgateError as error:
            fail(*describe_error(error, target=client.target))
        except OSError as error:
            fail(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "), EXIT_FAILED)
