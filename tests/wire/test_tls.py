"""TLS of both servers: what they serve, whom they let in, and files that change under them."""

import asyncio
import socket
from pathlib import Path

import grpc
import httpx
import pytest
import structlog
from click.testing import Result
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from typer.testing import CliRunner

from embedders.spec import InputLimits
from service.cli import app
from service.core.embed import EmbedderPool
from service.rpc.server import GrpcServer
from service.settings import InvalidSettings, ServerSettings, WeaviateSettings, WebSettings
from service.web.server import WebServer
from tests.fakes.certificates import Authority, Pair
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.store import FakeStore
from tests.fakes.web import running_web
from tests.wire.conftest import LIMITS, Wire, start_wire, stop_wire
from vecgate.client import channel_options, tls_credentials


def tls(pair: Pair, authority: Authority | None = None) -> dict[str, Path | None]:
    ca = None if authority is None else authority.file
    return {"tls_cert_file": pair.cert, "tls_key_file": pair.key, "tls_client_ca_file": ca}


async def start_secure(pair: Pair, authority: Authority | None = None) -> Wire:
    return await start_wire(
        FakeEmbedder(limits=InputLimits(max_image_bytes=100_000)),
        server=ServerSettings(port=0, drain_grace_s=5, **tls(pair, authority)),
    )


async def code_of(wire: Wire, credentials: grpc.ChannelCredentials | None) -> StatusCode:
    """Return the code of a call over a connection of its own."""
    target = f"127.0.0.1:{wire.server.port}"
    options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    opened = (
        grpc.aio.insecure_channel(target, options)
        if credentials is None
        else grpc.aio.secure_channel(target, credentials, options)
    )
    async with opened as channel:
        return await HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="liveness"), timeout=10).code()


def served(port: int, authority: Authority, own: Pair | None = None) -> bytes | None:
    """Return the certificate that a server shows, None if it does not let the caller in."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as bare:
        context = authority.trust(own)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with context.wrap_socket(bare, server_hostname="127.0.0.1") as secure:
            return secure.getpeercert(binary_form=True)


async def test_grpc_over_tls_lets_those_in_who_trust_it_and_nobody_in_plain_text(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    wire = await start_secure(authority.issue())

    trusting = await code_of(wire, tls_credentials(ca_file=authority.file))
    doubting = await code_of(wire, tls_credentials(ca_file=stranger.file))
    plain = await code_of(wire, None)
    await stop_wire(wire)

    assert (trusting, doubting, plain) == (StatusCode.OK, StatusCode.UNAVAILABLE, StatusCode.UNAVAILABLE)


async def test_with_authorities_of_clients_grpc_lets_only_their_certificates_in(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    mine, other = authority.issue("caller"), stranger.issue("other")
    wire = await start_secure(authority.issue(), authority)

    codes = [
        await code_of(
            wire, tls_credentials(ca_file=authority.file, cert_file=own and own.cert, key_file=own and own.key)
        )
        for own in (mine, other, None)
    ]
    await stop_wire(wire)

    assert codes == [StatusCode.OK, StatusCode.UNAVAILABLE, StatusCode.UNAVAILABLE]


async def test_a_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue()
    wire = await start_secure(pair)

    async def shown() -> bytes | None:
        return await asyncio.to_thread(served, wire.server.port, authority)

    async with running_web(**tls(pair)) as web:

        async def shown_by_web() -> bytes | None:
            return await asyncio.to_thread(served, web.server.port, authority)

        first = [await shown(), await shown_by_web()]
        authority.issue()
        second = [await shown(), await shown_by_web()]
        with structlog.testing.capture_logs() as lines:
            pair.cert.write_text("no certificate")
            broken = [await shown(), await shown_by_web(), await shown()]
        trusting = await code_of(wire, tls_credentials(ca_file=authority.file))
    await stop_wire(wire)

    assert first[0] == first[1] != second[0] == second[1]
    assert broken == [second[0]] * 3
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["setting"] for line in warnings] == ["server.tls_cert_file", "web.tls_cert_file"]
    assert trusting is StatusCode.OK


async def test_new_authorities_of_clients_count_without_a_restart(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(old.file.read_bytes())
    pair, leaving, coming = old.issue(), old.issue("leaving"), new.issue("coming")
    files = {**tls(pair), "tls_client_ca_file": trusted}
    wire = await start_wire(server=ServerSettings(port=0, drain_grace_s=5, **files))

    async def let_in(url: str, own: Pair) -> tuple[bool, bool]:
        credentials = tls_credentials(ca_file=old.file, cert_file=own.cert, key_file=own.key)
        by_grpc = await code_of(wire, credentials) is StatusCode.OK
        try:
            async with httpx.AsyncClient(verify=old.trust(own)) as http:
                return by_grpc, (await http.get(f"{url}/v1/models")).status_code == 200
        except httpx.TransportError:
            return by_grpc, False

    async with running_web(**files) as web:
        before = [await let_in(web.url, each) for each in (leaving, coming)]
        trusted.write_bytes(new.file.read_bytes())
        after = [await let_in(web.url, each) for each in (leaving, coming)]
    await stop_wire(wire)

    assert before == [(True, True), (False, False)]
    assert after == [(False, False), (True, True)]


async def test_the_endpoint_with_authorities_of_clients_lets_only_their_certificates_in(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    mine, other = authority.issue("caller"), stranger.issue("other")

    async with running_web(**tls(authority.issue(), authority)) as web:
        async with httpx.AsyncClient(verify=authority.trust(mine)) as http:
            answer = await http.get(f"{web.url}/v1/models")
        for own in (other, None):
            async with httpx.AsyncClient(verify=authority.trust(own)) as http:
                with pytest.raises(httpx.TransportError):
                    await http.get(f"{web.url}/v1/models")

    assert answer.status_code == 200


@pytest.mark.parametrize("spoiled", ["cert", "key", "other key", "locked key", "authorities"])
async def test_files_that_cannot_be_used_are_told_before_anything_starts(tmp_path: Path, spoiled: str) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue()
    if spoiled == "other key":
        pair.key.write_bytes(authority.issue("other").key.read_bytes())
    elif spoiled == "locked key":
        pair.key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n")
    else:
        {"cert": pair.cert, "key": pair.key, "authorities": authority.file}[spoiled].write_text("nothing")
    files = tls(pair, authority)
    pool = EmbedderPool([FakeEmbedder()], check_interval_s=3600)
    setting = "tls_client_ca_file" if spoiled == "authorities" else "tls_cert_file"

    with pytest.raises(InvalidSettings, match=rf"server\.{setting} .*cannot be used"):
        GrpcServer(ServerSettings(port=0, **files), LIMITS, WeaviateSettings(), store=FakeStore(), embedders=pool)
    with pytest.raises(InvalidSettings, match=rf"web\.{setting} .*cannot be used"):
        WebServer(WebSettings(port=0, **files), ServerSettings(), embedders=pool)


async def test_commands_reach_a_server_with_tls_by_their_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("caller")
    wire = await start_secure(authority.issue(), authority)
    at = ("--address", f"127.0.0.1:{wire.server.port}")

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, [*at, *arguments, "collections", "list"])

    whole = await run("--tls-ca", str(authority.file), "--tls-cert", str(own.cert), "--tls-key", str(own.key))
    keyless = await run("--tls-ca", str(authority.file), "--tls-cert", str(own.cert))
    nowhere = await run("--tls-ca", str(tmp_path / "nowhere.pem"))
    for name, file in (("CA", authority.file), ("CERT", own.cert), ("KEY", own.key)):
        monkeypatch.setenv(f"VECGATE_TLS_{name}", str(file))
    by_environment = await run()
    await stop_wire(wire)

    assert (whole.exit_code, by_environment.exit_code) == (0, 0)
    assert (keyless.exit_code, nowhere.exit_code) == (2, 2)
    assert "--tls-cert and --tls-key" in keyless.stderr
    assert "nowhere.pem" in nowhere.stderr
