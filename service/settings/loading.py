"""All settings together, read from the environment and from a file."""

import itertools
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from service.settings.embedders import (
    KINDS,
    ClipSettings,
    EmbedderName,
    EmbedderSettings,
    NamedSettings,
    NimRerankSettings,
    NimSettings,
    check_embedders,
)
from service.settings.removed import REMOVED
from service.settings.servers import (
    AuthSettings,
    FetchSettings,
    LimitSettings,
    LogSettings,
    ServerSettings,
    WebSettings,
)
from service.settings.tracing import tracing_faults
from service.settings.types import FROM_FILE, Group, InvalidSettings, files_may_be_gone
from service.settings.weaviate import WeaviateSettings

PREFIX = "VECGATE_"
EMBEDDERS = "embedders"
"""The group whose next part is an embedder's name."""
ANY_NAME = "<NAME>"
ALL_OF_IPV4 = "0.0.0.0"  # noqa: S104 -- compared with, not listened on


class _Environment(EnvSettingsSource):
    """The environment's variables. An embedder's name has _ there for each dash."""

    def __call__(self) -> dict[str, Any]:
        found = super().__call__()
        named = found.get(EMBEDDERS)
        if isinstance(named, dict):
            found[EMBEDDERS] = {name.replace("_", "-"): group for name, group in named.items()}
        return found


class _File(TomlConfigSettingsSource):
    """The file of settings, without what a variable sets as another field: a secret, or the file that holds it."""

    def __call__(self) -> dict[str, Any]:
        return _without_twins(super().__call__(), self.current_state)


def _without_twins(table: Mapping[str, Any], won: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table without API_KEY where `won` has API_KEY_FILE, and the other way round."""
    kept = {}
    for name, value in table.items():
        twin = name.removesuffix(FROM_FILE) if name.endswith(FROM_FILE) else f"{name}{FROM_FILE}"
        inner = won.get(name)
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            kept[name] = _without_twins(value, inner)
        elif twin not in won:
            kept[name] = value
    return kept


def _bundled_model() -> dict[str, NamedSettings]:
    return {"clip": ClipSettings()}


_OF_A_SERVICE = re.compile("(tcp|udp|sctp)://")
"""The beginning of the addresses of Services in the variables that Kubernetes sets."""
_FIELDS_OF_EMBEDDERS = sorted({field.upper() for kind in KINDS.values() for field in kind.model_fields})


class Settings(BaseSettings):
    """Every setting. Build it with load_settings, which words faults for people."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    config_file: Path | None = Field(
        None,
        description="TOML file with settings by group, such as [server] and [embedders.NAME], each with its fields in "
        "lower case; a variable wins over the file",
    )
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    embedders: dict[EmbedderName, NamedSettings] = Field(default_factory=_bundled_model, min_length=1)
    weaviate: WeaviateSettings = Field(default_factory=WeaviateSettings)
    limits: LimitSettings = LimitSettings()
    web: WebSettings = WebSettings()
    auth: AuthSettings = AuthSettings()
    fetch: FetchSettings = FetchSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment, and then the file that it names."""
        del env_settings, dotenv_settings, file_secret_settings
        return (
            init_settings,
            _Environment(settings_cls),
            _File(settings_cls, toml_file=_config_file()),
        )

    @property
    def ordered(self) -> dict[str, ClipSettings | NimSettings]:
        """The embedders by name, in order of preference."""
        embedders = {name: group for name, group in self.embedders.items() if not isinstance(group, NimRerankSettings)}
        return {name: embedders[name] for name in self.embedder.order or embedders}

    @property
    def api_over_http(self) -> bool:
        """Whether HTTP answers calls of the API: not where gRPC asks callers for certificates and HTTP does not."""
        return self.server.tls_client_ca_file is None or self.web.tls_client_ca_file is not None

    @property
    def rerankers(self) -> dict[str, NimRerankSettings]:
        """The rerankers by name."""
        return {name: group for name, group in self.embedders.items() if isinstance(group, NimRerankSettings)}

    @model_validator(mode="after")
    def _groups_fit_together(self) -> Self:
        faults = [
            *check_embedders(self.embedder.order, self.embedders),
            *self._web_faults(),
            *self._queue_faults(),
            *self._port_faults(),
        ]
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _web_faults(self) -> Iterator[str]:
        if self.web.tls_client_ca_file is not None and self.server.tls_cert_file is None:
            yield "web.tls_client_ca_file: needs server.tls_cert_file"
        if self.web.enabled:
            try:
                self.server.check_encryption("web", self.web.host)
            except ValueError as error:
                yield str(error)

    def _port_faults(self) -> Iterator[str]:
        """Yield ports that two servers cannot both listen on, of those that are not chosen by the system."""
        listening = [("server.port", self.server.host.strip("[]"), self.server.port)]
        if self.web.enabled:
            listening.append(("web.port", self.web.host.strip("[]"), self.web.port))
        http, grpc = self.weaviate.http, self.weaviate.grpc
        if self.weaviate.embedded:
            # It listens on all addresses.
            listening += [("weaviate.http_url", "::", http.port), ("weaviate.grpc_url", "::", grpc.port)]
        elif (http.host, http.port) == (grpc.host, grpc.port):
            yield f"weaviate.grpc_url: is {grpc}, the address of Weaviate's HTTP port; its gRPC port is another one"
        for (first, host, port), (second, other_host, other_port) in itertools.combinations(listening, 2):
            if port == other_port != 0 and _overlap((host, other_host)):
                yield f"{second}: has port {port}, and so has {first}; choose another one for one of the two"

    def _queue_faults(self) -> Iterator[str]:
        if self.limits.max_inputs > self.embedder.max_queued_inputs:
            yield (
                f"{variable('limits', 'max_inputs')} is {self.limits.max_inputs}, but only "
                f"{variable('embedder', 'max_queued_inputs')} = {self.embedder.max_queued_inputs} may wait: "
                "lower the one or raise the other"
            )


def load_running_settings() -> Settings:
    """Return the settings of a server that runs with them, whatever has become of the files that they name since.

    Raises:
        InvalidSettings: no server runs with them.
    """
    with files_may_be_gone():
        return load_settings(traces=False)


def load_settings(*, serves: bool = True, traces: bool = True) -> Settings:
    """Read the settings from the environment and the file of VECGATE_CONFIG_FILE, and check OpenTelemetry's variables.

    Args:
        serves: whether they are for servers. Without, the values of the groups server, web and auth are ignored: where
            nobody calls, no certificate and no file of clients is needed.
        traces: whether to check OpenTelemetry's variables.

    Raises:
        InvalidSettings: some break rules, or a variable or a key of the file names no setting.
    """
    unknown = _unknown_variables()
    faults = {upper: f"{name}: {_advice(upper)}" for upper, name in sorted(unknown.items())}
    settings = None
    try:
        names = _Names(_read_config(_config_file()))
        settings = Settings(**({} if serves else _of_no_server()))
    except InvalidSettings as error:
        faults["file"] = str(error)
    except SettingsError as error:
        # It names the field alone, and what it was caused by has the value.
        (group,) = re.findall(r'field "(\w+)"', str(error))
        faults["json"] = f"{variable(group)}: must be JSON"
    except ValidationError as error:
        for each in error.errors(include_input=False, include_url=False):
            for name, words in names.faults(each):
                # A variable that is unknown has been named already.
                if name not in unknown:
                    faults.setdefault(f"{name} {words}", f"{name}: {words}" if name else words)
    lines = [*faults.values(), *(tracing_faults(os.environ) if traces else ())]
    if settings is None or lines:
        raise InvalidSettings("\n".join(lines))
    return settings


def _overlap(hosts: Collection[str]) -> bool:
    """Return whether two hosts, or one that both have, may have an address in common."""
    # "::" takes the addresses of IPv4, too, and a name may have any.
    return len(set(hosts)) == 1 or "::" in hosts or (ALL_OF_IPV4 in hosts and not any(":" in host for host in hosts))


def _of_no_server() -> dict[str, Any]:
    """Return the groups that servers alone read, of servers that listen nowhere; they win over all that is set."""
    return {"server": ServerSettings(port=0), "web": WebSettings(enabled=False), "auth": AuthSettings()}


def _config_file() -> Path | None:
    named = variable("config_file")
    return next((Path(value) for name, value in os.environ.items() if name.upper() == named), None)


def _read_config(file: Path | None) -> Mapping[str, Any]:
    """Return what a file of settings holds, by group.

    Raises:
        InvalidSettings: it cannot be read, or is not TOML.
    """
    if file is None:
        return {}
    named = variable("config_file")
    try:
        with file.open("rb") as opened:
            found = tomllib.load(opened)
    except OSError as error:
        raise InvalidSettings(f"{named}: {file} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"{named}: {file} is not TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidSettings(f"{named}: {file} is not text in UTF-8") from error
    if "config_file" in found:
        raise InvalidSettings(f"{file}: config_file: a file of settings names no other; remove it")
    return found


def _unknown_variables() -> dict[str, str]:
    """Return the variables that look like settings and are none, by their names in upper case."""
    known = {name for name, _ in describe_settings()}
    fields = {name for kind in KINDS for name, _ in describe_embedders(kind)}
    unknown = {}
    for name, value in os.environ.items():
        upper = name.upper()
        bare = upper.removeprefix(PREFIX)
        # First what is cheap: most variables are other programs'.
        if bare == upper or upper in known:
            continue
        # Kubernetes sets VECGATE_PORT and the like for a Service named vecgate, so only names with a group are ours,
        # and those that only lack an underscore, unless they hold the address of a Service: it may be vecgate-server.
        if "__" not in bare and bare not in REMOVED and (_meant(upper) is None or _OF_A_SERVICE.match(value)):
            continue
        group, *path = bare.split("__")
        if group == EMBEDDERS.upper() and len(path) == 2 and variable(EMBEDDERS, ANY_NAME, path[1]) in fields:  # noqa: PLR2004 -- name and field
            continue
        unknown[upper] = name
    return unknown


def _advice(name: str) -> str:
    """Return what to do about a variable that names no setting."""
    bare = name.removeprefix(PREFIX)
    if (gone := REMOVED.get(bare)) is not None:
        return f"this setting is gone: {gone}"
    group, *path = bare.split("__")
    if group == EMBEDDERS.upper() and (of_all := _of_all_embedders(path)) is not None:
        return f"there is no such setting; set {of_all}"
    if (meant := _meant(name)) is not None:
        return f"there is no such setting; did you mean {meant}?"
    return "there is no such setting; see `vecgate serve --help`"


def _meant(name: str) -> str | None:
    """Return the setting whose variable a name is but for the number of underscores between its parts."""
    flat = re.sub("_+", "_", name)
    for setting, _ in describe_settings():
        if flat == setting.replace("__", "_"):
            return setting
    named = re.fullmatch(rf"{PREFIX}{EMBEDDERS.upper()}_(\w+?)_({'|'.join(_FIELDS_OF_EMBEDDERS)})", flat)
    return None if named is None else variable(EMBEDDERS, *named.groups())


def _of_all_embedders(path: Sequence[str]) -> str | None:
    """Return the variable that was meant where a setting of all embedders stands in the place of an embedder's name."""
    known = len(path) == 1 and path[0].lower() in EmbedderSettings.model_fields
    return variable("embedder", path[0]) if known else None


class _Names:
    """Says of a fault which variable, or which key of the file, it is about."""

    def __init__(self, file: Mapping[str, Any]) -> None:
        self._file = file
        self._variables = {name.upper() for name in os.environ}

    def faults(self, error: ErrorDetails) -> Iterator[tuple[str, str]]:
        """Yield the settings that a fault is about, empty for several, and what is wrong in words for people."""
        path = [str(part) for part in error["loc"] if part != "[key]"]
        # Pydantic names the kind between the embedder and its field.
        path = [*path[:2], *path[3:4]] if path[:1] == [EMBEDDERS] else path[:2]
        words = error["msg"].removeprefix("Value error, ")
        match error["type"]:
            case "union_tag_not_found" | "union_tag_invalid" as what:
                path.append("kind")
                words = f"is not {'set; it is ' if what == 'union_tag_not_found' else ''}one of {', '.join(KINDS)}"
            case "model_type" | "model_attributes_type" | "dict_type":
                of_all = _of_all_embedders(path[1:]) if path[0] == EMBEDDERS else None
                words = "must be a group of settings, each with a name and a value"
                if of_all is not None:
                    words = f"is no embedder; set embedder.{path[1]} ({of_all})"
            case "extra_forbidden" if path[0] == EMBEDDERS:
                words = f"an embedder of kind {error['loc'][2]} has no such setting; see `vecgate serve --help`"
            case "extra_forbidden":
                words = _advice(variable(*path))
        for line in words.splitlines():
            yield self._read(line, path)

    def _read(self, line: str, path: Sequence[str]) -> tuple[str, str]:
        """Return setting and words of a line, which may name the setting itself, as "embedder.order: is not set"."""
        dotted = re.fullmatch(r"([a-z0-9_-]+(?:\.[a-z0-9_-]+)+): (.*)", line)
        if dotted:
            return self._name(dotted[1].split(".")), dotted[2]
        return self._name(path) if path else "", line

    def _name(self, path: Sequence[str]) -> str:
        """Return the variable of a setting, or the file and the key if it is set there alone."""
        known = path[0] in Settings.model_fields
        for end in range(len(path), 0, -1):
            inside = variable(*path[:end])
            if known and any(name == inside or name.startswith(f"{inside}__") for name in self._variables):
                break
            if _holds(self._file, path[:end]):
                return f"{_config_file()}: {'.'.join(path)}"
        return variable(*path)


def _holds(table: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(table, Mapping) or key not in table:
            return False
        table = table[key]
    return True


def variable(*path: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + "__".join(path).upper().replace("-", "_")


def describe_settings() -> Iterator[tuple[str, FieldInfo]]:
    """Yield each setting's environment variable and its field, in the order of Settings, without those of embedders."""
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Group):
            for inner, inner_field in field.annotation.model_fields.items():
                yield variable(name, inner), inner_field
        elif name != EMBEDDERS:
            yield variable(name), field


def describe_embedders(kind: str) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the environment variable of each setting of an embedder of a kind, with <NAME> in it, and its field."""
    fields = KINDS[kind].model_fields
    for name, field in {"kind": fields["kind"], **fields}.items():
        yield variable(EMBEDDERS, ANY_NAME, name), field


def masked_settings(settings: Settings) -> dict[str, str]:
    """Return every setting by its environment variable, secrets masked."""
    masked: dict[str, str] = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        groups = {(name, each): group for each, group in value.items()} if name == EMBEDDERS else {(name,): value}
        for path, group in groups.items():
            fields = {(*path, field): each for field, each in group} if isinstance(group, Group) else {path: group}
            masked |= {variable(*each): str(found) for each, found in fields.items()}
    return masked
