"""The servers' certificate, read again when its files change."""

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from service.settings import InvalidSettings, ServerSettings

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of a server's certificate, and of the authorities of its clients.

    Attributes:
        cert: the certificate chain in PEM.
        key: its private key in PEM.
        client_ca: certificates in PEM of the authorities that sign clients' certificates; None if clients need none.
    """

    cert: Path
    key: Path
    client_ca: Path | None

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """Return the contents of the files."""
        client_ca = None if self.client_ca is None else self.client_ca.read_bytes()
        return self.cert.read_bytes(), self.key.read_bytes(), client_ca

    def context(self, group: str) -> ssl.SSLContext:
        """Return a server's context.

        Args:
            group: of the settings of the server, for messages.

        Raises:
            InvalidSettings: files cannot be used; all faults are listed, a line each.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        faults = []
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            pair = f"server.tls_cert_file {self.cert} and server.tls_key_file {self.key}"
            faults.append(f"{pair} cannot be used: {_reason(error)}")
        if self.client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            # A client that resumes a session is not asked for a certificate, even if its authority has been replaced.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ssl.SSLError) as error:
                faults.append(f"{group}.tls_client_ca_file {self.client_ca} cannot be used: {_reason(error)}")
        if faults:
            raise InvalidSettings("\n".join(faults))
        return context


class Certificates:
    """The contents of files for TLS as they were when they were last usable. Threads may share it.

    Args:
        group: of the settings of the server that uses them, for messages.
        files: where they are.
        clock: returns seconds that never go back.

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
        self._reason = ""
        try:
            self._contents = self._seen = files.read()
        except OSError as error:
            raise InvalidSettings(_unreadable(error)) from error
        self._latest = self.context = files.context(group)
        self.context.sni_callback = self._use_latest

    def contents(self) -> tuple[bytes, bytes, bytes | None]:
        """Return certificate chain, private key and client authorities as they were last usable."""
        self._look()
        return self._contents

    def _look(self) -> None:
        now_s = self._clock()
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            contents = self._files.read()
            self._reason = ""
            if contents == self._seen:
                return
            self._seen = contents
            context = self._files.context(self._group)
            if self._files.read() != contents:
                # They are being replaced, so the files that were read may not belong together.
                self._seen = self._contents
                return
            self._latest, self._contents = context, contents
            log.info("certificate_read_again", group=self._group)
        except (OSError, InvalidSettings) as error:
            # A file that stays away is one fault, not one for each look.
            if (reason := _unreadable(error) if isinstance(error, OSError) else str(error)) != self._reason:
                self._reason = reason
                log.warning("certificate_not_read_again", reason=reason)

    def _use_latest(self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, context: ssl.SSLContext) -> None:
        del name, context
        self._look()
        connection.context = self._latest


def certificates_of(settings: ServerSettings, client_ca: Path | None, *, group: str) -> Certificates | None:
    """Return what the settings name for TLS; None where they name no certificate.

    Args:
        settings: name the certificate and its key.
        client_ca: authorities of the clients' certificates; None lets clients come without one.
        group: of the settings of the server that this is for.

    Raises:
        InvalidSettings: a file cannot be read, or they do not belong together.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return Certificates(group, TlsFiles(settings.tls_cert_file, settings.tls_key_file, client_ca))


def _unreadable(error: OSError) -> str:
    return f"{error.filename} cannot be read: {error.strerror}"


def _reason(error: OSError | ssl.SSLError) -> str | None:
    return error.reason if isinstance(error, ssl.SSLError) else error.strerror


def _no_password() -> str:
    # Without this, OpenSSL asks the terminal.
    return ""
