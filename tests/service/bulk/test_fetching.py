"""Rows that refer to pictures on the web: fetched, rejected or tried again, and never asked for where it may not be."""

import pickle
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pyarrow as pa
import pytest

from service.bulk import fetching
from service.bulk.fetching import Fetched, Fetching, Web
from service.bulk.loop import BackgroundLoop
from service.bulk.reading import Reading, read_fragment
from service.bulk.rows import Row, from_table
from service.core.objects.checks import DraftObject, check_object
from service.domain import Collection, DataType, NamedVector, Property, Space, WeightedField, hash_image
from service.fetching import read_origins
from service.sources.fragments import fragments, schema
from service.sources.mapping import Mapping
from tests.fakes.embedder import picture
from tests.service.fetching.conftest import Listener, answer, redirect

PICTURES = [picture((each, 0, 0)) for each in range(20)]
VECTOR = NamedVector("main", Space("fake", 3, "fake/model"), (WeightedField("photo"),))


@pytest.fixture
def loop() -> Iterator[BackgroundLoop]:
    loop = BackgroundLoop()
    yield loop
    loop.close()


@pytest.fixture
def site(loop: BackgroundLoop) -> Iterator[Listener]:
    """An origin, with pictures below /p/."""
    listener = Listener()
    opened = listener.open()
    loop.run(opened.__aenter__())
    listener.replies |= {f"/p/{number}.png": answer(each) for number, each in enumerate(PICTURES)}
    yield listener
    loop.run(opened.__aexit__(None, None, None))


@pytest.fixture
def other(loop: BackgroundLoop) -> Iterator[Listener]:
    """A server that must not be called."""
    listener = Listener()
    opened = listener.open()
    loop.run(opened.__aenter__())
    yield listener
    loop.run(opened.__aexit__(None, None, None))
    assert (listener.connections, listener.requests) == (0, [])


def web_of(site: Listener, *more: str, patience_s: float = 0.0, max_bytes: int = 10_000) -> Web:
    entries = [f'[origins.site]\nurl = "{site.base}/p/"\nprivate_addresses = true\n', *more]
    return Web(read_origins("".join(entries).encode(), "origins.toml"), max_bytes, patience_s)


def rows_of(
    folder: Path, references: list[str], web: Web, kind: DataType = DataType.BLOB, target: str = ""
) -> list[Row]:
    """Return what the first stage makes of a table of references."""
    (folder / "t.csv").write_text("photo,n\n" + "".join(f'"{each}",{n}\n' for n, each in enumerate(references)))
    properties = (Property("photo", kind), Property("link", DataType.TEXT), Property("n", DataType.INT))
    here = Collection("Photos", properties, (VECTOR,))
    (found,) = fragments([str(folder / "t.csv")])
    plan = Mapping({"photo": target} if target else {}).bind(schema([found]), here)
    items = pa.table({"name": ["f"], "fragment": [pickle.dumps(found)]})
    reading = pickle.loads(pickle.dumps(Reading(plan, here, "", web)))  # as Ray sends it
    return [row for table in read_fragment(items, reading) for row in from_table(table)]


def test_pictures_are_fetched_and_ids_are_those_of_their_content(site: Listener, tmp_path: Path) -> None:
    rows = rows_of(tmp_path, [f"{site.base}/p/{n}.png" for n in range(20)], web_of(site))

    assert [each.reason for each in rows] == [""] * 21
    assert [each.object.images["photo"] for each in rows if each.object] == PICTURES
    draft = DraftObject("", "", {"n": 3.0}, {"photo": PICTURES[3]})
    here = Collection("Photos", (Property("photo", DataType.BLOB), Property("n", DataType.INT)), (VECTOR,))
    assert rows[3].id == check_object(here, draft).id.bytes
    assert len(site.requests) == 20


def test_the_hash_of_a_picture_and_its_reference_may_be_stored(site: Listener, tmp_path: Path) -> None:
    uri = f"{site.base}/p/0.png"

    row, _ = rows_of(tmp_path, [uri], web_of(site), DataType.BLOB_HASH, "photo, link")

    assert row.object is not None
    assert row.object.properties == {"link": uri, "n": 0}
    assert row.object.hashes == {"photo": hash_image(PICTURES[0])}
    # It is embedded.
    assert (row.object.images, row.pictures) == ({"photo": PICTURES[0]}, {})


def test_of_a_picture_only_the_reference_may_be_stored(site: Listener, tmp_path: Path) -> None:
    uri = f"{site.base}/p/0.png"

    row, _ = rows_of(tmp_path, [uri], web_of(site), DataType.TEXT)

    assert row.object is not None
    assert (row.object.properties, row.object.images) == ({"photo": uri, "n": 0}, {})
    assert row.pictures == {"photo": PICTURES[0]}


@pytest.mark.parametrize(("space", "made"), [(None, ["main", "other"]), (Space("other", 3, "other/model"), ["main"])])
def test_a_picture_of_a_vector_that_nobody_makes_is_not_fetched(
    space: Space | None, made: list[str], site: Listener, tmp_path: Path
) -> None:
    """It is of an unbound vector, or of one that another model makes."""
    (tmp_path / "t.csv").write_text(f"photo,link\n{site.base}/p/0.png,{site.base}/p/gone.png\n")
    texts = Property("photo", DataType.TEXT), Property("link", DataType.TEXT)
    here = Collection("Photos", texts, (VECTOR, NamedVector("other", space, (WeightedField("link"),))))
    (found,) = fragments([str(tmp_path / "t.csv")])
    plan = Mapping().bind(schema([found]), here)
    items = pa.table({"name": ["f"], "fragment": [pickle.dumps(found)]})

    reading = Reading(plan, here, "", web_of(site)).of_vectors(made)
    row, _ = [each for table in read_fragment(items, reading) for each in from_table(table)]

    assert (row.reason, row.pictures) == ("", {"photo": PICTURES[0]})
    assert len(site.requests) == 1


def test_what_is_no_picture_is_a_rejected_row_with_its_reason_and_the_others_go_on(
    site: Listener, tmp_path: Path
) -> None:
    site.replies |= {"/p/empty": answer(b""), "/p/large": answer(b"x" * 10_001), "/p/denied": answer(b"", status=403)}
    references = [f"{site.base}/p/{each}" for each in ("gone", "empty", "large", "denied", "1.png")]

    *rows, end = rows_of(tmp_path, references, web_of(site))

    assert [each.reason for each in rows] == [
        "IMAGE_NOT_SERVED",
        "IMAGE_NOT_SERVED",
        "IMAGE_TOO_LARGE",
        "IMAGE_NOT_SERVED",
        "",
    ]
    assert (rows[0].place, rows[0].message) == ("t.csv, line 2", "photo: origin 'site' answers with status 404")
    assert (end.number, end.reason) == (5, "")


@pytest.mark.parametrize(
    "form",
    [
        "http://127.0.0.1:{other}/p/0.png",
        "http://localhost:{other}/p/0.png",
        "http://[::1]:{other}/p/0.png",
        "http://[::ffff:127.0.0.1]:{other}/p/0.png",
        "http://2130706433:{other}/p/0.png",
        "http://0x7f.1:{other}/p/0.png",
        "http://127.1:{other}/p/0.png",
        "http://127.0.0.1:{site}.evil.example/p/0.png",
        "http://127.0.0.1:{site}/secret/0.png",
        "http://127.0.0.1:{site}/p/../secret/0.png",
        "http://127.0.0.1:{site}/p/%2e%2e/secret/0.png",
        "http://127.0.0.1:{site}/p/%252e%252e/secret/0.png",
        "http://127.0.0.1:{site}/p/..%2fsecret/0.png",
        "http://127.0.0.1:{site}/p//secret/0.png",
        "http://127.0.0.1:{site}/p/..\\secret/0.png",
        "http://127.0.0.1:{site}/P/0.png",
        "https://127.0.0.1:{site}/p/0.png",
        "http://169.254.169.254/latest/meta-data",
        "http://unlisted.example/p/0.png",
        "http://127.0.0.1:{site}/p/0.png#{other}",
        "http:///p/0.png",
    ],
)
def test_a_reference_that_is_not_allowed_is_a_rejected_row_and_nothing_is_sent(
    form: str, site: Listener, other: Listener, tmp_path: Path
) -> None:
    row, end = rows_of(tmp_path, [form.format(site=site.port, other=other.port)], web_of(site))

    assert (row.reason, end.reason) == ("IMAGE_URI_NOT_ALLOWED", "")
    assert (site.connections, site.requests) == (0, [])


@pytest.mark.parametrize(
    "reference",
    [
        "http://u:hunter2@{site}/p/0.png",
        "http://{other}@{site}/p/0.png",
        "http://①27.0.0.1:8080/p/0.png",
        "http://exämple.com/p/0.png",
    ],
)
def test_a_reference_with_a_password_or_other_letters_is_a_rejected_row_and_nothing_is_sent(
    reference: str, site: Listener, other: Listener, tmp_path: Path
) -> None:
    hosts = {"site": f"127.0.0.1:{site.port}", "other": f"127.0.0.1:{other.port}"}

    row, _ = rows_of(tmp_path, [reference.format(**hosts)], web_of(site))

    assert row.reason == "ROW_REFUSED"
    assert "hunter2" not in row.message
    assert site.connections == 0


def test_an_origin_that_may_have_public_addresses_alone_is_not_called_at_a_private_one(
    site: Listener, other: Listener, tmp_path: Path
) -> None:
    web = web_of(site, f'[origins.other]\nurl = "{other.base}/p/"\n')

    row, _ = rows_of(tmp_path, [f"{other.base}/p/0.png"], web)

    assert row.reason == "IMAGE_URI_NOT_ALLOWED"
    assert "an address that is private" in row.message


def test_a_redirect_to_another_place_is_not_followed(site: Listener, other: Listener, tmp_path: Path) -> None:
    site.replies |= {
        "/p/other": redirect(f"{other.base}/p/0.png"),
        "/p/metadata": redirect("http://169.254.169.254/latest"),
        "/p/file": redirect("file:///etc/passwd"),
        "/p/up": redirect("/secret/0.png"),
        "/p/within": redirect("/p/2.png"),
    }
    references = [f"{site.base}/p/{each}" for each in ("other", "metadata", "file", "up", "within")]

    *rows, _ = rows_of(tmp_path, references, web_of(site))

    assert [each.reason for each in rows] == ["IMAGE_URI_NOT_ALLOWED"] * 4 + [""]
    assert [each.split(" ")[1] for each in site.requests].count("/secret/0.png") == 0


def test_without_a_list_nothing_is_fetched_and_the_fragment_is_done_once_there_is_one(
    site: Listener, tmp_path: Path
) -> None:
    *rows, end = rows_of(tmp_path, [f"{site.base}/p/0.png"], Web((), 10_000, 0.0))

    assert (rows, end.reason, site.connections) == ([], "SOURCE_UNREADABLE", 0)
    assert "VECGATE_FETCH__ORIGINS_FILE" in end.message


def test_credentials_that_an_origin_does_not_take_reject_no_row(site: Listener, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    site.replies["/p/0.png"] = answer(b"", status=401)
    web = web_of(site, f'bearer_token_file = "{tmp_path}/token"\n')

    *rows, end = rows_of(tmp_path, [f"{site.base}/p/0.png"], web)

    assert (rows, end.reason) == ([], "SOURCE_UNREADABLE")


def test_an_origin_that_does_not_answer_for_a_while_is_asked_again(site: Listener, tmp_path: Path) -> None:
    async def first_busy(writer: object) -> None:
        busy = sum(each.startswith("GET /p/0.png ") for each in site.requests) < 3
        writer.write(answer(b"", status=503) if busy else answer(PICTURES[0]))  # type: ignore[attr-defined]

    site.replies["/p/0.png"] = first_busy

    row, end = rows_of(tmp_path, [f"{site.base}/p/0.png"], web_of(site, patience_s=600))

    assert (row.reason, end.reason) == ("", "")
    assert len(site.requests) == 3


def test_an_origin_that_does_not_answer_at_all_ends_the_fragment_which_is_done_again_the_next_time(
    site: Listener, tmp_path: Path
) -> None:
    site.replies["/p/1.png"] = answer(b"", status=503)
    references = [f"{site.base}/p/{n}.png?signature=hunter2" if n == 1 else f"{site.base}/p/{n}.png" for n in range(3)]
    site.replies["/p/1.png?signature=hunter2"] = answer(b"", status=503)

    *_, end = rows_of(tmp_path, references, web_of(site))

    assert (end.end, end.reason) == (True, "SOURCE_UNREADABLE")
    assert end.message == "line 3: the picture cannot be fetched: origin 'site' answers with status 503"


def test_a_picture_for_which_its_origin_always_fails_is_a_rejected_row_and_the_others_go_on(
    site: Listener, tmp_path: Path
) -> None:
    site.replies["/p/1.png"] = answer(b"", status=500)

    *rows, end = rows_of(tmp_path, [f"{site.base}/p/{n}.png" for n in range(3)], web_of(site))

    assert [each.reason for each in (*rows, end)] == ["", "IMAGE_UNREACHABLE", "", ""]
    assert rows[1].message == "photo: origin 'site' answers with status 500"


def test_certificates_that_cannot_be_read_here_end_the_fragment(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificates")
    entry = f'[origins.site]\nurl = "https://127.0.0.1/p/"\nca_file = "{tmp_path}/ca.pem"\n'
    web = Web(read_origins(entry.encode(), "origins.toml"), 10_000, 0.0)

    *rows, end = rows_of(tmp_path, ["https://127.0.0.1/p/0.png"], web)

    assert (rows, end.reason) == ([], "SOURCE_UNREADABLE")
    assert "ca.pem" in end.message


def test_rows_come_in_order_with_their_pictures(site: Listener) -> None:
    rows = [(n, {} if n == 5 else {"photo": f"{site.base}/p/{n}.png"}, 0) for n in range(20)]

    with Fetching(web_of(site)) as some:
        found = list(some.ahead(rows))

    assert found == [(n, {} if n == 5 else {"photo": PICTURES[n]}) for n in range(20)]


class Slow(Future[Fetched]):
    """Pictures that arrive when somebody waits for them."""

    def result(self, timeout: float | None = None) -> Fetched:
        if not self.done():
            self.set_result({})
        return super().result(timeout)


@pytest.mark.parametrize(
    ("named", "own_bytes", "fetched_bytes", "begun"),
    [(1, 0, 0, 4), (2, 0, 0, 2), (1, 100, 0, 2), (1, 0, 100, 3), (0, 100, 0, 2), (1, 0, 40, 4)],
)
def test_rows_pictures_and_bytes_that_are_fetched_ahead_have_a_bound(
    named: int, own_bytes: int, fetched_bytes: int, begun: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first row is slow, and the others have arrived at once."""
    monkeypatch.setattr(fetching, "AHEAD", 4)
    monkeypatch.setattr(fetching, "AHEAD_BYTES", 150)
    begun_rows: list[int] = []

    def start(_: Fetching, uris: dict[str, str]) -> Slow:
        slow = Slow()
        if begun_rows != [0]:
            slow.set_result(dict.fromkeys(uris, b"x" * fetched_bytes))
        return slow

    def rows() -> Iterator[tuple[int, dict[str, str], int]]:
        for number in range(20):
            begun_rows.append(number)
            yield number, {str(each): "" for each in range(named if number else max(named, 1))}, own_bytes

    monkeypatch.setattr(Fetching, "_start", start)

    first, _ = next(Fetching(Web((), 0, 0.0)).ahead(rows()))

    assert (first, len(begun_rows)) == (0, begun)
