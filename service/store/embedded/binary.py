"""The Weaviate server program for the embedded mode: where it is, and how it gets there."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from service.errors import ServiceError
from service.settings import variable

WEAVIATE_VERSION = "1.39.3"
MODULE = "github.com/weaviate/weaviate/cmd/weaviate-server"
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
    candidates = [cached_binary(), _cached_by_client(), *(Path(each) for each in on_path if each)]
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
        with _alone(target.with_name(f"{target.name}.lock"), report):
            if not _runs(target):
                _install(target, version, report)
    except OSError as error:
        raise WeaviateBinaryMissing(
            f"the cache folder {target.parent} cannot be written: {error.strerror}; make it writable, or set {SETTING} "
            "to a program that you have"
        ) from error
    return target


@contextmanager
def _alone(lock: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock that the kernel lets go of with this process, however that ends."""
    import fcntl  # noqa: PLC0415 -- not on Windows

    with lock.open("wb") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("another process installs Weaviate; waiting for it")
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError as error:
            # Some network file systems have no locks.
            report(f"the folder {lock.parent} cannot be locked ({error.strerror}): install Weaviate once at a time")
        yield


def _install(target: Path, version: str, report: Callable[[str], None]) -> None:
    go = shutil.which("go")
    faults = []
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        if go is not None:
            report(f"building Weaviate {version} with Go; this takes 2 to 4 minutes")
            faults.append(_build(go, version, Path(folder), target))
        if not _runs(target):
            report(f"downloading Weaviate {version}")
            faults.append(_download(version, Path(folder), target))
    if not _runs(target):
        reasons = "; ".join(filter(None, faults))
        raise WeaviateBinaryMissing(
            f"Weaviate {version} could neither be built nor downloaded ({reasons}): install Go and try again, "
            f"or download the release elsewhere and set {SETTING} to its program"
        )
    report(f"Weaviate {version} is at {target}")


def _build(go: str, version: str, folder: Path, target: Path) -> str:
    environment = os.environ | {"CGO_ENABLED": "0", "GOBIN": str(folder)}
    command = [go, "install", "-ldflags", "-s -w", f"{MODULE}@v{version}"]
    built = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 -- constants
    if built.returncode != 0:
        return f"go install: {_last_line(built.stderr)}"
    (folder / "weaviate-server").replace(target)
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
    return user_cache_path("vecgate") / "weaviate" / f"weaviate-server-v{version}"


def _cached_by_client() -> Path:
    # Where the embedded mode of weaviate-client keeps the same program.
    tag = f"v{WEAVIATE_VERSION}"
    folder = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache" / "weaviate-embedded")
    return Path(folder) / f"weaviate-{tag}-{hashlib.sha256(tag.encode()).hexdigest()}"


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""
