"""JSON Web Tokens of an OIDC issuer, checked against a local file of its public keys; nothing is downloaded."""

import json
from collections.abc import Sequence

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from service.errors import CredentialsInvalid
from service.settings import InvalidSettings

LEEWAY_S = 30


def looks_like_a_token(credential: str) -> bool:
    """Return whether a bearer credential has the form of a signed token: three parts, the first one JSON."""
    return credential.count(".") == 2 and credential.startswith("eyJ")  # noqa: PLR2004


class TokenVerifier:
    """Checks tokens by RFC 7519: signature, issuer, audience, and times.

    Args:
        content: of a file with a JWK Set (RFC 7517).
        where: the file's name, for messages.
        issuer: the `iss` that tokens must have.
        audience: the `aud` that they must contain.
        algorithms: allowed for signatures.

    Raises:
        InvalidSettings: the file is not a JWK Set of public keys.
    """

    def __init__(self, content: bytes, where: str, *, issuer: str, audience: str, algorithms: Sequence[str]) -> None:
        try:
            self._keys = KeySet.import_key_set(json.loads(content))
        except (ValueError, KeyError, TypeError, AttributeError, JoseError) as error:
            raise InvalidSettings(f"{where} is not a JWK Set: {type(error).__name__}") from error
        if not self._keys.keys:
            raise InvalidSettings(f"{where} is a JWK Set without keys")
        if any(key.is_private or key.key_type == "oct" for key in self._keys.keys):
            raise InvalidSettings(f"{where} contains a secret key; keep public keys only")
        self._algorithms = list(algorithms)
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
        )

    def subject_of(self, token: str) -> str:
        """Return the `sub` of a valid token.

        Raises:
            CredentialsInvalid: it is invalid; the message says why and repeats no part of it.
        """
        try:
            claims = jwt.decode(token, self._keys, algorithms=self._algorithms).claims
            self._claims.validate(claims)
        except Exception as error:  # joserfc raises other errors for some malformed tokens, such as {"crit": 1}
            reason = error.error if isinstance(error, JoseError) else "malformed"
            raise CredentialsInvalid(f"invalid token ({reason}); get a new one") from error
        return str(claims["sub"])
