"""Certificates for servers on loopback and for their callers, in files."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Authority", "Pair"]


@dataclass(frozen=True)
class Pair:
    """The files of a certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """An authority whose certificates are in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._authority = trustme.CA()
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def issue(self, name: str = "server") -> Pair:
        """Write a new certificate for the loopback address and its key, over those of the same name."""
        issued = self._authority.issue_cert("127.0.0.1", common_name=name)
        pair = Pair(self._folder / f"{name}-cert.pem", self._folder / f"{name}-key.pem")
        issued.cert_chain_pems[0].write_to_path(pair.cert)
        issued.private_key_pem.write_to_path(pair.key)
        return pair

    def trust(self, own: Pair | None = None) -> ssl.SSLContext:
        """Return the context of a caller that trusts this authority, and shows a certificate."""
        context = ssl.create_default_context(cafile=str(self.file))
        if own is not None:
            context.load_cert_chain(own.cert, own.key)
        return context
