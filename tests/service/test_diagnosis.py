"""`vecgate doctor`: who is near and who is outside, and what is wrong, without asking anybody."""

from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner

from service.cli import app
from service.diagnosis import Reach, diagnose, reach_of
from service.settings import KINDS, describe_embedders, describe_settings, load_settings
from tests.fakes.clients import write_clients


@pytest.mark.parametrize(
    ("host", "reach"),
    [
        ("127.0.0.1", Reach.MACHINE),
        ("::1", Reach.MACHINE),
        ("[::1]", Reach.MACHINE),
        ("localhost", Reach.MACHINE),
        ("a.localhost", Reach.MACHINE),
        ("10.1.2.3", Reach.SITE),
        ("192.168.0.1", Reach.SITE),
        ("fd00::1", Reach.SITE),
        ("nim", Reach.SITE),
        ("nim.nim.svc", Reach.SITE),
        ("weaviate.weaviate.svc.cluster.local.", Reach.SITE),
        ("gpu7.corp", Reach.SITE),
        ("8.8.8.8", Reach.OUTSIDE),
        ("2001:4860:4860::8888", Reach.OUTSIDE),
        ("integrate.api.nvidia.com", Reach.OUTSIDE),
        ("example.com", Reach.OUTSIDE),
        ("notlocal.mylocal", Reach.OUTSIDE),
    ],
)
def test_a_host_is_as_far_away_as_its_name_tells(host: str, reach: Reach) -> None:
    assert reach_of(host) is reach


def configured(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"VECGATE_{name}", value)


def test_the_defaults_need_nobody_beyond_this_machine_and_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["doctor", "--air-gap"])

    assert done.exit_code == 0
    assert "Needs from outside: nothing." in done.stdout
    assert "Wrong: nothing." in done.stdout
    assert "To know: nothing." in done.stdout


def test_a_hosted_nim_is_a_need_from_outside_and_behind_an_air_gap_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, EMBEDDERS__NIM__KIND="nim", EMBEDDERS__NIM__BASE_URL="https://integrate.api.nvidia.com/v1")

    plain, enclosed = (CliRunner().invoke(app, ["doctor", *options]) for options in ([], ["--air-gap"]))

    assert (plain.exit_code, enclosed.exit_code) == (0, 1)
    assert "Needs from outside: the NIM of nim at https://integrate.api.nvidia.com/v1." in plain.stdout
    assert "VECGATE_EMBEDDERS__NIM__BASE_URL" in plain.stdout


def test_a_proxy_outside_is_a_need_from_outside_and_its_password_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(
        monkeypatch, EMBEDDERS__NIM__KIND="nim", EMBEDDERS__NIM__PROXY="http://user:hunter2@proxy.example.com:3128"
    )

    done = CliRunner().invoke(app, ["doctor", "--air-gap"])

    assert done.exit_code == 1
    assert "Needs from outside: the proxy before the NIM of nim at proxy.example.com:3128." in done.stdout
    assert "hunter2" not in done.stdout


def test_a_collector_of_traces_outside_is_a_need_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example.com:4317")

    done = CliRunner().invoke(app, ["doctor", "--air-gap"])

    assert done.exit_code == 1
    assert "Needs from outside: the collector of traces at https://collector.example.com:4317." in done.stdout
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in done.stdout


def test_every_address_among_the_settings_is_a_contact_or_one_that_the_service_listens_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = {
        name.replace("<NAME>", "NIM")
        for name, _ in (*describe_settings(), *(each for kind in KINDS for each in describe_embedders(kind)))
        if name.endswith(("ADDRESS", "ENDPOINT", "HOST", "PROXY", "URL"))
    }
    configured(
        monkeypatch,
        EMBEDDERS__NIM__KIND="nim",
        EMBEDDERS__NIM__PROXY="http://proxy:3128",
        WEAVIATE__GRPC_URL="grpc://grpc",
    )
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")

    contacts = {each.setting for each in diagnose(load_settings()).contacts}

    assert contacts == addresses - {"VECGATE_SERVER__HOST", "VECGATE_WEB__HOST"} | {"OTEL_EXPORTER_OTLP_ENDPOINT"}


def test_each_of_several_nims_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(
        monkeypatch, EMBEDDERS__NIM__KIND="nim", EMBEDDERS__NIM__BASE_URL="http://nim:8000,https://nim.example.com"
    )

    nims = [each for each in diagnose(load_settings()).contacts if each.what == "the NIM of nim"]

    assert [(each.where, each.reach) for each in nims] == [
        ("http://nim:8000", Reach.SITE),
        ("https://nim.example.com", Reach.OUTSIDE),
    ]


def test_each_embedder_and_reranker_is_told_of_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configured(
        monkeypatch,
        EMBEDDER__ORDER="near,far",
        EMBEDDERS__NEAR__KIND="clip",
        EMBEDDERS__NEAR__MODEL=str(tmp_path),
        EMBEDDERS__FAR__KIND="nim",
        EMBEDDERS__FAR__BASE_URL="https://nim.example.com",
        EMBEDDERS__BEST_FIRST__KIND="nim-rerank",
        EMBEDDERS__BEST_FIRST__BASE_URL="https://rerank.example.com",
    )

    diagnosis = diagnose(load_settings())

    assert [(each.what, each.setting) for each in diagnosis.outside] == [
        ("the NIM of far", "VECGATE_EMBEDDERS__FAR__BASE_URL"),
        ("the NIM of best-first", "VECGATE_EMBEDDERS__BEST_FIRST__BASE_URL"),
    ]
    assert diagnosis.faults == (f"near: the folder {tmp_path} has no open_clip_config.json",)


def test_a_weaviate_of_two_hosts_is_told_of_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(
        monkeypatch, WEAVIATE__HTTP_URL="http://weaviate:8080", WEAVIATE__GRPC_URL="grpcs://grpc.example.com:50051"
    )

    contacts = {each.setting: (each.where, each.reach) for each in diagnose(load_settings()).contacts}

    assert contacts == {
        "VECGATE_WEAVIATE__HTTP_URL": ("weaviate:8080", Reach.SITE),
        "VECGATE_WEAVIATE__GRPC_URL": ("grpc.example.com:50051", Reach.OUTSIDE),
    }


def test_everything_wrong_is_told_at_once_with_its_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configured(
        monkeypatch,
        EMBEDDERS__CLIP__KIND="clip",
        EMBEDDERS__CLIP__MODEL="ViT-H-14",
        WEAVIATE__EMBEDDED="true",
        WEAVIATE__BINARY=str(tmp_path / "missing"),
    )

    done = CliRunner().invoke(app, ["doctor"])

    assert done.exit_code == 1
    assert "VECGATE_WEAVIATE__BINARY names" in done.stdout
    assert "set VECGATE_EMBEDDERS__CLIP__CHECKPOINT to it, nothing is downloaded" in done.stdout


def test_every_file_that_the_server_would_refuse_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = ("AUTH__CLIENTS_FILE", "FETCH__ORIGINS_FILE", "SERVER__TLS_CERT_FILE", "SERVER__TLS_KEY_FILE")
    for name in (*files, "EMBEDDERS__NIM__PROBE_FILE"):
        file = tmp_path / name
        file.write_text("x", encoding="utf-8")
        configured(monkeypatch, **{name: str(file)})
    configured(monkeypatch, EMBEDDERS__NIM__KIND="nim", EMBEDDERS__NIM__SPACE="nvidia/nvclip")

    clients, origins, certificate, probe = diagnose(load_settings()).faults

    assert "is not valid TOML" in clients
    assert "is not valid TOML" in origins
    assert "server.tls_cert_file" in certificate
    assert "probe" in probe


def test_a_certificate_of_two_servers_is_told_once_and_their_authorities_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    issued = trustme.CA().issue_cert("127.0.0.1")
    cert, key, authorities = (tmp_path / name for name in ("cert.pem", "key.pem", "clients.pem"))
    issued.private_key_pem.write_to_path(key)
    for file in (cert, authorities):
        file.write_text("x", encoding="utf-8")
    names = {"SERVER__TLS_CERT_FILE": cert, "SERVER__TLS_KEY_FILE": key, "WEB__TLS_CLIENT_CA_FILE": authorities}
    configured(monkeypatch, **{name: str(file) for name, file in names.items()})

    all_broken = diagnose(load_settings()).faults
    issued.cert_chain_pems[0].write_to_path(cert)
    configured(monkeypatch, SERVER__TLS_CLIENT_CA_FILE=str(authorities))
    each = diagnose(load_settings()).faults

    of_both, of_web = all_broken
    assert "server.tls_cert_file" in of_both
    assert "web.tls_client_ca_file" in of_web
    of_server, of_web = each
    assert "server.tls_client_ca_file" in of_server
    assert "web.tls_client_ca_file" in of_web


def test_a_list_of_origins_is_read_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "origins.toml"
    file.touch()
    configured(monkeypatch, FETCH__ORIGINS_FILE=str(file))
    reads: list[Path] = []

    def read(path: Path) -> tuple[()]:
        reads.append(path)
        return ()

    monkeypatch.setattr("service.wiring.load_origins", read)

    diagnose(load_settings())

    assert reads == [file]


def test_a_model_without_its_files_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def faults(**settings: str) -> str:
        configured(monkeypatch, EMBEDDERS__CLIP__KIND="clip", **settings)
        return "\n".join(diagnose(load_settings()).faults)

    missing = faults(EMBEDDERS__CLIP__MODEL="ViT-H-14", EMBEDDERS__CLIP__CHECKPOINT=str(tmp_path / "none"))
    monkeypatch.delenv("VECGATE_EMBEDDERS__CLIP__CHECKPOINT")
    bare = faults(EMBEDDERS__CLIP__MODEL=str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text("{}")
    weightless = faults(EMBEDDERS__CLIP__MODEL=str(tmp_path))
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"")
    whole = faults(EMBEDDERS__CLIP__MODEL=str(tmp_path))

    assert "which is not a file" in missing
    assert "has no open_clip_config.json" in bare
    assert "has no weights" in weightless
    assert whole == ""


def test_an_install_without_torch_is_told_of_when_a_local_model_is_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    (fault,) = diagnose(load_settings()).faults

    assert "pip install 'vecgate[clip]'" in fault


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.7"])
def test_a_port_that_others_reach_is_worth_knowing(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    configured(monkeypatch, SERVER__HOST=host, SERVER__ALLOW_PLAINTEXT="true")

    (note,) = diagnose(load_settings()).notes

    assert f"VECGATE_SERVER__HOST is {host}" in note


def test_an_http_port_that_others_reach_is_worth_knowing_unless_it_asks_who_calls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configured(monkeypatch, WEB__HOST="0.0.0.0", SERVER__ALLOW_PLAINTEXT="true")
    (note,) = diagnose(load_settings()).notes
    clients = write_clients(tmp_path / "clients.toml", a='permissions = ["embed"]')
    configured(monkeypatch, AUTH__CLIENTS_FILE=str(clients))
    guarded = diagnose(load_settings()).notes
    monkeypatch.delenv("VECGATE_AUTH__CLIENTS_FILE")
    configured(monkeypatch, WEB__ENABLED="false")

    assert "VECGATE_WEB__HOST is 0.0.0.0" in note
    assert guarded == diagnose(load_settings()).notes == ()


def test_wrong_settings_are_all_told(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(
        monkeypatch,
        SERVER__PORT="x",
        EMBEDDERS__CLIP__KIND="clip",
        EMBEDDERS__CLIP__DEVICE="tpu",
        WEAVIATE__API_KEY_FILE="/nowhere",
    )

    done = CliRunner().invoke(app, ["doctor"])

    assert done.exit_code == 2
    assert all(name in done.stderr for name in ("VECGATE_SERVER__PORT", "VECGATE_EMBEDDERS__CLIP__DEVICE", "/nowhere"))


ORIGINS = """
[origins.catalogue]
url = "https://pictures.example.com/catalogue/"

[origins.archive]
url = "http://10.1.2.3:9000/archive/"
bearer_token_file = "TOKEN"
private_addresses = true
"""


def test_origins_of_images_are_named_with_what_they_may(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token, file = tmp_path / "token", tmp_path / "origins.toml"
    token.write_text("secret")
    file.write_text(ORIGINS.replace("TOKEN", str(token)))
    configured(monkeypatch, FETCH__ORIGINS_FILE=str(file))

    found = diagnose(load_settings())

    images = [(each.what, each.where, each.reach) for each in found.contacts if each.what.startswith("images")]
    assert images == [
        ("images of catalogue", "https://pictures.example.com/catalogue/", Reach.OUTSIDE),
        ("images of archive", "http://10.1.2.3:9000/archive/", Reach.SITE),
    ]
    assert found.faults == ()
    assert found.notes == (
        "images of archive: its host may have private addresses and those of this machine",
        "images of archive: its credentials are sent without TLS",
    )


def test_a_list_of_origins_that_the_server_would_refuse_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "origins.toml"
    file.write_text('[origins.a]\nurl = "https://a.example/no-folder"\n[origins.b]\nurl = "ftp://b.example/"\n')
    configured(monkeypatch, FETCH__ORIGINS_FILE=str(file))

    done = CliRunner().invoke(app, ["doctor"])

    assert done.exit_code == 1
    assert f"{file}: origins.a.url: " in done.stdout.replace("\n", " ").replace("  ", " ")
    assert len(diagnose(load_settings()).faults) == 2
