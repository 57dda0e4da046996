import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from typer.testing import CliRunner

from embedders.clip.config import ClipConfig
from embedders.contract import InputLimits
from embedders.nim.embedder import NimConfig
from service.cli import app
from service.diagnosis import diagnose
from service.settings import (
    KINDS,
    AuthSettings,
    ClipSettings,
    InvalidSettings,
    LimitSettings,
    NimSettings,
    ServerSettings,
    Settings,
    WeaviateSettings,
    WebSettings,
    describe_embedders,
    describe_settings,
    load_running_settings,
    load_settings,
    masked_settings,
    read_secret,
)
from service.settings.removed import REMOVED
from service.wiring import _input_limits, build_decoders, build_embedders, embedder_configs


def test_defaults_are_offline_and_on_loopback() -> None:
    settings = load_settings()

    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 50070)
    assert settings.ordered == {"clip": ClipSettings()}
    assert settings.ordered["clip"].model == "pictogram-clip"
    assert (settings.weaviate.http, settings.weaviate.grpc) == (("127.0.0.1", 8080, False), ("127.0.0.1", 50051, False))
    assert settings.rerankers == {}
    assert NimSettings().base_url == ["http://127.0.0.1:8000"]


def test_the_environment_sets_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDER__ORDER", "nim, clip")
    monkeypatch.setenv("VECGATE_EMBEDDERS__CLIP__KIND", "clip")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("VECGATE_WEAVIATE__EMBEDDED", "true")

    settings = load_settings()

    assert list(settings.ordered) == ["nim", "clip"]
    assert settings.weaviate.embedded


@pytest.mark.parametrize(("readers", "accepted"), [("0", True), ("256", True), ("-1", False), ("257", False)])
def test_readers_of_pictures_are_bounded(monkeypatch: pytest.MonkeyPatch, readers: str, accepted: bool) -> None:  # noqa: FBT001
    monkeypatch.setenv("VECGATE_EMBEDDERS__CLIP__KIND", "clip")
    monkeypatch.setenv("VECGATE_EMBEDDERS__CLIP__READERS", readers)

    if accepted:
        processes = build_decoders(load_settings()).processes
        assert processes == int(readers) or (readers == "0" and 2 <= processes <= 16)
    else:
        with pytest.raises(InvalidSettings, match="VECGATE_EMBEDDERS__CLIP__READERS"):
            load_settings()


def test_all_faults_are_reported_at_once_by_variable_without_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_SERVER__PORT", "hunter2")
    monkeypatch.setenv("VECGATE_EMBEDDER__ORDER", "clip,clip")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__BASE_URL", "ftp://hunter2")
    monkeypatch.setenv("VECGATE_SERVR__PORT", "1")
    monkeypatch.setenv("VECGATE_SERVER__PROT", "1")

    with pytest.raises(InvalidSettings) as caught:
        load_settings()

    faults = str(caught.value)
    assert len(faults.splitlines()) == 5
    for name in ("SERVER__PORT", "EMBEDDER__ORDER", "EMBEDDERS__NIM__BASE_URL", "SERVR__PORT", "SERVER__PROT"):
        assert f"VECGATE_{name}" in faults
    assert "hunter2" not in faults


def _group_in_json(name: str) -> tuple[str, str]:
    """Return the variable of a setting's group, and a value that sets the setting."""
    group, _, field = name.partition("__")
    return f"VECGATE_{group}", json.dumps({field.lower(): "hunter2"})


@pytest.mark.parametrize("name", REMOVED)
def test_a_setting_that_is_gone_is_a_fault_that_says_what_took_its_place(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    in_json = [_group_in_json(name)] if name.partition("__")[0].lower() in Settings.model_fields else []
    for variable, value in [(f"VECGATE_{name}", "hunter2"), (f"vecgate_{name.lower()}", "hunter2"), *in_json]:
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            with pytest.raises(InvalidSettings) as caught:
                load_settings()

        (fault,) = str(caught.value).splitlines()
        assert fault.upper().startswith(f"VECGATE_{name}: ")
        assert fault.endswith(f": this setting is gone: {REMOVED[name]}")


def test_a_setting_that_is_gone_is_none_that_is_there() -> None:
    there = {name.removeprefix("VECGATE_") for name, _ in every_setting()}

    assert not there & REMOVED.keys()
    for advice in REMOVED.values():
        named = {re.sub("(?<=EMBEDDERS__)(CLIP|NIM)", "<NAME>", name) for name in re.findall(r"VECGATE_(\w+)", advice)}
        assert named <= there, "it names a setting that is not there"


def test_an_unknown_setting_in_a_group_that_is_given_as_json_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_SERVER", '{"prot": 1}')
    with pytest.raises(InvalidSettings, match="VECGATE_SERVER__PROT: there is no such setting"):
        load_settings()

    monkeypatch.setenv("VECGATE_SERVER", "{hunter2")
    with pytest.raises(InvalidSettings, match="VECGATE_SERVER: must be JSON") as caught:
        load_settings()
    assert "hunter2" not in str(caught.value)


def test_variables_that_kubernetes_sets_for_a_service_are_no_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_PORT", "tcp://10.0.0.1:50070")
    monkeypatch.setenv("VECGATE_SERVICE_HOST", "10.0.0.1")

    load_settings()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LOG_LEVEL", "LOG__LEVEL"),
        ("AUTH_CLIENTS_FILE", "AUTH__CLIENTS_FILE"),
        ("CONFIG__FILE", "CONFIG_FILE"),
        ("EMBEDDERS_NIM_KIND", "EMBEDDERS__NIM__KIND"),
        ("EMBEDDERS__NEMOTRON_8B_API_KEY_FILE", "EMBEDDERS__NEMOTRON_8B__API_KEY_FILE"),
    ],
)
def test_a_name_with_the_wrong_number_of_underscores_is_a_fault_that_says_the_right_one(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(f"VECGATE_{name}", "hunter2")

    (fault,) = faults()

    assert fault == f"VECGATE_{name}: there is no such setting; did you mean VECGATE_{meant}?"


def test_only_variables_with_the_prefix_of_settings_are_compared_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr("service.settings.loading._meant", compared.append)
    for name in ("THEIRS", "THEIRS_LOG_LEVEL", "VECGATE_LOG_LEVEL"):
        monkeypatch.setenv(name, "x")

    load_settings()

    assert compared == ["VECGATE_LOG_LEVEL"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVER_PORT", "tcp://10.0.0.1:50070"),  # of a Service named vecgate-server
        ("WEB_SERVICE_HOST", "10.0.0.1"),
        ("API_KEY", "of a client"),
        ("ADDRESS", "vecgate:50070"),
    ],
)
def test_variables_of_services_and_of_the_command_line_are_no_faults(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"VECGATE_{name}", value)

    load_settings()


def faults(**variables: str) -> list[str]:
    """Return what is wrong with the settings of the environment, and of variables without their prefix."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(f"VECGATE_{name}", value)
        with pytest.raises(InvalidSettings) as caught:
            load_settings()
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        ({"SERVER__PORT": "8070"}, "WEB__PORT: has port 8070, and so has server.port"),
        ({"SERVER__PORT": "8070", "WEB__HOST": "::1", "SERVER__HOST": "[::1]"}, "WEB__PORT: has port 8070"),
        (
            {"SERVER__PORT": "8070", "SERVER__HOST": "0.0.0.0", "SERVER__ALLOW_PLAINTEXT": "true"},
            "WEB__PORT: has port 8070",
        ),
        (
            {"SERVER__PORT": "8070", "SERVER__HOST": "::", "WEB__HOST": "::1", "SERVER__ALLOW_PLAINTEXT": "true"},
            "WEB__PORT: has port 8070",
        ),
        (
            {"WEAVIATE__EMBEDDED": "true", "WEAVIATE__HTTP_URL": "http://elsewhere:8070"},
            "WEAVIATE__HTTP_URL: has port 8070, and so has web.port",
        ),
        (
            {"WEAVIATE__EMBEDDED": "true", "WEAVIATE__HTTP_URL": "http://localhost:50051"},
            "WEAVIATE__GRPC_URL: has port 50051, and so has weaviate.http_url",
        ),
        (
            {"WEAVIATE__HTTP_URL": "https://w:443", "WEAVIATE__GRPC_URL": "grpcs://w"},
            "WEAVIATE__GRPC_URL: is w:443, the address of Weaviate's HTTP port",
        ),
    ],
)
def test_two_servers_do_not_listen_on_one_port(variables: dict[str, str], fault: str) -> None:
    (found,) = faults(**variables)

    assert found.startswith(f"VECGATE_{fault}")


@pytest.mark.parametrize(
    "variables",
    [
        {"SERVER__PORT": "0", "WEB__PORT": "0"},
        {"SERVER__PORT": "8070", "WEB__ENABLED": "false"},
        {"SERVER__PORT": "8070", "WEB__HOST": "127.0.0.2"},
        {"SERVER__PORT": "8070", "SERVER__HOST": "0.0.0.0", "WEB__HOST": "::1", "SERVER__ALLOW_PLAINTEXT": "true"},
        {"SERVER__PORT": "8080"},
        {"WEAVIATE__EMBEDDED": "true", "WEAVIATE__HTTP_URL": "http://w:0", "WEAVIATE__GRPC_URL": "grpc://w:0"},
        {"WEAVIATE__HTTP_URL": "http://w:443", "WEAVIATE__GRPC_URL": "grpcs://g:443"},
    ],
)
def test_servers_of_different_addresses_may_have_one_port(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"VECGATE_{name}", value)

    load_settings()


@pytest.mark.parametrize("setting", ["SERVER__PORT", "WEB__PORT"])
def test_ports_of_servers_that_do_not_run_are_free(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setenv("VECGATE_WEAVIATE__EMBEDDED", "true")
    monkeypatch.setenv(f"VECGATE_{setting}", "9000")
    for port in ("8070", "9000", "50070"):
        monkeypatch.setenv("VECGATE_WEAVIATE__HTTP_URL", f"http://127.0.0.1:{port}")

        assert load_settings(serves=False).weaviate.http.port == int(port)


@pytest.mark.parametrize("group", ["WEAVIATE", "EMBEDDERS__NIM"])
def test_an_empty_key_is_none_and_one_beyond_the_bound_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str
) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    (fault,) = faults(**{f"{group}__API_KEY": "k" * 4097})
    file = tmp_path / "key"
    file.write_text("hunter2")
    monkeypatch.setenv(f"VECGATE_{group}__API_KEY", "")

    def key() -> str | None:
        settings = load_settings()
        held = settings.weaviate if group == "WEAVIATE" else settings.embedders["nim"]
        assert isinstance(held, WeaviateSettings | NimSettings)
        return read_secret(held.api_key, held.api_key_file)

    without = key()
    monkeypatch.setenv(f"VECGATE_{group}__API_KEY_FILE", str(file))

    assert fault == f"VECGATE_{group}__API_KEY: api_key has more than 4096 characters"
    assert (without, key()) == (None, "hunter2")


@pytest.mark.parametrize("key", [" ", "hunter2\n", "hunt\ner2", "hüter2"])
def test_a_key_of_weaviate_is_held_to_what_a_header_carries(tmp_path: Path, key: str) -> None:
    file = tmp_path / "key"
    file.write_text(key, encoding="utf-8")

    found = [*faults(WEAVIATE__API_KEY=key)]
    if key.strip() != "hunter2":  # what ends a file's line is no part of the key
        found += faults(WEAVIATE__API_KEY_FILE=str(file))

    assert all(fault.startswith("VECGATE_WEAVIATE__API_KEY") for fault in found)
    assert "er2" not in str(found)


@pytest.mark.parametrize("field", ["MODEL", "SPACE"])
@pytest.mark.parametrize("name", ["", " nvidia/nvclip", "nvidia/nvclip ", "nvidia/nvclip\n", "a\nb"])
@pytest.mark.parametrize("kind", ["nim", "clip"])
def test_a_name_has_one_line_and_no_white_space_around_it(kind: str, field: str, name: str) -> None:
    (fault,) = faults(EMBEDDERS__A__KIND=kind, **{f"EMBEDDERS__A__{field}": name})

    assert fault == f"VECGATE_EMBEDDERS__A__{field}: must be one line, not empty and without white space around it"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("EMBEDDERS__CLIP__EXPECTED_DIGEST", "sha256:abc", "64 hexadecimal digits"),
        ("EMBEDDERS__CLIP__DEVICE", "gpu", "auto, cpu, cuda"),
        ("WEB__PATH_PREFIX", "embed/", "a path such as /embed"),
    ],
)
def test_what_a_text_must_be_is_told_in_words(name: str, value: str, words: str) -> None:
    (fault,) = faults(EMBEDDERS__CLIP__KIND="clip", **{name: value})

    assert fault.startswith(f"VECGATE_{name}: must be {words}")


def test_a_message_is_no_larger_than_grpc_can_count() -> None:
    (fault,) = faults(SERVER__MAX_REQUEST_BYTES=str(2**31))

    assert fault == "VECGATE_SERVER__MAX_REQUEST_BYTES: Input should be less than or equal to 2147483647"


def test_faults_of_a_group_are_told_by_the_setting_a_line_each(tmp_path: Path) -> None:
    file = tmp_path / "jwks"
    file.touch()

    found = faults(AUTH__JWKS_FILE=str(file), AUTH__JWT_ALGORITHMS="none", SERVER__HOST="0.0.0.0")

    assert [fault.partition(":")[0] for fault in found] == [
        "VECGATE_SERVER__HOST",
        "VECGATE_AUTH__CLIENTS_FILE",
        "VECGATE_AUTH__JWT_ISSUER",
        "VECGATE_AUTH__JWT_AUDIENCE",
        "VECGATE_AUTH__JWT_ALGORITHMS",
    ]


def test_every_setting_says_what_it_is() -> None:
    described = list(every_setting())

    # A variable that several kinds of embedders have is one setting.
    assert 40 < len({name for name, _ in described}) <= 73, "a new one has to be an operator's decision, or a constant"
    assert [name for name, field in described if not field.description] == []


def every_setting() -> Iterator[tuple[str, FieldInfo]]:
    yield from describe_settings()
    for kind in KINDS:
        yield from describe_embedders(kind)


def configs(settings: Settings) -> list[ClipConfig | NimConfig]:
    return [
        config
        for name, group in settings.ordered.items()
        for config in embedder_configs(name, group, _input_limits(settings.limits))
    ]


def test_secrets_are_masked_and_read_from_the_setting_or_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("keys") / "key"
    file.write_text("from-file\n", encoding="utf-8")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__API_KEY", "hunter2")

    shown = masked_settings(load_settings())

    assert "hunter2" not in str(shown)
    assert shown["VECGATE_SERVER__PORT"] == "50070"
    assert read_secret(SecretStr("value"), file) == "value"
    assert read_secret(None, file) == "from-file"
    assert read_secret(None, None) is None


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_key_file_that_gives_no_key_is_a_fault(tmp_path_factory: pytest.TempPathFactory, content: str | None) -> None:
    file = tmp_path_factory.mktemp("keys") / "key"
    if content is not None:
        file.write_text(content, encoding="utf-8")

    with pytest.raises(InvalidSettings, match=str(file)):
        read_secret(None, file)


@pytest.mark.parametrize("group", ["EMBEDDERS__NIM", "WEAVIATE"])
@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_key_file_that_gives_no_key_is_a_fault_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str, content: bytes | None
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv(f"VECGATE_{group}__API_KEY_FILE", str(file))

    with pytest.raises(InvalidSettings, match=rf"VECGATE_{group}__API_KEY_FILE: the key file {file}"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("BASE_URL", "http://[bad", "http://host:8000"),
        ("BASE_URL", "http://user:hunter2@nim", "api_key"),
        ("API_KEY", "hunter2\n2", "line break"),
        ("PROXY", "hunter2:3128", "http://host:3128"),
        ("PROFILE", "hunter2", "nemotron-vl"),
        ("CA_FILE", "/nowhere/ca.pem", "PEM"),
        ("MAX_CONNECTIONS", "0", "greater than or equal to 1"),
        ("DIMENSIONS", "0", "greater than or equal to 1"),
    ],
)
def test_faults_of_the_nims_settings_are_known_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv(f"VECGATE_EMBEDDERS__NIM__{name}", value)

    with pytest.raises(InvalidSettings) as caught:
        load_settings()

    (fault,) = str(caught.value).splitlines()
    assert fault.startswith(f"VECGATE_EMBEDDERS__NIM__{name}: ")
    assert words in fault
    assert "hunter2" not in fault


def test_all_faults_of_the_nims_settings_are_reported_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.write_text("no certificate", encoding="utf-8")
    for name, value in {
        "BASE_URL": "http://[bad",
        "API_KEY_FILE": str(tmp_path / "missing"),
        "CA_FILE": str(certificate),
        "PROXY": "http://[bad",
        "PROFILE": "nvclip",
        "MAX_BATCH": "65",
        "KIND": "nim",
    }.items():
        monkeypatch.setenv(f"VECGATE_EMBEDDERS__NIM__{name}", value)

    with pytest.raises(InvalidSettings) as caught:
        load_settings()

    assert len(str(caught.value).splitlines()) == 5


def test_a_server_with_faulty_settings_ends_with_exit_code_2_and_starts_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__BASE_URL", "http://[bad")
    monkeypatch.setenv("VECGATE_WEAVIATE__API_KEY_FILE", "/nowhere/key")

    result = CliRunner().invoke(app, ["serve"])

    assert result.exit_code == 2
    assert "VECGATE_EMBEDDERS__NIM__BASE_URL" in result.output
    assert "VECGATE_WEAVIATE__API_KEY_FILE" in result.output


def test_a_key_in_a_file_is_held_to_what_a_header_carries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("hunter2\nhunter3", encoding="utf-8")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__API_KEY_FILE", str(file))

    with pytest.raises(InvalidSettings, match="API_KEY_FILE") as caught:
        load_settings()

    assert "hunter" not in str(caught.value)


def test_the_proxys_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__PROXY", "http://user:hunter2@proxy:3128")

    assert "hunter2" not in str(masked_settings(load_settings()))


def test_a_proxys_address_may_stand_in_a_file_and_is_checked_there_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "proxy"
    file.write_text("http://user:hunter2@proxy:3128\n", encoding="utf-8")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__PROXY_FILE", str(file))
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    settings = load_settings()
    proxy = configs(settings)[0].proxy
    (contact,) = (each for each in diagnose(settings).contacts if "proxy" in each.what)
    file.write_text("hunter2 is not an address", encoding="utf-8")

    with pytest.raises(InvalidSettings, match="PROXY_FILE") as caught:
        load_settings()

    assert proxy == "http://user:hunter2@proxy:3128"
    assert (contact.where, contact.setting) == ("proxy:3128", "VECGATE_EMBEDDERS__NIM__PROXY_FILE")
    assert "hunter2" not in str(caught.value)


def test_another_profile_takes_larger_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__MODEL", "nvidia/llama-nemotron-embed-vl-1b-v2")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__MAX_BATCH", "128")

    (config,) = configs(load_settings())
    assert config.max_batch == 128


def test_every_bound_on_an_input_but_that_on_frames_is_a_setting() -> None:
    bounds = dict.fromkeys({field.name for field in dataclasses.fields(InputLimits)} - {"max_image_frames"}, 77)

    assert _input_limits(LimitSettings(**bounds)) == InputLimits(**bounds)
    assert _input_limits(LimitSettings()) == InputLimits(), "the service and the library have the same defaults"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("LIMITS__MAX_IMAGE_PIXELS", "0"),
        ("EMBEDDERS__NIM__MAX_REQUEST_BYTES", "0"),
    ],
)
def test_settings_of_pictures_have_bounds(monkeypatch: pytest.MonkeyPatch, name: str, wrong: str) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv(f"VECGATE_{name}", wrong)
    with pytest.raises(InvalidSettings, match=name):
        load_settings()


def test_what_goes_to_a_nim_is_bounded_by_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__MAX_REQUEST_BYTES", "1")

    (config,) = configs(load_settings())

    assert config.max_request_bytes == 1


@pytest.mark.parametrize("allowed", [True, False])
def test_a_nim_is_told_whether_callers_bring_keys(monkeypatch: pytest.MonkeyPatch, *, allowed: bool) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__ALLOW_CALLER_KEYS", str(allowed))

    (config,) = configs(load_settings())

    assert config.caller_keys is allowed


def test_several_nims_are_embedders_of_one_space_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDER__ORDER", "nim,clip")
    monkeypatch.setenv("VECGATE_EMBEDDERS__CLIP__KIND", "clip")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__MODEL", "nvidia/nvclip")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__BASE_URL", "http://one:8000, http://two:8000/v1")

    built = build_embedders(load_settings())

    nims = [each.spec for each in built[:2]]
    assert [(each.name, each.space) for each in nims] == [("nim", "nvidia/nvclip"), ("nim-2", "nvidia/nvclip")]
    assert len(built) == 3


def test_a_nim_named_twice_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__BASE_URL", "http://one:8000,http://one:8000/v1/")

    with pytest.raises(InvalidSettings, match="VECGATE_EMBEDDERS__NIM__BASE_URL: names an address twice"):
        load_settings()


def test_a_call_larger_than_the_queue_may_not_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_LIMITS__MAX_INPUTS", "100")
    monkeypatch.setenv("VECGATE_EMBEDDER__MAX_QUEUED_INPUTS", "99")

    with pytest.raises(InvalidSettings, match=r"MAX_INPUTS is 100, but only .*MAX_QUEUED_INPUTS = 99 may wait"):
        load_settings()


@pytest.mark.parametrize("name", ["SERVER__HOST", "WEB__HOST"])
@pytest.mark.parametrize(
    "wrong", ["", "user:pw-canary@host", "http://host", "host/pw-canary", "a b", "host:port", "[::1"]
)
def test_a_host_is_a_name_or_an_address_alone(monkeypatch: pytest.MonkeyPatch, name: str, wrong: str) -> None:
    monkeypatch.setenv(f"VECGATE_{name}", wrong)
    with pytest.raises(InvalidSettings, match=f"VECGATE_{name}.*without scheme, user, port or path") as caught:
        load_settings()
    assert "pw-canary" not in str(caught.value)


@pytest.mark.parametrize("host", ["weaviate", "weaviate.ns.svc", "10.0.0.1", "::1", "[::1]", "fe80::1%eth0", "a_b-1"])
def test_names_and_addresses_are_hosts(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("VECGATE_SERVER__HOST", host)
    monkeypatch.setenv("VECGATE_SERVER__ALLOW_PLAINTEXT", "true")
    assert load_settings().server.host == host


def test_without_a_server_what_only_servers_need_is_ignored_and_the_rest_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "vecgate.toml"
    file.write_text(
        '[server]\nport = 1\ntls_cert_file = "/none/tls.crt"\n[web]\nport = 2\n[embedder]\ncache_bytes = 7\n'
    )
    variables = {
        "CONFIG_FILE": str(file),
        "SERVER__HOST": "0.0.0.0",
        "WEB__HOST": "0.0.0.0",
        "AUTH__CLIENTS_FILE": "/none/clients.toml",
        "WEAVIATE__HTTP_URL": "http://weaviate:1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"VECGATE_{name}", value)

    found = load_settings(serves=False)

    assert (found.server, found.web) == (ServerSettings(port=0), WebSettings(enabled=False))
    assert found.auth == AuthSettings()
    assert (found.weaviate.http.host, found.embedder.cache_bytes) == ("weaviate", 7)
    with pytest.raises(InvalidSettings, match=r"tls_cert_file: .* cannot be read"):
        load_settings()
    monkeypatch.setenv("VECGATE_SERVER__HOSTS", "0.0.0.0")
    with pytest.raises(InvalidSettings, match="VECGATE_SERVER__HOSTS: there is no such setting"):
        load_settings(serves=False)


@pytest.mark.parametrize("host", ["weaviate", "weaviate.ns.svc", "10.0.0.1", "[::1]", "[fe80::1%eth0]", "a_b-1"])
def test_weaviate_has_an_address_for_each_protocol(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("VECGATE_WEAVIATE__HTTP_URL", f"https://{host}:8443/")
    without = load_settings().weaviate
    monkeypatch.setenv("VECGATE_WEAVIATE__GRPC_URL", f"grpc://{host}:1")
    both = load_settings().weaviate

    name = host.strip("[]")
    assert without.http == both.http == (name, 8443, True)
    assert without.grpc == (name, 50051, True)
    assert both.grpc == (name, 1, False)
    assert str(both.http) == f"{host}:8443"


@pytest.mark.parametrize(
    ("url", "port"), [("http://a", 80), ("https://a", 443), ("grpc://a", 50051), ("grpcs://a", 443), ("http://a:0", 0)]
)
def test_a_url_of_weaviate_without_a_port_has_that_of_its_scheme(
    monkeypatch: pytest.MonkeyPatch, url: str, port: int
) -> None:
    name = url[:4]
    monkeypatch.setenv(f"VECGATE_WEAVIATE__{name.upper()}_URL", url)
    assert getattr(load_settings().weaviate, name).port == port


@pytest.mark.parametrize("name", ["HTTP", "GRPC"])
@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "host",
        "host:1",
        "ftp://host:1",
        "SCHEME://user:pw-canary@host",
        "SCHEME://:pw-canary@host",
        "SCHEME://host/pw-canary",
        "SCHEME://host?pw-canary",
        "SCHEME://host#pw-canary",
        "SCHEME://a b",
        "SCHEME://host:99999",
        "SCHEME://[bad",
        "SCHEME://:1",
    ],
)
def test_an_address_of_weaviate_is_scheme_host_and_port_alone(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: str
) -> None:
    monkeypatch.setenv(f"VECGATE_WEAVIATE__{name}_URL", wrong.replace("SCHEME", name.lower()))
    words = f"must be {name.lower()}://HOST:PORT or {name.lower()}s://HOST:PORT"
    with pytest.raises(InvalidSettings, match=f"VECGATE_WEAVIATE__{name}_URL: {words}") as caught:
        load_settings()
    assert "pw-canary" not in str(caught.value)


def test_files_that_are_not_there_are_faults_told_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = {
        "SERVER__TLS_CERT_FILE": "server.crt",
        "SERVER__TLS_KEY_FILE": "server.key",
        "WEB__TLS_CLIENT_CA_FILE": "web.crt",
        "AUTH__CLIENTS_FILE": "clients.toml",
        "EMBEDDERS__CLIP__PROBE_FILE": "probe.json",
    }
    monkeypatch.setenv("VECGATE_EMBEDDERS__CLIP__KIND", "clip")
    for name, file in files.items():
        monkeypatch.setenv(f"VECGATE_{name}", str(tmp_path / file))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.crt"))

    with pytest.raises(InvalidSettings) as caught:
        load_settings()

    lines = str(caught.value).splitlines()
    assert {line.partition(":")[0] for line in lines} == {
        *(f"VECGATE_{name}" for name in files),
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
    }
    assert all("cannot be read: No such file or directory" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ENDPOINT", "pw-canary", "http://HOST:PORT"),
        ("ENDPOINT", "http://:pw-canary@collector:4317", "http://HOST:PORT"),
        ("TRACES_ENDPOINT", "http://collector:4318/v1/pw-canary", "http://HOST:PORT"),
        ("ENDPOINT", "grpc://collector:4317?pw-canary", "http://HOST:PORT"),
        ("ENDPOINT", "http://collector", "http://HOST:PORT"),
        ("PROTOCOL", "http/protobuf", "must be grpc"),
        ("TIMEOUT", "10s", "must be a number of seconds"),
        ("TIMEOUT", "nan", "must be a number of seconds"),
        ("TIMEOUT", "-1", "must be a number of seconds"),
        ("TRACES_TIMEOUT", "", "must be a number of seconds"),
        ("COMPRESSION", "zip", "must be gzip"),
        ("TRACES_COMPRESSION", "", "must be gzip"),
        ("CERTIFICATE", "/nowhere/ca.pem", "/nowhere/ca.pem cannot be read: No such file or directory"),
    ],
)
def test_variables_of_tracing_that_cannot_work_are_faults_too(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317")
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)

    with pytest.raises(InvalidSettings) as caught:
        load_settings()

    (fault,) = str(caught.value).splitlines()
    assert fault.startswith(f"OTEL_EXPORTER_OTLP_{name}: ")
    assert words in fault
    assert "pw-canary" not in fault


@pytest.mark.parametrize("value", ["pw-canary", "", "0", "-1", "1.5"])
@pytest.mark.parametrize("name", ["SCHEDULE_DELAY", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE", "EXPORT_TIMEOUT"])
def test_batches_of_spans_are_set_by_whole_numbers(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317")
    monkeypatch.setenv(f"OTEL_BSP_{name}", value)

    with pytest.raises(InvalidSettings) as caught:
        load_settings()

    (fault,) = str(caught.value).splitlines()
    assert fault.startswith(f"OTEL_BSP_{name}: must be a whole number above 0, such as ")
    assert "pw-canary" not in fault


@pytest.mark.parametrize(
    ("variables", "fits"),
    [
        ({"MAX_QUEUE_SIZE": "10"}, False),
        ({"MAX_EXPORT_BATCH_SIZE": "2049"}, False),
        ({"MAX_QUEUE_SIZE": "10", "MAX_EXPORT_BATCH_SIZE": "10"}, True),
    ],
)
def test_no_batch_of_spans_is_larger_than_their_queue(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], *, fits: bool
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317")
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_BSP_{name}", value)

    if fits:
        load_settings()
        return
    with pytest.raises(
        InvalidSettings, match=r"^OTEL_BSP_MAX_EXPORT_BATCH_SIZE: is \d+, and OTEL_BSP_MAX_QUEUE_SIZE is \d+: "
    ):
        load_settings()


def test_settings_of_a_running_server_name_files_that_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *("SERVER__TLS_CERT_FILE", "SERVER__TLS_KEY_FILE", "AUTH__CLIENTS_FILE", "FETCH__ORIGINS_FILE"),
        *("WEAVIATE__API_KEY_FILE", "EMBEDDERS__NIM__API_KEY_FILE"),
    ):
        monkeypatch.setenv(f"VECGATE_{name}", str(tmp_path / "gone"))
    monkeypatch.setenv("VECGATE_EMBEDDERS__NIM__KIND", "nim")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "gone"))

    settings = load_running_settings()

    assert settings.server.tls_cert_file == tmp_path / "gone"
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load_settings()
