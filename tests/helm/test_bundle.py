"""The archive for a site behind an air gap: whole, the same each time, and true about what it lacks."""

import hashlib
import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.helm.helm import HELM
from tests.helm.manifests import images
from tests.helm.render import CHART, PROFILES, render

ROOT = "vecgate-0.1.0"
CLIP = "registry.airgap.local:5000/vecgate/clip:0.1.0"
WEIGHTS = "registry.airgap.local:5000/vecgate/weights:vit-h-14"


@pytest.fixture(scope="module")
def bundle() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle", CHART.parent / "bundle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    sys.modules["bundle"] = module
    spec.loader.exec_module(module)
    return module


def image_archive(path: Path, member: str, document: object) -> Path:
    content = json.dumps(document).encode()
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo(member)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return path


def docker_archive(path: Path, *names: str) -> Path:
    return image_archive(path, "manifest.json", [{"RepoTags": list(names)}])


def run(bundle: ModuleType, folder: Path, *arguments: str | Path) -> tuple[int, Path]:
    """Make an archive and return the exit code and the folder that it unpacks to."""
    output = folder / "bundle.tar"
    code = bundle.main([*map(str, arguments), "--helm", str(HELM.path), "--output", str(output)])
    if code == 0:
        with tarfile.open(output) as archive:
            archive.extractall(folder, filter="data")
    return code, folder / ROOT


def test_everything_is_in_it_and_arrives_whole(bundle: ModuleType, tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "clip.tar", "localhost/vecgate/clip:0.1.0")
    model = tmp_path / "vit-h-14.safetensors"
    model.write_bytes(b"weights")

    code, made = run(bundle, tmp_path, "--image", archive, "--weights", model)
    page = (made / "INSTALL.md").read_text()
    check = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=made, capture_output=True, check=False
    )

    assert code == 0
    assert check.returncode == 0
    assert {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()} == {
        "INSTALL.md",
        "SHA256SUMS",
        "chart/vecgate-0.1.0.tgz",
        "images.txt",
        "images/clip.tar",
        "values/air-gapped.yaml",
        "weights/vit-h-14.safetensors",
    }
    assert f"skopeo copy docker-archive:images/clip.tar:localhost/vecgate/clip:0.1.0 docker://{CLIP}" in page
    assert f"`{WEIGHTS}` is **not in this bundle**" in page
    assert f"`weights/vit-h-14.safetensors`, SHA-256 `{hashlib.sha256(b'weights').hexdigest()}`" in page


def test_the_list_of_images_is_that_of_the_render(bundle: ModuleType, tmp_path: Path) -> None:
    _, made = run(bundle, tmp_path)

    assert (made / "images.txt").read_text().split() == sorted(set(images(render(PROFILES["air-gapped"]))))
    assert (made / "images.txt").read_text().split() == [CLIP, WEIGHTS]


def test_what_it_lacks_is_told(bundle: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    oci = {"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "vecgate/weights:vit-h-14"}}]}
    archive = image_archive(tmp_path / "weights.tar", "index.json", oci)

    _, made = run(bundle, tmp_path, "--image", archive)

    assert capsys.readouterr().err == f"not in the bundle, bring it yourself: {CLIP}\n"
    assert "skopeo copy oci-archive:images/weights.tar:vecgate/weights:vit-h-14" in (made / "INSTALL.md").read_text()


def test_an_image_that_is_named_by_its_digest_is_found_by_it(
    bundle: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = [f"sha256:{letter * 64}" for letter in "ab"]
    index = {"manifests": [{"digest": digests[0]}]}
    archive = image_archive(tmp_path / "clip.tar", "index.json", index)
    values = tmp_path / "site.yaml"
    values.write_text((CHART / "examples" / "air-gapped.yaml").read_text() + f"image: {{digest: {digests[0]!r}}}\n")

    _, made = run(bundle, tmp_path, "--values", values, "--image", archive)

    reference = f"registry.airgap.local:5000/vecgate/clip@{digests[0]}"
    assert capsys.readouterr().err == f"not in the bundle, bring it yourself: {WEIGHTS}\n"
    copy = f"skopeo copy --all --preserve-digests oci-archive:images/clip.tar docker://{reference}"
    assert copy in (made / "INSTALL.md").read_text()
    named = bundle.ArchivedImage("vecgate/clip:0.1.0", digests[1])
    assert not bundle.covers(named, reference)
    assert not bundle.covers(bundle.ArchivedImage("vecgate/clip:0.1.0"), reference)
    assert bundle.covers(named, CLIP)


def test_an_image_of_another_version_does_not_count(bundle: ModuleType) -> None:
    def covers(name: str, reference: str) -> bool:
        return bool(bundle.covers(bundle.ArchivedImage(name), reference))

    assert covers("localhost/vecgate/clip:0.1.0", CLIP)
    assert covers(CLIP, CLIP)
    assert covers("other.example/vecgate/clip:0.1.0", "vecgate/clip:0.1.0")
    assert covers("vecgate/clip:0.1.0", "registry.local:5000/mirror/vecgate/clip:0.1.0")
    assert not covers("vecgate/clip:0.0.9", CLIP)
    assert not covers("clip:0.1.0-rc", CLIP)
    assert not covers("gate/clip:0.1.0", CLIP)
    assert not covers("clip:0.1.0", CLIP)


def test_the_chart_in_it_installs_like_the_one_here(bundle: ModuleType, tmp_path: Path) -> None:
    _, made = run(bundle, tmp_path)
    values = made / "values" / "air-gapped.yaml"
    arguments = ("--kube-version", "1.37.0", "--values", values)

    packed = HELM.run("template", "try", made / "chart" / "vecgate-0.1.0.tgz", *arguments)
    HELM.run("lint", "--strict", made / "chart" / "vecgate-0.1.0.tgz", *arguments)

    assert packed == HELM.run("template", "try", CHART, *arguments)


def test_the_same_files_make_the_same_archive(bundle: ModuleType, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        run(bundle, folder)
        made.append((folder / "bundle.tar").read_bytes())

    assert made[0] == made[1]


def test_a_byte_that_changed_on_the_way_is_found(bundle: ModuleType, tmp_path: Path) -> None:
    _, made = run(bundle, tmp_path)
    (made / "images.txt").write_bytes(b"x")

    check = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=made, capture_output=True, check=False)

    assert check.returncode != 0


def test_what_cannot_be_bundled_is_one_clear_line_and_leaves_no_archive(
    bundle: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.tar").write_text("no archive")
    (tmp_path / "bad.yaml").write_text("replica: 2\n")
    archive = docker_archive(tmp_path / "clip.tar")
    faults = []
    for arguments in (
        ("--image", tmp_path / "missing.tar"),
        ("--image", tmp_path / "text.tar"),
        ("--image", image_archive(tmp_path / "other.tar", "x.json", {})),
        ("--image", archive, "--image", archive),
        ("--weights", tmp_path / "missing"),
        ("--values", tmp_path / "bad.yaml"),
    ):
        code, _ = run(bundle, tmp_path, *arguments)
        faults.append((code, capsys.readouterr().err))

    assert {code for code, _ in faults} == {1}
    expected = ("no file", "no archive of images", "neither", "would both be", "no file", "'replica' not allowed")
    assert [word for word, (_, fault) in zip(expected, faults, strict=True) if word not in fault] == []
    assert not (tmp_path / "bundle.tar").exists()


def test_the_wheels_of_a_lock_are_had_by_their_hashes(
    bundle: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def pip(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        commands.append(command)
        if "download" in command:
            (Path(command[command.index("--dest") + 1]) / "numpy-2.0-py3-none-any.whl").write_bytes(b"wheel")
            return subprocess.CompletedProcess(command, 0, "", "")
        if "wheel" in command:
            (Path(command[command.index("--wheel-dir") + 1]) / "vecgate-0.1.0-py3-none-any.whl").write_bytes(b"own")
            return subprocess.CompletedProcess(command, 0, "", "")
        return original(command, capture_output=True, text=True, check=False)

    original = subprocess.run
    monkeypatch.setattr(bundle.subprocess, "run", pip)
    lock = CHART.parents[1] / "requirements-gateway.txt"

    _, made = run(bundle, tmp_path, "--wheels", lock)

    (download,) = (command for command in commands if "download" in command)
    assert "--require-hashes" in download
    assert (made / "wheels" / "numpy-2.0-py3-none-any.whl").read_bytes() == b"wheel"
    assert (made / "wheels" / "vecgate-0.1.0-py3-none-any.whl").read_bytes() == b"own"
    assert "pip install --no-index --no-deps wheels/vecgate-*.whl" in (made / "INSTALL.md").read_text()
    assert (
        "--find-links wheels --require-hashes --requirement wheels/requirements-gateway.txt"
        in (made / "INSTALL.md").read_text()
    )
