"""Who sets the number of pods, while they run: Helm, then an autoscaler, then Helm again."""

import time
from typing import Any

import pytest

from helm.tools.helm import HELM_3, Helm
from tests.cluster.cluster import RELEASE, Cluster, Refused

DEPLOYMENT = f"deployment/{RELEASE}-vecgate"
GIVEN_AWAY: dict[str, dict[str, Any]] = {
    "autoscaling": {"autoscaling": {"enabled": True, "maxReplicas": 9}},
    "null": {"replicas": None},
}
SCALED_S = 60


def number(cluster: Cluster, namespace: str) -> int:
    """Return the number of pods that the Deployment asks for."""
    return int(cluster.kubectl("get", DEPLOYMENT, "--namespace", namespace, "--output", "jsonpath={.spec.replicas}"))


def pods(cluster: Cluster, namespace: str) -> set[str]:
    """Return the names of the pods that are there."""
    return set(cluster.kubectl("get", "pods", "--namespace", namespace, "--output", "name").split())


def wait_for(cluster: Cluster, namespace: str, count: int) -> None:
    """Wait until the autoscaler has asked for so many pods."""
    end = time.monotonic() + SCALED_S
    while number(cluster, namespace) != count and time.monotonic() < end:
        time.sleep(0.5)


@pytest.mark.parametrize("name", GIVEN_AWAY)
def test_whoever_gives_the_number_away_keeps_the_pods_that_run(
    cluster: Cluster, namespace: str, helm: Helm, name: str
) -> None:
    cluster.release(helm, "install", namespace, {"replicas": 5})
    before = pods(cluster, namespace)

    cluster.release(helm, "upgrade", namespace, GIVEN_AWAY[name])
    assert pods(cluster, namespace) == before
    # Another template, so that pods are exchanged; then the same again.
    for value in ("1", "2"):
        cluster.release(helm, "upgrade", namespace, GIVEN_AWAY[name] | {"podAnnotations": {"example.com/round": value}})
        assert number(cluster, namespace) == len(before) == 5


def test_what_the_autoscaler_sets_stays_until_helm_takes_it_back(cluster: Cluster, namespace: str, helm: Helm) -> None:
    scaled = {"autoscaling": {"enabled": True, "minReplicas": 4, "maxReplicas": 9}}
    cluster.release(helm, "install", namespace, {"replicas": 3})

    cluster.release(helm, "upgrade", namespace, scaled)
    wait_for(cluster, namespace, 4)
    cluster.release(helm, "upgrade", namespace, scaled | {"podAnnotations": {"example.com/round": "1"}})
    assert number(cluster, namespace) == 4

    force = () if helm is HELM_3 else ("--force-conflicts",)
    if force:
        with pytest.raises(Refused, match=r"conflict.*\.spec\.replicas"):
            cluster.release(helm, "upgrade", namespace, {"replicas": 2})
    # The autoscaler may look once more between the change of the number and its own end, as README.md says.
    for _ in range(2):
        cluster.release(helm, "upgrade", namespace, {"replicas": 2}, *force)
    assert number(cluster, namespace) == 2


def test_an_autoscaler_from_the_first_installation_on_is_never_undone(
    cluster: Cluster, namespace: str, helm: Helm
) -> None:
    scaled = {"autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 9}}
    cluster.release(helm, "install", namespace, scaled)
    wait_for(cluster, namespace, 3)

    for value in ("1", "2"):
        cluster.release(helm, "upgrade", namespace, scaled | {"podAnnotations": {"example.com/round": value}})
        assert number(cluster, namespace) == 3
