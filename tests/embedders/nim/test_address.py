"""Addresses of NIMs and proxies, and keys, as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedders.nim.address import check_key, parse_base_url, resolve_proxy


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "//"])
@pytest.mark.parametrize(
    "root",
    [
        "http://nim",
        "http://nim:8000",
        "https://nim.example.com/ai/nim",
        "http://[::1]:8000",
        "http://my_nim:8000",
        "http://10.0.0.7:8000",
    ],
)
def test_the_end_of_an_address_makes_no_difference(root: str, suffix: str) -> None:
    assert parse_base_url(root + suffix) == root


def test_a_path_that_only_looks_like_v1_stays() -> None:
    assert parse_base_url("http://nim/modelv1") == "http://nim/modelv1"


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nim:8000",
        "ftp://nim",
        "http://",
        "http:///v1",
        "http://[bad",
        "http://[::zz]",
        "http://nim:port",
        "http://nim:99999",
        "http://ni m",
        "http://nim/a b",
        "http://nim\n.example.com",
        "http://nïm",
        "http://-nim",
        "http://user:hunter2@nim",
        "http://nim?key=hunter2",
        "http://nim#top",
    ],
)
def test_what_is_no_address_is_refused_without_being_repeated(address: str) -> None:
    with pytest.raises(ValueError, match="base_url") as failure:
        parse_base_url(address)

    assert "hunter2" not in str(failure.value)


@given(st.text(max_size=40).map(lambda text: f"http://{text}"))
def test_no_address_raises_anything_else(address: str) -> None:
    try:
        root = parse_base_url(address)
    except ValueError:
        return
    assert parse_base_url(root) == root


def test_no_proxy_is_used_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")

    assert resolve_proxy(None, "http://nim") is None
    assert resolve_proxy("http://other:3128", "http://nim") == "http://other:3128"


def test_the_environments_proxy_is_that_of_the_scheme_and_not_for_hosts_that_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy:3128")
    monkeypatch.setenv("ALL_PROXY", "http://all:3128")
    monkeypatch.setenv("NO_PROXY", "localhost,.internal")

    assert resolve_proxy("environment", "http://nim") == "http://proxy:3128"
    assert resolve_proxy("Environment", "https://nim") == "http://all:3128"
    assert resolve_proxy("environment", "http://nim.internal") is None


def test_an_environment_without_proxies_names_none() -> None:
    assert resolve_proxy("environment", "http://nim") is None


@pytest.mark.parametrize("proxy", ["", "proxy:3128", "socks5://proxy", "http://[bad", "http://user:hunter2@"])
def test_a_proxy_that_is_no_address_is_refused_without_being_repeated(proxy: str) -> None:
    with pytest.raises(ValueError, match="proxy") as failure:
        resolve_proxy(proxy, "http://nim")

    assert "hunter2" not in str(failure.value)


def test_a_faulty_proxy_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://[bad")

    with pytest.raises(ValueError, match="environment's proxy"):
        resolve_proxy("environment", "http://nim")


@pytest.mark.parametrize("key", ["", " ", "nvapi-x\n", "nvapi x\t", " nvapi-x", "nvapi-é", "x" * 4097])
def test_what_no_header_carries_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="api_key") as failure:
        check_key(key)

    assert len(key) < 2 or key not in str(failure.value)


def test_a_key_is_a_key() -> None:
    check_key("nvapi-0123456789_abc")
