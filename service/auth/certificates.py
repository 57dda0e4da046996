"""The certificates of a server, for TLS and for clients that show their own."""

import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.auth.files import Watched
from service.settings import InvalidSettings

__all__ = ["Certificates", "watch_certificates"]


@dataclass(frozen=True, slots=True)
class Certificates:
    """A server's certificate with its key, and whom it lets in.

    Attributes:
        chain: the server's certificate chain in PEM.
        key: the private key of the certificate in PEM.
        client_authorities: the authorities of clients' certificates in PEM; None asks clients for none.
        context: the same for Python's own TLS.
    """

    chain: bytes
    key: bytes
    client_authorities: bytes | None
    context: ssl.SSLContext

    def __repr__(self) -> str:
        return "Certificates(...)"


def watch_certificates(
    group: str, chain_file: Path | None, key_file: Path | None, client_ca_file: Path | None
) -> Watched[Certificates] | None:
    """Return the certificates of a server, or None if it has none and speaks plain text.

    Args:
        group: of the settings that name the files.
        chain_file: with the server's certificate chain.
        key_file: with the private key of the certificate.
        client_ca_file: with the authorities of clients' certificates; without it clients need none.

    Raises:
        InvalidSettings: a file cannot be used.
    """
    if chain_file is None or key_file is None:
        return None
    read = partial(_read_certificates, group, chain_file, key_file, client_ca_file)
    files = [each for each in (chain_file, key_file, client_ca_file) if each is not None]
    return Watched(f"{group}.tls_cert_file", files, read)


def _read_certificates(group: str, chain_file: Path, key_file: Path, client_ca_file: Path | None) -> Certificates:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A key under a password would ask for it on the terminal.
        context.load_cert_chain(chain_file, key_file, password=_no_password)
        chain, key = chain_file.read_bytes(), key_file.read_bytes()
    except (OSError, ValueError) as error:
        raise InvalidSettings(
            f"{group}.tls_cert_file {chain_file} and {group}.tls_key_file {key_file} cannot be used: {_why(error)}"
        ) from error
    authorities = None
    if client_ca_file is not None:
        try:
            authorities = client_ca_file.read_bytes()
            context.load_verify_locations(cadata=authorities.decode("ascii"))
        except (OSError, ValueError) as error:
            raise InvalidSettings(
                f"{group}.tls_client_ca_file {client_ca_file} cannot be used: {_why(error)}"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return Certificates(chain, key, authorities, context)


def _no_password() -> str:
    raise ValueError("the key is under a password; take the password off")


def _why(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "it is no PEM"
    if isinstance(error, UnicodeDecodeError):
        return "it is no PEM"
    return (error.strerror if isinstance(error, OSError) else str(error)) or "it cannot be read"
