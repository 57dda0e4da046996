"""The archive for a site behind an air gap: whole, the same each time, and true about what it lacks."""

import hashlib
import importlib
import io
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from helm.tools.helm import HELM
from tests.helm.manifests import images
from tests.helm.render import CHART, EVERYTHING, PROFILES, SECURED, render

ROOT = "vecgate-0.1.0"
CLIP = "registry.airgap.local:5000/vecgate/clip:0.1.0"
WEIGHTS = "registry.airgap.local:5000/vecgate/weights:vit-h-14"


@pytest.fixture(scope="module")
def bundle() -> ModuleType:
    return importlib.import_module("bundle")


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
    assert f"`{WEIGHTS}` is **not in this bundle**: it is built below" in page
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


def pasted(made: Path, *stubs: str) -> list[list[str]]:
    """Run all commands of the page, one shell after the other, and return what the stubbed programs were asked."""
    programs, log = made.parent / "programs", made.parent / "log"
    programs.mkdir()
    for name in stubs:
        (programs / name).write_text(f'#!/bin/sh\nprintf "%s\\0" {name} "$@" >> {log}\necho >> {log}\n')
        (programs / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    for block in re.findall(r"^```sh\n(.*?)^```$", (made / "INSTALL.md").read_text(), re.MULTILINE | re.DOTALL):
        subprocess.run(["sh", "-n", "-c", block], check=True)
        subprocess.run(["sh", "-e", "-c", block], cwd=made, env=environment, check=True, capture_output=True)
    return [line.split("\0")[:-1] for line in log.read_text().splitlines()]


PROGRAMS = ("skopeo", "buildah", "kubectl", "helm")


def test_the_page_is_commands_to_paste(bundle: ModuleType, tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "clip.tar", "localhost/vecgate/clip:0.1.0")
    model = tmp_path / "vit-h-14.safetensors"
    model.write_bytes(b"weights")
    _, made = run(bundle, tmp_path, "--image", archive, "--weights", model)

    asked = pasted(made, *PROGRAMS)

    registry = "registry.airgap.local:5000"
    secret = ["kubectl", "create", "secret", "generic"]
    values = ["--values", "values/air-gapped.yaml"]
    assert asked == [
        ["skopeo", "login", registry],
        ["skopeo", "copy", "docker-archive:images/clip.tar:localhost/vecgate/clip:0.1.0", f"docker://{CLIP}"],
        ["buildah", "build", "--file", "weights.Containerfile", "--tag", WEIGHTS, "weights"],
        ["buildah", "push", WEIGHTS],
        ["kubectl", "create", "namespace", "vecgate"],
        ["kubectl", "label", "namespace", "vecgate", "pod-security.kubernetes.io/enforce=restricted"],
        ["skopeo", "login", "--authfile", "secrets/registry/.dockerconfigjson", registry],
        [
            *(*secret, "registry", "--namespace", "vecgate", "--type=kubernetes.io/dockerconfigjson"),
            "--from-file=.dockerconfigjson=secrets/registry/.dockerconfigjson",
        ],
        [*secret, "weaviate", "--namespace", "vecgate", "--from-file=api-key=secrets/weaviate/api-key"],
        ["helm", "install", "vecgate", "chart/vecgate-0.1.0.tgz", "--namespace", "vecgate", *values],
        ["helm", "test", "vecgate", "--namespace", "vecgate", "--logs"],
    ]
    assert (made / "weights.Containerfile").read_text() == f"FROM {CLIP}\nCOPY . /weights/\n"
    assert [path.stat().st_mode & 0o77 for path in made.iterdir() if path.name == "secrets"] == [0]


def page_of(bundle: ModuleType, folder: Path, values: dict[str, Any], *arguments: str) -> list[list[str]]:
    """Return what the programs are asked by the page of a bundle with values."""
    file = folder / "site.yaml"
    file.write_text(yaml.safe_dump({"global": {"imageRegistry": "site.example"}} | values))
    code, made = run(bundle, folder, "--values", file, *arguments)
    assert code == 0
    return pasted(made, *PROGRAMS)


def created(asked: list[list[str]]) -> dict[str, tuple[str, set[str]]]:
    """Return type and keys of each Secret that was created, by name."""
    secrets = {}
    for command in asked:
        if command[:4] == ["kubectl", "create", "secret", "generic"]:
            options = [each.removeprefix("--").split("=", 1) for each in command[7:]]
            types = [value for name, value in options if name == "type"]
            keys = {value.partition("=")[0] for name, value in options if name == "from-file"}
            secrets[command[4]] = (*types, "Opaque")[0], keys
    return secrets


TLS = ("kubernetes.io/tls", {"tls.crt", "tls.key", "ca.crt"})


def test_the_page_creates_every_secret_of_every_kind(bundle: ModuleType, tmp_path: Path) -> None:
    asked = page_of(bundle, tmp_path, EVERYTHING)

    pull = ("kubernetes.io/dockerconfigjson", {".dockerconfigjson"})
    assert created(asked) == {
        "registry": pull,
        "other.registry": pull,
        "nvidia": ("Opaque", {"api-key"}),
        "rerank": ("Opaque", {"api.key"}),
        "weaviate": ("Opaque", {"vecgate.key"}),
        "callers": ("Opaque", {"clients.toml"}),
        "tester": ("Opaque", {"key"}),
        "evaluator": ("Opaque", {"key"}),
        "scrape": ("Opaque", {"key"}),
        # And not vectors-tls as a certificate: cert-manager makes it.
    }


def test_the_page_creates_the_secrets_of_certificates(bundle: ModuleType, tmp_path: Path) -> None:
    asked = page_of(bundle, tmp_path, SECURED, "--namespace", "search")

    tester = ("kubernetes.io/tls", {"tls.crt", "tls.key"})
    assert created(asked) == {
        "site-tls": TLS,
        "authority": ("Opaque", {"ca.crt"}),
        "tester": tester,
        "evaluator": ("Opaque", {"tls-combined.pem"}),
    }
    assert {command[6] for command in asked if command[2:3] == ["secret"]} == {"search"}
    assert ["kubectl", "create", "namespace", "search"] in asked


def test_a_folder_of_a_node_needs_a_namespace_that_lets_it_in(bundle: ModuleType, tmp_path: Path) -> None:
    values = PROFILES["clip-gpu"] | {"weights": {"source": "hostPath", "hostPath": {"path": "/srv/weights"}}}

    asked = page_of(bundle, tmp_path, values)

    assert ["kubectl", "label", "namespace", "vecgate", "pod-security.kubernetes.io/enforce=privileged"] in asked
    assert [command for command in asked if command[0] == "buildah"] == []


def test_weights_that_are_mounted_are_an_image_of_nothing_but_files(bundle: ModuleType, tmp_path: Path) -> None:
    values = PROFILES["clip-gpu"] | {"weights": {"source": "image", "image": {"tag": "1"}}}
    weights = tmp_path / "models"
    weights.mkdir()
    (weights / "a.safetensors").write_bytes(b"weights")

    asked = page_of(bundle, tmp_path, values, "--weights", str(weights))

    assert ["buildah", "push", "site.example/vecgate/weights:1"] in asked
    assert (tmp_path / ROOT / "weights.Containerfile").read_text() == "FROM scratch\nCOPY . /\n"


def test_weights_that_are_named_by_a_digest_are_not_built(bundle: ModuleType, tmp_path: Path) -> None:
    digest = "sha256:" + "c3" * 32
    values = PROFILES["air-gapped"] | {"weights": {"source": "initContainer", "image": {"digest": digest}}}

    asked = page_of(bundle, tmp_path, values)
    page = (tmp_path / ROOT / "INSTALL.md").read_text()

    assert [command for command in asked if command[0] == "buildah"] == []
    assert f"vecgate/weights@{digest}` is **not in this bundle**: bring it" in page
    assert "set `weights.image.tag` instead" in page


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({}, "the image vecgate/gateway:0.1.0 names no registry"),
        ({"image": {"registry": "docker.io"}}, "is in a public registry"),
        ({"global": {"imageRegistry": "docker.io/acme"}}, "is in a public registry"),
        ({"global": {"imageRegistry": "index.docker.io:443"}}, "is in a public registry"),
        ({"global": {"imageRegistry": "mirror/of/ours"}}, "names no registry"),
        (
            PROFILES["nim-failover"] | {"image": {"registry": "registry.site.example"}},
            "the image vecgate/weights:vit-h-14 names no registry",
        ),
        (
            {"global": {"imageRegistry": "site.example"}, "extraContainers": [{"name": "proxy", "image": "proxy:1"}]},
            "the image proxy:1 names no registry",
        ),
    ],
)
def test_nothing_is_pushed_to_a_public_registry(
    bundle: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], values: dict[str, Any], fault: str
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump(values))

    code, _ = run(bundle, tmp_path, "--values", file)

    assert code == 1
    assert fault in capsys.readouterr().err
    assert not (tmp_path / "bundle.tar").exists()


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
    expected = ("no file", "not an archive of images", "neither", "would both be", "no file", "'replica' not allowed")
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
            for name in ("vecgate", "vecgate_client"):
                (Path(command[command.index("--wheel-dir") + 1]) / f"{name}-0.1.0-py3-none-any.whl").write_bytes(b"own")
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
    assert (made / "wheels" / "vecgate_client-0.1.0-py3-none-any.whl").read_bytes() == b"own"
    assert "pip install --no-index --no-deps wheels/vecgate*.whl" in (made / "INSTALL.md").read_text()
    assert (
        "--find-links wheels --require-hashes --requirement wheels/requirements-gateway.txt"
        in (made / "INSTALL.md").read_text()
    )
