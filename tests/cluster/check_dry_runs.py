"""What the API server says of every manifest without storing it; a warning is an error."""

import pytest
import yaml

from helm.tools.helm import HELM, Helm
from tests.cluster.cluster import RELEASE, Cluster, Refused
from tests.helm.render import CHART, EVERYTHING, EXTENDED, PROFILES, SECURED

SETS = PROFILES | {"everything": EVERYTHING, "extended": EXTENDED, "secured": SECURED}


def account(manifests: str) -> str:
    """Return the name of the service account that manifests make."""
    (name,) = (each["metadata"]["name"] for each in yaml.safe_load_all(manifests) if each["kind"] == "ServiceAccount")
    return str(name)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.usefixtures("custom_kinds")
def test_the_api_server_takes_every_manifest_without_a_warning(cluster: Cluster, namespace: str, name: str) -> None:
    values = cluster.values(SETS[name])
    manifests = cluster.helm(
        HELM,
        "template",
        RELEASE,
        CHART,
        "--namespace",
        namespace,
        "--kube-version",
        cluster.version(),
        "--values",
        values,
    )

    # The account that the pod of the test names has to be there, though it is tried, too.
    cluster.kubectl("create", "serviceaccount", account(manifests), "--namespace", namespace)

    answer = cluster.kubectl(
        "apply", "--server-side", "--dry-run=server", "--namespace", namespace, "--filename", "-", stdin=manifests
    )

    assert answer.count("(server dry run)") == manifests.count("\nkind: ")


@pytest.mark.parametrize("name", SETS)
@pytest.mark.usefixtures("custom_kinds")
def test_helms_own_dry_run_on_the_server_says_nothing_else(
    cluster: Cluster, namespace: str, helm: Helm, name: str
) -> None:
    values = cluster.values(SETS[name])

    cluster.helm(helm, "install", RELEASE, CHART, "--namespace", namespace, "--values", values, "--dry-run=server")


def test_a_warning_would_be_an_error(cluster: Cluster, namespace: str) -> None:
    labels = {"app": "open"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "open", "image": "open"}]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "open"}, "spec": spec}

    with pytest.raises(Refused, match="would violate PodSecurity"):
        cluster.create(namespace, deployment, options=("--dry-run=server",))
