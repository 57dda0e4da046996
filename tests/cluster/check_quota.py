"""A namespace in which every container has to say what it takes."""

import pytest

from helm.tools.helm import Helm
from tests.cluster.cluster import RELEASE, Cluster, Refused
from tests.helm.render import PROFILES

QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "quota"},
    "spec": {"hard": {"pods": "4", "requests.cpu": "8", "requests.memory": "40Gi", "limits.memory": "40Gi"}},
}


@pytest.mark.parametrize("name", PROFILES)
def test_every_container_says_what_a_quota_counts(cluster: Cluster, namespace: str, helm: Helm, name: str) -> None:
    cluster.create(namespace, QUOTA)

    cluster.release(helm, "install", namespace, PROFILES[name])
    # The pod of the test, too.
    cluster.helm(helm, "test", RELEASE, "--namespace", namespace)


def test_the_quota_refuses_a_container_that_says_nothing(cluster: Cluster, namespace: str) -> None:
    cluster.create(namespace, QUOTA)
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    spec = {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "image": "a", "securityContext": security}],
    }

    with pytest.raises(Refused, match="must specify"):
        cluster.create(namespace, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
