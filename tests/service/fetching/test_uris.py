"""URIs have one reading, or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ImageUriNotAllowed
from service.fetching.uris import MAX_URI_BYTES, Location, parse_uri


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("https://a.example/b/c.jpg", Location("https", "a.example", 443, "/b/c.jpg")),
        (
            "HTTPS://A.Example:8443/B%20c.jpg?x=%2F..&y=a/b",
            Location("https", "a.example", 8443, "/B%20c.jpg", "?x=%2F..&y=a/b"),
        ),
        ("http://a.example", Location("http", "a.example", 80, "/")),
        ("http://192.0.2.1:80/p/", Location("http", "192.0.2.1", 80, "/p/")),
        ("http://[2001:DB8:0::1]:8080/p", Location("http", "2001:db8::1", 8080, "/p")),
        ("http://[::ffff:127.0.0.1]/p", Location("http", "::ffff:7f00:1", 80, "/p")),
        ("http://xn--bcher-kva.example/p;v=1", Location("http", "xn--bcher-kva.example", 80, "/p;v=1")),
    ],
)
def test_a_uri_is_read_as_it_is_sent(uri: str, location: Location) -> None:
    assert parse_uri(uri) == location
    assert parse_uri(str(location)) == location


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "photo.jpg",
        "//a.example/p",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "gopher://a.example/1",
        "ftp://a.example/p",
        "s3://bucket/key",
        "javascript:alert(1)",
        "http:a.example/p",
        "http:/a.example/p",
        "http:///p",
        " http://a.example/p",
        "http://a.example/p ",
        "http://a.example/p\r\nHost: evil",
        "http://a.example\n/p",
        "http://a.example/p\0",
        "http://a.example\t/p",
    ],
)
def test_what_is_no_absolute_http_uri_is_refused(uri: str) -> None:
    with pytest.raises(ImageUriNotAllowed):
        parse_uri(uri)


@pytest.mark.parametrize(
    "authority",
    [
        "user@evil.example",
        "a.example@evil.example",
        "a.example:443@evil.example",
        "a.example%40evil.example",
        "a.example\\@evil.example",
        "a.example\\evil.example",
        "a.example#@evil.example",
        "a.example:",
        "a.example:0",
        "a.example:0443",
        "a.example:65536",
        "a.example:99999999",
        "a.example:+443",
        "a.example:4 43",
        "a.example.",
        "a..example",
        ".a.example",
        "-a.example",
        "a%2eexample",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.0.01",
        "256.0.0.1",
        "1.2.3.4.5",
        "[::1",
        "[::1]x",
        "[fe80::1%25eth0]",
        "[v1.a]",
        "::1",
        "bücher.example",
        "a。example",
        "127。0。0。1",
        "ａ.example",  # noqa: RUF001 -- a full-width letter
        "①②⑦.0.0.1",
        "а.example",  # noqa: RUF001 -- a Cyrillic letter
    ],
)
def test_a_host_that_programs_read_in_different_ways_is_refused(authority: str) -> None:
    with pytest.raises(ImageUriNotAllowed):
        parse_uri(f"http://{authority}/allowed/p.jpg")


@pytest.mark.parametrize(
    "path",
    [
        "/allowed/../secret",
        "/allowed/./p",
        "/allowed/..",
        "/allowed//p",
        "//p",
        "/allowed/%2e%2e/secret",
        "/allowed/%2E%2e/secret",
        "/allowed/.%2e/secret",
        "/allowed/..;/secret",
        "/allowed/..;x=1/secret",
        "/allowed/;/secret",
        "/allowed/..%2fsecret",
        "/allowed%2fp",
        "/allowed/%5c..%5csecret",
        "/allowed/..\\secret",
        "/allowed/%252e%252e/secret",
        "/allowed/%25252e./secret",
        "/allowed/%00.jpg",
        "/allowed/%0d%0aX",
        "/allowed/%7f",
        "/allowed/%zz",
        "/allowed/%2",
        "/allowed/%u002e",
        "/allowed/a b",
        "/allowed/ü",
        "/allowed/p#fragment",
        "/allowed/p?q#fragment",
        "/allowed/p?q=\\",
        "/allowed/p?q=a b",
        "/allowed/<p>",
        '/allowed/"p"',
    ],
)
def test_a_path_that_may_lead_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ImageUriNotAllowed):
        parse_uri(f"http://a.example{path}")


def test_a_uri_has_so_many_characters_and_no_more() -> None:
    start = "http://a.example/"

    assert parse_uri(start.ljust(MAX_URI_BYTES, "a")).host == "a.example"
    with pytest.raises(ImageUriNotAllowed, match=str(MAX_URI_BYTES)):
        parse_uri(start.ljust(MAX_URI_BYTES + 1, "a"))


def test_a_refusal_does_not_repeat_the_uri() -> None:
    with pytest.raises(ImageUriNotAllowed) as refusal:
        parse_uri("https://user:w0rd@a.example/p?signature=hush")

    assert not any(each in str(refusal.value) for each in ("w0rd", "hush", "a.example"))


@given(st.text(alphabet="htps:/@\\.%2ef5c?#[]0x17a;é。 \n", max_size=40))
def test_what_is_read_at_all_is_read_the_same_again(text: str) -> None:
    for uri in (text, f"http://{text}", f"http://a.example/{text}"):
        try:
            location = parse_uri(uri)
        except ImageUriNotAllowed:
            continue
        assert parse_uri(str(location)) == location
        assert not {"..", "."} & set(location.path.split("/"))
