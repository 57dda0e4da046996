"""What a configuration needs from outside the site, and what is wrong with it.

It looks at names and files only: it resolves, connects to and loads nothing. So every machine that has the same files
gets the same answer.
"""

import enum
import importlib.util
import ipaddress
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from embedders.clip.files import CONFIG_FILE, MODELS_DIR, WEIGHTS_FILES
from embedders.nim.address import resolve_proxy
from service.fetching import Origin
from service.settings import (
    ClipSettings,
    NimConnectionSettings,
    Settings,
    WeaviateSettings,
    read_secret,
    trace_collector,
    variable,
)
from service.store.embedded.binary import WeaviateBinaryMissing, find_binary
from service.wiring import read_files

# Names that public name servers do not resolve: those of Kubernetes, those reserved by RFCs, and customary ones.
SITE_SUFFIXES = (
    "cluster.local",
    "corp",
    "home.arpa",
    "internal",
    "intranet",
    "lan",
    "local",
    "localdomain",
    "private",
    "svc",
    "test",
)
EVERY_ADDRESS = ("0.0.0.0", "::", "[::]")  # noqa: S104 -- compared with, not listened on
CLIP_MODULES = ("open_clip", "safetensors", "torch")


class Reach(enum.Enum):
    """How far away a host is, judged by its name."""

    MACHINE = "this machine"
    SITE = "this site"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Contact:
    """A server that the service would connect to.

    Attributes:
        what: its name in words.
        where: its address.
        setting: the variable that holds the address.
        reach: how far away it is.
    """

    what: str
    where: str
    setting: str
    reach: Reach


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result for a configuration.

    Attributes:
        contacts: the servers that it would connect to.
        faults: what keeps it from working, a line each with its fix.
        notes: what is not wrong, but should be known.
    """

    contacts: tuple[Contact, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def outside(self) -> tuple[Contact, ...]:
        """The contacts that cannot be reached behind an air gap."""
        return tuple(each for each in self.contacts if each.reach is Reach.OUTSIDE)


def reach_of(host: str) -> Reach:
    """Return how far away a host is. A name with dots counts as outside unless its suffix is one of SITE_SUFFIXES."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        if name == "localhost" or name.endswith(".localhost"):
            return Reach.MACHINE
        inside = "." not in name or name.endswith(tuple(f".{suffix}" for suffix in SITE_SUFFIXES))
        return Reach.SITE if inside else Reach.OUTSIDE
    if address.is_loopback or address.is_unspecified:
        return Reach.MACHINE
    return Reach.OUTSIDE if address.is_global else Reach.SITE


def diagnose(settings: Settings) -> Diagnosis:
    """Return what settings need and what is wrong with them."""
    origins, faults = read_files(settings)
    return Diagnosis(
        tuple(_contacts(settings, origins)),
        (*_faults(settings), *faults),
        (*_notes(settings), *_notes_on_origins(origins)),
    )


def _contacts(settings: Settings, origins: Sequence[Origin]) -> Iterator[Contact]:
    for name, group in chain(settings.ordered.items(), settings.rerankers.items()):
        if isinstance(group, NimConnectionSettings):
            named = variable("embedders", name, "base_url")
            for url in group.base_url:
                yield Contact(f"the NIM of {name}", url, named, reach_of(urlsplit(url).hostname or ""))
            yield from _proxies(name, group)
    where = settings.weaviate
    if not where.embedded:
        http, grpc = where.http, where.grpc
        yield Contact("Weaviate's HTTP port", str(http), variable("weaviate", "http_url"), reach_of(http.host))
        named = "http_url" if where.grpc_url is None else "grpc_url"
        yield Contact("Weaviate's gRPC port", str(grpc), variable("weaviate", named), reach_of(grpc.host))
    for each in origins:
        named = variable("fetch", "origins_file")
        yield Contact(f"images of {each.name}", str(each.root), named, reach_of(each.root.host))
    if (collector := trace_collector(os.environ)) is not None:
        host = urlsplit(collector.endpoint).hostname or ""
        yield Contact("the collector of traces", collector.endpoint, collector.variable, reach_of(host))


def _proxies(name: str, nim: NimConnectionSettings) -> Iterator[Contact]:
    proxy, named = read_secret(nim.proxy, nim.proxy_file), "proxy_file" if nim.proxy is None else "proxy"
    for found in dict.fromkeys(resolve_proxy(proxy, url) for url in nim.base_url):
        if found is not None:
            # Without user and password.
            parts = urlsplit(found)
            where = parts.netloc.rpartition("@")[2]
            setting = variable("embedders", name, named)
            yield Contact(f"the proxy before the NIM of {name}", where, setting, reach_of(parts.hostname or ""))


def _faults(settings: Settings) -> Iterator[str]:
    if settings.weaviate.embedded:
        yield from _embedded_faults(settings.weaviate)
    for name, group in settings.ordered.items():
        if isinstance(group, ClipSettings):
            yield from (f"{name}: {fault}" for fault in _clip_faults(name, group))


def _embedded_faults(settings: WeaviateSettings) -> Iterator[str]:
    try:
        find_binary(settings.binary)
    except WeaviateBinaryMissing as error:
        yield str(error)


def _clip_faults(name: str, settings: ClipSettings) -> Iterator[str]:
    missing = [name for name in CLIP_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        yield f"a local model needs packages that are not installed ({', '.join(missing)}): pip install 'vecgate[clip]'"
    named, folder = variable("embedders", name, "checkpoint"), Path(settings.model)
    if settings.checkpoint is not None:
        if not settings.checkpoint.is_file():
            yield f"{named} is {settings.checkpoint}, which is not a file; put the weights there, nothing is downloaded"
    elif not folder.is_absolute() and (MODELS_DIR / folder / CONFIG_FILE).is_file():
        return
    elif not folder.is_absolute() and not folder.is_dir():
        yield f"the model {settings.model} needs its weights in a file: set {named} to it, nothing is downloaded"
    elif not (folder / CONFIG_FILE).is_file():
        yield f"the folder {folder} has no {CONFIG_FILE}"
    elif not any((folder / name).is_file() for name in WEIGHTS_FILES):
        yield f"the folder {folder} has no weights: put {WEIGHTS_FILES[0]} into it"


def _notes(settings: Settings) -> Iterator[str]:
    if settings.auth.clients_file is None:
        yield from _open_to_all("server", settings.server.host)
        if settings.web.enabled:
            yield from _open_to_all("web", settings.web.host)


def _notes_on_origins(origins: Sequence[Origin]) -> Iterator[str]:
    for each in origins:
        if each.private_addresses:
            yield f"images of {each.name}: its host may have private addresses and those of this machine"
        if each.root.scheme == "http" and (each.bearer_token_file or each.basic_auth_file):
            yield f"images of {each.name}: its credentials are sent without TLS"


def _open_to_all(group: str, host: str) -> Iterator[str]:
    if reach_of(host) is not Reach.MACHINE or host in EVERY_ADDRESS:
        yield f"{variable(group, 'host')} is {host}: anyone who reaches the port may call, without a key"
