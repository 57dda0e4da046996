"""The origins that the operator lists, and the credentials for each."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from service.errors import ImageUriNotAllowed
from service.fetching.uris import Location, parse_uri
from service.settings import InvalidSettings
from service.settings.types import ReadableFile, SecretFile, parse_toml, read_secret_file

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def _check_url(url: str) -> str:
    try:
        location = parse_uri(url)
    except ImageUriNotAllowed as error:
        raise ValueError(str(error)) from None
    if location.query or not location.path.endswith("/"):
        raise ValueError("must be a folder: end it with / and give no query")
    return url


class _Entry(BaseModel):
    """An origin as written in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: Annotated[str, AfterValidator(_check_url)]
    bearer_token_file: SecretFile | None = None
    basic_auth_file: SecretFile | None = None
    ca_file: ReadableFile | None = None
    private_addresses: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.bearer_token_file is not None and self.basic_auth_file is not None:
            raise ValueError("has bearer_token_file and basic_auth_file; give one")
        if self.ca_file is not None and self.url.lower().startswith("http:"):
            raise ValueError("ca_file needs an https URL")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    origins: dict[Name, _Entry] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where pictures may be fetched from.

    Attributes:
        name: for messages, instead of the address.
        root: scheme, host and port, which must be equal, and the path that all pictures are below.
        bearer_token_file: holds a token, which is sent to this origin only; read for each request, so it may change.
        basic_auth_file: holds USER:PASSWORD, likewise.
        ca_file: certificates, in PEM form, of the only trusted authorities; None for the usual ones.
        private_addresses: whether the host may have private and loopback addresses.
    """

    name: str
    root: Location
    bearer_token_file: Path | None = None
    basic_auth_file: Path | None = None
    ca_file: Path | None = None
    private_addresses: bool = False

    def has(self, location: Location) -> bool:
        """Return whether a location is of this origin and below its path."""
        return location.origin == self.root.origin and location.path.startswith(self.root.path)

    def authorization(self) -> str | None:
        """Return the header that authorizes requests to this origin.

        Raises:
            InvalidSettings: the file cannot be read or is empty.
        """
        if self.bearer_token_file is not None:
            return f"Bearer {read_secret_file(self.bearer_token_file)}"
        if self.basic_auth_file is not None:
            return f"Basic {base64.b64encode(read_secret_file(self.basic_auth_file).encode()).decode()}"
        return None


def find_origin(origins: Iterable[Origin], location: Location) -> Origin:
    """Return the origin that a location is of: of several, the one with the longest path.

    Raises:
        ImageUriNotAllowed: it is of none.
    """
    fitting = [each for each in origins if each.has(location)]
    if not fitting:
        raise ImageUriNotAllowed("this server fetches no pictures from there; ask its operator to list the origin")
    return max(fitting, key=lambda each: len(each.root.path))


def read_origins(content: bytes, where: str) -> tuple[Origin, ...]:
    """Return the origins of a TOML file.

    Args:
        content: of the file.
        where: the file's name, for messages.

    Raises:
        InvalidSettings: it is not valid TOML or breaks rules; all errors are listed, without values.
    """
    entries = parse_toml(_File, content, where).origins
    origins = [_origin(name, entry) for name, entry in entries.items()]
    if faults := list(_repeated(origins)):
        raise InvalidSettings("\n".join(f"{where}: {each}" for each in faults))
    return tuple(origins)


def load_origins(file: Path) -> tuple[Origin, ...]:
    """Return the origins of a file.

    Raises:
        InvalidSettings: it cannot be read, or breaks rules.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidSettings(f"{file} cannot be read: {error.strerror}") from error
    return read_origins(content, str(file))


def _origin(name: str, entry: _Entry) -> Origin:
    return Origin(
        name=name,
        root=parse_uri(entry.url),
        bearer_token_file=entry.bearer_token_file,
        basic_auth_file=entry.basic_auth_file,
        ca_file=entry.ca_file,
        private_addresses=entry.private_addresses,
    )


def _repeated(origins: Sequence[Origin]) -> Iterable[str]:
    owners: dict[Location, str] = {}
    for each in origins:
        if (owner := owners.setdefault(each.root, each.name)) != each.name:
            yield f"origins.{each.name}.url: is also that of {owner}"
