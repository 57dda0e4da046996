"""`vecgate demo`: a server with an embedded Weaviate, sample pictures in it, and two searches to look at."""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from service.cli.importing import ensure_collection, import_with_progress, read_folder, show_summary
from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, describe_error, fail, note, say
from service.cli.pictures import PictureFolder, picture_id, schema_of
from service.cli.search import show_hits
from vecgate.client import Client, Health, Unreachable, VecgateError
from vecgate.v1 import collection_service_pb2 as collection_pb

COLLECTION = "Pictures"
NAME_PROPERTY = "name"
HITS = 5
POLL_S = 0.25
REPORT_EVERY_S = 10.0
SERVE = (sys.executable, "-m", "service", "serve")


def demo(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, metavar="FOLDER", help="Sample pictures, with a CSV or JSONL beside."
        ),
    ],
    query: Annotated[str, typer.Option("--query", help="What the text search looks for.")] = "birthday party",
) -> None:
    """Run a server with an embedded Weaviate, import sample pictures, show two searches, and go on serving.

    All settings of `vecgate serve` apply; the log level is warning unless VECGATE_LOG__LEVEL says otherwise.
    The data is kept, so a second run finds the pictures there.
    """
    pictures = read_folder(folder)
    addresses, environment = _prepare()
    if _listens(addresses.grpc):
        # Ours could not start, and the samples would go into somebody else's.
        fail(
            f"a server listens at {addresses.grpc} already; end it, or choose another port with VECGATE_SERVER__PORT",
            EXIT_FAILED,
        )
    raise typer.Exit(_run(pictures, query, addresses, environment))


@dataclass(frozen=True, slots=True)
class _Addresses:
    """Where everything is: addresses for clients on this machine, and the data."""

    grpc: str
    web: str
    weaviate_http: str
    weaviate_grpc: str
    data: str


class _Stopped(BaseException):
    """The user wants the demo to end."""


class _StopSignal:
    """Notes that a signal came and raises _Stopped where one interrupts; further ones change nothing.

    Never while the child is waited for: subprocess takes a lock that an exception between two of its lines leaves
    taken, and then the end of the child is waited for without end.
    """

    def __init__(self) -> None:
        self.came = False
        self._interrupts = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.came = True
        if self._interrupts:
            self._interrupts = False
            raise _Stopped

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Let a signal end what is done meanwhile; one that came before ends it at once."""
        self._interrupts = True
        try:
            if self.came:
                raise _Stopped
            yield
        finally:
            self._interrupts = False


def _prepare() -> tuple[_Addresses, dict[str, str]]:
    """Return where everything will be and the server's environment; wrong settings end the command."""
    try:
        from service.settings import InvalidSettings, load_settings, variable  # noqa: PLC0415 -- with the server only
    except ModuleNotFoundError:
        fail("the demo needs: pip install 'vecgate[server,clip]'", EXIT_WRONG_USE)
    os.environ.setdefault(variable("weaviate", "embedded"), "true")
    # A line for each call would stand between the tables.
    os.environ.setdefault(variable("log", "level"), "warning")
    # The demo must know the ports before the server has them.
    ports = (("server", "port"), ("web", "port"), ("weaviate", "http_port"), ("weaviate", "grpc_port"))
    for name in (variable(*each) for each in ports):
        if os.environ.get(name) == "0":
            os.environ[name] = str(_free_port())
    try:
        settings = load_settings()
    except InvalidSettings as error:
        fail("the settings are wrong:", EXIT_WRONG_USE, more=[f"  {line}" for line in str(error).splitlines()])
    weaviate = settings.weaviate
    http = "127.0.0.1" if weaviate.embedded else weaviate.http_host
    grpc = "127.0.0.1" if weaviate.embedded else weaviate.grpc_host or weaviate.http_host
    scheme = "http" if settings.web.tls_cert_file is None else "https"
    addresses = _Addresses(
        grpc=_reachable(settings.server.host, settings.server.port),
        web=f"{scheme}://{_reachable(settings.web.host, settings.web.port)}" if settings.web.enabled else "off",
        weaviate_http=f"{'https' if weaviate.http_secure else 'http'}://{http}:{weaviate.http_port}",
        weaviate_grpc=f"{grpc}:{weaviate.grpc_port}",
        data=str(weaviate.data_dir.resolve()) if weaviate.embedded else "in that Weaviate",
    )
    return addresses, dict(os.environ)


def _reachable(host: str, port: int) -> str:
    """Return where a program on this machine finds a server that listens on a host."""
    return f"{'127.0.0.1' if host in {'0.0.0.0', '[::]'} else host}:{port}"  # noqa: S104 -- compared


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _run(pictures: PictureFolder, query: str, addresses: _Addresses, environment: Mapping[str, str]) -> int:
    stop = _StopSignal()
    # SIGHUP: the terminal is closed, which the server in its own session does not notice.
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    # A group of its own: a Ctrl-C in the terminal reaches the demo alone, which passes it on once.
    child = subprocess.Popen(SERVE, env=environment, start_new_session=True)  # noqa: S603 -- a constant
    code = None
    try:
        code = _serve_samples(pictures, query, addresses, child, stop)
        # A library may swallow the exception of a signal, so its coming is looked at as well.
        while code is None and not stop.came:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(POLL_S)
                note(f"error: the server ended with exit code {code}")
    except _Stopped:
        pass
    finally:
        # First of all: whoever reads our output may be gone, and then the note fails.
        child.terminate()
        try:
            if stop.came:
                note("stopping; calls in flight may finish")
        finally:
            ended = child.wait()
            for number, handler in before.items():
                signal.signal(number, handler)
    code = ended if code is None else code
    # Negative: ended by a signal. It is our own SIGTERM when the user stopped the demo.
    return (0 if stop.came else EXIT_FAILED) if code < 0 else code


def _serve_samples(
    pictures: PictureFolder, query: str, addresses: _Addresses, child: subprocess.Popen[bytes], stop: _StopSignal
) -> int | None:
    """Wait for the server, fill it and show it; return an exit code when it is over, None while the server serves."""
    note(f"starting Vecgate at {addresses.grpc} with its model and Weaviate; the data is kept in {addresses.data}")
    with Client(addresses.grpc, options=(("grpc.max_reconnect_backoff_ms", 500),)) as client:
        code = _wait_until_serving(client, child, stop)
        if code is not None:
            note(f"error: the server ended with exit code {code} before it was ready; its own lines above say why")
            return code or EXIT_FAILED
        try:
            with stop.interrupting():
                failed = _fill(client, pictures)
                _show_searches(client, query)
        except VecgateError as error:
            text, code = describe_error(error, target=addresses.grpc)
            note(f"error: {text}")
            return child.poll() or code
    _show_next(addresses)
    if failed:
        note("error: some sample pictures were not imported; the lines above say why")
    return None


def _wait_until_serving(client: Client, child: subprocess.Popen[bytes], stop: _StopSignal) -> int | None:
    """Wait for the server; return its exit code if it ends before it serves."""
    started = reported = time.monotonic()
    while True:
        with stop.interrupting():
            state = _describe_state(client)
        if state is None:
            return None
        if time.monotonic() - reported >= REPORT_EVERY_S:
            reported = time.monotonic()
            note(f"still starting after {reported - started:.0f} s ({state})")
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(POLL_S)


def _describe_state(client: Client) -> str | None:
    """Return what the server is waiting for; None when it serves."""
    try:
        if client.health() is Health.SERVING:
            return None
        troubles = [f"{each.name}: {each.health_detail}" for each in client.embedders().embedders if each.health_detail]
    except Unreachable:
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
    summary = import_with_progress(client, COLLECTION, pictures, with_path=with_path)
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


def _show_searches(client: Client, query: str) -> None:
    say()
    say(f'Search for the words "{query}":', style="bold")
    found = client.search(COLLECTION, text=query, limit=HITS, return_images=["image"])
    show_hits(COLLECTION, found)
    if found.hits:
        best = found.hits[0].object
        say()
        say(f"Search for pictures like the first of them, {best.properties.get('path', best.id)}:", style="bold")
        show_hits(COLLECTION, client.search(COLLECTION, image=best.images["image"], limit=HITS))


def _show_next(addresses: _Addresses) -> None:
    program = _program()
    at = "" if addresses.grpc == "127.0.0.1:50070" else f"--address {addresses.grpc} "
    python = (
        f'from vecgate.client import Client; found = Client("{addresses.grpc}").search("{COLLECTION}", text="dog"); '
        'print(*(hit.object.properties["path"] for hit in found.hits))'
    )
    body = f'{{"collection":"{COLLECTION}","near_text":{{"concepts":["dog"]}},"limit":3}}'
    say()
    say("Vecgate is ready.", style="bold")
    for name, value in (
        ("gRPC", addresses.grpc),
        ("HTTP", f"{addresses.web}, as a NIM answers" if addresses.web != "off" else "off"),
        ("Weaviate HTTP", addresses.weaviate_http),
        ("Weaviate gRPC", addresses.weaviate_grpc),
        ("data", f"{addresses.data}, kept between runs; `make clean-data` removes it"),
    ):
        say(f"  {name:<14} {value}")
    say()
    say("Try next, in another terminal:", style="bold")
    say(f"  {program} {at}search 'red heart' --collection {COLLECTION}")
    say(f"  {shlex.quote(sys.executable)} -c {shlex.quote(python)}")
    say(f"  grpcurl -plaintext -d {shlex.quote(body)} {addresses.grpc} vecgate.v1.SearchService/SearchObjects")
    say()
    say("Ctrl-C ends the server; the data stays.")


def _program() -> str:
    beside = Path(sys.executable).with_name("vecgate")
    if shutil.which("vecgate"):
        return "vecgate"
    return shlex.quote(str(beside)) if beside.exists() else f"{shlex.quote(sys.executable)} -m service"
