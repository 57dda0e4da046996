"""`vecgate demo`: a server with an embedded Weaviate, sample pictures in it, and two searches to look at."""

import asyncio
import os
import shlex
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.connection import DEFAULT_ADDRESS, Connection
from service.cli.importing import ensure_collection, import_with_progress, read_folder, show_summary
from service.cli.imports import Import
from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, describe_error, fail, note, say
from service.cli.pictures import PictureFolder, picture_id, schema_of
from service.cli.search import show_hits, show_pictures
from service.cli.thumbnails import Pictures, PicturesOption
from service.process.ports import free_ports
from vecgate.client import Client, Health, Unreachable, VecgateError
from vecgate.v1 import collection_service_pb2 as collection_pb

if TYPE_CHECKING:
    from service.settings import Settings

COLLECTION = "Pictures"
NAME_PROPERTY = "name"
HITS = 5
NEEDS_DEMO = "the demo needs: pip install 'vecgate[server,clip]'"
POLL_S = 0.25
REPORT_EVERY_S = 10.0
UNREACHABLE_S = 20.0
"""Both ports listen by then: the demo calls when the server serves."""


def demo(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, metavar="FOLDER", help="Sample pictures, with a CSV or JSONL beside."
        ),
    ],
    query: Annotated[str, typer.Option("--query", help="What the text search looks for.")] = "birthday party",
    pictures: PicturesOption = Pictures.AUTO,
) -> None:
    """Run a server with an embedded Weaviate, import sample pictures, show two searches, and keep serving.

    All settings of `vecgate serve` apply; the log level is warning unless VECGATE_LOG__LEVEL says otherwise. Where they
    ask callers for a key or for TLS, give the key and the authority as for any command: `vecgate --ca-file FILE demo`.
    The data is kept, so a second run finds the pictures there.
    """
    samples = read_folder(folder)
    settings = _prepare()
    connection = context.find_object(Connection) or Connection(DEFAULT_ADDRESS)
    _check_connection(settings, connection)
    try:
        import uvloop  # noqa: PLC0415 -- not there with the client alone

        from service.app import describe_port_fault, run  # noqa: PLC0415 -- for this command only
    except ModuleNotFoundError:
        fail(NEEDS_DEMO, EXIT_WRONG_USE)
    if fault := describe_port_fault(settings):
        fail(fault, EXIT_FAILED)
    showing = _Samples(samples, query, pictures, _addresses(settings), connection)

    async def serve() -> int:
        loop = asyncio.get_running_loop()
        # A closed terminal ends the demo as Ctrl-C does.
        loop.add_signal_handler(signal.SIGHUP, signal.raise_signal, signal.SIGTERM)
        reports = asyncio.create_task(showing.report_start())
        try:
            return await run(settings, once_serving=showing.show)
        finally:
            reports.cancel()
            # Only the process is left to end; another signal must not change its exit code.
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)

    raise typer.Exit(uvloop.run(serve()))


@dataclass(frozen=True, slots=True)
class _Addresses:
    """Where everything is: addresses for clients on this machine, and the data. HTTP and the explorer may be off."""

    grpc: str
    web: str | None
    explorer: str | None
    weaviate_http: str
    weaviate_grpc: str
    data: str


def _prepare() -> "Settings":
    """Return the server's settings; wrong ones end the command."""
    try:
        from service.settings import InvalidSettings, load_settings, variable  # noqa: PLC0415 -- with the server only
    except ModuleNotFoundError:
        fail(NEEDS_DEMO, EXIT_WRONG_USE)
    os.environ.setdefault(variable("weaviate", "embedded"), "true")
    # A line for each call would stand between the tables.
    os.environ.setdefault(variable("log", "level"), "warning")
    # The demo shows the ports, so it chooses them.
    ports = (("server", "port"), ("web", "port"), ("weaviate", "http_url"), ("weaviate", "grpc_url"))
    for name in (variable(*each) for each in ports):
        at, colon, port = os.environ.get(name, "").rpartition(":")
        if port == "0":
            os.environ[name] = f"{at}{colon}{free_ports(1)[0]}"
    try:
        return load_settings()
    except InvalidSettings as error:
        fail("the settings are wrong:", EXIT_WRONG_USE, more=[f"  {line}" for line in str(error).splitlines()])


def _check_connection(settings: "Settings", connection: Connection) -> None:
    """End the command where the server would refuse what the demo asks of it."""
    if settings.server.tls_cert_file is not None and connection.credentials is None:
        fail("the server has a certificate, so the demo needs TLS: vecgate --ca-file FILE demo ...", EXIT_WRONG_USE)
    if (settings.auth.clients_file or settings.auth.jwks_file) and not connection.api_key:
        fail(
            "the server asks callers for a key, so the demo needs one that may create collections, write and search: "
            "set VECGATE_API_KEY, or vecgate --api-key-file FILE demo ...",
            EXIT_WRONG_USE,
        )


def _addresses(settings: "Settings") -> _Addresses:
    weaviate = settings.weaviate
    scheme = "http" if settings.server.tls_cert_file is None else "https"
    web = f"{scheme}://{_reachable(settings.web.host, settings.web.port)}" if settings.web.enabled else None
    return _Addresses(
        grpc=_reachable(settings.server.host, settings.server.port),
        web=web,
        explorer=f"{web}{settings.web.path_prefix}/" if web and settings.web.explorer else None,
        weaviate_http=f"http://127.0.0.1:{weaviate.http.port}" if weaviate.embedded else weaviate.http_url,
        weaviate_grpc=f"127.0.0.1:{weaviate.grpc.port}" if weaviate.embedded else str(weaviate.grpc),
        data=str(weaviate.data_dir.resolve()) if weaviate.embedded else "in that Weaviate",
    )


def _reachable(host: str, port: int) -> str:
    """Return where a program on this machine finds a server that listens on a host."""
    return f"{'127.0.0.1' if host in {'0.0.0.0', '[::]'} else host}:{port}"  # noqa: S104 -- compared


class _Samples:
    """What the demo does with a server that runs: it imports the sample pictures and shows two searches."""

    def __init__(
        self, samples: PictureFolder, query: str, pictures: Pictures, addresses: _Addresses, connection: Connection
    ) -> None:
        self._samples = samples
        self._query = query
        self._pictures = pictures
        self._addresses = addresses
        self._connection = connection
        self._started = False

    async def report_start(self) -> None:
        """Say that the server is starting, and again as long as it takes."""
        at, data = self._addresses.explorer or self._addresses.grpc, self._addresses.data
        note(f"starting Vecgate at {at} with its model and Weaviate; the data is kept in {data}")
        began = time.monotonic()
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            if not self._started:
                note(f"still starting after {time.monotonic() - began:.0f} s")

    async def show(self) -> int:
        """Import and search; return the exit code of a failure, which ends the server, or 0.

        Cancelling this closes the client, whose thread then ends with an error that is not shown.
        """
        self._started = True
        with self._connection.client(self._addresses.grpc) as client:
            try:
                failed = await asyncio.to_thread(self._fill_and_search, client)
            except VecgateError as error:
                text, code = describe_error(error, target=self._addresses.grpc)
                note(f"error: {text}")
                if error.reason == "EMBEDDING_SPACE_MISMATCH":
                    note(
                        f"{COLLECTION} was made by another model, perhaps that of an earlier version: remove "
                        f"{self._addresses.data} (make clean-data), and start again"
                    )
                return code
        _show_next(self._addresses, self._connection)
        if failed:
            note("error: some sample pictures were not imported; the lines above say why")
        return 0

    def _fill_and_search(self, client: Client) -> bool:
        _wait_until_serving(client)
        failed = _fill(client, self._samples)
        _show_searches(client, self._query, self._pictures)
        return failed


def _wait_until_serving(client: Client) -> None:
    started = reported = time.monotonic()
    while (state := _describe_state(client, fails=time.monotonic() - started > UNREACHABLE_S)) is not None:
        if time.monotonic() - reported >= REPORT_EVERY_S:
            reported = time.monotonic()
            note(f"not ready after {reported - started:.0f} s ({state})")
        time.sleep(POLL_S)


def _describe_state(client: Client, *, fails: bool) -> str | None:
    """Return what the server is waiting for; None when it serves.

    Raises:
        Unreachable: it cannot be reached though it had the time (`fails`); its certificate may be another one.
    """
    try:
        if client.health() is Health.SERVING:
            return None
        troubles = [f"{each.name}: {each.health_detail}" for each in client.embedders().embedders if each.health_detail]
    except Unreachable:
        if fails:
            raise
        return "not listening yet"
    except VecgateError as error:
        return str(error)
    return "; ".join(troubles) or "waiting for Weaviate"


def _text_fields(pictures: PictureFolder) -> list[collection_pb.WeightedField]:
    """Return the names as half of what the vectors are made of, if the pictures have names."""
    named = pictures.sidecar is not None and NAME_PROPERTY in pictures.sidecar.types
    return [collection_pb.WeightedField(name=NAME_PROPERTY, weight=0.5)] if named else []


def _fill(client: Client, pictures: PictureFolder) -> bool:
    """Import what is not there yet, and return whether something failed."""
    count = len(pictures.files)
    with_path = ensure_collection(client, schema_of(COLLECTION, pictures, text_fields=_text_fields(pictures)))
    if _all_there(client, pictures):
        say(f"{COLLECTION}: all {count} sample pictures are there from an earlier run; nothing to import")
        return False
    note(f"importing {count} sample pictures from {pictures.folder}")
    summary = import_with_progress(client, Import(COLLECTION), pictures, with_path=with_path)
    show_summary(COLLECTION, pictures, summary)
    if summary.stopped is not None:
        raise summary.stopped
    return bool(summary.failed)


def _all_there(client: Client, pictures: PictureFolder) -> bool:
    if (client.get_collection(COLLECTION).object_count or 0) < len(pictures.files):
        return False
    for file in pictures.files:
        try:
            stored = client.get_object(COLLECTION, picture_id(COLLECTION, file))
        except VecgateError as error:
            if error.reason == "OBJECT_NOT_FOUND":
                return False
            raise
        if {name: value for name, value in stored.properties.items() if value is not None} != pictures.properties(file):
            return False
    return True


def _show_searches(client: Client, query: str, pictures: Pictures) -> None:
    say()
    say(f'Search for the words "{query}":', style="bold")
    found = client.search(COLLECTION, text=query, limit=HITS, return_images=["image"])
    show_pictures(client, COLLECTION, found, pictures)
    show_hits(COLLECTION, found)
    if found.hits:
        best = found.hits[0].object
        say()
        say(f"Search for pictures like the first of them, {best.properties.get('path', best.id)}:", style="bold")
        found = client.search(COLLECTION, image=best.images["image"], limit=HITS)
        show_pictures(client, COLLECTION, found, pictures)
        show_hits(COLLECTION, found)


def _show_next(addresses: _Addresses, connection: Connection) -> None:
    say()
    say("Vecgate is ready.", style="bold")
    for name, value in (
        ("explorer", addresses.explorer or "off"),
        ("gRPC", addresses.grpc),
        ("HTTP", f"{addresses.web}, in JSON and as a NIM answers" if addresses.web else "off"),
        ("Weaviate HTTP", addresses.weaviate_http),
        ("Weaviate gRPC", addresses.weaviate_grpc),
        ("data", f"{addresses.data}, kept between runs; `make clean-data` removes it"),
    ):
        say(f"  {name:<14} {value}")
    say()
    secured = connection.api_key or connection.credentials
    with_it = ", with the key and the options before the command that you gave here" if secured else ""
    say(f"Try next, in another terminal{with_it}:", style="bold")
    # Each of the others would need the key and the authority in another form.
    for command in _commands(addresses)[: 1 if secured else None]:
        say(f"  {command}")
    if addresses.explorer:
        say()
        say(f"Open {addresses.explorer} in a browser to search and look around.", style="bold")
    say("Ctrl-C ends the server; the data stays.")


def _commands(addresses: _Addresses) -> tuple[str, ...]:
    """Return searches by the command line, Python, and curl or grpcurl."""
    at = "" if addresses.grpc == DEFAULT_ADDRESS else f"--address {addresses.grpc} "
    python = (
        f'from vecgate.client import Client; found = Client("{addresses.grpc}").search("{COLLECTION}", text="dog"); '
        'print(*(hit.object.properties["path"] for hit in found.hits))'
    )
    body = shlex.quote(f'{{"collection":"{COLLECTION}","nearText":{{"concepts":["dog"]}},"limit":3}}')
    method = "vecgate.v1.SearchService/SearchObjects"
    return (
        f"{_program()} {at}search 'red heart' --collection {COLLECTION}",
        f"{shlex.quote(sys.executable)} -c {shlex.quote(python)}",
        f"curl -H 'content-type: application/json' -d {body} {addresses.web}/{method}"
        if addresses.web
        else f"grpcurl -plaintext -d {body} {addresses.grpc} {method}",
    )


def _program() -> str:
    beside = Path(sys.executable).with_name("vecgate")
    if shutil.which("vecgate"):
        return "vecgate"
    return shlex.quote(str(beside)) if beside.exists() else f"{shlex.quote(sys.executable)} -m service"
