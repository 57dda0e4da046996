"""Releases of every profile: installed, upgraded into every other one, rolled back, uninstalled."""

import pytest

from helm.tools.helm import HELM_3, Helm
from tests.cluster.cluster import RELEASE, WAIT, Cluster
from tests.helm.render import PROFILES


@pytest.mark.parametrize("first", PROFILES)
def test_a_profile_becomes_every_other_one_and_itself_again(
    cluster: Cluster, namespace: str, defaults: str, helm: Helm, first: str
) -> None:
    expected = {name: cluster.rendered(helm, defaults, values) for name, values in PROFILES.items()}

    cluster.release(helm, "install", namespace, PROFILES[first])
    assert cluster.live(namespace) == expected[first]
    for other in PROFILES.keys() - {first}:
        cluster.release(helm, "upgrade", namespace, PROFILES[other])
        assert cluster.live(namespace) == expected[other], other
        # As README.md says of a number that an autoscaler owns, and may set once more before its own end.
        force = () if helm is HELM_3 else ("--force-conflicts",)
        for _ in range(2 if "autoscaling" in PROFILES[other] else 1):
            cluster.helm(helm, "rollback", RELEASE, "1", "--namespace", namespace, *WAIT, *force)
        assert cluster.live(namespace) == expected[first], other
    cluster.helm(helm, "test", RELEASE, "--namespace", namespace)
    cluster.helm(helm, "uninstall", RELEASE, "--namespace", namespace, *WAIT)

    assert cluster.live(namespace) == {}
