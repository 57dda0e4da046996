"""Fetching: what is sent, where to, and how much is taken."""

import asyncio
import gzip
import socket
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme

from embedders.errors import ImageTooLarge
from service.errors import ImageNotServed, ImageUnreachable, ImageUriNotAllowed
from service.fetching import Fetcher, Origin, fetcher, parse_uri
from service.fetching.connecting import MAX_ORIGIN_CONNECTIONS, look_up
from service.fetching.fetcher import MAX_REDIRECTS
from tests.service.fetching.conftest import Listener, answer, redirect

PICTURE = b"\xff\xd8 a picture"


def origin(url: str, *, name: str = "site", private: bool = True, token: Path | None = None) -> Origin:
    return Origin(name=name, root=parse_uri(url), private_addresses=private, bearer_token_file=token)


def answering(*addresses: str) -> tuple[fetcher.Lookup, list[str]]:
    """Return a name server that gives one address after the other, and the names that it was asked for."""
    rest, asked = list(addresses), list[str]()

    async def look_up(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return rest.pop(0).split()

    return look_up, asked


async def test_a_listed_picture_is_fetched_with_the_request_that_its_uri_says(site: Listener) -> None:
    site.replies["/a/b%20c.jpg?x=%2F&y"] = answer(PICTURE)

    async with Fetcher([origin(f"{site.base}/a/")]) as fetch:
        content = await fetch.fetch(f"HTTP://127.0.0.1:{site.port}/a/b%20c.jpg?x=%2F&y")

    assert content == PICTURE
    (head,) = site.requests
    assert head.startswith("GET /a/b%20c.jpg?x=%2F&y HTTP/1.1\r\n")
    assert f"\r\nHost: 127.0.0.1:{site.port}\r\n" in head
    assert "\r\nAccept-Encoding: identity\r\n" in head
    assert "authorization" not in head.lower()


async def test_nothing_is_sent_to_what_is_not_listed(site: Listener, other: Listener) -> None:
    async with Fetcher([origin(f"{site.base}/allowed/")]) as fetch:
        for uri in (
            f"{other.base}/allowed/p",
            f"http://127.0.0.1:{site.port}@127.0.0.1:{other.port}/allowed/p",
            f"http://127.0.0.1:{site.port}\\@127.0.0.1:{other.port}/allowed/p",
            f"http://localhost:{site.port}/allowed/p",
            f"http://2130706433:{site.port}/allowed/p",
            f"http://0177.0.0.1:{site.port}/allowed/p",
            f"http://127.1:{site.port}/allowed/p",
            f"http://[::ffff:127.0.0.1]:{site.port}/allowed/p",
            f"http://[::1]:{site.port}/allowed/p",
            f"http://127。0。0。1:{site.port}/allowed/p",
            f"https://127.0.0.1:{site.port}/allowed/p",
            f"{site.base}/secret",
            f"{site.base}/allowed/../secret",
            f"{site.base}/allowed/%2e%2e/secret",
            f"{site.base}/allowed/..%2fsecret",
            f"{site.base}//allowed/p",
            "file:///etc/hostname",
            "data:image/png;base64,AAAA",
            f"gopher://127.0.0.1:{site.port}/allowed/p",
        ):
            with pytest.raises(ImageUriNotAllowed):
                await fetch.fetch(uri)

    assert site.connections == 0


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "[fd00::1]"]
)
async def test_an_address_in_a_listed_uri_is_not_called_unless_private_ones_are_allowed(
    host: str, site: Listener
) -> None:
    async with Fetcher([origin(f"http://{host}:{site.port}/", private=False)]) as fetch:
        with pytest.raises(ImageUriNotAllowed, match="private_addresses"):
            await fetch.fetch(f"http://{host}:{site.port}/p")

    assert site.connections == 0


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"]
)
async def test_addresses_of_metadata_are_not_called_even_then(host: str, site: Listener) -> None:
    async with Fetcher([origin(f"http://{host}:{site.port}/")]) as fetch:
        with pytest.raises(ImageUriNotAllowed):
            await fetch.fetch(f"http://{host}:{site.port}/p")

    assert site.connections == 0


@pytest.mark.parametrize("addresses", ["127.0.0.1", "::1", "93.184.216.34 127.0.0.1", "169.254.169.254", "fe80::1%lo"])
async def test_a_name_with_any_private_address_is_not_called(addresses: str, site: Listener) -> None:
    look_up, asked = answering(addresses)

    async with Fetcher([origin(f"http://a.example:{site.port}/", private=False)], lookup=look_up) as fetch:
        with pytest.raises(ImageUriNotAllowed, match="private_addresses"):
            await fetch.fetch(f"http://a.example:{site.port}/p")

    assert (asked, site.connections) == (["a.example"], 0)


async def test_a_name_is_looked_up_once_and_exactly_that_address_is_called(site: Listener) -> None:
    look_up, asked = answering("127.0.0.1", "169.254.169.254")
    site.replies["/p"] = answer(PICTURE, "Connection: close")

    async with Fetcher([origin(f"http://a.example:{site.port}/")], lookup=look_up) as fetch:
        assert await fetch.fetch(f"http://a.example:{site.port}/p") == PICTURE
        assert asked == ["a.example"]
        with pytest.raises(ImageUriNotAllowed):
            await fetch.fetch(f"http://a.example:{site.port}/p")

    assert (len(asked), site.connections) == (2, 1)
    assert f"\r\nHost: a.example:{site.port}\r\n" in site.requests[0]


async def test_redirects_are_followed_within_the_origin_and_the_list(site: Listener) -> None:
    site.replies |= {
        "/allowed/1": redirect("/allowed/2"),
        "/allowed/2": redirect("3?x=1", 307),
        "/allowed/3?x=1": redirect(f"{site.base}/allowed/4", 308),
        "/allowed/4": answer(PICTURE),
        "/allowed/out": redirect("/secret"),
        "/allowed/up": redirect("../secret"),
    }

    async with Fetcher([origin(f"{site.base}/allowed/")]) as fetch:
        assert await fetch.fetch(f"{site.base}/allowed/1") == PICTURE
        for name in ("out", "up"):
            with pytest.raises(ImageUriNotAllowed):
                await fetch.fetch(f"{site.base}/allowed/{name}")

    assert not any("secret" in each for each in site.requests)


async def test_a_redirect_to_another_origin_is_not_followed_even_if_that_is_listed(
    site: Listener, other: Listener, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("hush")
    targets = [
        f"{other.base}/p",
        f"//127.0.0.1:{other.port}/p",
        f"http://127.0.0.1:{site.port}@127.0.0.1:{other.port}/p",
        f"\\\\127.0.0.1:{other.port}/p",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "file:///etc/hostname",
        "data:image/png;base64,AAAA",
        "https://127.0.0.1/p",
    ]
    site.replies |= {f"/{number}": redirect(each) for number, each in enumerate(targets)}
    origins = [origin(f"{site.base}/", token=token), origin(f"{other.base}/", name="other")]

    async with Fetcher(origins) as fetch:
        for number in range(len(targets)):
            with pytest.raises(ImageUriNotAllowed):
                await fetch.fetch(f"{site.base}/{number}")


async def test_redirects_without_end_or_aim_are_given_up(site: Listener) -> None:
    site.replies |= {"/loop": redirect("/loop"), "/aimless": answer(b"", status=302), "/odd": redirect("http://[x/p")}

    async with Fetcher([origin(f"{site.base}/")]) as fetch:
        with pytest.raises(ImageNotServed, match=f"more than {MAX_REDIRECTS}"):
            await fetch.fetch(f"{site.base}/loop")
        assert len(site.requests) == MAX_REDIRECTS + 1
        with pytest.raises(ImageNotServed, match="where"):
            await fetch.fetch(f"{site.base}/aimless")
        with pytest.raises((ImageNotServed, ImageUriNotAllowed)):
            await fetch.fetch(f"{site.base}/odd")


async def test_credentials_go_to_their_own_origin_only(site: Listener, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hush")
    site.replies |= {"/open/p": answer(PICTURE), "/closed/p": redirect("/open/q"), "/open/q": answer(PICTURE)}
    origins = [origin(f"{site.base}/open/", name="open"), origin(f"{site.base}/closed/", name="closed", token=token)]

    async with Fetcher(origins) as fetch:
        for path in ("open/p", "closed/p"):
            assert await fetch.fetch(f"{site.base}/{path}") == PICTURE

    assert ["hush" in each for each in site.requests] == [False, True, False]
    assert "\r\nAuthorization: Bearer hush\r\n" in site.requests[1]


async def test_credentials_that_cannot_be_read_are_the_origins_fault(site: Listener, tmp_path: Path) -> None:
    async with Fetcher([origin(f"{site.base}/", token=tmp_path / "none")]) as fetch:
        with pytest.raises(ImageUnreachable, match="credentials"):
            await fetch.fetch(f"{site.base}/p")

    assert site.connections == 0


async def test_a_picture_at_the_bound_is_taken_and_no_more_than_that_of_a_larger_one(site: Listener) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"3e8\r\n" + bytes(1000) + b"\r\n")
            await writer.drain()

    async def lying(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 Fine\r\nContent-Length: 99999999999\r\n\r\n")
        await writer.drain()

    site.replies |= {"/at": answer(bytes(1000)), "/over": answer(bytes(1001)), "/endless": endless, "/lying": lying}
    counted: list[int] = []

    async with Fetcher([origin(f"{site.base}/")]) as fetch:
        assert len(await fetch.fetch(f"{site.base}/at", max_bytes=1000, count=counted.append)) == 1000
        assert sum(counted) == 1000
        for name in ("over", "endless", "lying"):
            with pytest.raises(ImageTooLarge, match="the most is 1000"):
                await fetch.fetch(f"{site.base}/{name}", max_bytes=1000, count=counted.append)

    assert sum(counted) <= 4000


async def test_what_the_count_raises_ends_the_fetch(site: Listener) -> None:
    site.replies["/p"] = answer(PICTURE)

    def refuse(size: int) -> None:
        raise MemoryError

    async with Fetcher([origin(f"{site.base}/")]) as fetch:
        with pytest.raises(MemoryError):
            await fetch.fetch(f"{site.base}/p", count=refuse)


async def test_compressed_answers_are_refused_and_never_unpacked(site: Listener) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    site.replies |= {
        "/header": answer(bomb, "Content-Encoding: gzip"),
        "/transfer": answer(bomb, "Transfer-Encoding: gzip"),
        "/plain": answer(bomb),
    }

    async with Fetcher([origin(f"{site.base}/")]) as fetch:
        with pytest.raises(ImageNotServed, match="compresses"):
            await fetch.fetch(f"{site.base}/header")
        with pytest.raises((ImageNotServed, ImageUnreachable)):
            await fetch.fetch(f"{site.base}/transfer")
        assert await fetch.fetch(f"{site.base}/plain") == bomb


async def test_a_slow_body_is_given_up_in_time(site: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "FETCH_TIMEOUT_S", 0.2)
    gone = asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 Fine\r\nContent-Length: 1000\r\n\r\nx")
        await writer.drain()
        await writer.wait_closed()
        gone.set()

    site.replies["/p"] = slow

    async with Fetcher([origin(f"{site.base}/")]) as fetch:
        with pytest.raises(ImageUnreachable, match="in time"):
            await fetch.fetch(f"{site.base}/p")


async def test_a_caller_that_gives_up_ends_the_fetch(site: Listener) -> None:
    reached = asyncio.Event()

    async def silent(writer: asyncio.StreamWriter) -> None:
        reached.set()
        await asyncio.sleep(3600)

    site.replies |= {"/silent": silent, "/p": answer(PICTURE)}

    async with Fetcher([origin(f"{site.base}/")]) as fetch:
        waiting = asyncio.create_task(fetch.fetch(f"{site.base}/silent"))
        await reached.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await fetch.fetch(f"{site.base}/p") == PICTURE


@pytest.mark.parametrize(
    ("reply", "error", "said"),
    [
        (answer(b"no", status=404), ImageNotServed, "404"),
        (answer(b"no", status=401), ImageNotServed, "401"),
        (answer(b"part", status=206), ImageNotServed, "206"),
        (answer(b""), ImageNotServed, "without any bytes"),
        (answer(b"no", status=500), ImageUnreachable, "500"),
        (answer(b"no", status=429), ImageUnreachable, "429"),
        (b"what?\r\n\r\n", ImageNotServed, "not HTTP"),
        (b"HTTP/1.1 200 Fine\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", ImageNotServed, "not HTTP"),
    ],
)
async def test_another_answer_than_a_picture_is_named_by_the_origin_alone(
    reply: bytes, error: type[Exception], said: str, site: Listener
) -> None:
    site.replies["/p?signature=hush"] = reply

    async with Fetcher([origin(f"{site.base}/")]) as fetch:
        with pytest.raises(error, match=said) as failure:
            await fetch.fetch(f"{site.base}/p?signature=hush")

    assert "'site'" in str(failure.value)
    assert not any(each in str(failure.value) for each in ("hush", "127.0.0.1"))


async def test_credentials_that_an_origin_does_not_take_may_be_renewed(site: Listener, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    site.replies["/p"] = answer(b"no", status=401)

    async with Fetcher([origin(f"{site.base}/", token=tmp_path / "token")]) as fetch:
        with pytest.raises(ImageUnreachable, match="'site' does not take its credentials"):
            await fetch.fetch(f"{site.base}/p")


@pytest.mark.parametrize(("status", "of_image"), [(500, True), (429, False), (502, False), (503, False), (504, False)])
async def test_an_origin_may_fail_for_one_picture_alone(status: int, of_image: bool, site: Listener) -> None:  # noqa: FBT001
    site.replies["/p"] = answer(b"no", status=status)

    async with Fetcher([origin(f"{site.base}/")]) as fetch:
        with pytest.raises(ImageUnreachable) as failure:
            await fetch.fetch(f"{site.base}/p")

    assert failure.value.of_image == of_image


async def test_an_origin_that_is_not_there_may_be_later(site: Listener) -> None:
    async def nowhere(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    async with Fetcher([origin("http://a.example/")], lookup=nowhere) as fetch:
        with pytest.raises(ImageUnreachable, match="has no address"):
            await fetch.fetch("http://a.example/p")
    async with Listener().open() as gone:
        pass
    async with Fetcher([origin(f"{gone.base}/")]) as fetch:
        with pytest.raises(ImageUnreachable, match="cannot be reached"):
            await fetch.fetch(f"{gone.base}/p")


async def test_a_slow_origin_is_asked_for_a_few_pictures_at_once_and_holds_back_no_other(site: Listener) -> None:
    asked, full, open_ = 0, asyncio.Event(), asyncio.Event()

    async def slow(writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        if asked == MAX_ORIGIN_CONNECTIONS:
            full.set()
        await open_.wait()
        writer.write(answer(PICTURE))
        await writer.drain()

    async with Listener().open() as quick:
        site.replies["/p"], quick.replies["/p"] = slow, answer(PICTURE)
        async with Fetcher([origin(f"{each.base}/", name=str(each.port)) for each in (site, quick)]) as fetch:
            waiting = [asyncio.create_task(fetch.fetch(f"{site.base}/p")) for _ in range(3 * MAX_ORIGIN_CONNECTIONS)]
            await full.wait()
            assert await fetch.fetch(f"{quick.base}/p") == PICTURE
            assert asked == MAX_ORIGIN_CONNECTIONS
            open_.set()
            contents = await asyncio.gather(*waiting)

    assert contents == [PICTURE] * len(waiting)
    assert site.connections == MAX_ORIGIN_CONNECTIONS


async def test_names_are_looked_up_in_threads_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def resolve(*_: object, **__: object) -> list[object]:
        threads.append(threading.current_thread().name)
        return [(None, None, None, "", ("93.184.216.34", 80))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    assert await look_up("a.example", 80) == ["93.184.216.34"]
    assert [each.partition("_")[0] for each in threads] == ["lookup"]


async def test_a_proxy_of_the_environment_is_not_used(
    site: Listener, other: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", other.base)
    site.replies["/p"] = answer(PICTURE, "Set-Cookie: a=b")

    async with Fetcher([origin(f"{site.base}/")]) as fetch:
        await fetch.fetch(f"{site.base}/p")
        assert await fetch.fetch(f"{site.base}/p") == PICTURE

    assert not any("cookie" in each.lower() for each in site.requests)


async def test_a_certificate_is_checked_against_the_name_and_the_origins_own_authority(tmp_path: Path) -> None:
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("a.example").configure_cert(server)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    async def look_up(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(PICTURE, "Connection: close"))
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    port = listener.sockets[0].getsockname()[1]
    bases = {name: f"https://{host}:{port}/" for name, host in (("right", "a.example"), ("wrong", "b.example"))}
    origins = [
        Origin(name=name, root=parse_uri(base), ca_file=tmp_path / "ca.pem", private_addresses=True)
        for name, base in bases.items()
    ]

    async with listener, Fetcher(origins, lookup=look_up) as fetch:
        assert await fetch.fetch(f"{bases['right']}p") == PICTURE
        with pytest.raises(ImageUnreachable, match="not trusted"):
            await fetch.fetch(f"{bases['wrong']}p")
    async with Fetcher([origin(bases["right"])], lookup=look_up) as fetch:
        with pytest.raises(ImageUnreachable):
            await fetch.fetch(f"{bases['right']}p")
