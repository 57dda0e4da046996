"""Kinds of other projects, where they are missing and where they are there."""

from typing import Any

import pytest

from helm.tools.helm import Helm
from tests.cluster.cluster import RELEASE, Cluster, Refused
from tests.helm.render import CHART, EVERYTHING, EXTENDED, render

NEEDED: dict[str, dict[str, Any]] = {
    "Certificate": {"tls": {"enabled": True, "certificate": {"enabled": True, "issuerRef": {"name": "site"}}}},
    "GRPCRoute": {"grpcRoute": {"enabled": True, "parentRefs": [{"name": "edge"}]}},
    "HTTPRoute": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "edge"}]}},
    "PrometheusRule": {"monitoring": {"prometheusRule": {"enabled": True}}},
    "ScaledObject": {
        "keda": {
            "enabled": True,
            "triggers": [{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "70"}}],
        }
    },
    "ServiceMonitor": {"monitoring": {"serviceMonitor": {"enabled": True}}},
}


@pytest.mark.parametrize("kind", NEEDED)
def test_where_a_kind_is_missing_helm_names_it_and_installs_nothing(
    cluster: Cluster, namespace: str, helm: Helm, kind: str
) -> None:
    values = cluster.values(NEEDED[kind])

    with pytest.raises(Refused, match=f'no matches for kind "{kind}"'):
        cluster.helm(helm, "install", RELEASE, CHART, "--namespace", namespace, "--values", values)

    assert cluster.live(namespace) == {}


@pytest.mark.usefixtures("custom_kinds")
class TestPresent:
    @pytest.mark.parametrize("values", [EVERYTHING, EXTENDED], ids=["everything", "extended"])
    def test_all_that_is_made_goes_with_the_values_or_the_release(
        self, cluster: Cluster, namespace: str, helm: Helm, values: dict[str, Any]
    ) -> None:
        # No node is like the one that these values want, so nobody waits.
        release = (RELEASE, CHART, "--namespace", namespace)

        cluster.helm(helm, "install", *release, "--values", cluster.values(values))
        made = custom(cluster, namespace)
        cluster.helm(helm, "upgrade", *release, "--values", cluster.values({"replicas": 1}))
        after = custom(cluster, namespace)
        cluster.helm(helm, "rollback", RELEASE, "--namespace", namespace)
        again = custom(cluster, namespace)
        cluster.helm(helm, "uninstall", RELEASE, "--namespace", namespace)

        assert made == again == sorted(each["kind"] for each in render(values) if each["kind"] in NEEDED) != []
        assert after == custom(cluster, namespace) == []


def custom(cluster: Cluster, namespace: str) -> list[str]:
    """Return the kinds of what is there of other projects' kinds."""
    kinds = ",".join(f"{kind.lower()}s" for kind in NEEDED)
    path = "jsonpath={.items[*].kind}"
    return sorted(cluster.kubectl("get", kinds, "--namespace", namespace, "--output", path).split())
