"""What the checks ask of the cluster, through kubectl and Helm as a person would."""

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from helm.tools.helm import Helm
from tests.cluster.control_plane import ControlPlane
from tests.helm.manifests import Manifest
from tests.helm.render import CHART

RELEASE = "try"
WAIT = ("--wait", "--timeout", "180s")
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
KINDS = "deployments,services,configmaps,serviceaccounts,poddisruptionbudgets,horizontalpodautoscalers,networkpolicies"
# What the API server and controllers write into metadata, and what is given anew in each namespace.
OTHERS_ANNOTATIONS = ("meta.helm.sh/", "deployment.kubernetes.io/")
GIVEN = {"clusterIP", "clusterIPs", "healthCheckNodePort"}


class Refused(Exception):
    """kubectl or Helm failed, or warned; the message is what it said."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster and a folder for what is written for it.

    Attributes:
        plane: the running control plane.
        folder: for values and Helm's own files.
    """

    plane: ControlPlane
    folder: Path

    def environment(self, *programs: Path) -> dict[str, str]:
        """Return an environment in which kubectl is on PATH, and nothing of the machine's own clusters is known."""
        path = os.pathsep.join([*map(str, programs), str(self.plane.programs), os.environ["PATH"]])
        return {"PATH": path, "HOME": str(self.folder), "KUBECONFIG": str(self.plane.kubeconfig)}

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Run kubectl, for which a warning is an error, and return what it printed.

        Raises:
            Refused: it ended with another code than 0.
        """
        command = ("--warnings-as-errors", *arguments)
        return self._run("kubectl", *command, stdin=stdin)

    def helm(self, helm: Helm, *arguments: str | Path) -> str:
        """Run a helm program and return what it printed.

        Raises:
            Refused: it ended with another code than 0, or said anything of a warning.
        """
        return self._run(helm.path, *arguments)

    def create(self, namespace: str, *manifests: Manifest, options: Sequence[str] = ()) -> str:
        """Create objects and return what kubectl printed.

        Raises:
            Refused: the API server refused one, or warned.
        """
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        return self.kubectl("create", "--namespace", namespace, "--filename", "-", *options, stdin=listed)

    def release(self, helm: Helm, action: str, namespace: str, values: dict[str, Any], *options: str) -> None:
        """Install or upgrade the release with values, and wait until its pods are as they should be.

        Raises:
            Refused: Helm failed, or warned.
        """
        chosen = ("--namespace", namespace, "--values", self.values(values))
        self.helm(helm, action, RELEASE, CHART, *chosen, *WAIT, *options)

    def values(self, values: dict[str, Any]) -> Path:
        """Write values into a file and return it."""
        file = self.folder / f"values-{len(list(self.folder.iterdir()))}.yaml"
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        return file

    @contextmanager
    def namespace(self, name: str) -> Iterator[str]:
        """Have a namespace that enforces Pod Security "restricted"."""
        metadata = {"name": name, "labels": RESTRICTED}
        self.create("default", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        try:
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")

    def live(self, namespace: str) -> dict[str, Any]:
        """Return what is there of the release, without what the cluster itself writes, by kind and name."""
        selector = f"app.kubernetes.io/instance={RELEASE}"
        text = self.kubectl("get", KINDS, "--namespace", namespace, "--selector", selector, "--output", "json")
        # The cluster makes endpoints, replica sets and pods; no test is left by Helm.
        return _comparable(json.loads(text)["items"])

    def rendered(self, helm: Helm, namespace: str, values: dict[str, Any]) -> dict[str, Any]:
        """Return the same of what the chart renders, with the defaults that the API server adds."""
        known = ("--kube-version", self.version())
        text = self.helm(helm, "template", RELEASE, CHART, "--values", self.values(values), *known)
        manifests = [each for each in yaml.safe_load_all(text) if each and not _is_hook(each)]
        # In another namespace, where none of it exists.
        answer = self.create(namespace, *manifests, options=("--dry-run=server", "--output=yaml"))
        return _comparable(yaml.safe_load_all(answer))

    def version(self) -> str:
        """Return the version of Kubernetes."""
        return str(self.plane.api.get("/version").raise_for_status().json()["gitVersion"])

    def _run(self, program: str | Path, *arguments: str | Path, stdin: str | None = None) -> str:
        command: Sequence[str | Path] = (program, *arguments)
        done = subprocess.run(command, env=self.environment(), input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0 or "warn" in done.stderr.lower():
            raise Refused(f"{' '.join(map(str, command))}: {done.stderr}{done.stdout[-2000:]}")
        return done.stdout


def _is_hook(manifest: Manifest) -> bool:
    return "helm.sh/hook" in manifest["metadata"].get("annotations", {})


def _comparable(objects: Iterable[Manifest]) -> dict[str, Any]:
    found = {f"{each['kind']}/{each['metadata']['name']}": _own(each) for each in objects}
    if any(name.startswith("HorizontalPodAutoscaler/") for name in found):
        for name in found:
            if name.startswith("Deployment/"):
                # The autoscaler's; whether the chart leaves it out depends on what ran before.
                found[name]["spec"].pop("replicas")
                found[name]["annotations"].pop("vecgate/replicas", None)
    return found


def _own(manifest: Manifest) -> dict[str, Any]:
    """Return what a manifest says, less what the cluster writes."""
    meta = manifest["metadata"]
    annotations = {
        name: value for name, value in meta.get("annotations", {}).items() if not name.startswith(OTHERS_ANNOTATIONS)
    }
    kept = {name: value for name, value in manifest.items() if name not in {"metadata", "status"}}
    if manifest["kind"] == "Service":
        kept["spec"] = {name: value for name, value in kept["spec"].items() if name not in GIVEN or value == ["None"]}
    return {"labels": meta.get("labels", {}), "annotations": annotations, **kept}
