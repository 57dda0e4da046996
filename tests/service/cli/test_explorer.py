"""`vecgate search --open`: the explorer on the same search."""

import json
import webbrowser
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.cli.explorer import explorer_at
from tests.fakes.server import FakeVecgate
from tests.service.conftest import Run
from vecgate.v1 import property_pb2 as property_pb


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was opened in a browser, on a machine that has one."""
    urls: list[str] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", lambda url: urls.append(url) or True)
    return urls


def asked(url: str) -> dict[str, str]:
    """Return the search in the address of a page."""
    page, _, query = urlsplit(url).fragment.partition("?")
    assert page == "/search"
    return {name: value for name, (value,) in parse_qs(query, strict_parsing=True).items()}


@pytest.mark.parametrize(
    ("arguments", "search"),
    [
        (("a dog & a cat?",), {"words": "a dog & a cat?"}),
        (("dog", "--hybrid", "0.25"), {"words": "dog", "alpha": "0.25"}),
        (("dog", "--keywords"), {"words": "dog", "alpha": "0"}),
        (("--near-object", "7"), {"like": "7"}),
        (
            ("dog", "--tenant", "a/b", "--target-vector", "small", "--limit", "3"),
            {"words": "dog", "tenant": "a/b", "vector": "small"},
        ),
    ],
)
def test_the_explorer_opens_on_the_same_search(
    run: Run, pictures: FakeVecgate, opened: list[str], arguments: tuple[str, ...], search: dict[str, str]
) -> None:
    result = run("search", *arguments, "--open")

    assert (result.exit_code, result.stdout) == (0, "")
    (url,) = opened
    assert url.startswith("http://127.0.0.1:8070/#/search?")
    assert asked(url) == {"collection": "Pictures", **search}
    assert not pictures.requests["SearchObjects"]


def test_conditions_travel_as_the_filter_of_the_page(run: Run, fake: FakeVecgate, opened: list[str]) -> None:
    fake.add_collection("Pictures", name=property_pb.DATA_TYPE_TEXT, year=property_pb.DATA_TYPE_INT)

    result = run("search", "dog", "--where", "year>=2020", "--where", "name~d*", "--open")

    assert result.exit_code == 0
    assert json.loads(asked(opened[0])["filter"]) == {
        "join": "all",
        "items": [
            {"target": "property:year", "operator": "FILTER_OPERATOR_GREATER_OR_EQUAL", "values": ["2020"]},
            {"target": "property:name", "operator": "FILTER_OPERATOR_LIKE", "values": ["d*"]},
        ],
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--image", __file__), "--image along in the address of a page; drop the picture onto the page"),
        (("dog", "--move-to", "cat", "--json"), "--move-to, --json along"),
        (("dog", "--target-vector", "a", "--target-vector", "b"), "--target-vector more than once"),
        (("dog", "--where", "year>=soon"), "takes a value of type int"),
    ],
)
def test_what_no_address_can_hold_is_refused_by_name(
    run: Run, fake: FakeVecgate, opened: list[str], arguments: tuple[str, ...], said: str
) -> None:
    fake.add_collection("Pictures", year=property_pb.DATA_TYPE_INT)

    result = run("search", *arguments, "--open")

    assert result.exit_code == 2
    assert said in result.stderr
    assert opened == []


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("screen", [True, False])
def test_where_no_browser_opens_the_address_is_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, screen: bool
) -> None:
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if screen:
        monkeypatch.setenv("DISPLAY", ":0")
    # A browser in the terminal would be opened without a screen, and show nothing of the page.
    monkeypatch.setattr(webbrowser, "open", lambda _: not screen)

    result = run("search", "a dog", "--open")

    assert result.exit_code == 0
    assert result.stdout == "http://127.0.0.1:8070/#/search?collection=Pictures&words=a+dog\n"
    assert "no browser can be opened here" in result.stderr


def test_the_explorers_address_can_be_told(pictures: FakeVecgate, opened: list[str], tmp_path: Path) -> None:
    told = ("--address", pictures.address, "--explorer-url", "https://site.example/embed/")
    by_variable = {"VECGATE_EXPLORER_URL": "http://other:81"}

    CliRunner().invoke(app, [*told, "search", "dog", "--open"])
    CliRunner().invoke(app, ["--address", pictures.address, "search", "dog", "--open"], env=by_variable)

    assert [url.partition("#")[0] for url in opened] == ["https://site.example/embed/", "http://other:81/"]


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("vecgate:50070", "http://vecgate:8070"),
        ("vecgate", "http://vecgate:8070"),
        ("dns:///vecgate.site:50070", "http://vecgate.site:8070"),
        ("dns://9.9.9.9/vecgate:50070", "http://vecgate:8070"),
        ("ipv4:10.0.0.1:50070", "http://10.0.0.1:8070"),
        ("[::1]:50070", "http://[::1]:8070"),
        ("ipv6:[fe80::1]:50070", "http://[fe80::1]:8070"),
        ("::1", "http://[::1]:8070"),
        ("unix:/run/vecgate.sock", "http://127.0.0.1:8070"),
    ],
)
def test_by_default_the_explorer_is_at_its_port_of_the_servers_host(address: str, url: str) -> None:
    assert explorer_at(address, tls=False) == url
    assert explorer_at(address, tls=True) == url.replace("http:", "https:")
