import errno
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import sleep

import pytest

from service.store.embedded.binary import (
    MERGER,
    SKIPS_NODES_WITHOUT_LINKS,
    WEAVIATE_RELEASE,
    WEAVIATE_VERSION,
    WeaviateBinaryMissing,
    find_binary,
    install_binary,
)
from service.store.weaviate.download import download_release


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("service.store.embedded.binary.user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path


@pytest.fixture
def make_program(home: Path) -> Callable[[str], Path]:
    def make(path: str) -> Path:
        program = home / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        return program

    return make


CACHED = f"cache/vecgate/weaviate/weaviate-server-v{WEAVIATE_VERSION}-mended"
RELEASED = f"cache/vecgate/weaviate/weaviate-server-v{WEAVIATE_RELEASE}"
CACHED_BY_CLIENT = (
    ".cache/weaviate-embedded/weaviate-v1.39.7-6f3775afbb81564ef795edd853fef1f88883b067acf08bc53a622311a1d26662"
)


def test_programs_are_found_in_the_order_of_nearness(home: Path, make_program: Callable[[str], Path]) -> None:
    with pytest.raises(WeaviateBinaryMissing, match=r"make weaviate.*vecgate weaviate install"):
        find_binary()
    for path in ("bin/weaviate", "bin/weaviate-server", CACHED_BY_CLIENT, RELEASED, CACHED):
        program = make_program(path)
        assert find_binary() == program
    assert find_binary(make_program("mine")) == home / "mine"


def test_a_configured_program_that_is_not_there_is_not_replaced(
    home: Path, make_program: Callable[[str], Path]
) -> None:
    make_program(CACHED)
    with pytest.raises(WeaviateBinaryMissing, match="VECGATE_WEAVIATE__BINARY"):
        find_binary(home / "mine")


@pytest.mark.parametrize("path", [CACHED, RELEASED])
def test_an_installed_program_is_not_installed_again(make_program: Callable[[str], Path], path: str) -> None:
    program = make_program(path)
    lines: list[str] = []
    assert install_binary(lines.append) == program
    assert not any("building" in line or "downloading" in line for line in lines)


@pytest.fixture
def make_go(home: Path, make_program: Callable[[str], Path]) -> Callable[..., None]:
    """Put a Go on the path that has Weaviate's sources in a cache, and whose program is the file that is mended."""

    def make(code: str = f"before\n{SKIPS_NODES_WITHOUT_LINKS}after\n", first: str = "") -> None:
        merger = home / "sources" / MERGER
        merger.parent.mkdir(parents=True)
        merger.write_text(code)
        for each in (merger, *merger.parents[: len(MERGER.parts)]):
            each.chmod(0o555 if each.is_dir() else 0o444)
        make_program("bin/go").write_text(
            f"""#!/bin/sh
{first}
echo "$@" >> {home}/asked
[ "$1" = mod ] && echo '{{"Dir": "{home}/sources"}}' && exit
[ "$CGO_ENABLED $GOWORK" = "0 off" ] || exit 1
while [ "$1" != -o ]; do shift; done
/bin/cp {MERGER} "$2" && /bin/chmod 755 "$2"
"""
        )

    return make


def test_go_builds_the_program_without_the_lines_that_lose_vectors(home: Path, make_go: Callable[..., None]) -> None:
    make_go()
    lines: list[str] = []
    program = install_binary(lines.append)
    assert program == home / CACHED
    assert program.read_text() == "before\nafter\n"
    asked = (home / "asked").read_text().splitlines()
    assert asked[0] == f"mod download -json github.com/weaviate/weaviate@v{WEAVIATE_VERSION}"
    assert asked[1].split()[-1] == "./cmd/weaviate-server"
    assert "minutes" in lines[0]
    assert find_binary() == program
    assert [each.name for each in program.parent.iterdir() if each.suffix != ".lock"] == [program.name]


def test_other_sources_than_those_known_are_not_built(make_go: Callable[..., None]) -> None:
    make_go(code="other lines\n")
    with pytest.raises(WeaviateBinaryMissing, match=r"nway_merger.go of Weaviate .* is not as expected"):
        install_binary(lambda _: None)


def test_a_disk_without_room_for_the_sources_is_named(
    make_go: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise shutil.Error([("from", "to", os.strerror(errno.ENOSPC))])

    monkeypatch.setattr("shutil.copytree", fail)
    monkeypatch.setattr("service.store.weaviate.download.download_release", fail)
    make_go()
    with pytest.raises(WeaviateBinaryMissing, match=r"copying the sources: .*No space left.*download"):
        install_binary(lambda _: None)


def test_other_versions_are_built_as_they_are(home: Path, make_go: Callable[..., None]) -> None:
    make_go()
    program = install_binary(lambda _: None, "1.38.14")
    assert program == home / "cache/vecgate/weaviate/weaviate-server-v1.38.14"
    assert program.read_text() == (home / "sources" / MERGER).read_text()


def test_two_that_install_at_the_same_time_build_it_once(home: Path, make_go: Callable[..., None]) -> None:
    make_go(first=f"echo >> {home}/builds; while [ ! -e {home}/go-on ]; do /bin/sleep 0.01; done")
    first: list[str] = []
    second: list[str] = []
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(install_binary, first.append)
        while not (home / "builds").exists():
            sleep(0.01)
        other = threads.submit(install_binary, second.append)
        while not second and not other.done():
            sleep(0.01)
        (home / "go-on").touch()

    assert one.result() == other.result() == home / CACHED
    assert second == ["another process installs Weaviate; waiting for it"]
    assert len((home / "asked").read_text().splitlines()) == 2


def test_a_folder_without_locks_is_no_hindrance(
    home: Path, make_go: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    make_go()
    lines: list[str] = []

    assert install_binary(lines.append) == home / CACHED
    assert lines[0].endswith(f"cannot be locked ({os.strerror(errno.ENOLCK)}): install Weaviate once at a time")


def test_a_cache_that_cannot_be_written_is_named_with_what_helps(home: Path) -> None:
    (home / "cache").touch()

    with pytest.raises(WeaviateBinaryMissing, match=rf"{home}/cache/.* cannot be written: Not a directory; .*BINARY"):
        install_binary(lambda _: None)


def test_without_go_the_release_is_downloaded(
    home: Path, make_program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "service.store.weaviate.download.download_release", lambda version, _: make_program(f"unpacked-{version}")
    )
    assert install_binary(lambda _: None) == home / RELEASED
    assert find_binary() == home / RELEASED


@pytest.mark.usefixtures("home")
def test_both_ways_are_named_when_neither_works(
    make_program: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Path:
        raise OSError("no network here")

    make_program("bin/go").write_text("#!/bin/sh\necho no such module >&2; exit 1\n")
    monkeypatch.setattr("service.store.weaviate.download.download_release", fail)
    with pytest.raises(WeaviateBinaryMissing, match=r"no such module.*no network here.*install Go"):
        install_binary(lambda _: None)


def test_the_client_s_downloader_knows_where_it_puts_the_program(make_program: Callable[[str], Path]) -> None:
    program = make_program(f"folder/{Path(CACHED_BY_CLIENT).name}")
    assert download_release(WEAVIATE_RELEASE, program.parent) == program
