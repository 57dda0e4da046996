"""What the settings of both servers have in common: their address, and TLS."""

import ipaddress
from typing import ClassVar, Self

from pydantic import Field, model_validator

from service.settings.types import Group, Host, ReadableFile


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine and nothing else."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class ListeningSettings(Group):
    """A server: its address, and TLS."""

    group: ClassVar[str]
    """The name of the settings' group."""

    host: Host = Field("127.0.0.1", description="address that the server listens on")
    tls_cert_file: ReadableFile | None = Field(
        None, description="certificate chain in PEM, read again when it changes; with it the server takes TLS only"
    )
    tls_key_file: ReadableFile | None = Field(None, description="private key of the certificate in PEM")
    tls_client_ca_file: ReadableFile | None = Field(
        None, description="authorities in PEM, by one of which every client's own certificate must be signed"
    )
    allow_plaintext: bool = Field(
        False, description="whether to serve other machines without TLS, as where a mesh or a proxy encrypts"
    )

    @model_validator(mode="after")
    def _safe(self) -> Self:
        faults = []
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            faults.append(f"{self.group}.tls_cert_file and {self.group}.tls_key_file: set both or neither")
        elif self.tls_client_ca_file is not None and self.tls_cert_file is None:
            faults.append(f"{self.group}.tls_client_ca_file: needs {self.group}.tls_cert_file")
        elif self.tls_cert_file is None and self._listens() and not (self.allow_plaintext or is_loopback(self.host)):
            faults.append(
                f"{self.group}.host is {self.host}: other machines would be served without TLS; set "
                f"{self.group}.tls_cert_file and {self.group}.tls_key_file, or {self.group}.allow_plaintext"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _listens(self) -> bool:
        return True
