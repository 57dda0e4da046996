"""Secrets in every place where they may be, everything failing, and nothing of them in anything that comes out."""

import asyncio
import base64
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import grpc
import httpx
import pytest
import trustme
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from service.access import Authenticator
from service.settings import WeaviateSettings, load_settings, masked_settings
from tests.e2e.serving import ROOT, Serving, serving
from tests.fakes.clients import write_clients
from tests.fakes.collector import Collector, collector
from tests.fakes.nim import FakeNim, Fault
from tests.fakes.weaviate import variables_at_ports
from vecgate.client import Client, VecgateError
from vecgate.v1 import object_service_pb2 as pb
from vecgate.v1.object_service_pb2_grpc import ObjectServiceStub

NIM_KEY, WEAVIATE_KEY = "nvapi-canary-of-the-nim", "canary-of-weaviate"
CALLERS_KEY, GUESSED_KEY = "nvapi-canary-of-a-caller", "vg_canary-that-is-nobodys"
PROXY_PASSWORD = "canary-of-the-proxy"
COLLECTION = "Canaries"
# The client would take a Weaviate that refuses for one that will soon be back, and wait.
NO_RETRIES = [("grpc.enable_retries", 0)]


class Site:
    """A folder with every secret, settings that name them, and a list of what must not come out."""

    def __init__(self, folder: Path, *, in_files: bool) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        issued.private_key_pem.write_to_path(folder / "key.pem")
        self.authority.cert_pem.write_to_path(folder / "ca.pem")
        write_clients(
            folder / "clients.toml",
            canary='permissions = ["embed", "search", "write", "admin"]\nsubjects = ["svc"]',
        )
        self.client_key = "key-of-canary"
        issuer = ECKey.generate_key("P-256", {"kid": "ec"})
        (folder / "jwks.json").write_text(json.dumps(KeySet([issuer]).as_dict(private=False)), encoding="utf-8")
        claims = {"iss": "https://issuer.example", "aud": "vecgate", "sub": "svc", "exp": int(time.time()) + 600}
        header = {"alg": "ES256", "kid": "ec"}
        self.token = jwt.encode(header, claims, issuer)
        self.stale_token = jwt.encode(header, claims | {"exp": 1}, issuer)
        digest = re.search(r"[0-9a-f]{64}", (folder / "clients.toml").read_text(encoding="utf-8"))
        assert digest is not None
        pem = issued.private_key_pem.bytes().decode().splitlines()
        self.secrets = [
            *(NIM_KEY, WEAVIATE_KEY, CALLERS_KEY, GUESSED_KEY, PROXY_PASSWORD, self.client_key, digest[0]),
            *(part for token in (self.token, self.stale_token) for part in token.split(".")[1:]),
            *pem[1:-1],
        ]
        self.in_files = in_files

    def settings(self, weaviate: WeaviateSettings, nim: str, collected: Collector, *, proxy: str) -> dict[str, str]:
        """Return the settings of a server whose NIM and Weaviate refuse it."""
        settings = {
            "VECGATE_LOG__LEVEL": "debug",
            "VECGATE_SERVER__TLS_CERT_FILE": str(self.folder / "cert.pem"),
            "VECGATE_SERVER__TLS_KEY_FILE": str(self.folder / "key.pem"),
            "VECGATE_AUTH__CLIENTS_FILE": str(self.folder / "clients.toml"),
            "VECGATE_AUTH__JWKS_FILE": str(self.folder / "jwks.json"),
            "VECGATE_AUTH__JWT_ISSUER": "https://issuer.example",
            "VECGATE_AUTH__JWT_AUDIENCE": "vecgate",
            "VECGATE_EMBEDDERS__NIM__KIND": "nim",
            "VECGATE_EMBEDDERS__NIM__BASE_URL": nim,
            "VECGATE_EMBEDDERS__NIM__ALLOW_CALLER_KEYS": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collected.address,
            "VECGATE_WEAVIATE__EMBEDDED": "false",
            **variables_at_ports(weaviate.http.port, weaviate.grpc.port),
        }
        given = {"VECGATE_EMBEDDERS__NIM__API_KEY": NIM_KEY, "VECGATE_WEAVIATE__API_KEY": WEAVIATE_KEY}
        if proxy:
            given["VECGATE_EMBEDDERS__NIM__PROXY"] = f"http://canary:{PROXY_PASSWORD}@{proxy}"
        for name, secret in given.items():
            if self.in_files:
                file = self.folder / name.lower()
                file.write_text(secret, encoding="utf-8")
                settings[f"{name}_FILE"] = str(file)
            else:
                settings[name] = secret
        return settings

    def leaks(self, outputs: Mapping[str, str]) -> list[str]:
        """Return what of the secrets is where, as it is or in base64, as a basic proxy has it."""
        coded = base64.b64encode(f"canary:{PROXY_PASSWORD}".encode()).decode()
        forms = [form for each in self.secrets for form in (each, quote(each, safe=""))]
        return [f"{each} in {name}" for name, text in outputs.items() for each in (*forms, coded) if each in text]


def run_command(*words: str, environment: Mapping[str, str]) -> str:
    """Return everything that a command says."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VECGATE_")}
    done = subprocess.run(
        [sys.executable, "-m", "service", *words],
        env=clean | {"COLUMNS": "4000"} | dict(environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def failing_calls(site: Site, server: Serving) -> Iterator[tuple[str, str]]:
    """Make calls that fail with every kind of credential, and yield all that they answer."""
    ca = (site.folder / "ca.pem").read_bytes()
    credentials = grpc.ssl_channel_credentials(ca)
    bearers = {"key": site.client_key, "token": site.token, "stale": site.stale_token, "guessed": GUESSED_KEY}
    bearers["cut"] = site.token[:-3]
    calls: dict[str, Callable[[Client], object]] = {
        "embed": lambda client: client.embed(["a"]),
        "list": lambda client: list(client.list_collections()),
        "search": lambda client: client.search(COLLECTION, text="a"),
        "embedders": lambda client: client.embedders(),
    }
    for kind, bearer in bearers.items():
        for own_key in (CALLERS_KEY, f"{CALLERS_KEY} x", ""):
            metadata = [("x-nvidia-api-key", own_key)] if own_key else []
            with server.client(
                api_key=bearer, credentials=credentials, metadata=metadata, options=NO_RETRIES
            ) as client:
                for name, call in calls.items():
                    try:
                        answer = str(call(client))
                    except VecgateError as error:
                        cause = error.__cause__
                        answer = f"{error!r} {error} {vars(error)} {cause!r}"
                        if isinstance(cause, grpc.RpcError):
                            answer += f"{cause.details()} {cause.trailing_metadata()}"
                    yield f"{name} with {kind}, {len(own_key)} characters for the NIM", answer
        with grpc.secure_channel(server.address, credentials) as channel:
            stub = ObjectServiceStub(channel)
            request = pb.ImportObjectsRequest(collection=COLLECTION, objects=[pb.DataObject()])
            for scheme in ("Basic", "Bearer"):
                with pytest.raises(grpc.RpcError) as caught:
                    stub.ImportObjects(request, metadata=(("authorization", f"{scheme} {bearer}"),))
                yield f"{scheme} {kind}", f"{caught.value} {caught.value.trailing_metadata()}"
        trusted = ssl.create_default_context(cafile=site.folder / "ca.pem")
        with httpx.Client(base_url=server.url, verify=trusted) as http:
            headers = {"authorization": f"Bearer {bearer}", "x-nvidia-api-key": CALLERS_KEY}
            for path in ("/v1/health/ready", "/v1/models", "/openapi.json", "/metrics", "/nothing"):
                answered = http.get(path, headers=headers)
                yield f"{path} with {kind}", f"{answered.headers} {answered.text}"
            body = {"model": "nvidia/nvclip", "input": "a"}
            answered = http.post("/v1/embeddings", headers=headers, json=body)
            yield f"embeddings with {kind}", f"{answered.status_code} {answered.headers} {answered.text}"


@contextmanager
def environment_of(settings: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in [each for each in os.environ if each.startswith("VECGATE_")]:
            patch.delenv(name)
        for name, value in settings.items():
            patch.setenv(name, value)
        yield


@pytest.mark.parametrize(("fails", "in_files"), [("nim", False), ("proxy", True)])
async def test_no_secret_comes_out_of_a_server_where_everything_fails(
    weaviate_settings: WeaviateSettings, tmp_path: Path, fails: str, *, in_files: bool
) -> None:
    site = Site(tmp_path / "site", in_files=in_files)
    outputs: dict[str, str] = {}
    # What refuses may well repeat what it was given.
    echo = json.dumps({"detail": f"bad key Bearer {NIM_KEY}, Bearer {CALLERS_KEY}", "title": NIM_KEY}).encode()
    async with FakeNim(api_key=NIM_KEY, dimension=1024) as nim:
        refusing = nim.base_url.removeprefix("http://").partition("/")[0]
        with collector() as collected:
            proxy = refusing if fails == "proxy" else ""
            settings = site.settings(weaviate_settings, nim.base_url, collected, proxy=proxy)

            def use() -> None:
                with serving(tmp_path / "none", **settings) as server:
                    assert server.address  # the NIM works until here, or no caller's key would ever be sent to it
                    nim.fault = Fault(status=401, body=echo)
                    outputs.update(failing_calls(site, server))
                    caller = {
                        "VECGATE_ADDRESS": server.address,
                        "VECGATE_API_KEY": site.client_key,
                        "VECGATE_CA_FILE": str(site.folder / "ca.pem"),
                    }
                    outputs["status"] = run_command("status", environment=caller)
                    outputs["status, guessed"] = run_command(
                        "status", environment=caller | {"VECGATE_API_KEY": GUESSED_KEY}
                    )
                    outputs["search"] = run_command("search", COLLECTION, "--text", "a", environment=caller)
                    # A file that is broken while the server runs.
                    clients = site.folder / "clients.toml"
                    clients.write_text(f'[clients.x]\nkeys_sha256 = ["{site.client_key}"]\n', encoding="utf-8")
                    server.wait_for("clients_not_read_again")
                    assert server.end() == 0
                    outputs["log"] = json.dumps(server.log, ensure_ascii=False)

            await asyncio.to_thread(use)
            outputs["traces"] = str(collected.spans) + str(collected.resources)
        if fails == "nim":
            assert any(NIM_KEY in head for head in map(str, nim.heads)), "the key was never sent"
            assert any(CALLERS_KEY in head for head in map(str, nim.heads)), "the caller's key was never sent"
    write_clients(site.folder / "clients.toml", canary='permissions = ["embed"]')
    for command in ("doctor", "serve --help", "--help"):
        outputs[command] = run_command(*command.split(), environment=settings)
    with environment_of(settings):
        loaded = load_settings()
    outputs["repr"] = f"{loaded!r} {loaded} {loaded.model_dump()} {masked_settings(loaded)}"
    authenticator = Authenticator(loaded.auth)
    outputs["authenticator"] = f"{authenticator!r} {authenticator.identify(f'Bearer {site.client_key}')!r}"

    assert "call_failed" in outputs["log"] or "embedder" in outputs["log"]
    assert outputs["traces"].count("span_id") > 1
    assert len(site.leaks({"all of them": " ".join(site.secrets)})) >= len(site.secrets)
    assert site.leaks(outputs) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VECGATE_EMBEDDERS__NIM__API_KEY", f"{NIM_KEY}\u00e9"),
        ("VECGATE_WEAVIATE__API_KEY", f"{WEAVIATE_KEY}\nX: y"),
        ("VECGATE_EMBEDDERS__NIM__PROXY", f"ftp://canary:{PROXY_PASSWORD}@proxy.example"),
        ("VECGATE_EMBEDDERS__NIM__PROXY", f"http://canary:{PROXY_PASSWORD}@proxy.example:99999"),
        ("VECGATE_EMBEDDERS__NIM__BASE_URL", f"https://canary:{PROXY_PASSWORD}@nim.example"),
        ("VECGATE_EMBEDDERS__NIM__BASE_URL", f"https://:{PROXY_PASSWORD}@nim.example"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://:{PROXY_PASSWORD}@collector.example:4317"),
    ],
)
def test_no_secret_comes_out_with_a_complaint_about_it(tmp_path: Path, name: str, value: str) -> None:
    site = Site(tmp_path, in_files=False)
    said = run_command("doctor", environment={"VECGATE_EMBEDDERS__NIM__KIND": "nim", name: value})
    assert "the settings are wrong" in said
    assert name in said
    assert site.leaks({"doctor": said}) == []
