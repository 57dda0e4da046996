"""Pod Security level "restricted", which contains "baseline": what an API server with it enforced would refuse.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ at 1.37.
"""

from collections.abc import Iterator

from tests.helm.manifests import Manifest, PodUse, containers, pods

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
HANDLERS = ("startupProbe", "readinessProbe", "livenessProbe")


def violations(manifests: list[Manifest]) -> list[str]:
    """Return what is wrong with the pods of manifests, in words."""
    return [
        f"{pod.owner}: {fault}"
        for pod in pods(manifests)
        for fault in (*_of_pod(pod), *(fault for each in containers(pod) for fault in _of_container(pod, each)))
    ]


def _of_pod(pod: PodUse) -> Iterator[str]:
    spec, context = pod.spec, pod.spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    for volume in spec.get("volumes", []):
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    for sysctl in context.get("sysctls", []):
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    if context.get("windowsOptions", {}).get("hostProcess"):
        yield "hostProcess"
    yield from _of_any_context("pod", context)


def _of_any_context(where: str, context: Manifest) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield f"{where} runs as root"
    if context.get("runAsNonRoot") is False:
        yield f"{where} may run as root"
    if context.get("seccompProfile", {}).get("type", "RuntimeDefault") not in {"RuntimeDefault", "Localhost"}:
        yield f"{where} has no seccomp profile"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in {"RuntimeDefault", "Localhost"}:
        yield f"{where} has no AppArmor profile"
    options = context.get("seLinuxOptions", {})
    if options.get("type", "") not in SELINUX_TYPES or options.get("user") or options.get("role"):
        yield f"{where} has SELinux options of its own"


def _of_container(pod: PodUse, container: Manifest) -> Iterator[str]:
    name, context = container["name"], container.get("securityContext", {})
    of_pod = pod.spec.get("securityContext", {})
    yield from _of_any_context(name, context)
    if context.get("privileged"):
        yield f"{name} is privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may escalate its privileges"
    if "ALL" not in context.get("capabilities", {}).get("drop", []):
        yield f"{name} does not drop all capabilities"
    if set(context.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{name} adds capabilities"
    if not (context.get("runAsNonRoot") or of_pod.get("runAsNonRoot")):
        yield f"{name} may run as root, nobody says it must not"
    if not (context.get("seccompProfile") or of_pod.get("seccompProfile")):
        yield f"{name} has no seccomp profile, nobody names one"
    if context.get("procMount", "Default") != "Default":
        yield f"{name} has another procMount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield f"{name} has a hostPort"
    actions = [container.get(each, {}) for each in HANDLERS] + list(container.get("lifecycle", {}).values())
    if any(action.get(kind, {}).get("host") for action in actions for kind in ("httpGet", "tcpSocket")):
        yield f"{name} probes another host"
