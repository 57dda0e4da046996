"""Each rule finds what it is there for: a render that keeps them all is broken in one place."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest
from pydantic import ValidationError

from tests.helm.definitions import BadManifest, check_manifest
from tests.helm.manifests import Manifest, images
from tests.helm.pod_security import violations
from tests.helm.render import EVERYTHING, EXTENDED, NEWEST, PROFILES, render
from tests.helm.rules import broken_rules
from tests.helm.schemas import KINDS, UnknownField

Change = Callable[[dict[str, Manifest]], object]
WITHOUT_TLS: dict[str, Any] = EVERYTHING | {"tls": {}}
"""Probes use gRPC in these values."""


def broken(values: dict[str, Any], change: Change) -> list[Manifest]:
    """Return a render with a change in it, which gets the manifests by kind; of Services, the first one."""
    manifests = deepcopy(render(values))
    by_kind: dict[str, Manifest] = {}
    for manifest in manifests:
        by_kind.setdefault(manifest["kind"], manifest)
    change(by_kind)
    return manifests


def pod(of: dict[str, Manifest]) -> Manifest:
    return of["Deployment"]["spec"]["template"]["spec"]


def server(of: dict[str, Manifest]) -> Manifest:
    return next(each for each in pod(of)["containers"] if each["name"] == "vecgate")


def limits(of: dict[str, Manifest]) -> Manifest:
    return server(of)["resources"]["limits"]


SEMANTIC: dict[str, tuple[str, Change]] = {
    "memory in a made-up unit": ("resources", lambda of: limits(of).update(memory="10 GB")),
    "requests above limits": ("resources", lambda of: server(of)["resources"]["requests"].update(memory="64Gi")),
    "fewer GPUs than asked for": ("resources", lambda of: limits(of).update({"nvidia.com/mig-1g.10gb": 1})),
    "a folder of no size": ("resources", lambda of: pod(of)["volumes"][0].update(emptyDir={"sizeLimit": "big"})),
    "two handlers": ("probes", lambda of: server(of)["livenessProbe"].update(tcpSocket={"port": 50070})),
    "no handler": ("probes", lambda of: server(of)["livenessProbe"].pop("grpc")),
    "a probe of an unknown page": (
        "probes",
        lambda of: [
            server(of)["readinessProbe"].pop("grpc"),
            server(of)["readinessProbe"].update(httpGet={"port": "web", "path": "/"}),
        ],
    ),
    "a probe of a closed port": ("probes", lambda of: server(of)["readinessProbe"]["grpc"].update(port=1)),
    "a long port name": ("ports", lambda of: of["Service"]["spec"]["ports"][0].update(name="grpc-and-sixteen")),
    "a port out of range": ("ports", lambda of: of["Service"]["spec"]["ports"][1].update(port=99999)),
    "a policy's port out of range": (
        "ports",
        lambda of: of["NetworkPolicy"]["spec"]["egress"][0]["ports"][0].update(port=0),
    ),
    "a port name twice": ("ports", lambda of: server(of)["ports"].append({"name": "grpc", "containerPort": 1})),
    "a port twice": ("ports", lambda of: server(of)["ports"].append({"name": "more", "containerPort": 50070})),
    "a selector that misses": (
        "selectors",
        lambda of: of["Deployment"]["spec"]["selector"]["matchLabels"].update(a="b"),
    ),
    "a Service that finds no pods": ("selectors", lambda of: of["Service"]["spec"]["selector"].update(a="b")),
    "a Service that finds the test's pod": (
        "selectors",
        lambda of: of["Service"]["spec"]["selector"].pop("app.kubernetes.io/component"),
    ),
    "a policy that finds no pods": (
        "selectors",
        lambda of: of["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"].update(a="b"),
    ),
    "a monitor of no Service": (
        "selectors",
        lambda of: of["ServiceMonitor"]["spec"]["selector"]["matchLabels"].update(a="b"),
    ),
    "a monitor of both Services": (
        "selectors",
        lambda of: of["ServiceMonitor"]["spec"]["selector"]["matchLabels"].pop("app.kubernetes.io/component"),
    ),
    "a port that no Service has": (
        "references",
        lambda of: of["ServiceMonitor"]["spec"]["endpoints"][0].update(port="web"),
    ),
    "a port nobody opens": ("references", lambda of: of["Service"]["spec"]["ports"][0].update(targetPort="web")),
    "a scaler of nothing": (
        "references",
        lambda of: of["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"].update(name="other"),
    ),
    "a fixed number that is scaled": ("references", lambda of: of["Deployment"]["spec"].update(replicas=3)),
    "a name twice": ("references", lambda of: of["Service"]["metadata"].update(name="vectors-headless")),
    "a mount of nothing": ("volumes", lambda of: pod(of)["volumes"].pop(0)),
    "a volume for nobody": ("volumes", lambda of: pod(of)["volumes"].append({"name": "more", "emptyDir": {}})),
    "a path mounted twice": (
        "volumes",
        lambda of: server(of)["volumeMounts"].append({"name": "tmp", "mountPath": "/weights"}),
    ),
    "an upper-case name": ("names", lambda of: of["NetworkPolicy"]["metadata"].update(name="Vectors")),
    "a Service that begins with a digit": (
        "names",
        lambda of: [
            of["Service"]["metadata"].update(name="1st"),
            of["GRPCRoute"]["spec"]["rules"][0]["backendRefs"][0].update(name="1st"),
            of["Certificate"]["spec"]["dnsNames"].append("1st"),
        ],
    ),
    "a container with a dot": ("names", lambda of: server(of).update(name="vec.gate")),
    "a bad label": ("labels", lambda of: of["Deployment"]["metadata"]["labels"].update(team="search & find")),
    "a bad node label": ("labels", lambda of: pod(of)["nodeSelector"].update(pool="-gpu")),
    "a type of no Service": ("services", lambda of: of["Service"]["spec"].update(type="Cluster")),
    "a port of the nodes for a Service inside": (
        "services",
        lambda of: of["Service"]["spec"]["ports"][0].update(nodePort=30070),
    ),
    "a load balancer's networks for a Service inside": (
        "services",
        lambda of: of["Service"]["spec"].update(loadBalancerSourceRanges=["10.0.0.0/8"]),
    ),
    "a device that the pod does not claim": (
        "resources",
        lambda of: server(of)["resources"].update(claims=[{"name": "gpu"}]),
    ),
    "a variable twice": ("environment", lambda of: server(of)["env"].append({"name": "HOME", "value": "/"})),
    "a bad variable": ("environment", lambda of: server(of)["env"].append({"name": "A B", "value": "/"})),
    "two bounds of a budget": ("bounds", lambda of: of["PodDisruptionBudget"]["spec"].update(minAvailable=1)),
    "more at least than at most": (
        "bounds",
        lambda of: of["HorizontalPodAutoscaler"]["spec"].update(minReplicas=99),
    ),
    "a rollout that fails before a pod counts": (
        "bounds",
        lambda of: of["Deployment"]["spec"].update(minReadySeconds=600, progressDeadlineSeconds=600),
    ),
    "a rollout that may not move": (
        "bounds",
        lambda of: of["Deployment"]["spec"]["strategy"]["rollingUpdate"].update(maxUnavailable=0),
    ),
    "a network of 99 bits": (
        "networks",
        lambda of: of["NetworkPolicy"]["spec"]["ingress"][0]["from"][0]["ipBlock"].update(cidr="10.0.0.0/99"),
    ),
    "calls from everybody": ("networks", lambda of: of["NetworkPolicy"]["spec"]["ingress"][0].update({"from": []})),
    "calls to everybody": ("networks", lambda of: of["NetworkPolicy"]["spec"]["egress"][1].pop("to")),
    "calls to every port": ("networks", lambda of: of["NetworkPolicy"]["spec"]["egress"][0].update(ports=[])),
    "calls to no port in particular": (
        "networks",
        lambda of: of["NetworkPolicy"]["spec"]["egress"][0].update(ports=None),
    ),
    "a surplus pod on a full GPU pool": (
        "rollouts",
        lambda of: of["Deployment"]["spec"]["strategy"]["rollingUpdate"].update(maxSurge=1),
    ),
    "a route to a Service of another release": (
        "references",
        lambda of: of["GRPCRoute"]["spec"]["rules"][0]["backendRefs"][0].update(name="other"),
    ),
    "a route to a port that no Service has": (
        "references",
        lambda of: of["GRPCRoute"]["spec"]["rules"][0]["backendRefs"][0].update(port=50071),
    ),
    "a certificate for another name": ("references", lambda of: of["Certificate"]["spec"].update(dnsNames=["other"])),
    "a certificate that nobody mounts": ("references", lambda of: of["Certificate"]["spec"].update(secretName="other")),
    "an end that is cut off": ("ends", lambda of: pod(of).update(terminationGracePeriodSeconds=30)),
}


@pytest.mark.parametrize(("rule", "change"), SEMANTIC.values(), ids=SEMANTIC)
def test_a_rule_finds_what_the_schemas_of_kubernetes_let_pass(rule: str, change: Change) -> None:
    manifests = broken(WITHOUT_TLS if rule == "probes" else EVERYTHING, change)

    assert set(broken_rules(manifests)) == {rule}
    for manifest in manifests:
        check_manifest(manifest, NEWEST)


def test_each_rule_was_shown_to_find_something() -> None:
    from tests.helm.rules import RULES

    assert {rule for rule, _ in SEMANTIC.values()} == set(RULES)


STRICT: dict[str, Change] = {
    "an unknown field": lambda of: server(of).update(colour="red"),
    "replicas in words": lambda of: of["Deployment"]["spec"].update(replicas="two"),
    "a named port of a gRPC probe": lambda of: server(of)["livenessProbe"]["grpc"].update(port="grpc"),
    "a number in the environment": lambda of: server(of)["env"][0].update(value=1),
}


@pytest.mark.parametrize("change", STRICT.values(), ids=STRICT)
def test_the_schemas_of_kubernetes_find_what_no_rule_looks_for(change: Change) -> None:
    manifests = broken(WITHOUT_TLS, change)

    (changed,) = (manifest for manifest in manifests if manifest["kind"] == "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(changed, NEWEST, strict=True)


DEFINED: dict[str, tuple[str, Change]] = {
    "an unknown field": ("Certificate", lambda of: of["Certificate"]["spec"].update(colour="red")),
    "an unknown field below": ("Certificate", lambda of: of["Certificate"]["spec"]["privateKey"].update(bits=256)),
    "an unknown algorithm": ("Certificate", lambda of: of["Certificate"]["spec"]["privateKey"].update(algorithm="X")),
    "a certificate in no Secret": ("Certificate", lambda of: of["Certificate"]["spec"].pop("secretName")),
    "a port in words": (
        "GRPCRoute",
        lambda of: of["GRPCRoute"]["spec"]["rules"][0]["backendRefs"][0].update(port="grpc"),
    ),
    "a route to nowhere": (
        "GRPCRoute",
        lambda of: of["GRPCRoute"]["spec"]["rules"][0]["backendRefs"][0].pop("name"),
    ),
    "a host of bad letters": ("GRPCRoute", lambda of: of["GRPCRoute"]["spec"].update(hostnames=["a_b"])),
    "an unknown rule": ("GRPCRoute", lambda of: of["GRPCRoute"]["spec"]["rules"][0].update(retries=3)),
    "a path of an unknown kind": (
        "HTTPRoute",
        lambda of: of["HTTPRoute"]["spec"]["rules"][0]["matches"][0]["path"].update(type="Glob"),
    ),
    "an unknown field of a route": ("HTTPRoute", lambda of: of["HTTPRoute"]["spec"].update(colour="red")),
    "a scaler of nothing": ("ScaledObject", lambda of: of["ScaledObject"]["spec"].pop("scaleTargetRef")),
    "a trigger of no kind": ("ScaledObject", lambda of: of["ScaledObject"]["spec"]["triggers"][0].pop("type")),
    "a number in a trigger": (
        "ScaledObject",
        lambda of: of["ScaledObject"]["spec"]["triggers"][0]["metadata"].update(desiredReplicas=4),
    ),
}


@pytest.mark.parametrize(("kind", "change"), DEFINED.values(), ids=DEFINED)
def test_the_definitions_of_other_projects_find_what_does_not_fit_them(kind: str, change: Change) -> None:
    values, name = (EXTENDED, "try-vecgate") if kind in {"HTTPRoute", "ScaledObject"} else (EVERYTHING, "vectors")
    (changed,) = (manifest for manifest in broken(values, change) if manifest["kind"] == kind)

    with pytest.raises(BadManifest, match=f"{kind}/{name}"):
        check_manifest(changed, NEWEST)


def test_a_kind_without_a_schema_is_a_failure() -> None:
    monitor = {"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "a"}}

    with pytest.raises(kubernetes_validate.SchemaNotFoundError):
        check_manifest(monitor, NEWEST)


OPERATOR: dict[str, Change] = {
    "an interval in words": lambda of: of["ServiceMonitor"]["spec"]["endpoints"][0].update(interval="often"),
    "no selector": lambda of: of["ServiceMonitor"]["spec"].pop("selector"),
    "an unknown field deep inside": lambda of: of["ServiceMonitor"]["spec"]["endpoints"][0].update(colour="red"),
    "a rule without an expression": lambda of: of["PrometheusRule"]["spec"]["groups"][0]["rules"][0].pop("expr"),
    "an unknown field of a rule": lambda of: of["PrometheusRule"]["spec"]["groups"][0]["rules"][0].update(colour="red"),
}


@pytest.mark.parametrize("change", OPERATOR.values(), ids=OPERATOR)
def test_the_schemas_of_the_prometheus_operator_find(change: Change) -> None:
    manifests = {manifest["kind"]: manifest for manifest in broken(EVERYTHING, change)}
    kept = render(EVERYTHING)

    (changed,) = (each for each in manifests.values() if each["kind"] in KINDS and each not in kept)
    with pytest.raises((ValidationError, UnknownField)):
        check_manifest(changed, NEWEST)


def context(of: dict[str, Manifest]) -> Manifest:
    return server(of)["securityContext"]


POD_SECURITY: dict[str, Change] = {
    "the host's network": lambda of: pod(of).update(hostNetwork=True),
    "the host's processes": lambda of: pod(of).update(hostPID=True),
    "the host's memory": lambda of: pod(of).update(hostIPC=True),
    "a folder of the host": lambda of: pod(of)["volumes"].append({"name": "more", "hostPath": {"path": "/"}}),
    "a network file system": lambda of: pod(of)["volumes"].append({"name": "more", "nfs": {}}),
    "a setting of the kernel": lambda of: pod(of)["securityContext"].update(sysctls=[{"name": "vm.swappiness"}]),
    "root": lambda of: pod(of)["securityContext"].update(runAsUser=0),
    "root in one container": lambda of: context(of).update(runAsUser=0),
    "whoever the image says": lambda of: pod(of)["securityContext"].pop("runAsNonRoot"),
    "root allowed in one container": lambda of: context(of).update(runAsNonRoot=False),
    "no seccomp": lambda of: pod(of)["securityContext"].pop("seccompProfile"),
    "seccomp off": lambda of: context(of).update(seccompProfile={"type": "Unconfined"}),
    "AppArmor off": lambda of: context(of).update(appArmorProfile={"type": "Unconfined"}),
    "a SELinux role": lambda of: context(of).update(seLinuxOptions={"role": "sysadm_r"}),
    "privileges": lambda of: context(of).update(privileged=True),
    "privileges later": lambda of: context(of).pop("allowPrivilegeEscalation"),
    "capabilities kept": lambda of: context(of).update(capabilities={"drop": ["NET_RAW"]}),
    "capabilities added": lambda of: context(of)["capabilities"].update(add=["SYS_PTRACE"]),
    "another proc": lambda of: context(of).update(procMount="Unmasked"),
    "a port of the host": lambda of: server(of)["ports"][0].update(hostPort=80),
    "a probe of another host": lambda of: server(of).update(startupProbe={"tcpSocket": {"host": "a", "port": 1}}),
    "Windows' host": lambda of: pod(of)["securityContext"].update(windowsOptions={"hostProcess": True}),
    "the pod that copies weights": lambda of: pod(of)["initContainers"][0].pop("securityContext"),
    "the pod of the test": lambda of: of["Pod"]["spec"]["containers"][0].pop("securityContext"),
}


@pytest.mark.parametrize("change", POD_SECURITY.values(), ids=POD_SECURITY)
def test_pod_security_finds(change: Change) -> None:
    assert violations(broken(EVERYTHING, change)) != []


def test_an_image_of_another_registry_is_found_wherever_it_stands() -> None:
    in_container = broken(EVERYTHING, lambda of: pod(of)["initContainers"][0].update(image="elsewhere.example/busybox"))
    mounted = PROFILES["air-gapped"] | {"weights": {"source": "image", "image": {"tag": "vit-h-14"}}}
    in_volume = broken(mounted, lambda of: pod(of)["volumes"][1]["image"].update(reference="elsewhere.example/weights"))

    assert "elsewhere.example/busybox" in images(in_container)
    assert "elsewhere.example/weights" in images(in_volume)
