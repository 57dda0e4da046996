"""What the image's HEALTHCHECK says of servers, in clear text and behind TLS."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
import trustme

from service import healthcheck
from service.settings import ServerSettings, Settings, WebSettings
from tests.fakes.clients import let_in
from tests.fakes.web import running_web
from tests.service.conftest import start_wire, stop_wire


def files(folder: Path, tls: str) -> dict[str, Any]:
    """Return the settings of a certificate that is not for this machine's address; "mutual" asks clients for theirs."""
    authority = trustme.CA()
    issued = authority.issue_cert("vecgate.example")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    named = {"tls_cert_file": folder / "cert.pem", "tls_key_file": folder / "key.pem"}
    return {"plain": {}, "tls": named, "mutual": named | {"tls_client_ca_file": folder / "ca.pem"}}[tls]


def settings_of(tls: dict[str, Any], *, grpc: int, http: int | None) -> Settings:
    authority = tls.get("tls_client_ca_file")
    web = WebSettings(enabled=False) if http is None else WebSettings(port=http, tls_client_ca_file=authority)
    return Settings(server=ServerSettings(host="0.0.0.0", allow_plaintext=True, port=grpc, **tls), web=web)


@pytest.mark.parametrize("http", [True, False])
@pytest.mark.parametrize("tls", ["plain", "tls", "mutual"])
async def test_a_server_that_answers_is_healthy_whatever_it_wants_of_callers(
    tmp_path: Path, tls: str, *, http: bool
) -> None:
    named = files(tmp_path, tls)
    auth = let_in(tmp_path / "clients.toml", a='permissions = ["embed"]').model_copy(update={"without_key": []})
    wire = await start_wire(server=ServerSettings(port=0, drain_grace_s=1, **named), auth=auth)
    async with running_web(auth=auth, **named) as web:
        settings = settings_of(named, grpc=wire.server.port, http=web.server.port if http else None)
        assert await asyncio.to_thread(healthcheck.answers, settings)
    await stop_wire(wire)


@pytest.mark.parametrize("http", [True, False])
@pytest.mark.parametrize("tls", ["plain", "tls"])
@pytest.mark.parametrize("hangs", [True, False])
async def test_one_that_hangs_or_is_not_there_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: str, *, http: bool, hangs: bool
) -> None:
    monkeypatch.setattr(healthcheck, "TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as grpc, socket.create_server(("127.0.0.1", 0)) as web:
        ports = [listener.getsockname()[1] for listener in (grpc, web)]
        if not hangs:
            grpc.close()
            web.close()
        settings = settings_of(files(tmp_path, tls), grpc=ports[0], http=ports[1] if http else None)
        assert not await asyncio.to_thread(healthcheck.answers, settings)


async def test_one_whose_files_are_gone_since_its_start_is_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = await start_wire()
    monkeypatch.setenv("VECGATE_SERVER__PORT", str(wire.server.port))
    monkeypatch.setenv("VECGATE_AUTH__CLIENTS_FILE", str(tmp_path / "gone"))
    assert await asyncio.to_thread(healthcheck.main) == 0

    await stop_wire(wire)
    assert await asyncio.to_thread(healthcheck.main) == 1
