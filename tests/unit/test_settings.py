import pytest
from pydantic import SecretStr

from service.observability import masked_settings
from service.settings import InvalidSettings, describe_settings, load_settings, read_secret


def test_defaults_are_offline_and_on_loopback() -> None:
    settings = load_settings()

    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 50070)
    assert settings.embedder.order == ["clip"]
    assert settings.clip.model == "pictogram-clip"
    assert {settings.weaviate.http_host, settings.nim.base_url} == {"127.0.0.1", "http://127.0.0.1:8000"}


def test_the_environment_sets_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_EMBEDDER__ORDER", "nim, clip")
    monkeypatch.setenv("VECGATE_WEAVIATE__EMBEDDED", "true")

    settings = load_settings()

    assert settings.embedder.order == ["nim", "clip"]
    assert settings.weaviate.embedded


def test_all_faults_are_reported_at_once_by_variable_without_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_SERVER__PORT", "hunter2")
    monkeypatch.setenv("VECGATE_EMBEDDER__ORDER", "clip,clip")
    monkeypatch.setenv("VECGATE_NIM__BASE_URL", "ftp://hunter2")
    monkeypatch.setenv("VECGATE_SERVR__PORT", "1")
    monkeypatch.setenv("VECGATE_SERVER__PROT", "1")

    with pytest.raises(InvalidSettings) as caught:
        load_settings()

    faults = str(caught.value)
    assert len(faults.splitlines()) == 5
    for name in ("SERVER__PORT", "EMBEDDER", "NIM__BASE_URL", "SERVR__PORT", "SERVER__PROT"):
        assert f"VECGATE_{name}" in faults
    assert "hunter2" not in faults


def test_variables_that_kubernetes_sets_for_a_service_are_no_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VECGATE_PORT", "tcp://10.0.0.1:50070")
    monkeypatch.setenv("VECGATE_SERVICE_HOST", "10.0.0.1")

    load_settings()


def test_every_setting_says_what_it_is() -> None:
    described = list(describe_settings())

    assert len(described) > 40
    assert [name for name, field in described if not field.description] == []


def test_secrets_are_masked_and_read_from_the_setting_or_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("keys") / "key"
    file.write_text("from-file\n", encoding="utf-8")
    monkeypatch.setenv("VECGATE_NIM__API_KEY", "hunter2")

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
