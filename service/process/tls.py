"""Certificates of the servers, read again when their files change."""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.settings import InvalidSettings, ServerSettings, WebSettings

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a server proves itself with, and what its clients must prove themselves with.

    Attributes:
        cert: the certificate chain in PEM.
        key: its private key in PEM.
        client_ca: certificates in PEM of those who vouch for clients; None lets clients come without a certificate.
    """

    cert: Path
    key: Path
    client_ca: Path | None

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """Return the contents of the files."""
        client_ca = None if self.client_ca is None else self.client_ca.read_bytes()
        return self.cert.read_bytes(), self.key.read_bytes(), client_ca

    def context(self) -> ssl.SSLContext:
        """Return a server's context."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.client_ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            # Who comes back with a session is not asked for a certificate again, whoever vouches for clients by then.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        context.load_cert_chain(self.cert, self.key, password=_no_password)
        return context


class Certificates:
    """The contents of files for TLS as they were when they last made sense. Threads may share it.

    Args:
        group: of the settings that name the files, for messages.
        files: those.
        clock: seconds, never going back.

    Raises:
        InvalidSettings: a file cannot be read, or they do not belong together.

    Attributes:
        context: a context for the HTTP server, which uses what was read last for every new connection.
    """

    def __init__(self, group: str, files: TlsFiles, clock: Callable[[], float] = time.monotonic) -> None:
        self._group = group
        self._files = files
        self._clock = clock
        self._looked_s = clock()
        try:
            self._contents = self._seen = files.read()
            self._latest = self.context = files.context()
        except (OSError, ssl.SSLError) as error:
            raise InvalidSettings(self._fault(error)) from error
        self.context.sni_callback = self._use_latest

    def contents(self) -> tuple[bytes, bytes, bytes | None]:
        """Return certificate chain, private key and client authorities as they last made sense."""
        self._look()
        return self._contents

    def _look(self) -> None:
        now_s = self._clock()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            contents = self._files.read()
            if contents == self._seen:
                return
            self._seen = contents
            context = self._files.context()
            if self._files.read() != contents:
                # They are just being replaced, and what was read may not belong together.
                self._seen = self._contents
                return
            self._latest, self._contents = context, contents
            log.info("certificate_read_again", group=self._group)
        except (OSError, ssl.SSLError) as error:
            log.warning("certificate_not_read_again", reason=self._fault(error))

    def _use_latest(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        del name, context
        self._look()
        connection.context = self._latest

    def _fault(self, error: OSError | ssl.SSLError) -> str:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        names = f"{self._group}.tls_cert_file {self._files.cert} and {self._group}.tls_key_file {self._files.key}"
        if self._files.client_ca is not None:
            names += f" with {self._group}.tls_client_ca_file {self._files.client_ca}"
        return f"{names} cannot be used: {reason}"


def certificates_of(settings: ServerSettings | WebSettings) -> Certificates | None:
    """Return what a server's settings name for TLS; None where they name nothing.

    Raises:
        InvalidSettings: a file cannot be read, or they do not belong together.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    files = TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    return Certificates(settings.group, files)


def _no_password() -> str:
    # OpenSSL would ask the terminal for it.
    return ""
