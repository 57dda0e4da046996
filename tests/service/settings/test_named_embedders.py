"""Named embedders: their variables, their order, and the file of settings; what is wrong is told by its own name."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.settings import (
    ClipSettings,
    InvalidSettings,
    NimRerankSettings,
    NimSettings,
    Settings,
    load_settings,
    masked_settings,
    read_secret,
    variable,
)
from service.wiring import build_rerankers


def configured(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"VECGATE_{name}", value)


def faults() -> list[str]:
    with pytest.raises(InvalidSettings) as caught:
        load_settings()
    return str(caught.value).splitlines()


def in_file(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Path:
    file = folder / "vecgate.toml"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("VECGATE_CONFIG_FILE", str(file))
    return file


def test_a_server_has_any_number_of_embedders_of_any_kind_in_the_order_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configured(
        monkeypatch,
        EMBEDDER__ORDER="nemotron-8b, small, nvclip, large",
        EMBEDDERS__SMALL__KIND="clip",
        EMBEDDERS__LARGE__KIND="clip",
        EMBEDDERS__LARGE__MODEL="/models/large",
        EMBEDDERS__NVCLIP__KIND="nim",
        EMBEDDERS__NVCLIP__BASE_URL="http://a:1,http://b:1",
        EMBEDDERS__NEMOTRON_8B__KIND="nim",
        EMBEDDERS__NEMOTRON_8B__DIMENSIONS="512",
        EMBEDDERS__BEST__KIND="nim-rerank",
    )

    settings = load_settings()

    assert settings.ordered == {
        "nemotron-8b": NimSettings(dimensions=512),
        "small": ClipSettings(),
        "nvclip": NimSettings(base_url=["http://a:1", "http://b:1"]),
        "large": ClipSettings(model="/models/large"),
    }
    assert list(settings.ordered) == ["nemotron-8b", "small", "nvclip", "large"]
    assert settings.rerankers == {"best": NimRerankSettings()}


def test_one_embedder_needs_no_order_whatever_rerankers_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, EMBEDDERS__A__KIND="nim", EMBEDDERS__B__KIND="nim-rerank")

    assert list(load_settings().ordered) == ["a"]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (None, "is not set, and there are several embedders; list all, the default one first: "),
        ("a", "lacks b; add each embedder, or remove its settings"),
        ("a,b,a", "names an embedder twice; name each once"),
        ("a,b,c", "there is no embedder c; there are: a, b"),
        ("a,b,r", "r is a reranker; list embedders only"),
        ("", "at least 1 item"),
    ],
)
def test_an_order_names_every_embedder_once_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, order: str | None, words: str
) -> None:
    configured(monkeypatch, EMBEDDERS__A__KIND="clip", EMBEDDERS__B__KIND="nim", EMBEDDERS__R__KIND="nim-rerank")
    if order is not None:
        configured(monkeypatch, EMBEDDER__ORDER=order)

    (fault,) = faults()

    assert fault.startswith("VECGATE_EMBEDDER__ORDER: ")
    assert words in fault


def test_a_hosted_reranker_needs_the_name_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    hosted = "https://ai.api.nvidia.com/v1/retrieval/nvidia/x/reranking"
    configured(monkeypatch, EMBEDDERS__A__KIND="clip", EMBEDDERS__R__KIND="nim-rerank")
    configured(monkeypatch, EMBEDDERS__R__BASE_URL=hosted)

    (fault,) = faults()
    configured(monkeypatch, EMBEDDERS__R__MODEL="nvidia/x")

    assert "model is not set, and base_url ends with /reranking" in fault
    assert load_settings().rerankers["r"].base_url == [hosted]


def test_rerankers_are_built_with_their_names_and_those_of_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(
        monkeypatch,
        EMBEDDERS__A__KIND="clip",
        EMBEDDERS__BEST__KIND="nim-rerank",
        EMBEDDERS__BEST__BASE_URL="http://a:1,http://b:1",
        EMBEDDERS__BEST__MAX_CONNECTIONS="3",
        EMBEDDERS__BEST__ALLOW_CALLER_KEYS="true",
        EMBEDDERS__OTHER__KIND="nim-rerank",
        EMBEDDERS__OTHER__MODEL="nvidia/llama-nemotron-rerank-1b-v2",
        LIMITS__MAX_TEXT_BYTES="1234",
    )

    groups = build_rerankers(load_settings())

    assert [[each.spec.name for each in group] for group in groups] == [["best", "best-2"], ["other"]]
    best, other = groups[0][0].spec, groups[1][0].spec
    assert (best.model, best.slots, best.caller_keys, best.limits.max_text_bytes) == ("", 3, True, 1234)
    assert (other.model, other.caller_keys) == ("nvidia/llama-nemotron-rerank-1b-v2", False)


def test_rerankers_alone_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, EMBEDDERS__R__KIND="nim-rerank")

    (fault,) = faults()

    assert fault.startswith("embedders: there are rerankers alone (r)")


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("EMBEDDERS__A__MODEL", "hunter2", "EMBEDDERS__A__KIND: is not set; it is one of clip, nim, nim-rerank"),
        ("EMBEDDERS__A__KIND", "hunter2", "EMBEDDERS__A__KIND: is not one of clip, nim, nim-rerank"),
        ("EMBEDDERS__A", "hunter2", "EMBEDDERS__A: there is no such setting; see `vecgate serve --help`"),
        (
            "EMBEDDERS__A__MODEL__B",
            "hunter2",
            "EMBEDDERS__A__MODEL__B: there is no such setting; see `vecgate serve --hel",
        ),
        ("EMBEDDERS__A__MODLE", "hunter2", "EMBEDDERS__A__MODLE: there is no such setting; see `vecgate serve --help`"),
        ("EMBEDDERS__B__PROXY", "hunter2", "EMBEDDERS__B__PROXY: an embedder of kind clip has no such setting"),
        ("EMBEDDERS__B__MAX_BATCH", "hunter2", "EMBEDDERS__B__MAX_BATCH: Input should be a valid integer"),
        ("EMBEDDERS", "hunter2", "EMBEDDERS: must be JSON"),
        ("EMBEDDERS___B__KIND", "clip", "EMBEDDERS___B: an embedder's name has lower-case letters"),
    ],
)
def test_a_fault_of_an_embedder_is_told_by_its_variable_in_plain_words_without_the_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, fault: str
) -> None:
    configured(monkeypatch, EMBEDDERS__B__KIND="clip", **{variable: value})

    told = faults()

    assert any(each.startswith(f"VECGATE_{fault}") for each in told)
    assert not any(word in str(told) for word in ("hunter2", "tag", "discriminat", "dictionary", "instance"))


@pytest.mark.parametrize("name", ["Nim", "a_b", "-a", "a-", "a--b", "ä", "a" * 64, "a.b"])
def test_a_name_has_lower_case_letters_digits_and_single_dashes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    file = in_file(monkeypatch, tmp_path, f'[embedders."{name}"]\nkind = "clip"\n')

    (fault,) = faults()

    assert fault.startswith(f"{file}: embedders.{name}: an embedder's name has lower-case letters")


def test_a_name_may_be_as_long_as_its_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_file(monkeypatch, tmp_path, f'[embedders.{"a" * 63}]\nkind = "clip"\n')

    assert list(load_settings().ordered) == ["a" * 63]


def test_the_name_of_a_second_address_is_no_other_embedders(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(
        monkeypatch,
        EMBEDDER__ORDER="nim,nim-2",
        EMBEDDERS__NIM__KIND="nim",
        EMBEDDERS__NIM__BASE_URL="http://a,http://b",
        EMBEDDERS__NIM_2__KIND="clip",
    )

    (fault,) = faults()

    assert fault == "VECGATE_EMBEDDERS__NIM_2: is the name of address 2 of nim, too; rename one of the two"


def test_a_declared_space_needs_an_embedder_or_a_file_to_compare_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    probe = tmp_path / "probe.json"
    probe.touch()
    configured(
        monkeypatch,
        EMBEDDERS__A__KIND="nim",
        EMBEDDERS__A__MODEL="nvidia/e-bf16",
        EMBEDDERS__A__SPACE="nvidia/e",
    )
    (alone,) = faults()
    configured(monkeypatch, EMBEDDER__ORDER="a,b", EMBEDDERS__B__KIND="nim", EMBEDDERS__B__MODEL="nvidia/f")
    (beside_another,) = faults()

    with monkeypatch.context() as patch:
        configured(patch, EMBEDDERS__B__MODEL="nvidia/e")
        assert load_settings().ordered["a"].space == "nvidia/e"
    with monkeypatch.context() as patch:
        configured(patch, EMBEDDERS__A__PROBE_FILE=str(probe))
        assert load_settings().ordered["a"].space == "nvidia/e"
    with monkeypatch.context() as patch:
        configured(patch, EMBEDDERS__A__MODEL="nvidia/e")
        assert load_settings().ordered["a"].space == "nvidia/e", "it has the space by itself"
    assert alone == beside_another
    assert alone.startswith(
        "VECGATE_EMBEDDERS__A__SPACE: no other embedder here has the space nvidia/e by itself; set "
    )


FILE = """
[server]
port = 1
max_calls = 7

[embedder]
order = ["nemotron-8b", "clip"]

[embedders.nemotron-8b]
kind = "nim"
model = "of the file"
base_url = ["http://a:1", "http://b:1"]
api_key = "hunter2"

[embedders.clip]
kind = "clip"
"""


def test_a_file_sets_what_variables_set_and_a_variable_wins_field_by_field(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = in_file(monkeypatch, tmp_path, FILE)
    configured(monkeypatch, SERVER__PORT="2", EMBEDDERS__NEMOTRON_8B__MODEL="of the variable")

    settings = load_settings()
    shown = masked_settings(settings)

    assert (settings.server.port, settings.server.max_calls) == (2, 7)
    nim = settings.ordered["nemotron-8b"]
    assert isinstance(nim, NimSettings)
    assert (nim.model, nim.base_url) == ("of the variable", ["http://a:1", "http://b:1"])
    assert list(settings.ordered) == ["nemotron-8b", "clip"]
    assert shown["VECGATE_CONFIG_FILE"] == str(file)
    assert shown["VECGATE_EMBEDDERS__NEMOTRON_8B__MODEL"] == "of the variable"
    assert shown["VECGATE_EMBEDDERS__NEMOTRON_8B__API_KEY"] == "**********"
    assert "hunter2" not in str(shown)


def test_all_faults_of_file_and_variables_are_told_at_once_each_by_where_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = in_file(
        monkeypatch,
        tmp_path,
        """
        [server]
        port = "hunter2"
        prot = 1
        [servr]
        port = 1
        [log]
        level = "hunter2"
        [embedders.a]
        kind = "nim"
        base_url = "hunter2"
        device = "hunter2"
        [embedders.b]
        model = "hunter2"
        [embedders]
        c = "hunter2"
        """,
    )
    configured(monkeypatch, LOG__LEVEL="hunter2", EMBEDDERS__A__MAX_BATCH="hunter2", SERVR__PORT="hunter2")

    told = faults()

    assert {each.rpartition(": ")[0] for each in told} >= {
        f"{file}: server.port",
        f"{file}: server.prot",
        f"{file}: servr",
        "VECGATE_LOG__LEVEL",
        f"{file}: embedders.a.base_url",
        f"{file}: embedders.a.device",
        f"{file}: embedders.b.kind",
        f"{file}: embedders.c",
        "VECGATE_EMBEDDERS__A__MAX_BATCH",
        "VECGATE_SERVR__PORT",
    }
    assert len(told) == 10
    assert "hunter2" not in str(told)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"[server\nport = 1", "is not TOML: "),
        (b"[server]\nport = hunter2", "is not TOML: Invalid value (at line 2, column 8)"),
        (b"\xff\xfe", "is not text in UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_fault_beside_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "vecgate.toml"
    if content is not None:
        file.write_bytes(content)
    configured(monkeypatch, CONFIG_FILE=str(file), SERVR__PORT="1")

    unknown, fault = faults()

    assert unknown.startswith("VECGATE_SERVR__PORT: ")
    assert fault.startswith(f"VECGATE_CONFIG_FILE: {file} {words}")
    assert "hunter2" not in fault


def test_a_file_names_no_other_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = in_file(monkeypatch, tmp_path, 'config_file = "other.toml"')

    assert faults() == [f"{file}: config_file: a file of settings names no other; remove it"]


def test_the_settings_that_moved_say_where_they_are_now(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, NIM__BASE_URL="http://a", CLIP__SPACE="s")

    moved = "this setting is gone: embedders have names now; set VECGATE_EMBEDDERS__"
    assert faults() == [
        f"VECGATE_CLIP__SPACE: {moved}CLIP__KIND to clip and VECGATE_EMBEDDERS__CLIP__SPACE to the same value",
        f"VECGATE_NIM__BASE_URL: {moved}NIM__KIND to nim and VECGATE_EMBEDDERS__NIM__BASE_URL to the same value",
    ]


def test_the_help_of_serve_lists_the_settings_of_every_kind() -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"]).output

    assert "VECGATE_CONFIG_FILE" in shown
    for kind, field in {"clip": "PRECISION", "nim": "DIMENSIONS", "nim-rerank": "BASE_URL"}.items():
        part = shown.partition(f"embedder of kind {kind},")[2]
        assert f"VECGATE_EMBEDDERS__<NAME>__{field}" in part


def test_the_settings_are_the_same_whatever_they_come_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_file(monkeypatch, tmp_path, '[embedders.a-b]\nkind = "nim"\nprofile = "plain"\n')
    from_file = load_settings()
    monkeypatch.delenv("VECGATE_CONFIG_FILE")
    configured(monkeypatch, EMBEDDERS__A_B__KIND="nim", EMBEDDERS__A_B__PROFILE="plain")
    from_variables = load_settings()
    monkeypatch.delenv("VECGATE_EMBEDDERS__A_B__KIND")
    monkeypatch.delenv("VECGATE_EMBEDDERS__A_B__PROFILE")
    configured(monkeypatch, EMBEDDERS='{"a-b": {"kind": "nim", "profile": "plain"}}')
    from_json = load_settings()

    assert groups(from_file) == groups(from_variables) == groups(from_json)


def groups(settings: Settings) -> dict[str, object]:
    return settings.model_dump(exclude={"config_file"})


SECRETS = [("embedders.a", "api_key"), ("embedders.a", "proxy"), ("embedders.r", "api_key"), ("weaviate", "api_key")]
"""Groups and fields that may also be given by a file."""
OLD, NEW = "http://old:1", "http://new:1"
BASE = 'embedders.a.kind = "nim"\nembedders.r.kind = "nim-rerank"\n'


def secret(group: str, field: str) -> str | None:
    """Return the secret that a server would use."""
    found = load_settings()
    part = found.weaviate if group == "weaviate" else found.embedders[group.partition(".")[2]]
    return read_secret(getattr(part, field), getattr(part, f"{field}_file"))


def as_variable(group: str, field: str) -> str:
    return variable(*group.split("."), field)


@pytest.mark.parametrize("by_file", ["the file", "the variable"])
@pytest.mark.parametrize(("group", "field"), SECRETS)
def test_a_variable_wins_over_the_file_whichever_of_the_two_names_a_file_with_the_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str, field: str, by_file: str
) -> None:
    held = tmp_path / "secret"
    if by_file == "the variable":
        held.write_text(NEW, encoding="utf-8")
        in_file(monkeypatch, tmp_path, f'{BASE}{group}.{field} = "{OLD}"')
        monkeypatch.setenv(as_variable(group, f"{field}_file"), str(held))
    else:
        held.write_text(OLD, encoding="utf-8")
        in_file(monkeypatch, tmp_path, f'{BASE}{group}.{field}_file = "{held}"')
        monkeypatch.setenv(as_variable(group, field), NEW)

    assert secret(group, field) == NEW


@pytest.mark.parametrize("source", ["variables", "file"])
@pytest.mark.parametrize(("group", "field"), SECRETS)
def test_a_secret_and_the_file_that_holds_it_are_not_both_set_in_one_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str, field: str, source: str
) -> None:
    held = tmp_path / "secret"
    held.write_text(OLD, encoding="utf-8")
    both = {field: NEW, f"{field}_file": str(held)}
    lines = [f'{group}.{name} = "{value}"' for name, value in both.items()] if source == "file" else []
    file = in_file(monkeypatch, tmp_path, BASE + "\n".join(lines))
    if source == "variables":
        for name, value in both.items():
            monkeypatch.setenv(as_variable(group, name), value)

    where = f"{file}: {group}.{field}_file" if source == "file" else as_variable(group, f"{field}_file")
    assert faults() == [f"{where}: {field} is set, too; remove one of the two"]


@pytest.mark.parametrize("more", [{}, {"MAX_BATCH": "8"}, {"DIMENSIONS": "512"}])
@pytest.mark.parametrize("role", ["query", "passage"])
def test_a_models_name_with_a_role_is_refused_by_the_name_of_its_own_setting(
    monkeypatch: pytest.MonkeyPatch, role: str, more: dict[str, str]
) -> None:
    fields = {"KIND": "nim", "MODEL": f"nvidia/llama-nemotron-embed-1b-v2-{role}", **more}
    configured(monkeypatch, **{f"EMBEDDERS__A__{name}": value for name, value in fields.items()})

    (fault,) = faults()

    assert fault.startswith(f"VECGATE_EMBEDDERS__A__MODEL: model ends with -{role}")
    assert "give the name without it" in fault


@pytest.mark.parametrize("field", ["order", "max_queued_inputs", "cache_bytes"])
def test_a_setting_of_all_embedders_in_the_place_of_a_name_is_told_where_it_belongs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, field: str
) -> None:
    meant = f"VECGATE_EMBEDDER__{field.upper()}"
    monkeypatch.setenv(f"VECGATE_EMBEDDERS__{field.upper()}", "1")
    by_variable = faults()
    monkeypatch.delenv(f"VECGATE_EMBEDDERS__{field.upper()}")
    file = in_file(monkeypatch, tmp_path, f'{BASE}embedders.{field} = "1"')

    assert by_variable == [f"VECGATE_EMBEDDERS__{field.upper()}: there is no such setting; set {meant}"]
    assert f"{file}: embedders.{field}: is no embedder; set embedder.{field} ({meant})" in faults()


def test_a_reranker_that_cannot_be_built_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("nvapi-1", encoding="utf-8")
    configured(monkeypatch, EMBEDDERS__A__KIND="clip", EMBEDDERS__R_2__KIND="nim-rerank")
    configured(monkeypatch, EMBEDDERS__R_2__API_KEY_FILE=str(key))
    settings = load_settings()
    # Somebody writes another one meanwhile.
    key.write_text("two\nlines", encoding="utf-8")

    with pytest.raises(InvalidSettings, match=r"^r-2: "):
        build_rerankers(settings)
