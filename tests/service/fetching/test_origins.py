"""The list of origins."""

from pathlib import Path

import pytest

from service.errors import ImageUriNotAllowed
from service.fetching.origins import find_origin, read_origins
from service.fetching.uris import parse_uri
from service.settings import InvalidSettings


def origins_of(*lines: str) -> bytes:
    return "\n".join(lines).encode()


CATALOGUE = ("[origins.catalogue]", 'url = "https://pictures.example/catalogue/"')
ARCHIVE = ("[origins.archive]", 'url = "https://pictures.example/catalogue/archive/"')


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("https://pictures.example/catalogue/1.jpg", "catalogue"),
        ("HTTPS://Pictures.EXAMPLE:443/catalogue/deep/1.jpg?x=1", "catalogue"),
        ("https://pictures.example/catalogue/archive/1.jpg", "archive"),
    ],
)
def test_a_picture_is_of_the_origin_with_the_longest_path(uri: str, name: str) -> None:
    origins = read_origins(origins_of(*CATALOGUE, *ARCHIVE), "origins.toml")

    assert find_origin(origins, parse_uri(uri)).name == name


@pytest.mark.parametrize(
    "uri",
    [
        "http://pictures.example/catalogue/1.jpg",
        "https://pictures.example:8443/catalogue/1.jpg",
        "https://pictures.example/catalogue",
        "https://pictures.example/cataloguesque/1.jpg",
        "https://pictures.example/Catalogue/1.jpg",
        "https://pictures.example/other/1.jpg",
        "https://pictures.example/",
        "https://evil.pictures.example/catalogue/1.jpg",
        "https://pictures.example.evil/catalogue/1.jpg",
        "https://pictures/catalogue/1.jpg",
    ],
)
def test_what_differs_in_scheme_host_port_or_path_is_of_none(uri: str) -> None:
    origins = read_origins(origins_of(*CATALOGUE), "origins.toml")

    with pytest.raises(ImageUriNotAllowed, match="operator"):
        find_origin(origins, parse_uri(uri))


def test_without_a_list_nothing_is_allowed() -> None:
    with pytest.raises(ImageUriNotAllowed):
        find_origin((), parse_uri("https://pictures.example/1.jpg"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('url = "https://pictures.example/catalogue"', "end it with /"),
        ('url = "https://pictures.example/?a=b"', "no query"),
        ('url = "https://user:w0rd@pictures.example/"', "credentials"),
        ('url = "file:///pictures/"', "http"),
        ('url = "https://pictures.example/../"', "segment"),
        ('url = "https://*.example/"', "not valid"),
        ('url = "https://a.example/"\nfollow = true', "follow"),
        ('url = "https://a.example/"\nbearer_token_file = "/nowhere/token"', "cannot be read"),
        ('url = "http://a.example/"\nca_file = "FILE"', "https"),
        ('url = "https://a.example/"\nbearer_token_file = "FILE"\nbasic_auth_file = "FILE"', "give one"),
        ("", "url"),
    ],
)
def test_a_wrong_entry_is_named_without_its_secrets(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush")
    content = origins_of("[origins.one]", line.replace("FILE", str(tmp_path / "secret")))

    with pytest.raises(InvalidSettings) as error:
        read_origins(content, "origins.toml")

    assert said in str(error.value)
    assert "origins.toml: origins.one" in str(error.value)
    assert not any(each in str(error.value) for each in ("hush", "w0rd"))


def test_an_empty_list_wrong_toml_and_a_folder_listed_twice_are_refused() -> None:
    for content in (b"", b"[origins]", b"[origins", b"\xff"):
        with pytest.raises(InvalidSettings, match=r"origins\.toml"):
            read_origins(content, "origins.toml")
    twice = origins_of(*CATALOGUE, "[origins.again]", 'url = "HTTPS://PICTURES.example:443/catalogue/"')
    with pytest.raises(InvalidSettings, match=r"again\.url: is also that of catalogue"):
        read_origins(twice, "origins.toml")


def test_credentials_are_read_again_for_each_request(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    (bearer,) = read_origins(origins_of(*CATALOGUE, f'bearer_token_file = "{file}"'), "origins.toml")
    (basic,) = read_origins(origins_of(*CATALOGUE, f'basic_auth_file = "{file}"'), "origins.toml")
    assert bearer.authorization() == "Bearer one"

    file.write_text("user:two")

    assert bearer.authorization() == "Bearer user:two"
    assert basic.authorization() == "Basic dXNlcjp0d28="
    (public,) = read_origins(origins_of(*CATALOGUE), "origins.toml")
    assert public.authorization() is None
