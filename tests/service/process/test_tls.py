"""TLS of both servers: what they take, what they refuse, and files that change while they serve."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import structlog
import trustme
from typer.testing import CliRunner

from service.cli import app
from service.process.tls import Certificates, TlsFiles
from service.settings import InvalidSettings, ServerSettings, Settings, WebSettings
from service.wiring import read_files
from tests.fakes.web import running_web
from tests.service.conftest import start_wire, stop_wire
from vecgate.v1 import embedding_service_pb2 as pb
from vecgate.v1.embedding_service_pb2_grpc import EmbeddingServiceStub


class Site:
    """A folder with the files of a server, an authority of servers, and one of clients."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clients = trustme.CA()
        self.clients.cert_pem.write_to_path(folder / "clients.pem")
        self.renew()

    def renew(self) -> None:
        """Write a certificate of another authority."""
        self.servers = trustme.CA()
        issued = self.servers.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(self.folder / "cert.pem")
        issued.private_key_pem.write_to_path(self.folder / "key.pem")

    def settings(self, *, mutual: bool = False) -> dict[str, Any]:
        files = {"tls_cert_file": self.folder / "cert.pem", "tls_key_file": self.folder / "key.pem"}
        return files | ({"tls_client_ca_file": self.folder / "clients.pem"} if mutual else {})

    def credentials(self, *, client: trustme.CA | None = None) -> grpc.ChannelCredentials:
        own = None if client is None else client.issue_cert("client.example").private_key_and_cert_chain_pem.bytes()
        return grpc.ssl_channel_credentials(self.servers.cert_pem.bytes(), own, own)

    def context(self, *, client: trustme.CA | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.servers.cert_pem.bytes().decode())
        if client is not None:
            client.issue_cert("client.example").configure_cert(context)
        return context


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(params=["grpc", "http"])
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Start a server of either kind, and return how a new connection ends: None, or its error."""
    ends: list[Callable[[], Any]] = []

    async def start_grpc(site: Site, **settings: Any) -> Callable[..., Any]:
        wire = await start_wire(server=ServerSettings(port=0, drain_grace_s=1, **settings))
        ends.append(lambda: stop_wire(wire))

        async def connect(credentials: grpc.ChannelCredentials | None) -> str | None:
            target = f"127.0.0.1:{wire.server.port}"
            # Channels of one target would share their connection.
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = (
                grpc.aio.insecure_channel(target, options)
                if credentials is None
                else grpc.aio.secure_channel(target, credentials, options)
            )
            async with channel:
                try:
                    await EmbeddingServiceStub(channel).ListEmbedders(pb.ListEmbeddersRequest(), timeout=60)
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE
                    return str(error.details())
            return None

        return lambda client=None, plain=False: connect(None if plain else site.credentials(client=client))

    async def start_http(site: Site, **settings: Any) -> Callable[..., Any]:
        running = running_web(**settings)
        web = await running.__aenter__()
        ends.append(lambda: running.__aexit__(None, None, None))

        async def connect(context: ssl.SSLContext | None) -> str | None:
            url = f"http{'' if context is None else 's'}://127.0.0.1:{web.server.port}/v1/models"
            try:
                async with httpx.AsyncClient(verify=context or True, trust_env=False, timeout=60) as http:
                    assert (await http.get(url)).status_code == httpx.codes.OK
            except httpx.TransportError as error:
                return str(error) or type(error).__name__
            return None

        return lambda client=None, plain=False: connect(None if plain else site.context(client=client))

    yield start_grpc if request.param == "grpc" else start_http
    for end in ends:
        await end()


async def test_a_server_with_a_certificate_takes_tls_alone(serve: Callable[..., Any], site: Site) -> None:
    connect = await serve(site, **site.settings())

    assert await connect() is None
    assert await connect(plain=True) is not None
    site.servers = trustme.CA()
    assert await connect() is not None


async def test_a_server_that_asks_for_them_takes_clients_with_the_right_certificate_alone(
    serve: Callable[..., Any], site: Site
) -> None:
    connect = await serve(site, **site.settings(mutual=True))

    assert await connect(client=site.clients) is None
    assert await connect() is not None
    assert await connect(client=trustme.CA()) is not None
    assert await connect(client=site.clients) is None


async def test_a_new_certificate_is_used_without_a_restart_and_a_broken_one_is_not(
    serve: Callable[..., Any], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.process.tls.LOOK_EVERY_S", 0.0)
    connect = await serve(site, **site.settings(mutual=True))
    first = site.servers
    assert await connect(client=site.clients) is None

    site.renew()
    site.clients = trustme.CA()
    site.clients.cert_pem.write_to_path(site.folder / "clients.pem")
    assert await connect(client=site.clients) is None
    second, site.servers = site.servers, first
    assert await connect(client=site.clients) is not None

    site.servers = second
    with structlog.testing.capture_logs() as lines:
        (site.folder / "key.pem").write_text("no key")
        assert await connect(client=site.clients) is None
    assert [line["event"] for line in lines].count("certificate_not_read_again") == 1


def test_a_file_that_stays_away_is_told_once(site: Site) -> None:
    now_s = 0.0
    key = site.folder / "key.pem"
    certificates = Certificates("server", TlsFiles(site.folder / "cert.pem", key, None), lambda: now_s)
    before = certificates.contents()
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            key.unlink()
            for _ in range(3):
                now_s += 2
                assert certificates.contents() == before
            key.write_bytes(before[1])
            now_s += 2
            assert certificates.contents() == before

    assert [line["event"] for line in lines] == ["certificate_not_read_again"] * 2


def test_files_are_looked_at_once_a_second_at_most(site: Site) -> None:
    now_s = 0.0
    files = TlsFiles(site.folder / "cert.pem", site.folder / "key.pem", None)
    certificates = Certificates("server", files, lambda: now_s)
    before = certificates.contents()
    site.renew()
    now_s = 0.9
    assert certificates.contents() == before
    now_s = 1.1
    assert certificates.contents() == files.read() != before


def test_files_that_change_between_two_looks_at_them_are_read_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    files = TlsFiles(site.folder / "cert.pem", site.folder / "key.pem", None)
    certificates = Certificates("server", files, lambda: now_s)
    before = certificates.contents()
    key = files.key.read_bytes()
    site.renew()
    files.key.write_bytes(key)
    real = TlsFiles.context

    def complete_and_load(self: TlsFiles, group: str) -> ssl.SSLContext:
        site.renew()
        return real(self, group)

    monkeypatch.setattr(TlsFiles, "context", complete_and_load)
    now_s = 2.0
    while_they_change = certificates.contents()
    monkeypatch.undo()
    now_s = 4.0

    assert while_they_change == before, "no certificate with another one's key"
    assert certificates.contents() == files.read() != before


async def test_no_connection_fails_while_certificates_are_replaced(
    serve: Callable[..., Any], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.process.tls.LOOK_EVERY_S", 0.0)
    connect = await serve(site, **site.settings(mutual=True))
    done = asyncio.Event()
    ends: list[str | None] = []

    async def load() -> None:
        while not done.is_set():
            ends.append(await connect(client=site.clients))

    loads = [asyncio.create_task(load()) for _ in range(4)]
    replaced = 0
    # However busy the machine is, unless a task has failed, which gathering them raises.
    while not any(each.done() for each in loads) and ((replaced := replaced + 1) <= 20 or len(ends) <= 20):
        issued = site.servers.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(site.folder / "cert.pem")
        await asyncio.sleep(0.02)
        issued.private_key_pem.write_to_path(site.folder / "key.pem")
        await asyncio.sleep(0.05)
    done.set()
    await asyncio.gather(*loads)

    assert set(ends) == {None}


@pytest.mark.parametrize("name", ["cert.pem", "key.pem", "clients.pem"])
@pytest.mark.parametrize("content", [None, "nonsense"])
def test_files_that_cannot_be_used_are_faults_of_the_settings(site: Site, name: str, content: str | None) -> None:
    (site.folder / name).unlink()
    if content is not None:
        (site.folder / name).write_text(content)
    files = TlsFiles(site.folder / "cert.pem", site.folder / "key.pem", site.folder / "clients.pem")
    told = f"{site.folder / name} cannot be read: No such file or directory"
    if content is not None:
        told = f"server.tls_{'client_ca' if name == 'clients.pem' else 'cert'}_file {site.folder}"
    with pytest.raises(InvalidSettings, match=re.escape(told)):
        Certificates("server", files)


def test_a_broken_certificate_hides_no_broken_authorities(site: Site) -> None:
    names = {"tls_cert_file": "cert.pem", "tls_key_file": "key.pem", "tls_client_ca_file": "clients.pem"}
    files = {name: site.folder / file for name, file in names.items()}
    for each in files.values():
        each.write_text("nonsense")
    web = WebSettings(tls_client_ca_file=files["tls_client_ca_file"])

    _, faults = read_files(Settings(server=ServerSettings(**files), web=web))

    cert, key, authorities = files.values()
    assert [each.partition(" cannot be used: ")[0] for each in faults] == [
        f"server.tls_cert_file {cert} and server.tls_key_file {key}",
        f"server.tls_client_ca_file {authorities}",
        f"web.tls_client_ca_file {authorities}",
    ]


def settings_of(group: str, given: dict[str, Any]) -> Settings:
    """Return settings of which a group is given, but for what that server shares with the other."""
    shared = {name: given[name] for name in given.keys() - WebSettings.model_fields.keys()}
    own = {name: given[name] for name in given.keys() - shared.keys()}
    return Settings.model_validate({"server": shared} | {group: own | (shared if group == "server" else {})})


@pytest.mark.parametrize("group", ["server", "web"])
@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"tls_cert_file": __file__}, "set both or neither"),
        ({"tls_key_file": __file__}, "set both or neither"),
        ({"tls_client_ca_file": __file__}, r"tls_client_ca_file: needs server\.tls_cert_file"),
        ({"host": "0.0.0.0"}, r"other machines would be served without TLS; set .* or server\.allow_plaintext"),
        ({"host": "::"}, "without TLS"),
        ({"host": "vecgate.example"}, "without TLS"),
    ],
)
def test_settings_that_are_not_safe_are_refused(group: str, wrong: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        settings_of(group, wrong)


def test_a_server_that_does_not_listen_needs_no_tls() -> None:
    assert settings_of("web", {"host": "0.0.0.0", "enabled": False}).web.host == "0.0.0.0"


@pytest.mark.parametrize("group", ["server", "web"])
@pytest.mark.parametrize(
    "fine",
    [
        {"host": "localhost"},
        {"host": "127.0.0.2"},
        {"host": "[::1]"},
        {"host": "0.0.0.0", "allow_plaintext": True},
        {"host": "0.0.0.0", "tls_cert_file": __file__, "tls_key_file": __file__},
    ],
)
def test_loopback_tls_and_plaintext_that_is_asked_for_are_taken(group: str, fine: dict[str, Any]) -> None:
    assert getattr(settings_of(group, fine), group).host == fine["host"]


async def test_the_command_line_speaks_tls_and_shows_its_key_and_certificate(site: Site) -> None:
    wire = await start_wire(server=ServerSettings(port=0, drain_grace_s=1, **site.settings(mutual=True)))
    site.servers.cert_pem.write_to_path(site.folder / "ca.pem")
    own = site.folder / "own.pem"
    own.write_bytes(site.clients.issue_cert("client.example").private_key_and_cert_chain_pem.bytes())

    def status(*options: str) -> Any:
        return CliRunner().invoke(app, ["--address", f"127.0.0.1:{wire.server.port}", *options, "status"])

    right = await asyncio.to_thread(status, "--ca-file", str(site.folder / "ca.pem"), "--cert-file", str(own))
    wrong = await asyncio.to_thread(status)
    await stop_wire(wire)

    assert right.exit_code == 0, right.output
    assert "is serving" in right.output
    assert wrong.exit_code == 3


async def resumed(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """Connect and return the session to come back with; None if the server turned the client away."""

    def talk() -> ssl.SSLSession | None:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as connection,
            ):
                # With TLS 1.3 the ticket, or the refusal, comes after the handshake.
                connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n")
                return connection.session if connection.recv(1) else None
        except OSError:
            return None

    return await asyncio.to_thread(talk)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_whose_authority_is_gone_does_not_come_back_with_an_old_session(
    site: Site, monkeypatch: pytest.MonkeyPatch, version: ssl.TLSVersion
) -> None:
    monkeypatch.setattr("service.process.tls.LOOK_EVERY_S", 0.0)
    context = site.context(client=site.clients)
    context.minimum_version = context.maximum_version = version
    async with running_web(**site.settings(mutual=True)) as web:
        session = await resumed(web.server.port, context, None)
        again = await resumed(web.server.port, context, session)
        trustme.CA().cert_pem.write_to_path(site.folder / "clients.pem")
        late = await resumed(web.server.port, context, session)

    assert session is not None
    assert again is not None
    assert late is None
