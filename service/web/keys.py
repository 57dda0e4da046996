"""The keys that callers send."""

import hashlib
import hmac
from http import HTTPStatus
from pathlib import Path

from service.settings import InvalidSettings
from service.web.refusals import Refused

__all__ = ["Keys"]

BEARER = "bearer"


class Keys:
    """Knows keys by their hashes only.

    Args:
        file: one key a line; blank lines and lines that begin with # do not count.

    Raises:
        InvalidSettings: the file cannot be read, or has no key or one that no header can carry.
    """

    def __init__(self, file: Path) -> None:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
            raise InvalidSettings(f"the key file {file} cannot be read: {reason}") from error
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise InvalidSettings(f"the key file {file} has no key; write one a line")
        if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
            raise InvalidSettings(f"the key file {file} has a key with characters that no header carries")
        self._digests = [_digest(key) for key in keys]

    def check(self, authorization: str) -> None:
        """Refuse a request by its Authorization header.

        Raises:
            Refused: there is no key, or it is none of ours.
        """
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != BEARER or not key.strip():
            raise _unauthorized("API_KEY_MISSING", "send a key of this server as Authorization: Bearer KEY")
        given = _digest(key.strip())
        # All are compared, so that the time says nothing of which one was nearest.
        if not any([hmac.compare_digest(given, known) for known in self._digests]):  # noqa: C419
            raise _unauthorized("API_KEY_INVALID", "the key is none of this server's; ask its operator for one")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()


def _unauthorized(reason: str, message: str) -> Refused:
    return Refused(HTTPStatus.UNAUTHORIZED, reason, message, headers={"www-authenticate": "Bearer"})
