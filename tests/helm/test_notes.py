"""What helm tells whoever has installed the chart: commands that can be run, and nothing that is not so."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from helm.tools.helm import HELM
from service.cli import app
from tests.helm.render import CHART, EVERYTHING, PROFILES, SECURED

OVER_TLS = "vecgate --address try-vecgate.default:50070 --ca-file ca.crt"
TLS: dict[str, Any] = {"tls": {"enabled": True, "existingSecret": "site-tls"}}
PAIR = {name: {"existingSecret": "site-tls", "key": name} for name in ("tlsCert", "tlsKey")}
KEYS: dict[str, Any] = {
    "secrets": {"auth": {"clients": {"existingSecret": "callers", "key": "clients.toml"}}},
    "test": {"enabled": False},
}
COMMANDS: dict[str, tuple[dict[str, Any], str]] = {
    "clear text": ({}, "vecgate --address 127.0.0.1:50070 status"),
    "keys": (KEYS, "vecgate --address 127.0.0.1:50070 --api-key-file key status"),
    "TLS": (TLS, f"{OVER_TLS} status"),
    "TLS by hand": ({"secrets": {"server": PAIR}}, f"{OVER_TLS} status"),
    "TLS and keys": (TLS | KEYS, f"{OVER_TLS} --api-key-file key status"),
    "certificates": (SECURED, f"{OVER_TLS} --cert-file own.pem status"),
}
NOBODY_IS_ASKED = "so callers need no key."
WITHOUT_POLICY: dict[str, Any] = {"networkPolicy": {"enabled": False}}
READINESS: dict[str, dict[str, Any]] = {
    name: {"probes": {"readiness": {"service": name}}} for name in ("", "vecgate.v1.SearchService")
}
SENTENCES: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "clear text": (
        {},
        ("once an embedder works, whatever Weaviate does", NOBODY_IS_ASKED, "in networkPolicy.ingress.from"),
        ("once Weaviate",),
    ),
    "TLS": (TLS, ("once an embedder works, whatever Weaviate does", NOBODY_IS_ASKED), ("once Weaviate",)),
    "the readiness of all": (READINESS[""], ("once Weaviate and an embedder work",), ("once an embedder works",)),
    "another readiness": (
        READINESS["vecgate.v1.SearchService"],
        ("once the health service vecgate.v1.SearchService",),
        ("once Weaviate",),
    ),
    "keys": (KEYS, ("Callers need a key",), (NOBODY_IS_ASKED,)),
    "certificates": (SECURED, ("so callers need no key or certificate over HTTP",), (NOBODY_IS_ASKED,)),
    "nobody": ({"networkPolicy": {"ingress": {"from": []}}}, ("nobody may call",), ("Who may call",)),
    "no policy": (WITHOUT_POLICY, ("anyone who reaches the ports may call",), ("Who may call",)),
}


def notes(values: dict[str, Any], folder: Path) -> str:
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    told = HELM.run("install", "try", CHART, "--dry-run=client", "--namespace", "default", "--values", file)
    return told.partition("\nNOTES:\n")[2]


@pytest.mark.parametrize(("values", "command"), COMMANDS.values(), ids=COMMANDS)
def test_the_command_has_what_the_server_asks_for(
    values: dict[str, Any], command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = notes(values, tmp_path)
    monkeypatch.chdir(tmp_path)
    files = [word for word in shlex.split(command) if (tmp_path / word).suffix in {".crt", ".pem"} or word == "key"]
    for name in files:
        (tmp_path / name).write_text("x")

    taken = CliRunner().invoke(app, [*shlex.split(command)[1:], "--help"])

    assert [line.strip() for line in told.splitlines() if line.strip().startswith("vecgate ")] == [command]
    assert taken.exit_code == 0
    assert [name for name in files if f"\n  {name} is " not in told] == []
    assert ("/etc/hosts" in told) is ("--ca-file" in command)


EXPLORER: dict[str, Any] = {"settings": {"web": {"explorer": True}}}
EXPLORERS: dict[str, tuple[dict[str, Any], str | None]] = {
    "off": ({}, None),
    "on": (EXPLORER, "http://127.0.0.1:8070/"),
    "TLS": (TLS | EXPLORER, "https://try-vecgate.default:8070/"),
    "prefix": ({"settings": {"web": {"explorer": True, "pathPrefix": "/embed"}}}, "http://127.0.0.1:8070/embed/"),
    "no HTTP": ({"settings": {"web": {"explorer": True, "enabled": False}}}, None),
}


@pytest.mark.parametrize(("values", "url"), EXPLORERS.values(), ids=EXPLORERS)
def test_it_says_how_to_open_the_explorer_where_there_is_one(
    values: dict[str, Any], url: str | None, tmp_path: Path
) -> None:
    told = [line.strip() for line in notes(values, tmp_path).splitlines()]

    forwards = "kubectl --namespace default port-forward service/try-vecgate 8070:8070"
    assert [line for line in told if line.startswith("open ")] == ([f"open {url}"] if url else [])
    assert (forwards in told) is (url is not None)


@pytest.mark.parametrize(("values", "said", "unsaid"), SENTENCES.values(), ids=SENTENCES)
def test_it_says_what_is_so(
    values: dict[str, Any], said: tuple[str, ...], unsaid: tuple[str, ...], tmp_path: Path
) -> None:
    told = notes(values, tmp_path)

    assert [sentence for sentence in said if sentence not in told] == []
    assert [sentence for sentence in unsaid if sentence in told] == []


@pytest.mark.parametrize("values", [EVERYTHING, *PROFILES.values()], ids=["everything", *PROFILES])
def test_it_leaves_no_holes(values: dict[str, Any], tmp_path: Path) -> None:
    told = notes(values, tmp_path)

    assert told.startswith("Vecgate ")
    assert "<no value>" not in told
    assert "\n\n\n" not in told.strip()
