"""The archive for a site behind an air gap, installed by the commands of its page."""

import re
import subprocess
import tarfile
from pathlib import Path

import pytest

import bundle
from helm.tools.helm import Helm
from tests.cluster.cluster import Cluster
from tests.helm.render import PROFILES, SECURED

SITE = {"global": {"imageRegistry": "registry.site.example"}}
SETS = {"air-gapped": PROFILES["air-gapped"], "secured": SITE | SECURED}
# No registry is at hand; of all that they do, only the file of an account counts here.
NO_REGISTRY = """#!/bin/sh
[ "$2" = --authfile ] && printf '{"auths": {}}' > "$3"
exit 0
"""


@pytest.mark.parametrize("name", SETS)
def test_the_commands_of_the_page_install_it(cluster: Cluster, tmp_path: Path, helm: Helm, name: str) -> None:
    values, namespace = cluster.values(SETS[name]), f"bundle-{name}-{helm.version.replace('.', '-')}"
    made = unpacked(tmp_path, "--values", values, "--helm", helm.path, "--namespace", namespace)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "helm").symlink_to(helm.path)
    for program in ("skopeo", "buildah"):
        (programs / program).write_text(NO_REGISTRY, encoding="utf-8")
        (programs / program).chmod(0o755)

    (made / "weights").mkdir()
    for block in re.findall(r"^```sh\n(.*?)^```$", (made / "INSTALL.md").read_text(), re.MULTILINE | re.DOTALL):
        for file in re.findall(r"--from-file=\S+?=(\S+)", block):
            if not (made / file).exists():
                (made / file).write_text("what a person puts in", encoding="utf-8")
        # There is no kubelet that has logs.
        paste(block.replace(" --logs", ""), made, cluster.environment(programs))

    cluster.kubectl("rollout", "status", "deployment/vecgate", "--namespace", namespace, "--timeout=120s")
    assert wanted(cluster, namespace) <= secrets(cluster, namespace)
    cluster.helm(helm, "uninstall", "vecgate", "--namespace", namespace)
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def unpacked(folder: Path, *arguments: str | Path) -> Path:
    """Make a bundle and return the folder that it unpacks to."""
    output = folder / "bundle.tar"
    assert bundle.main([*map(str, arguments), "--output", str(output)]) == 0
    with tarfile.open(output) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"vecgate-{bundle.chart_version()}"


def paste(block: str, folder: Path, environment: dict[str, str]) -> None:
    """Run a block of commands as a shell would to which a person pasted it."""
    done = subprocess.run(
        ["sh", "-e", "-c", block], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{block}{done.stderr}{done.stdout}"


def secrets(cluster: Cluster, namespace: str) -> set[str]:
    """Return the Secrets that are there, less those of Helm."""
    names = cluster.kubectl("get", "secrets", "--namespace", namespace, "--output", "name").split()
    return {name.removeprefix("secret/") for name in names if "sh.helm" not in name}


def wanted(cluster: Cluster, namespace: str) -> set[str]:
    """Return the Secrets that the pods name."""
    path = "{.items[*].spec.volumes[*].projected.sources[*].secret.name} {.items[*].spec.imagePullSecrets[*].name}"
    asked = ("get", "pods", "--namespace", namespace, "--output", f"jsonpath={path}")
    return set(cluster.kubectl(*asked).split())
