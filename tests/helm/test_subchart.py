"""The chart below another one: switched by a condition or a tag, under another name, with global keys of others."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.tools.helm import HELM, HELM_3, Helm, HelmFailed
from tests.helm.manifests import Manifest, images, named, pods
from tests.helm.render import CHART, render
from tests.helm.rules import broken_rules

BOTH = pytest.mark.parametrize("helm", [HELM, HELM_3], ids=lambda each: each.version)
TWICE: list[dict[str, Any]] = [
    {"name": "vecgate", "version": "0.1.0", "condition": "vecgate.enabled", "tags": ["search"]},
    {"name": "vecgate", "version": "0.1.0", "alias": "imageVectors", "condition": "imageVectors.enabled"},
]


def below(helm: Helm, folder: Path, values: dict[str, Any], dependencies: list[dict[str, Any]]) -> list[Manifest]:
    """Return what a chart above renders with values, after it has passed lint."""
    parent = folder / "parent"
    if not parent.exists():
        shutil.copytree(CHART, parent / "charts" / "vecgate")
        (parent / "templates").mkdir()
    chart = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": dependencies}
    (parent / "Chart.yaml").write_text(yaml.safe_dump(chart))
    (parent / "values.yaml").write_text("{}\n")
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    arguments = (parent, "--kube-version", "1.37.0", "--values", file)
    helm.run("lint", "--strict", *arguments)
    return [each for each in yaml.safe_load_all(helm.run("template", "try", *arguments)) if each]


def deployments(manifests: list[Manifest]) -> set[str]:
    return {each["metadata"]["name"] for each in manifests if each["kind"] == "Deployment"}


@BOTH
def test_conditions_and_tags_switch_it_on_and_off(helm: Helm, tmp_path: Path) -> None:
    def switched(**values: Any) -> set[str]:
        return deployments(below(helm, tmp_path, values, TWICE))

    off = {"enabled": False}
    assert switched(vecgate={"enabled": True}, imageVectors=off) == {"try-vecgate"}
    assert switched(vecgate=off, imageVectors={"enabled": True}) == {"try-image-vectors"}
    assert switched(vecgate=off, imageVectors=off) == set()
    assert switched(tags={"search": False}, imageVectors=off) == set()
    assert switched(tags={"search": True}, imageVectors=off) == {"try-vecgate"}


@BOTH
def test_it_stands_twice_below_one_chart_without_meeting_itself(helm: Helm, tmp_path: Path) -> None:
    manifests = below(helm, tmp_path, {"vecgate": {"enabled": True}, "imageVectors": {"enabled": True}}, TWICE)

    assert broken_rules(manifests) == {}
    assert len({named(each) for each in manifests}) == len(manifests)
    services = [each for each in manifests if each["kind"] == "Service"]
    for service in services:
        chosen = [pod.owner for pod in pods(manifests) if service["spec"]["selector"].items() <= pod.labels.items()]
        assert chosen == [f"Deployment/{service['metadata']['name'].removesuffix('-headless')}"]


@BOTH
def test_it_takes_its_own_global_keys_and_lets_those_of_others_pass(helm: Helm, tmp_path: Path) -> None:
    shared = {
        "imageRegistry": "registry.local:5000",
        "imagePullSecrets": [{"name": "one"}, "two"],
        "imagePullSecret": "three",
        "image_registry": "elsewhere",
        "storageClass": "fast",
        "security": {"allowInsecureImages": True},
    }
    manifests = below(helm, tmp_path, {"global": shared, "vecgate": {"enabled": True}}, TWICE[:1])

    assert [each for each in images(manifests) if not each.startswith("registry.local:5000/vecgate/")] == []
    assert [pod.spec["imagePullSecrets"] for pod in pods(manifests)] == [[{"name": "one"}, {"name": "two"}]] * 2
    bare = below(helm, tmp_path, {"global": {"imageRegistry": None, "imagePullSecrets": None}}, TWICE[:1])
    assert {image.partition("/")[0] for image in images(bare)} == {"vecgate"}
    assert not any("imagePullSecrets" in pod.spec for pod in pods(bare))


@BOTH
def test_below_another_chart_the_number_of_pods_can_be_given_away_too(helm: Helm, tmp_path: Path) -> None:
    (deployment,) = (
        each
        for each in below(helm, tmp_path, {"vecgate": {"replicas": None}}, TWICE[:1])
        if each["kind"] == "Deployment"
    )

    assert "replicas" not in deployment["spec"]


@BOTH
def test_a_switch_that_no_chart_above_reads_is_refused(helm: Helm, tmp_path: Path) -> None:
    unread = {key: value for key, value in TWICE[0].items() if key not in {"condition", "tags"}}

    with pytest.raises(HelmFailed, match=r"vecgate: enabled is false, but only a parent chart reads it.*`condition`"):
        below(helm, tmp_path, {"vecgate": {"enabled": False}}, [unread])
    with pytest.raises(HelmFailed, match="vecgate: enabled is false"):
        render({"enabled": False})
    assert render({"enabled": True}) == render({})
