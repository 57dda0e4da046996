"""What rules ask of rendered manifests: pods, containers, selectors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PodUse:
    """A pod that a manifest makes.

    Attributes:
        owner: the manifest, as kind and name.
        labels: of the pod.
        spec: of the pod.
    """

    owner: str
    labels: Mapping[str, str]
    spec: Manifest


def named(manifest: Manifest) -> str:
    """Return a manifest's kind and name."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def pods(manifests: list[Manifest]) -> Iterator[PodUse]:
    """Yield every pod, those of hooks too."""
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            yield PodUse(named(manifest), manifest["metadata"].get("labels", {}), manifest["spec"])
        for template in _templates(manifest):
            yield PodUse(named(manifest), template["metadata"].get("labels", {}), template["spec"])


def _templates(manifest: Manifest) -> Iterator[Manifest]:
    spec = manifest.get("spec", {})
    if "template" in spec:
        yield spec["template"]
    if manifest["kind"] == "CronJob":
        yield spec["jobTemplate"]["spec"]["template"]
    if manifest["kind"] == "RayJob":
        cluster = spec["rayClusterSpec"]
        yield spec["submitterPodTemplate"]
        yield from (each["template"] for each in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]))


def containers(pod: PodUse) -> Iterator[Manifest]:
    """Yield every container of a pod, those that run first too."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod.spec.get(kind, [])


def images(value: Any) -> Iterator[str]:
    """Yield every image that manifests, or parts of them, refer to: of containers, and of volumes."""
    if isinstance(value, dict):
        image = value.get("image")
        if isinstance(image, str):
            yield image
        elif isinstance(image, dict) and "reference" in image:
            yield image["reference"]
        for inner in value.values():
            yield from images(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images(inner)
