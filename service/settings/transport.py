"""The rules of TLS and plain text that the servers' settings share."""

from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

__all__ = ["check_transport", "loops_back"]


class _Transport(Protocol):
    @property
    def host(self) -> str: ...
    @property
    def allow_plaintext(self) -> bool: ...
    @property
    def tls_cert_file(self) -> Path | None: ...
    @property
    def tls_key_file(self) -> Path | None: ...
    @property
    def tls_client_ca_file(self) -> Path | None: ...


def check_transport(group: str, settings: _Transport) -> None:
    """Check that a server has TLS, is reached from this machine alone, or was told to speak plain text.

    Raises:
        ValueError: it is none of that, or its certificate is not whole.
    """
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        raise ValueError(f"{group}.tls_cert_file and {group}.tls_key_file: set both or neither")
    if settings.tls_cert_file is not None:
        return
    if settings.tls_client_ca_file is not None:
        raise ValueError(f"{group}.tls_client_ca_file: needs {group}.tls_cert_file and {group}.tls_key_file")
    if not settings.allow_plaintext and not loops_back(settings.host):
        raise ValueError(
            f"{group}.host is {settings.host}, which others reach, and keys and pictures would pass in plain text: set "
            f"{group}.tls_cert_file and {group}.tls_key_file, or {group}.allow_plaintext where the network is trusted"
        )


def loops_back(host: str) -> bool:
    """Return whether an address is reached from its own machine alone."""
    bare = host.removeprefix("[").removesuffix("]")
    try:
        return ip_address(bare).is_loopback
    except ValueError:
        return bare.lower() == "localhost"
