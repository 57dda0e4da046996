"""The certificate of the HTTP server, which may be renewed while it serves."""

import asyncio
import hashlib
import ssl
from pathlib import Path

import structlog

__all__ = ["Certificate"]

log = structlog.get_logger(__name__)

WATCH_S = 30.0
"""Seconds between looks at the files."""


class Certificate:
    """Takes the files of a certificate and its key into a context that is in use; connections that are open stay."""

    def __init__(self, context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
        """Watch the files that a context was made from."""
        self._context = context
        self._files = cert_file, key_file
        self._seen = self._digest()

    async def watch(self) -> None:
        """Look at the files now and then, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            self.renew()

    def renew(self) -> None:
        """Take the files in if they have changed and belong together; go on with the old ones if they do not."""
        now = self._digest()
        if now == self._seen:
            return
        self._seen = now
        try:
            # A context that a bad pair was loaded into would be lost.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._files)
            self._context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            log.warning("certificate_unusable", file=str(self._files[0]), reason=reason, fix="the old one stays in use")
        else:
            log.info("certificate_renewed", file=str(self._files[0]))

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for file in self._files:
            try:
                digest.update(hashlib.sha256(file.read_bytes()).digest())
            except OSError:
                digest.update(b"unreadable")
        return digest.hexdigest()
