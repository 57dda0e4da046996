"""What an upgrade does to what runs: the number of pods, the labels that select them, the time of a rollout."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.tools.helm import HELM, HELM_3, Helm, HelmFailed
from tests.helm.api_server import api_server
from tests.helm.manifests import Manifest
from tests.helm.render import CHART, EVERYTHING, NEWEST, PROFILES, render

BOTH = pytest.mark.parametrize("helm", [HELM, HELM_3], ids=lambda each: each.version)
AUTOSCALED: dict[str, Any] = {"autoscaling": {"enabled": True}}
NULL: dict[str, Any] = {"replicas": None}
GIVEN_AWAY = pytest.mark.parametrize("values", [AUTOSCALED, NULL], ids=["autoscaling", "null"])
MARK = {"vecgate/replicas": "unmanaged"}


def owner(manager: str, *fields: str, operation: str = "Update", subresource: str = "") -> Manifest:
    """Return what the API server keeps of who owns some fields of a Deployment's spec."""
    spec = {f"f:{field}": {} for field in fields}
    entry = {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": spec}}
    return entry | ({"subresource": subresource} if subresource else {})


HELM_3_OWNS = owner("helm", "replicas", "template")
HELM_4_OWNS = owner("helm", "replicas", "template", operation="Apply")
HELM_4_GAVE_UP = owner("helm", "template", operation="Apply")
SCALER = owner("kube-controller-manager", "replicas", subresource="scale")
BY_HAND = owner("handover", "replicas", operation="Apply")


def live(replicas: int, *owners: Manifest, marked: bool = False, name: str = "vecgate") -> Manifest:
    """Return the Deployment of release try as the cluster has it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "try-vecgate",
            "namespace": "default",
            "labels": {"app.kubernetes.io/managed-by": "Helm"},
            "annotations": {
                "meta.helm.sh/release-name": "try",
                "meta.helm.sh/release-namespace": "default",
                **(MARK if marked else {}),
            },
            "managedFields": list(owners),
        },
        "spec": {
            "replicas": replicas,
            "selector": {
                "matchLabels": {
                    "app.kubernetes.io/name": name,
                    "app.kubernetes.io/instance": "try",
                    "app.kubernetes.io/component": "server",
                }
            },
        },
    }


def upgraded(helm: Helm, values: dict[str, Any], deployment: Manifest | None, folder: Path) -> Manifest:
    """Return the Deployment that helm would apply where there is one, or None, in the cluster."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    with api_server(deployment, folder) as kubeconfig:
        cluster = ("--dry-run=server", "--disable-openapi-validation", "--kubeconfig", kubeconfig)
        # Helm 3 goes by the version that it was built for, which is 1.20 if nobody said so.
        cluster += ("--kube-version", NEWEST)
        text = helm.run("template", "try", CHART, *cluster, "--namespace", "default", "--values", file)
    made: Manifest = next(each for each in yaml.safe_load_all(text) if each and each["kind"] == "Deployment")
    return made


def number(deployment: Manifest) -> int | None:
    """Return the number of pods, and see that a Deployment without it is marked so, and no other."""
    replicas = deployment["spec"].get("replicas")
    assert (deployment["metadata"].get("annotations", {}).items() >= MARK.items()) is (replicas is None)
    return int(replicas) if replicas is not None else None


@BOTH
@GIVEN_AWAY
@pytest.mark.parametrize("count", [0, 1, 7])
def test_whoever_gives_the_number_of_pods_away_keeps_those_that_run(
    helm: Helm, values: dict[str, Any], count: int, tmp_path: Path
) -> None:
    for owned in (HELM_3_OWNS, HELM_4_OWNS):
        assert number(upgraded(helm, values, live(count, owned), tmp_path)) == count


@BOTH
@GIVEN_AWAY
def test_helm_3_keeps_the_number_in_later_upgrades_for_it_would_delete_it_in_each(
    helm: Helm, values: dict[str, Any], tmp_path: Path
) -> None:
    for owners in ((owner("helm", "template"), SCALER), (HELM_3_OWNS, BY_HAND)):
        assert number(upgraded(helm, values, live(7, *owners), tmp_path)) == 7


@BOTH
@GIVEN_AWAY
@pytest.mark.parametrize("other", [SCALER, BY_HAND], ids=["scaler", "hand"])
def test_with_server_side_apply_the_number_goes_once_another_owns_it(
    helm: Helm, values: dict[str, Any], other: Manifest, tmp_path: Path
) -> None:
    for own in (HELM_4_OWNS, HELM_4_GAVE_UP):
        assert number(upgraded(helm, values, live(7, own, other), tmp_path)) is None


@BOTH
@GIVEN_AWAY
def test_a_release_that_never_set_the_number_goes_on_without_it(
    helm: Helm, values: dict[str, Any], tmp_path: Path
) -> None:
    assert number(upgraded(helm, values, None, tmp_path)) is None
    for own in (owner("helm", "template"), HELM_4_GAVE_UP):
        assert number(upgraded(helm, values, live(7, own, marked=True), tmp_path)) is None


@BOTH
def test_a_number_that_is_the_chart_s_is_set_whatever_runs(helm: Helm, tmp_path: Path) -> None:
    for deployment in (live(7, HELM_4_GAVE_UP, SCALER), live(7, HELM_3_OWNS, marked=True), None):
        assert number(upgraded(helm, {"replicas": 3}, deployment, tmp_path)) == 3


@GIVEN_AWAY
def test_without_a_cluster_the_number_is_left_out(values: dict[str, Any]) -> None:
    (deployment,) = (each for each in render(values) if each["kind"] == "Deployment")

    assert number(deployment) is None


@BOTH
def test_other_labels_to_select_by_are_refused_before_kubernetes_does(helm: Helm, tmp_path: Path) -> None:
    values = {"fullnameOverride": "try-vecgate", "nameOverride": "vectors"}

    with pytest.raises(HelmFailed, match=r"vecgate: nameOverride.*Deployment try-vecgate.*another fullnameOverride"):
        upgraded(helm, values, live(2, HELM_4_OWNS), tmp_path)
    assert number(upgraded(helm, values, live(2, HELM_4_OWNS, name="vectors"), tmp_path)) == 2


@pytest.mark.parametrize("values", [{}, EVERYTHING, *PROFILES.values()], ids=["defaults", "everything", *PROFILES])
def test_a_rollout_fails_only_after_a_pod_had_its_time_to_start(values: dict[str, Any]) -> None:
    (deployment,) = (each for each in render(values) if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    probe = pod["containers"][0]["startupProbe"]

    start = probe["periodSeconds"] * probe["failureThreshold"]
    assert deployment["spec"]["progressDeadlineSeconds"] >= start + pod["terminationGracePeriodSeconds"] + 600


def test_the_deadline_follows_the_startup_probe_or_is_named() -> None:
    def deadline(values: dict[str, Any]) -> int:
        return next(
            int(each["spec"]["progressDeadlineSeconds"]) for each in render(values) if each["kind"] == "Deployment"
        )

    def refusal(values: dict[str, Any]) -> str:
        with pytest.raises(HelmFailed) as caught:
            render(values)
        return str(caught.value)

    slow = {"probes": {"startup": {"periodSeconds": 10, "failureThreshold": 360}}}

    assert deadline(slow) - deadline({}) == 3600 - 600
    assert deadline(slow | {"progressDeadlineSeconds": 3601}) == 3601
    assert deadline({"minReadySeconds": 900}) - deadline({}) == 900
    for values, allowed in ((slow, 3600), ({"minReadySeconds": 900}, 1500)):
        assert f"the startup probe and minReadySeconds allow {allowed} s" in refusal(
            values | {"progressDeadlineSeconds": allowed}
        )
