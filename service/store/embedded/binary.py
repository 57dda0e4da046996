"""The Weaviate server program for the embedded mode: where it is, and how it gets there."""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path

from service.errors import ServiceError
from service.process.installing import installing_alone
from service.settings import variable

WEAVIATE_VERSION = "1.39.3"
"""What is built."""
WEAVIATE_RELEASE = "1.39.7"
"""What is downloaded where nothing can be built, and what to run elsewhere: it loses no vectors as 1.39.3 does."""
MODULE = "github.com/weaviate/weaviate"
MERGER = Path("adapters", "repos", "db", "vector", "hnsw", "compact", "nway_merger.go")
SKIPS_NODES_WITHOUT_LINKS = "\t\tif len(links) == 0 {\n\t\t\tcontinue\n\t\t}\n"
"""Lines of 1.39.0 to 1.39.3 that lose vectors: a node without links vanishes when Weaviate compacts an index's log.

So an index that holds one vector is empty after two restarts. 1.39.4 no longer has these lines, see
https://github.com/weaviate/weaviate/pull/13033.
"""
SETTING = variable("weaviate", "binary")


class WeaviateBinaryMissing(ServiceError):
    """The Weaviate server program is not there, or cannot be had."""


def find_binary(configured: Path | None = None) -> Path:
    """Return the Weaviate server program: the configured one, else the cached one, else the one on PATH.

    Raises:
        WeaviateBinaryMissing: there is none; the message says how to get one.
    """
    if configured is not None:
        if _runs(configured):
            return configured
        raise WeaviateBinaryMissing(f"{SETTING} names {configured}, which is not an executable file")
    on_path = (shutil.which(name) for name in ("weaviate-server", "weaviate"))
    candidates = [cached_binary(), cached_binary(WEAVIATE_RELEASE), _cached_by_client()]
    candidates += [Path(each) for each in on_path if each]
    found = next((each for each in candidates if _runs(each)), None)
    if found is None:
        raise WeaviateBinaryMissing(
            "there is no Weaviate server program: run `make weaviate` or `vecgate weaviate install`, which put "
            f"Weaviate {WEAVIATE_VERSION} at {cached_binary()}, or set {SETTING} to one that you have"
        )
    return found


def install_binary(report: Callable[[str], None] = print, version: str = WEAVIATE_VERSION) -> Path:
    """Return the cached Weaviate server program, after building or downloading it if it is not there.

    Blocks for minutes. Only ever called on the explicit wish of a person or of the tests. Of several processes at the
    same time one installs it, and the others wait.

    Args:
        report: takes lines on the progress.
        version: the version of Weaviate.

    Raises:
        WeaviateBinaryMissing: it could neither be built nor downloaded, or not be written.
    """
    target = cached_binary(version)
    if _runs(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with installing_alone(target, "Weaviate", report):
            return target if _runs(target) else _install(target, version, report)
    except OSError as error:
        raise WeaviateBinaryMissing(
            f"the cache folder {target.parent} cannot be written: {error.strerror}; make it writable, or set {SETTING} "
            "to a program that you have"
        ) from error


def _install(target: Path, version: str, report: Callable[[str], None]) -> Path:
    go = shutil.which("go")
    release = WEAVIATE_RELEASE if version == WEAVIATE_VERSION else version
    faults = []
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        if go is not None:
            report(f"building Weaviate {version} with Go; this takes 2 to 4 minutes")
            faults.append(_build(go, version, Path(folder), target))
        if not _runs(target):
            target = cached_binary(release)
        if not _runs(target):
            report(f"downloading Weaviate {release}")
            faults.append(_download(release, Path(folder), target))
    if not _runs(target):
        reasons = "; ".join(filter(None, faults))
        raise WeaviateBinaryMissing(
            f"Weaviate {version} could neither be built nor downloaded ({reasons}): install Go and try again, "
            f"or download the release {release} elsewhere and set {SETTING} to its program"
        )
    report(f"Weaviate is at {target}")
    return target


def _build(go: str, version: str, folder: Path, target: Path) -> str:
    environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}

    def run(*arguments: str, inside: Path) -> subprocess.CompletedProcess[str]:
        command = [go, *arguments]
        return subprocess.run(command, cwd=inside, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 -- constants

    fetched = run("mod", "download", "-json", f"{MODULE}@v{version}", inside=folder)
    if fetched.returncode != 0:
        return f"go mod download: {_last_line(fetched.stderr or fetched.stdout)}"
    sources = folder / "sources"
    try:
        # Files without the modes of Go's cache, which are not to be written.
        shutil.copytree(json.loads(fetched.stdout)["Dir"], sources, copy_function=shutil.copyfile)
    except OSError as error:
        return f"copying the sources: {_last_line(str(error))}"
    if version == WEAVIATE_VERSION:
        merger = sources / MERGER
        code = merger.read_text(encoding="utf-8")
        if SKIPS_NODES_WITHOUT_LINKS not in code:
            return f"{MERGER} of Weaviate {version} is not as expected"
        merger.write_text(code.replace(SKIPS_NODES_WITHOUT_LINKS, ""), encoding="utf-8")
    program = folder / "weaviate-server"
    flags = ("-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags", "-s -w")
    built = run("build", *flags, "-o", str(program), "./cmd/weaviate-server", inside=sources)
    if built.returncode != 0:
        return f"go build: {_last_line(built.stderr)}"
    program.replace(target)
    return ""


def _download(version: str, folder: Path, target: Path) -> str:
    # Here and not above: loading the client takes a second, and running an installed server does not need it.
    from service.store.weaviate.download import download_release  # noqa: PLC0415

    try:
        download_release(version, folder).replace(target)
    except Exception as error:  # noqa: BLE001 -- whatever the downloader meets is a reason to name
        return f"download: {_last_line(str(error)) or type(error).__name__}"
    return ""


def cached_binary(version: str = WEAVIATE_VERSION) -> Path:
    """Return where the Weaviate server program of a version is once it is installed."""
    mark = "-mended" if version == WEAVIATE_VERSION else ""
    return user_cache_path("vecgate") / "weaviate" / f"weaviate-server-v{version}{mark}"


def _cached_by_client() -> Path:
    # Where the embedded mode of weaviate-client keeps the same program.
    tag = f"v{WEAVIATE_RELEASE}"
    folder = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache" / "weaviate-embedded")
    return Path(folder) / f"weaviate-{tag}-{hashlib.sha256(tag.encode()).hexdigest()}"


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
