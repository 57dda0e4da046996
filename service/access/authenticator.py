"""Identifies callers by files of clients and of an issuer's keys, which are reloaded when they change."""

import asyncio
import hmac
from pathlib import Path

import structlog

from embedders.front.queueing import calling_client
from service.access.clients import EVERYBODY, Client, digest_of, read_clients
from service.access.ledger import Ledger
from service.access.quotas import Account, calling_account
from service.access.tokens import TokenVerifier, looks_like_a_token
from service.errors import CredentialsInvalid, CredentialsMissing
from service.settings import AuthSettings, InvalidSettings

log = structlog.get_logger(__name__)

BEARER = "bearer"
LOOK_EVERY_S = 5.0
"""Seconds between checks of the files: short, so that a revoked key is refused soon. Reading them is cheap."""


class Authenticator:
    """Identifies the client of a call. Without a clients file everyone may call and do everything.

    Args:
        settings: the files, what tokens must contain, and what is open to everyone.
        ledger: what clients have used of their quotas; by default in this process alone.

    Raises:
        InvalidSettings: a file cannot be read or breaks rules; all its faults are listed.
    """

    def __init__(self, settings: AuthSettings, ledger: Ledger | None = None) -> None:
        self.settings = settings
        self._ledger = ledger or Ledger()
        self._contents: dict[Path, bytes] = {}
        self._clients: tuple[Client, ...] = ()
        self._tokens: TokenVerifier | None = None
        self._accounts: dict[str, Account] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._load(self._read())

    @property
    def open(self) -> bool:
        """Whether everyone may call."""
        return self.settings.clients_file is None

    def identify(self, authorization: str | None) -> Client:
        """Return the client of a call.

        Args:
            authorization: the call's header or metadata of that name, if any.

        Raises:
            CredentialsMissing: there is none, or its scheme is not Bearer.
            CredentialsInvalid: the key or the token's subject is unknown, or the token is invalid.
        """
        if self.open:
            return EVERYBODY
        scheme, _, credential = (authorization or "").partition(" ")
        credential = credential.strip()
        if scheme.lower() != BEARER or not credential:
            raise CredentialsMissing("this server serves known clients only; send authorization: Bearer KEY")
        if self._tokens is not None and looks_like_a_token(credential):
            return self._of_subject(self._tokens.subject_of(credential))
        given = digest_of(credential)
        # All are compared, so that the time does not tell which key was closest.
        found = [each for each in self._clients if any([hmac.compare_digest(given, key) for key in each.keys])]  # noqa: C419
        if not found:
            raise CredentialsInvalid("unknown API key; ask the operator of this server for one")
        return found[0]

    def admit(self, authorization: str | None) -> Account:
        """Return the account of a call's client, and begin the call.

        Args:
            authorization: the call's header or metadata of that name, if any.

        Raises:
            CredentialsMissing: there is none, or its scheme is not Bearer.
            CredentialsInvalid: the key or the token's subject is unknown, or the token is invalid.
            QuotaExceeded: the client has used up its quota.
        """
        client = self.identify(authorization)
        account = self._account(client)
        calling_account.set(account)
        if not self.open:
            calling_client.set(client.name)
            structlog.contextvars.bind_contextvars(client=client.name)
        account.begin_call()
        return account

    def accounts(self) -> list[Account]:
        """Return the accounts of the clients that have called, by name; none where everyone may call.

        Those that have called another process of the server only are among them, if they are still clients.
        """
        if self.open:
            return []
        elsewhere = self._ledger.names() - self._accounts.keys()
        for client in self._clients:
            if client.name in elsewhere:
                self._account(client)
        return [self._accounts[name] for name in sorted(self._accounts)]

    def _account(self, client: Client) -> Account:
        account = self._accounts.get(client.name)
        if account is None or (account.client is not client and account.client.quota != client.quota):
            account = self._accounts[client.name] = Account(client, row=self._ledger.row(client.name))
        account.client = client
        return account

    async def start(self) -> None:
        """Watch the files in the background."""
        if not self.open:
            self._watcher = asyncio.create_task(self._watch(), name="auth-files")

    async def close(self) -> None:
        """Stop watching. May be called twice."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])

    def _of_subject(self, subject: str) -> Client:
        for client in self._clients:
            if subject in client.subjects:
                return client
        raise CredentialsInvalid("the token is valid, but its subject is not a client of this server; ask its operator")

    async def _watch(self) -> None:
        seen = self._contents
        reason = ""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                contents = await asyncio.to_thread(self._read)
                reason = ""
                if contents != seen:
                    seen = contents
                    self._load(contents)
                    log.info("clients_read_again", clients=[each.name for each in self._clients])
            except InvalidSettings as error:
                # A file that stays away is one fault, not one for each look.
                if str(error) != reason:
                    reason = str(error)
                    log.warning("clients_not_read_again", reason=reason)
            except Exception:
                # Known clients are still served, and the next change of the files is noticed.
                log.exception("clients_not_read_again")

    def _read(self) -> dict[Path, bytes]:
        contents = {}
        for file in (self.settings.clients_file, self.settings.jwks_file):
            if file is not None:
                try:
                    contents[file] = file.read_bytes()
                except OSError as error:
                    raise InvalidSettings(f"{file} cannot be read: {error.strerror}") from error
        return contents

    def _load(self, contents: dict[Path, bytes]) -> None:
        settings = self.settings
        if settings.clients_file is None:
            return
        clients = read_clients(contents[settings.clients_file], str(settings.clients_file))
        tokens = None
        if settings.jwks_file is not None:
            tokens = TokenVerifier(
                contents[settings.jwks_file],
                str(settings.jwks_file),
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
                algorithms=settings.jwt_algorithms,
            )
        self._contents, self._clients, self._tokens = contents, clients, tokens
