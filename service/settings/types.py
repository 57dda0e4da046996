"""The base of the groups of settings, types of values, and secrets."""

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function
from pydantic_settings import NoDecode

from embedders.nim.address import check_key

MIB = 1024 * 1024

Port = Annotated[int, Field(ge=0, le=65535)]


def check_host(host: str) -> str:
    """Return a host's name or address.

    Raises:
        ValueError: it is something else.
    """
    # Without the value, which may hold a password.
    if not _HOST.fullmatch(host):
        raise ValueError("must be a host's name or address alone, without scheme, user, port or path")
    return host


_ADDRESS = r"[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?"
_HOST = re.compile(rf"[A-Za-z0-9._-]+|{_ADDRESS}|\[{_ADDRESS}\]")

Host = Annotated[str, AfterValidator(check_host)]
"""A host's name or address."""

Seconds = Annotated[float, Field(gt=0, le=86_400)]


@dataclass(frozen=True, slots=True)
class Matching:
    """A text of a pattern. Pydantic's own check would tell people the pattern, and not what is meant.

    Attributes:
        pattern: a regular expression of the whole text, for the JSON Schema as well.
        words: what is told of a text that does not match.
    """

    pattern: str
    words: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "pattern": self.pattern}

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise ValueError(self.words)
        return text


Name = Annotated[str, Matching(r"^\S(.*\S)?$", "must be one line, not empty and without white space around it")]
"""A name of one line, without the white space around it that a file or a template may leave there."""


def split_names(value: object) -> object:
    """Split a text at its commas; other values stay as they are."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


CommaSeparated = Annotated[list[str], NoDecode, BeforeValidator(split_names)]
"""Texts with commas between them."""


class InvalidSettings(Exception):
    """Settings break rules; the message lists all of them, a line each, without the values."""


Parsed = TypeVar("Parsed", bound=BaseModel)


def parse_toml(model: type[Parsed], content: bytes, where: str) -> Parsed:
    """Return what a TOML file holds that settings name.

    Args:
        model: what it has to be; it hides input in errors.
        content: of the file.
        where: the file's name, for messages.

    Raises:
        InvalidSettings: it is not valid TOML or breaks rules; all errors are listed, without values.
    """
    try:
        return model.model_validate(tomllib.loads(content.decode()))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSettings(f"{where} is not valid TOML: {error}") from error
    except ValidationError as error:
        broken = (f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in error.errors())
        raise InvalidSettings("\n".join(f"{where}: {each}" for each in broken)) from error


FROM_FILE = "_file"
"""The end of the name of a setting that names a file which holds another one: API_KEY_FILE of API_KEY."""


class Group(BaseModel):
    """A group of settings: frozen, and without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _set_once(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a secret beside the file that holds it; nobody could tell which of the two is the current one."""
        name = info.field_name or ""
        other = name.removesuffix(FROM_FILE)
        if value is not None and name != other and info.data.get(other) is not None:
            raise ValueError(f"{other} is set, too; remove one of the two")
        return value


def read_secret(value: SecretStr | None, file: Path | None) -> str | None:
    """Return a secret from its setting or its file, or None when there is neither.

    Raises:
        InvalidSettings: the file cannot be read or is empty.
    """
    if value is not None:
        return value.get_secret_value()
    return None if file is None else read_secret_file(file)


def read_secret_file(file: Path) -> str:
    """Return the secret that a file holds, without white space around it.

    Raises:
        InvalidSettings: the file cannot be read or is empty.
    """
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidSettings(f"the key file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidSettings(f"the key file {file} is not text") from error
    if not secret:
        raise InvalidSettings(f"the key file {file} is empty")
    return secret


_files_checked = ContextVar("files_checked", default=True)


@contextmanager
def files_may_be_gone() -> Iterator[None]:
    """Take settings whose files cannot be read: a server has read them, and goes on without them."""
    token = _files_checked.set(False)
    try:
        yield
    finally:
        _files_checked.reset(token)


def _check_file(file: Path) -> Path:
    if not _files_checked.get():
        return file
    try:
        with file.open("rb"):
            return file
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error


ReadableFile = Annotated[Path, AfterValidator(_check_file)]
"""A file that the server reads. If it cannot be read, that is reported with all other faults, before the start."""


def _check_secret_file(file: Path) -> Path:
    if not _files_checked.get():
        return file
    try:
        read_secret_file(file)
    except InvalidSettings as error:
        raise ValueError(str(error)) from error
    return file


SecretFile = Annotated[Path, AfterValidator(_check_secret_file)]
"""A file that holds a secret. If it cannot be read, that is reported with all other faults, before the start."""


def _unless_empty(key: object) -> object:
    """Return a key, or None for an empty one: what a template leaves where the variable that it names is not set."""
    return None if key == "" else key


def _check_api_key(key: SecretStr | None) -> SecretStr | None:
    if key is not None:
        check_key(key.get_secret_value())
    return key


ApiKey = Annotated[SecretStr | None, BeforeValidator(_unless_empty), AfterValidator(_check_api_key)]
"""A key that can be sent in a header, or none."""


def _check_api_key_file(file: Path) -> Path:
    if _files_checked.get():
        check_key(read_secret_file(file))
    return file


ApiKeyFile = Annotated[SecretFile, AfterValidator(_check_api_key_file)]
"""A file that holds a key that can be sent in a header."""
