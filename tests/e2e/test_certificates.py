"""Whom a server that requires certificates answers."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from tests.e2e.serving import Serving

LIST = "/vecgate.v1.CollectionService/ListCollections"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> dict[str, str]:
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "clients.pem")
    return {
        "VECGATE_SERVER__TLS_CERT_FILE": str(tmp_path / "cert.pem"),
        "VECGATE_SERVER__TLS_KEY_FILE": str(tmp_path / "key.pem"),
        "VECGATE_SERVER__TLS_CLIENT_CA_FILE": str(tmp_path / "clients.pem"),
    }


@pytest.fixture
def strangers(authority: trustme.CA, files: dict[str, str], weaviate_binary: None, tmp_path: Path) -> Iterator[str]:
    running = Serving(tmp_path / "data", **files)
    yield running.url
    running.end()


def test_who_needs_a_certificate_over_grpc_does_not_get_in_over_http_without_one(
    strangers: str, authority: trustme.CA
) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with httpx.Client(base_url=strangers, verify=context) as http:
        called = http.post(LIST, json={})
        page = http.get("/")
        models = http.get("/v1/models")

    assert (called.status_code, called.json()["error"]["code"]) == (404, "path_not_found")
    assert page.status_code == httpx.codes.NOT_FOUND
    assert models.status_code == httpx.codes.OK
