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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "vecgate"
KUBERNETES = "1.37.0"
WEAVIATE = (
    "Weaviate comes by its own chart and image, which are not part of this; the chart here has values for it in "
    "`examples/companions`."
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
    """Return the same entry whoever makes it, and whenever."""
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


def rendered_images(helm: str, values: Sequence[Path]) -> list[str]:
    """Return every image that the chart refers to with values, those of hooks and volumes too.

    Raises:
        BundleFailed: helm refuses the values, or is not there.
    """
    chosen = [argument for file in values for argument in ("--values", str(file))]
    command = [helm, "template", "vecgate", str(CHART), "--kube-version", KUBERNETES, *chosen]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- our own chart
    except OSError as error:
        raise BundleFailed(f"helm cannot be run: {error}; name it with --helm") from error
    if done.returncode != 0:
        raise BundleFailed(done.stderr.strip())
    return sorted(set(_images(list(yaml.safe_load_all(done.stdout)))))


def _images(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _images(inner)
    elif isinstance(value, dict):
        image = value.get("image")
        if isinstance(image, str):
            yield image
        elif isinstance(image, dict) and "reference" in image:
            yield image["reference"]
        for inner in value.values():
            yield from _images(inner)


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
        raise BundleFailed(f"{file} is no archive of images: {error}") from error
    raise BundleFailed(f"{file} is no archive of images: it has neither manifest.json nor index.json")


def _oci_image(manifest: dict[str, Any]) -> ArchivedImage:
    name = manifest.get("annotations", {}).get("org.opencontainers.image.ref.name", "")
    return ArchivedImage(name, manifest.get("digest", ""))


def _document(archive: tarfile.TarFile, member: str) -> Any:
    opened = archive.extractfile(member)
    if opened is None:
        raise ValueError(f"{member} is no file")
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


def build_wheel(folder: Path) -> None:
    """Build Vecgate's own wheel.

    Raises:
        BundleFailed: it cannot be built.
    """
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    done = subprocess.run([*command, str(CHART.parents[1])], capture_output=True, text=True, check=False)  # noqa: S603 -- our own project
    if done.returncode != 0:
        raise BundleFailed(f"the wheel of Vecgate cannot be built: {done.stderr.strip()}")


def covers(image: ArchivedImage, reference: str) -> bool:
    """Return whether an image is the one that a render refers to, whatever registry each names."""
    _, by_digest, digest = reference.partition("@")
    if by_digest:
        return image.digest == digest
    own, asked = _without_registry(image.name), _without_registry(reference)
    # A mirror may keep its images below a path of its own.
    return own == asked or ("/" in own and asked.endswith(f"/{own}"))


def _without_registry(name: str) -> str:
    first, _, rest = name.partition("/")
    return rest if rest and (first == "localhost" or "." in first or ":" in first) else name


def install_page(bundle: Bundle, images: Sequence[str], inside: dict[str, ImageArchive], values: Sequence[Path]) -> str:
    """Return the page that says what to load where."""
    chosen = " ".join(f"--values values/{file.name}" for file in values)
    parts = [
        f"# Vecgate {chart_version()} behind an air gap",
        "Everything is named relative to this folder. First see that it arrived whole:",
        "    sha256sum --check SHA256SUMS",
        "## Images",
        "The values in `values/` refer to these images, and to no others:",
        *_image_parts(images, inside),
        WEAVIATE,
        *_weights_parts(bundle),
        "## Chart",
        f"    helm install vecgate chart/vecgate-{chart_version()}.tgz {chosen}\n    helm test vecgate --logs",
    ]
    locks = sorted(path for path in bundle.files if path.startswith("wheels/requirements-"))
    if locks:
        install = "    pip install --no-index --find-links wheels --require-hashes --requirement"
        parts += [
            "## Python packages",
            "For a machine without containers, with the Python that this was made with:",
            "\n".join(f"{install} {lock}" for lock in locks),
            "    pip install --no-index --no-deps wheels/vecgate-*.whl",
        ]
    parts.append("`vecgate doctor --air-gap`, with the pod's settings, says what would still be needed from outside.")
    return "\n\n".join(parts) + "\n"


def _image_parts(images: Sequence[str], inside: dict[str, ImageArchive]) -> Iterator[str]:
    for reference in images:
        found = [
            (path, each, image) for path, each in inside.items() for image in each.images if covers(image, reference)
        ]
        if not found:
            yield f"- `{reference}` is **not in this bundle**: bring it into that registry yourself."
            continue
        path, archive, image = found[0]
        # A digest is of the very bytes, maybe of an index of several platforms, so nothing may be written anew.
        copy = "skopeo copy --all --preserve-digests" if "@" in reference else "skopeo copy"
        source = ":".join(filter(None, (archive.transport, path, image.name)))
        yield f"- `{reference}` is in `{path}`:"
        yield f"      {copy} {source} docker://{reference}"


def _weights_parts(bundle: Bundle) -> Iterator[str]:
    weights = {path: digest for path, digest in bundle.digests().items() if path.startswith("weights/")}
    if not weights:
        return
    yield "## Weights"
    yield "Put them where `weights.source` says: into a claim, a node's folder or an image."
    yield "\n".join(f"- `{path}`, SHA-256 `{digest}`" for path, digest in weights.items())
    yield "As an image of nothing but files, for `weights.source: image`:"
    yield "    printf 'FROM scratch\\nCOPY . /\\n' | buildah build --file - --tag vecgate/weights:TAG weights"


def make(options: argparse.Namespace, scratch: Path) -> list[str]:
    """Make the archive and return the images that it lacks."""
    bundle, values = Bundle(), list(options.values)
    for file in values:
        bundle.add(f"values/{file.name}", file)
    images = rendered_images(options.helm, values)
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
        build_wheel(scratch)
    for wheel in sorted(scratch.iterdir()):
        bundle.add(f"wheels/{wheel.name}", wheel)
    bundle.texts[f"chart/vecgate-{chart_version()}.tgz"] = packed_chart()
    bundle.texts["images.txt"] = "".join(f"{image}\n" for image in images).encode()
    bundle.texts["INSTALL.md"] = install_page(bundle, images, inside, values).encode()
    bundle.write(options.output, f"vecgate-{chart_version()}")
    archived = [image for archive in inside.values() for image in archive.images]
    return [reference for reference in images if not any(covers(image, reference) for image in archived)]


def main(arguments: Sequence[str]) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    default = CHART / "examples" / "air-gapped.yaml"
    add("--values", type=Path, action="append", help=f"values of the site; default: {default.name} of the examples")
    add("--image", type=Path, action="append", default=[], help="archive of images, as docker save or skopeo write it")
    add("--weights", type=Path, action="append", default=[], help="file or folder of a model's weights")
    add("--wheels", type=Path, action="append", default=[], help="lock whose wheels are downloaded")
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
