"""The page of a bundle: what to load where, as commands that a person pastes from top to bottom."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RELEASE = "vecgate"
START = (
    "Run these commands in this folder, from top to bottom. They need sha256sum, skopeo, buildah, kubectl and helm, "
    "and nothing from outside the site. First see that everything arrived whole:"
)
WEAVIATE = (
    "Weaviate comes by its own chart and image, which are not part of this; the chart here has values for it in "
    "`examples/companions`."
)
MOUNTED = "They go into an image of nothing but files, which is mounted as a volume:"
COPIED = (
    "They go into an image on top of the server's, because the init container runs its `cp`. Nodes have the layers of "
    "the server's image anyway:"
)
# Fields whose value refers to a Secret: of pods, and of the Prometheus operator's kinds.
SECRET_FIELDS = {"secret", "secretKeyRef", "secretRef", "credentials", "keySecret"}
# Values that name a Secret.
SECRET_VALUES = {"existingSecret", "clientCertificate", "imagePullSecrets", "secretName"}
PULL_KEY = ".dockerconfigjson"
TLS_KEYS = {"tls.crt", "tls.key"}


@dataclass(frozen=True, slots=True)
class Page:
    """What the page tells.

    Attributes:
        version: of the chart.
        namespace: that the chart is installed in.
        values: the site's values by the name of their file.
        manifests: what the chart renders with them.
        sources: by reference to an image, what skopeo copies it from; empty where the bundle does not have it.
        weights: digests of the files of weights by path.
        locks: paths of the locks whose wheels are in the bundle.
    """

    version: str
    namespace: str
    values: Mapping[str, Any]
    manifests: Sequence[Any]
    sources: Mapping[str, str]
    weights: Mapping[str, str]
    locks: Sequence[str]

    def text(self) -> str:
        """Return the page, in Markdown."""
        chart = f"chart/vecgate-{self.version}.tgz"
        chosen = (each for name in self.values for each in ("--values", f"values/{name}"))
        install = _command("helm", "install", RELEASE, chart, "--namespace", self.namespace, *chosen)
        parts = [
            f"# Vecgate {self.version} behind an air gap",
            START,
            _block("sha256sum --check SHA256SUMS"),
            "## Images",
            *self._image_parts(),
            WEAVIATE,
            *self._weights_parts(),
            "## Namespace",
            _block(*self._namespace_commands()),
            *self._secret_parts(),
            "## Chart",
            _block(install, _command("helm", "test", RELEASE, "--namespace", self.namespace, "--logs")),
            *self._package_parts(),
            "`vecgate doctor --air-gap`, with the pod's settings, says what would still be needed from outside.",
        ]
        return "\n\n".join(parts) + "\n"

    def _image_parts(self) -> Iterator[str]:
        registries = sorted({reference.partition("/")[0] for reference in self.sources})
        yield "The values in `values/` refer to these images, and to no others. All are pushed here, and nowhere else:"
        yield _block(*(_command("skopeo", "login", registry) for registry in registries))
        weights, _ = self._weights_image()
        for reference, source in self.sources.items():
            if not source:
                built = reference == weights and "@" not in reference
                do = "it is built below" if built else "bring it into that registry yourself"
                yield f"- `{reference}` is **not in this bundle**: {do}."
                continue
            yield f"- `{reference}` is in `{source.split(':')[1]}`:"
            # A digest is of the very bytes, maybe of an index of several platforms, so nothing may be written again.
            whole = ("--all", "--preserve-digests") if "@" in reference else ()
            yield _block(_command("skopeo", "copy", *whole, source, f"docker://{reference}"))

    def _weights_parts(self) -> Iterator[str]:
        image, base = self._weights_image()
        if not self.weights and (not image or self.sources[image]):
            return
        yield "## Weights"
        yield "\n".join(f"- `{path}`, SHA-256 `{digest}`" for path, digest in self.weights.items()) or (
            "Put the files of the weights into `weights/`, with the names that embedders of kind clip have for them "
            "below `weights.mountPath`."
        )
        if not image:
            yield "Put them where `weights.source` says, so that user 10001 can read them."
        elif self.sources[image]:
            yield f"They are in the image `{image}` already."
        elif "@" in image:
            yield (
                "`weights.image.digest` asks for one image to the byte, which has to be brought. For one that is built "
                "here, set `weights.image.tag` instead and make this bundle again."
            )
        else:
            yield from _recipe(image, base)

    def _weights_image(self) -> tuple[str, str]:
        """Return the image of the weights and what it is built on; both are empty where weights come another way."""
        for pod in _pods(self.manifests):
            for container in pod.get("initContainers", []):
                if container["name"] == "weights":
                    (server,) = (each["image"] for each in pod["containers"] if each["name"] == "vecgate")
                    return container["image"], server
            for volume in pod.get("volumes", []):
                if volume["name"] == "weights" and "image" in volume:
                    return volume["image"]["reference"], "scratch"
        return "", ""

    def _namespace_commands(self) -> Iterator[str]:
        volumes = (volume for pod in _pods(self.manifests) for volume in pod.get("volumes", []))
        level = "privileged" if any("hostPath" in volume for volume in volumes) else "restricted"
        yield _command("kubectl", "create", "namespace", self.namespace)
        label = f"pod-security.kubernetes.io/enforce={level}"
        yield _command("kubectl", "label", "namespace", self.namespace, label)

    def _secret_parts(self) -> Iterator[str]:
        found = _secrets(self.manifests)
        if not found:
            return
        folders = [f"secrets/{name}" for name in found]
        yield "## Secrets"
        yield (
            "Each value goes into its own file, with nothing else in it. "
            f"`helm show readme chart/vecgate-{self.version}.tgz` says what each is."
        )
        yield _block("mkdir -m 700 secrets", _command("mkdir", *folders))
        for name, keys in found.items():
            uses = sorted({path for document in self.values.values() for path in _uses(document, name)})
            yield f"`{name}`, for {', '.join(f'`{path}`' for path in uses) or 'the pods'}:"
            files = [f"secrets/{name}/{key}" for key in keys]
            if PULL_KEY in keys:
                yield "An account of the registry that may only read:"
                registries = sorted({reference.partition("/")[0] for reference in self.sources})
                yield _block(*(_command("skopeo", "login", "--authfile", files[0], each) for each in registries))
            else:
                yield "\n".join(f"- `{file}`" for file in files) if all(keys) else f"- a file a key in `{files[0]}`"
            yield _block(_command(*self._create_secret(name, keys)))

    def _create_secret(self, name: str, keys: Sequence[str]) -> Iterator[str]:
        yield from ("kubectl", "create", "secret", "generic", name, "--namespace", self.namespace)
        if PULL_KEY in keys:
            yield "--type=kubernetes.io/dockerconfigjson"
        elif set(keys) >= TLS_KEYS:
            yield "--type=kubernetes.io/tls"
        if all(keys):
            yield from (f"--from-file={key}=secrets/{name}/{key}" for key in keys)
        else:
            yield f"--from-file=secrets/{name}"

    def _package_parts(self) -> Iterator[str]:
        if not self.locks:
            return
        yield "## Python packages"
        yield "For a machine without containers, with the Python that this was made with:"
        install = "pip install --no-index --find-links wheels --require-hashes --requirement"
        own = "pip install --no-index --no-deps wheels/vecgate*.whl"
        yield _block(*(f"{install} {shlex.quote(lock)}" for lock in self.locks), own)


def images(value: Any) -> Iterator[str]:
    """Yield every image that manifests, or parts of them, refer to: of containers, and of volumes."""
    if isinstance(value, list):
        for inner in value:
            yield from images(inner)
    elif isinstance(value, dict):
        image = value.get("image")
        if isinstance(image, str):
            yield image
        elif isinstance(image, dict) and "reference" in image:
            yield image["reference"]
        for inner in value.values():
            yield from images(inner)


def _recipe(image: str, base: str) -> Iterator[str]:
    target = "/" if base == "scratch" else "/weights/"
    yield MOUNTED if base == "scratch" else COPIED
    yield _block(
        "chmod -R a+rX weights",
        f"printf 'FROM %s\\nCOPY . {target}\\n' {shlex.quote(base)} > weights.Containerfile",
        _command("buildah", "build", "--file", "weights.Containerfile", "--tag", image, "weights"),
        _command("buildah", "push", image),
    )


def _command(*words: str) -> str:
    return shlex.join(words)


def _block(*commands: str) -> str:
    return "\n".join(("```sh", *commands, "```"))


def _pods(manifests: Sequence[Any]) -> Iterator[Any]:
    for manifest in manifests:
        if manifest["kind"] == "Deployment":
            yield manifest["spec"]["template"]["spec"]


def _secrets(manifests: Sequence[Any]) -> dict[str, list[str]]:
    """Return the keys of every Secret that has to be there, by its name; an empty key stands for all that it has."""
    made = {each["spec"]["secretName"] for each in manifests if each["kind"] == "Certificate"}
    found: dict[str, set[str]] = {}
    for name, key in _secret_references(list(manifests)):
        if name not in made:
            found.setdefault(name, set()).add(key)
    return {name: sorted(keys) for name, keys in sorted(found.items())}


def _secret_references(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for inner in value:
            yield from _secret_references(inner)
    elif isinstance(value, dict):
        for field, inner in value.items():
            if field == "imagePullSecrets":
                yield from ((each["name"], PULL_KEY) for each in inner)
            elif field in SECRET_FIELDS and isinstance(inner, dict):
                name = inner.get("name", inner.get("secretName"))
                # What wraps a reference, as a certificate's `secret` in a ServiceMonitor, has no name.
                yield from ((name, item.get("key", "")) for item in inner.get("items", [inner]) if name)
            yield from _secret_references(inner)


def _uses(value: Any, name: str, *path: str) -> Iterator[str]:
    """Yield the paths of the values that name a Secret."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _uses(inner, name, *path, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _uses(inner, name, *path)
    elif value == name and (path[-1] in SECRET_VALUES or path[-2] in SECRET_FIELDS):
        yield ".".join(path).removesuffix(".existingSecret")
