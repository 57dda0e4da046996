"""What an API server, a scheduler or a kubelet would refuse and the schemas of Kubernetes do not say."""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from tests.helm.manifests import Manifest, PodUse, containers, named, pods

QUANTITY = re.compile(r"([+-]?[0-9]+(?:\.[0-9]*)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?")
FACTORS = {"m": Decimal("0.001"), "": Decimal(1)}
FACTORS |= {unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)}
FACTORS |= {f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)}
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
HANDLERS = {"exec", "grpc", "httpGet", "tcpSocket", "sleep"}
SERVICE_TYPES = {"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}
NATIVE_RESOURCES = {"cpu", "memory", "ephemeral-storage"}
MAX_PORT = 65535
MAX_NAME = 253

Faults = Iterator[str]


def broken_rules(manifests: list[Manifest]) -> dict[str, list[str]]:
    """Return the faults of manifests by the rule that they break."""
    found = {name: list(rule(manifests)) for name, rule in RULES.items()}
    return {name: faults for name, faults in found.items() if faults}


def _pod_rule(check: Callable[[PodUse], Faults]) -> Callable[[list[Manifest]], Faults]:
    def rule(manifests: list[Manifest]) -> Faults:
        for pod in pods(manifests):
            for fault in check(pod):
                yield f"{pod.owner}: {fault}"

    return rule


def quantity(value: object) -> Decimal | None:
    """Return a quantity as a number, or None if it is none."""
    match = QUANTITY.fullmatch(str(value))
    if match is None:
        return None
    unit = match[2] or ""
    return Decimal(match[1]) * (FACTORS[unit] if unit in FACTORS else Decimal(f"1{unit}"))


def _resources(pod: PodUse) -> Faults:
    for container in containers(pod):
        resources = container.get("resources", {})
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        for name, value in (*requests.items(), *limits.items()):
            number = quantity(value)
            if number is None or number < 0:
                yield f"{name}: {value!r} is no quantity"
        for name in requests.keys() & limits.keys():
            asked, allowed = quantity(requests[name]), quantity(limits[name])
            if asked is not None and allowed is not None and asked > allowed:
                yield f"{name}: asks for {asked} and may have {allowed}"
        claimed = {each["name"] for each in pod.spec.get("resourceClaims", [])}
        yield from (f"claims {each['name']}" for each in resources.get("claims", []) if each["name"] not in claimed)
        for name in (requests.keys() | limits.keys()) - NATIVE_RESOURCES:
            value = quantity(limits.get(name))
            if requests.get(name) != limits.get(name) or value is None or value % 1:
                yield f"{name}: an extended resource needs the same whole number in requests and limits"
    for volume in pod.spec.get("volumes", []):
        size = volume.get("emptyDir", {}).get("sizeLimit", 1)
        if quantity(size) is None:
            yield f"volume {volume['name']}: {size!r} is no quantity"


def _probes(pod: PodUse) -> Faults:
    for container in containers(pod):
        open_ports = {port[key] for port in container.get("ports", []) for key in ("containerPort", "name")}
        actions = {name: container[name] for name in PROBES if name in container} | container.get("lifecycle", {})
        for name, action in actions.items():
            handlers = action.keys() & HANDLERS
            if len(handlers) != 1:
                yield f"{name} has {len(handlers)} handlers, not one"
            port = (action.get("grpc") or action.get("httpGet") or {}).get("port")
            if port is not None and port not in open_ports:
                yield f"{name} asks port {port}, which the container does not open"


def _ports(manifests: list[Manifest]) -> Faults:
    for pod in pods(manifests):
        listed = [port for container in containers(pod) for port in container.get("ports", [])]
        yield from _bad_ports(pod.owner, [port["containerPort"] for port in listed], listed)
    for service in _of_kind(manifests, "Service"):
        listed = service["spec"]["ports"]
        yield from _bad_ports(named(service), [port["port"] for port in listed], listed)
    for policy in _of_kind(manifests, "NetworkPolicy"):
        listed = [port for rule in _policy_rules(policy) for port in rule.get("ports") or []]
        yield from _bad_ports(named(policy), [port["port"] for port in listed if isinstance(port["port"], int)], [])


def _bad_ports(owner: str, numbers: list[int], listed: list[Manifest]) -> Faults:
    yield from (f"{owner}: there is no port {number}" for number in numbers if not 1 <= number <= MAX_PORT)
    yield from (f"{owner}: port {number} twice" for number, count in Counter(numbers).items() if listed and count > 1)
    names = [port["name"] for port in listed if "name" in port]
    yield from (f"{owner}: port name {name!r}" for name in names if not PORT_NAME.fullmatch(name))
    yield from (f"{owner}: port name {name!r} twice" for name, count in Counter(names).items() if count > 1)


def _selectors(manifests: list[Manifest]) -> Faults:
    known = list(pods(manifests))
    for manifest in manifests:
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Deployment":
            selector, labels = spec["selector"]["matchLabels"], spec["template"]["metadata"].get("labels", {})
            if not selector.items() <= labels.items():
                yield f"{named(manifest)}: its selector does not select its own pods"
            continue
        if manifest["kind"] == "ServiceMonitor":
            found = [named(each) for each in _services_of(manifest, manifests)]
            if len(found) != 1:
                yield f"{named(manifest)}: selects {found}, so pods are scraped {len(found)} times"
            continue
        chosen = spec.get("selector") if manifest["kind"] == "Service" else spec.get("selector", {}).get("matchLabels")
        if manifest["kind"] == "NetworkPolicy":
            chosen = spec["podSelector"].get("matchLabels")
        if chosen is None:
            continue
        owners = {pod.owner for pod in known if chosen.items() <= pod.labels.items()}
        # A policy may be for the pod of the test instead, or for those of evaluations or of a bulk job.
        allowed = (
            [{"Deployment"}, {"Pod"}, {"CronJob"}, {"RayJob"}]
            if manifest["kind"] == "NetworkPolicy"
            else [{"Deployment"}]
        )
        if {each.partition("/")[0] for each in owners} not in allowed:
            yield f"{named(manifest)}: selects {sorted(owners)}, not the Deployment alone"


def _references(manifests: list[Manifest]) -> Faults:
    """What names something of the same render names something that is there."""
    names = {named(manifest) for manifest in manifests}
    port_names = {
        port.get("name") for pod in pods(manifests) for each in containers(pod) for port in each.get("ports", [])
    }
    for service in _of_kind(manifests, "Service"):
        for port in service["spec"]["ports"]:
            if isinstance(port.get("targetPort"), str) and port["targetPort"] not in port_names:
                yield f"{named(service)}: no container has a port {port['targetPort']}"
    yield from _routes(manifests)
    yield from _certificates(manifests)
    scalers = [*_of_kind(manifests, "HorizontalPodAutoscaler"), *_of_kind(manifests, "ScaledObject")]
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]
        if f"{target['kind']}/{target['name']}" not in names:
            yield f"{named(scaler)}: there is no {target['kind']} {target['name']} to scale"
        for deployment in _of_kind(manifests, "Deployment"):
            if "replicas" in deployment["spec"]:
                yield f"{named(deployment)}: sets replicas and is scaled by {named(scaler)}"
    yield from _monitored_ports(manifests)
    if len(names) != len(manifests):
        yield "two manifests have one name"


def _routes(manifests: list[Manifest]) -> Faults:
    open_ports = {
        (service["metadata"]["name"], port["port"])
        for service in _of_kind(manifests, "Service")
        for port in service["spec"]["ports"]
    }
    for route in (*_of_kind(manifests, "GRPCRoute"), *_of_kind(manifests, "HTTPRoute")):
        for backend in (each for rule in route["spec"]["rules"] for each in rule["backendRefs"]):
            if (backend["name"], backend["port"]) not in open_ports:
                yield f"{named(route)}: there is no Service {backend['name']} with port {backend['port']}"


def _certificates(manifests: list[Manifest]) -> Faults:
    mounted = {
        source.get("secret", {}).get("name")
        for pod in pods(manifests)
        for volume in pod.spec.get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
    }
    services = {service["metadata"]["name"] for service in _of_kind(manifests, "Service")}
    for certificate in _of_kind(manifests, "Certificate"):
        if certificate["spec"]["secretName"] not in mounted:
            yield f"{named(certificate)}: no pod mounts the Secret {certificate['spec']['secretName']}"
        if missing := services - set(certificate["spec"]["dnsNames"]):
            yield f"{named(certificate)}: is not for {sorted(missing)}"


def _volumes(pod: PodUse) -> Faults:
    volumes = [volume["name"] for volume in pod.spec.get("volumes", [])]
    mounts = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
    yield from (f"mounts {name}, which is no volume" for name in mounts - set(volumes))
    yield from (f"volume {name} is mounted nowhere" for name in set(volumes) - mounts)
    yield from (f"volume {name} twice" for name, count in Counter(volumes).items() if count > 1)
    for container in containers(pod):
        paths = Counter(mount["mountPath"] for mount in container.get("volumeMounts", []))
        yield from (f"{container['name']}: mounts {path} twice" for path, count in paths.items() if count > 1)


def _names(manifests: list[Manifest]) -> Faults:
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        parts = name.split(".")
        if len(name) > MAX_NAME or not all(DNS_LABEL.fullmatch(part) for part in parts):
            yield f"{manifest['kind']}: {name!r} is not a name"
        elif manifest["kind"] == "Service" and not SERVICE_NAME.fullmatch(name):
            yield f"Service: {name!r} is not a name of a Service"
    for pod in pods(manifests):
        for each in (*containers(pod), *pod.spec.get("volumes", [])):
            if not DNS_LABEL.fullmatch(each["name"]):
                yield f"{pod.owner}: {each['name']!r} is not a name of a container or volume"


def _labels(manifests: list[Manifest]) -> Faults:
    def walk(owner: str, value: Any) -> Faults:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in {"labels", "matchLabels", "nodeSelector"}:
                    for name, label in inner.items():
                        if not LABEL_VALUE.fullmatch(str(label)) or not LABEL_VALUE.fullmatch(name.rpartition("/")[2]):
                            yield f"{owner}: {name}={label!r} is no label"
                yield from walk(owner, inner)
        elif isinstance(value, list):
            for inner in value:
                yield from walk(owner, inner)

    for manifest in manifests:
        yield from walk(named(manifest), manifest)


def _services(manifests: list[Manifest]) -> Faults:
    for service in _of_kind(manifests, "Service"):
        spec = service["spec"]
        kind = spec.get("type", "ClusterIP")
        if kind not in SERVICE_TYPES:
            yield f"{named(service)}: there are no Services of type {kind}"
        if kind == "ClusterIP" and (
            "externalTrafficPolicy" in spec or any("nodePort" in each for each in spec["ports"])
        ):
            yield f"{named(service)}: has ports of nodes, which its type does not"
        if kind != "LoadBalancer" and any(field.startswith("loadBalancer") for field in spec):
            yield f"{named(service)}: has a load balancer, which its type does not"


def _environment(pod: PodUse) -> Faults:
    for container in containers(pod):
        names = [each["name"] for each in container.get("env", [])]
        yield from (f"variable {name} twice" for name, count in Counter(names).items() if count > 1)
        yield from (f"{name!r} is not a name of a variable" for name in names if not ENV_NAME.fullmatch(name))


def _bounds(manifests: list[Manifest]) -> Faults:
    for budget in _of_kind(manifests, "PodDisruptionBudget"):
        if len(budget["spec"].keys() & {"minAvailable", "maxUnavailable"}) != 1:
            yield f"{named(budget)}: needs one of minAvailable and maxUnavailable"
    for scaler in _of_kind(manifests, "HorizontalPodAutoscaler"):
        if scaler["spec"].get("minReplicas", 1) > scaler["spec"]["maxReplicas"]:
            yield f"{named(scaler)}: at least {scaler['spec']['minReplicas']}, at most {scaler['spec']['maxReplicas']}"
    for deployment in _of_kind(manifests, "Deployment"):
        if deployment["spec"].get("progressDeadlineSeconds", 600) <= deployment["spec"].get("minReadySeconds", 0):
            yield f"{named(deployment)}: counts as failed before a pod counts as ready"
        rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
        if {str(rolling.get(each, "25%")).rstrip("%") for each in ("maxSurge", "maxUnavailable")} == {"0"}:
            yield f"{named(deployment)}: neither more nor fewer pods are allowed, so no rollout can go on"


def _policy_rules(policy: Manifest) -> list[Manifest]:
    return [*policy["spec"].get("ingress", []), *policy["spec"].get("egress", [])]


def _networks(manifests: list[Manifest]) -> Faults:
    """Peers have networks that exist, and no rule is for everybody, which is what Kubernetes makes of an empty one."""
    for policy in _of_kind(manifests, "NetworkPolicy"):
        for rule in _policy_rules(policy):
            peers = rule.get("from") or rule.get("to") or []
            if not peers or not rule.get("ports"):
                yield f"{named(policy)}: a rule without peers or without ports opens to everybody or everywhere: {rule}"
            for cidr in (peer["ipBlock"]["cidr"] for peer in peers if "ipBlock" in peer):
                try:
                    ipaddress.ip_network(cidr, strict=False)
                except ValueError as error:
                    yield f"{named(policy)}: {error}"


def _rollouts(manifests: list[Manifest]) -> Faults:
    """A pod that asks for a device gets no surplus sibling: on a full pool it would stay Pending for ever."""
    for deployment in _of_kind(manifests, "Deployment"):
        (pod,) = pods([deployment])
        devices = {
            name
            for container in containers(pod)
            for name in container.get("resources", {}).get("limits", {}).keys() - NATIVE_RESOURCES
        } | {claim["name"] for claim in pod.spec.get("resourceClaims", [])}
        surge = deployment["spec"].get("strategy", {}).get("rollingUpdate", {}).get("maxSurge", "25%")
        if devices and surge != 0:
            yield f"{named(deployment)}: asks for {sorted(devices)} and may surge by {surge}"


def _ends(pod: PodUse) -> Faults:
    """The grace period holds all that a server does at its end."""
    for container in containers(pod):
        variables = {each["name"]: each.get("value") for each in container.get("env", [])}
        drain = sum(float(variables.get(f"VECGATE_SERVER__DRAIN_{part}_S") or 0) for part in ("DELAY", "GRACE"))
        stop = _stop_seconds(container.get("lifecycle", {}).get("preStop", {}))
        grace = pod.spec.get("terminationGracePeriodSeconds", 30)
        if drain + stop >= grace:
            yield f"{container['name']} needs {drain + stop:g} s to end and gets {grace}"


def _stop_seconds(action: Manifest) -> int:
    if "sleep" in action:
        return int(action["sleep"]["seconds"])
    slept = re.search(r"sleep\((\d+)\)", " ".join(action.get("exec", {}).get("command", [])))
    return int(slept[1]) if slept else 0


def _monitored_ports(manifests: list[Manifest]) -> Faults:
    for monitor in _of_kind(manifests, "ServiceMonitor"):
        opened = {port["name"] for each in _services_of(monitor, manifests) for port in each["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if opened and endpoint["port"] not in opened:
                yield f"{named(monitor)}: no Service has a port {endpoint['port']}"


def _services_of(monitor: Manifest, manifests: list[Manifest]) -> list[Manifest]:
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    return [each for each in _of_kind(manifests, "Service") if wanted <= each["metadata"]["labels"].items()]


def _of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


RULES: dict[str, Callable[[list[Manifest]], Faults]] = {
    "resources": _pod_rule(_resources),
    "probes": _pod_rule(_probes),
    "ports": _ports,
    "selectors": _selectors,
    "references": _references,
    "volumes": _pod_rule(_volumes),
    "names": _names,
    "labels": _labels,
    "services": _services,
    "environment": _pod_rule(_environment),
    "bounds": _bounds,
    "networks": _networks,
    "rollouts": _rollouts,
    "ends": _pod_rule(_ends),
}
