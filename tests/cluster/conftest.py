"""The cluster that the checks share, a namespace for each, and both versions of Helm."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from helm.tools.helm import HELM, HELM_3, Helm
from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import control_plane
from tests.cluster.nodes import add_nodes, kubelet
from tests.cluster.programs import definitions
from tests.helm.manifests import Manifest
from tests.helm.render import EVERYTHING

# The one that the tests' values name.
PRIORITY = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": EVERYTHING["priorityClassName"]},
    "value": 1000,
}


def weights(namespace: str) -> list[Manifest]:
    """Return a claim, and a volume that it is bound to, as sites have them that keep weights in one."""
    volume = f"{namespace}-weights"
    spec = {"accessModes": ["ReadOnlyMany"], "storageClassName": ""}
    claim = spec | {"resources": {"requests": {"storage": "8Gi"}}, "volumeName": volume}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": spec | {"capacity": {"storage": "8Gi"}, "hostPath": {"path": "/srv/weights"}},
        },
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "clip-weights"}, "spec": claim},
    ]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Yield a running cluster without custom kinds."""
    with ExitStack() as ends:
        # Not pytest's own, which stays: etcd writes much.
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="vecgate-cluster-")))
        plane = ends.enter_context(control_plane(folder))
        add_nodes(plane.api)
        ends.enter_context(kubelet(plane.api))
        home = folder / "home"
        home.mkdir()
        cluster = Cluster(plane, home)
        cluster.create("default", PRIORITY)
        yield cluster


@pytest.fixture(params=[HELM_3, HELM], ids=["helm-3", "helm-4"])
def helm(request: pytest.FixtureRequest) -> Helm:
    """Return each version of Helm."""
    helm: Helm = request.param
    helm.install()
    return helm


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the name of a namespace that enforces Pod Security "restricted", with a claim that holds weights."""
    name = f"check-{abs(hash(request.node.name)) % 10**12}"
    with cluster.namespace(name):
        cluster.create(name, *weights(name))
        yield name


@pytest.fixture(scope="session")
def defaults(cluster: Cluster) -> Iterator[str]:
    """Yield the name of a namespace that stays empty, to ask the API server what it adds to a manifest."""
    with cluster.namespace("defaults"):
        yield "defaults"


@pytest.fixture(scope="module")
def custom_kinds(cluster: Cluster) -> Iterator[None]:
    """Have the kinds of other projects that the chart can make."""
    files = [argument for file in definitions() for argument in ("--filename", str(file))]
    # Their descriptions are too long for the annotation of a client-side apply.
    cluster.kubectl("create", *files)
    cluster.kubectl("wait", "--for=condition=Established", *files)
    yield
    cluster.kubectl("delete", *files)
