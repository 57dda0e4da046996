"""What `helm test` runs, against a real gRPC server over a store and an embedder in memory."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme

from service.settings import ServerSettings
from tests.fakes.clients import key_of, let_in
from tests.fakes.server import FakeVecgate, serving
from tests.helm.manifests import named
from tests.helm.render import CHART, EVERYTHING, render
from tests.service.conftest import start_wire, stop_wire

SCRIPT = CHART / "files" / "embed_store_search.py"
ROOT = CHART.parents[1]


def run(address: str, credentials: Path | None = None) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"VECGATE_ADDRESS": address, "PYTHONPATH": str(ROOT / "protos")}
    command = [sys.executable, str(SCRIPT)]
    if credentials is not None:
        environment |= {"VECGATE_TLS": "true", "VECGATE_CREDENTIALS": str(credentials)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


async def test_a_good_release_passes_and_keeps_nothing_of_the_test() -> None:
    wire = await start_wire()
    try:
        done = await asyncio.to_thread(run, f"127.0.0.1:{wire.server.port}")
        left = await wire.store.list_collections()
    finally:
        await stop_wire(wire)

    assert (done.returncode, done.stderr) == (0, "")
    assert "found 'a red bicycle'" in done.stdout
    assert list(left) == []


async def test_a_release_that_asks_for_a_certificate_and_a_key_gets_both(tmp_path: Path) -> None:
    authority, files = trustme.CA(), tmp_path / "test"
    files.mkdir()
    issued, own = authority.issue_cert("127.0.0.1"), authority.issue_cert("tester.example")
    authority.cert_pem.write_to_path(files / "ca.crt")
    own.cert_chain_pems[0].write_to_path(files / "tls.crt")
    own.private_key_pem.write_to_path(files / "tls.key")
    (files / "api-key").write_text(f"{key_of('tester')}\n")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    server = ServerSettings(
        port=0,
        tls_cert_file=tmp_path / "cert.pem",
        tls_key_file=tmp_path / "key.pem",
        tls_client_ca_file=files / "ca.crt",
    )
    wire = await start_wire(
        server=server,
        auth=let_in(
            tmp_path / "clients.toml",
            tester='permissions = ["embed", "search", "write", "admin"]\ncollections = ["VecgateHelmTest*"]',
        ),
    )
    try:
        done = await asyncio.to_thread(run, f"127.0.0.1:{wire.server.port}", files)
        (files / "tls.key").unlink()
        (files / "tls.crt").unlink()
        without = await asyncio.to_thread(run, f"127.0.0.1:{wire.server.port}", files)
    finally:
        await stop_wire(wire)

    assert (done.returncode, done.stderr) == (0, "")
    assert without.returncode != 0


def test_a_release_whose_search_finds_the_wrong_object_fails_and_keeps_nothing_either() -> None:
    with serving(FakeVecgate()) as fake:
        done = run(fake.address)

    assert done.returncode == 1
    assert "found 'a birthday cake' first" in done.stderr
    assert fake.collections == {}


def test_the_script_is_in_the_render_to_the_letter() -> None:
    (config,) = (each for each in render({}) if each["kind"] == "ConfigMap")
    (pod,) = (each for each in render({}) if each["kind"] == "Pod")
    command: Sequence[str] = pod["spec"]["containers"][0]["command"]

    assert config["data"][SCRIPT.name].rstrip() == SCRIPT.read_text(encoding="utf-8").rstrip()
    assert command == ["python", f"/test/{SCRIPT.name}"]


def test_the_pod_is_the_only_hook_and_stays_for_its_log_which_helm_3_reads_last() -> None:
    hooks = {
        named(each): each["metadata"]["annotations"]
        for each in render(EVERYTHING)
        if "helm.sh/hook" in each["metadata"].get("annotations", {})
    }

    assert {name: each["helm.sh/hook"] for name, each in hooks.items()} == {"Pod/vectors-test": "test"}
    assert hooks["Pod/vectors-test"]["helm.sh/hook-delete-policy"] == "before-hook-creation"


def test_the_pod_has_the_resources_of_the_values_and_an_end() -> None:
    resources = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
    (pod,) = (each for each in render({"test": {"resources": resources}}) if each["kind"] == "Pod")

    assert pod["spec"]["containers"][0]["resources"] == resources
    assert pod["spec"]["activeDeadlineSeconds"] == 600


@pytest.mark.parametrize("address", ["127.0.0.1:1"])
def test_a_release_that_does_not_answer_fails(address: str) -> None:
    assert run(address).returncode != 0
