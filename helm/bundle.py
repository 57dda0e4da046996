"""Makes one archive with all that a site behind an air gap needs: python helm/bundle.py --help (make bundle).

The archive holds the chart, the values, the list of every image that these values refer to, the images, weights and
wheels that are given or asked for, a page that says what to load where, and the checksums of it all. The same files
give the same archive, byte for byte.
"""

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from install_page import Page, images

CHART = Path(__file__).parent / "vecgate"
KUBERNETES = "1.37.0"
# Never a site's own.
PUBLIC_REGISTRIES = (
    "docker.io",
    "docker.com",
    "gcr.io",
    "ghcr.io",
    "k8s.io",
    "mcr.microsoft.com",
    "nvcr.io",
    "public.ecr.aws",
    "quay.io",
)


class BundleFailed(Exception):
    """The archive cannot be made; the message says why and what to do."""


@dataclass(slots=True)
class Bundle:
    """What goes into the archive.

    Attributes:
        texts: contents by path in the archive.
        files: files of this machine by path in the archive.
    """

    texts: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    def add(self, path: str, file: Path) -> None:
        """Add a file, or all files of a folder.

        Raises:
            BundleFailed: there is no such file, or the path is taken.
        """
        if file.is_dir():
            for inner in sorted(each for each in file.rglob("*") if each.is_file()):
                self.add(f"{path}/{inner.relative_to(file).as_posix()}", inner)
            return
        if not file.is_file():
            raise BundleFailed(f"there is no file {file}")
        if path in self.files:
            raise BundleFailed(f"{file} and {self.files[path]} would both be {path}; rename one")
        self.files[path] = file

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of everything by path."""
        found = {path: hashlib.sha256(content).hexdigest() for path, content in self.texts.items()}
        for path, file in self.files.items():
            with file.open("rb") as opened:
                found[path] = hashlib.file_digest(opened, "sha256").hexdigest()
        return dict(sorted(found.items()))

    def write(self, target: Path, root: str) -> None:
        """Write the archive, whole or not at all; everything in it lies in one folder."""
        lines = "".join(f"{digest}  {path}\n" for path, digest in self.digests().items())
        texts = {**self.texts, "SHA256SUMS": lines.encode()}
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f"{target.name}.part")
        with tarfile.open(unfinished, "w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted({*texts, *self.files}):
                if path in texts:
                    archive.addfile(_entry(f"{root}/{path}", len(texts[path])), io.BytesIO(texts[path]))
                    continue
                with self.files[path].open("rb") as opened:
                    archive.addfile(_entry(f"{root}/{path}", self.files[path].stat().st_size), opened)
        unfinished.replace(target)


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """An image in an archive.

    Attributes:
        name: in the archive; empty if it has none there.
        digest: of its manifest, empty where the archive's format does not say.
    """

    name: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class ImageArchive:
    """An archive of images.

    Attributes:
        transport: what skopeo calls its format.
        images: in it.
    """

    transport: str
    images: tuple[ArchivedImage, ...]


def _entry(path: str, size: int) -> tarfile.TarInfo:
    """Return the same entry for every user and time."""
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode, entry.mtime = size, 0o644, 0
    return entry


def chart_version() -> str:
    """Return the chart's version."""
    return str(yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["version"])


def packed_chart() -> bytes:
    """Return the chart as helm packs it, but the same each time."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in sorted(each for each in CHART.rglob("*") if each.is_file() and "__pycache__" not in each.parts):
            content = file.read_bytes()
            name = f"vecgate/{file.relative_to(CHART).as_posix()}"
            archive.addfile(_entry(name, len(content)), io.BytesIO(content))
    return packed.getvalue()


def rendered(helm: str, values: Sequence[Path], namespace: str) -> list[Any]:
    """Return what the chart renders with values, its hooks too.

    Raises:
        BundleFailed: helm refuses the values, or is not there.
    """
    chosen = [argument for file in values for argument in ("--values", str(file))]
    command = [helm, "template", "vecgate", str(CHART), "--namespace", namespace, "--kube-version", KUBERNETES, *chosen]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own chart
    except OSError as error:
        raise BundleFailed(f"helm cannot be run: {error}; name it with --helm") from error
    if done.returncode != 0:
        raise BundleFailed(done.stderr.strip())
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def check_registry(reference: str) -> None:
    """Check that an image comes from a registry of the site's own, because the page says to push it there.

    Raises:
        BundleFailed: it names no registry, which stands for a public one, or a public one.
    """
    host, slash, _ = reference.partition("/")
    if not slash or not _is_registry(host):
        raise BundleFailed(
            f"the image {reference} names no registry, so it would be pushed to a public one; set "
            "global.imageRegistry to the site's own, and name it in the images of containers that you add"
        )
    name = host.lower().partition(":")[0]
    if any(name == public or name.endswith(f".{public}") for public in PUBLIC_REGISTRIES):
        raise BundleFailed(
            f"the image {reference} is in a public registry, which a site behind an air gap does not reach, and to "
            "which nothing of it should be pushed; set global.imageRegistry to the site's own"
        )


def _is_registry(part: str) -> bool:
    """Return whether the first part of a reference is the host of a registry."""
    return part == "localhost" or "." in part or ":" in part


def read_archive(file: Path) -> ImageArchive:
    """Return what an archive of images holds, in docker's format or in OCI's.

    Raises:
        BundleFailed: it is neither.
    """
    try:
        with tarfile.open(file) as archive:
            members = set(archive.getnames())
            # Docker's own archives hold both documents, for either reader.
            if "manifest.json" in members:
                images = _document(archive, "manifest.json")
                names = [name for image in images for name in image.get("RepoTags") or []]
                return ImageArchive("docker-archive", tuple(map(ArchivedImage, names)))
            if "index.json" in members:
                manifests = _document(archive, "index.json")["manifests"]
                return ImageArchive("oci-archive", tuple(map(_oci_image, manifests)))
    except (OSError, tarfile.TarError, ValueError, KeyError) as error:
        raise BundleFailed(f"{file} is not an archive of images: {error}") from error
    raise BundleFailed(f"{file} is not an archive of images: it has neither manifest.json nor index.json")


def _oci_image(manifest: dict[str, Any]) -> ArchivedImage:
    name = manifest.get("annotations", {}).get("org.opencontainers.image.ref.name", "")
    return ArchivedImage(name, manifest.get("digest", ""))


def _document(archive: tarfile.TarFile, member: str) -> Any:
    opened = archive.extractfile(member)
    if opened is None:
        raise ValueError(f"{member} is not a file")
    return json.load(opened)


def download_wheels(lock: Path, folder: Path) -> None:
    """Download what a lock pins, and check it by its hashes.

    Raises:
        BundleFailed: something cannot be had.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--dest", str(folder)]
    done = subprocess.run([*command, "--requirement", str(lock)], capture_output=True, text=True, check=False)  # noqa: S603 -- our own lock
    if done.returncode != 0:
        raise BundleFailed(f"the wheels of {lock.name} cannot be had: {done.stderr.strip()}")


def build_wheels(folder: Path) -> None:
    """Build the wheels of Vecgate and of its client.

    Raises:
        BundleFailed: they cannot be built.
    """
    root = CHART.parents[1]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--wheel-dir", str(folder), str(root / "protos"), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own projects
    if done.returncode != 0:
        raise BundleFailed(f"the wheels of Vecgate cannot be built: {done.stderr.strip()}")


def covers(image: ArchivedImage, reference: str) -> bool:
    """Return whether an image is the one that a render refers to, whatever registry each names."""
    _, by_digest, digest = reference.partition("@")
    if by_digest:
        return image.digest == digest
    own, asked = _without_registry(image.name), _without_registry(reference)
    # A mirror may keep its images below its own path.
    return own == asked or ("/" in own and asked.endswith(f"/{own}"))


def _without_registry(name: str) -> str:
    first, _, rest = name.partition("/")
    return rest if rest and _is_registry(first) else name


def make(options: argparse.Namespace, scratch: Path) -> list[str]:
    """Make the archive and return the images that it lacks."""
    bundle, values = Bundle(), list(options.values)
    for file in values:
        bundle.add(f"values/{file.name}", file)
    manifests = rendered(options.helm, values, options.namespace)
    references = sorted(set(images(manifests)))
    for reference in references:
        check_registry(reference)
    inside: dict[str, ImageArchive] = {}
    for archive in options.image:
        bundle.add(f"images/{archive.name}", archive)
        inside[f"images/{archive.name}"] = read_archive(archive)
    for weights in options.weights:
        bundle.add(f"weights/{weights.name}", weights)
    for lock in options.wheels:
        download_wheels(lock, scratch)
        bundle.add(f"wheels/{lock.name}", lock)
    if options.wheels:
        build_wheels(scratch)
    for wheel in sorted(scratch.iterdir()):
        bundle.add(f"wheels/{wheel.name}", wheel)
    bundle.texts[f"chart/vecgate-{chart_version()}.tgz"] = packed_chart()
    bundle.texts["images.txt"] = "".join(f"{reference}\n" for reference in references).encode()
    page = Page(
        version=chart_version(),
        namespace=options.namespace,
        values={file.name: yaml.safe_load(file.read_text(encoding="utf-8")) for file in values},
        manifests=manifests,
        sources={reference: _source(inside, reference) for reference in references},
        weights={path: digest for path, digest in bundle.digests().items() if path.startswith("weights/")},
        locks=sorted(path for path in bundle.files if path.startswith("wheels/requirements-")),
    )
    bundle.texts["INSTALL.md"] = page.text().encode()
    bundle.write(options.output, f"vecgate-{chart_version()}")
    return [reference for reference, source in page.sources.items() if not source]


def _source(inside: dict[str, ImageArchive], reference: str) -> str:
    """Return what skopeo copies an image from, or nothing if no archive has it."""
    for path, archive in inside.items():
        for image in archive.images:
            if covers(image, reference):
                return ":".join(filter(None, (archive.transport, path, image.name)))
    return ""


def main(arguments: Sequence[str]) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    default = CHART / "examples" / "air-gapped.yaml"
    add("--values", type=Path, action="append", help=f"values of the site; default: {default.name} of the examples")
    add("--image", type=Path, action="append", default=[], help="archive of images, as docker save or skopeo write it")
    add("--weights", type=Path, action="append", default=[], help="file or folder of a model's weights")
    add("--wheels", type=Path, action="append", default=[], help="lock whose wheels are downloaded")
    add("--namespace", default="vecgate", help="namespace that it will be installed in; default: vecgate")
    add("--helm", default="helm", help="the helm program")
    add("--output", type=Path, default=Path("build") / f"vecgate-{chart_version()}-bundle.tar")
    options = parser.parse_args(arguments)
    options.values = options.values or [default]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            missing = make(options, Path(scratch))
    except BundleFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(options.output)
    for image in missing:
        print(f"not in the bundle, bring it yourself: {image}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
