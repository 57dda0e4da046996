"""The chart with every profile: lint, schemas of Kubernetes, rules, Pod Security, images, repeatability."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from helm.tools.helm import HELM, HELM_3, Helm, HelmFailed
from service.store.embedded.binary import WEAVIATE_RELEASE
from tests.helm.definitions import check_manifest
from tests.helm.manifests import Manifest, containers, images, named, pods
from tests.helm.pod_security import violations
from tests.helm.render import CHART, EVERYTHING, EXTENDED, KUBERNETES, PROFILES, SECURED, render, render_text
from tests.helm.rules import broken_rules

SETS = {"defaults": {}, "everything": EVERYTHING, "extended": EXTENDED, "secured": SECURED, **PROFILES}
HOST_PATH = {
    "settings": {"embedders": {"clip": {"kind": "clip"}}},
    "weights": {"source": "hostPath", "hostPath": {"path": "/srv/weights"}},
}
DOMAINS = ("", ".default", ".default.svc", ".default.svc.cluster.local")
PAIR = {"tlsCert": "tls.crt", "tlsKey": "tls.key"}


def needs_image_volumes(values: dict[str, Any]) -> bool:
    return values.get("weights", {}).get("source") == "image"


def deployment(manifests: list[Manifest]) -> Manifest:
    (found,) = (manifest for manifest in manifests if manifest["kind"] == "Deployment")
    return found


def policy(manifests: list[Manifest], component: str = "server") -> Manifest:
    """Return the spec of the NetworkPolicy for the pods of a component."""
    policies = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"]
    (found,) = (
        each for each in policies if each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == component
    )
    return dict(found)


def test_there_is_a_profile_for_every_way_to_run_it() -> None:
    assert PROFILES.keys() == {"air-gapped", "clip-gpu", "nim", "nim-failover", "tiny"}


@pytest.mark.parametrize("helm", [HELM, HELM_3], ids=lambda each: each.version)
@pytest.mark.parametrize("name", SETS)
def test_lint_finds_nothing(helm: Helm, name: str, tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    values.write_text(json.dumps(SETS[name]))

    answer = helm.run("lint", "--strict", "--kube-version", "1.37.0", CHART, "--values", values)

    assert "0 chart(s) failed" in answer
    assert "[WARNING]" not in answer


@pytest.mark.parametrize("name", SETS)
def test_helm_3_makes_the_same_of_it(name: str, tmp_path: Path) -> None:
    values = tmp_path / "values.json"
    values.write_text(json.dumps(SETS[name]))

    text = HELM_3.run("template", "try", CHART, "--kube-version", "1.37.0", "--values", values)

    made = {named(manifest): manifest for manifest in yaml.safe_load_all(text) if manifest}
    assert made == {named(manifest): manifest for manifest in render(SETS[name])}


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("name", SETS)
def test_every_manifest_fits_its_version_of_kubernetes(name: str, kubernetes: str) -> None:
    if kubernetes == "1.29" and needs_image_volumes(SETS[name]):
        with pytest.raises(HelmFailed, match=r"needs Kubernetes 1\.31 or newer.*use initContainer"):
            render(SETS[name], kubernetes)
        return
    manifests = render(SETS[name], kubernetes)

    assert manifests
    for manifest in manifests:
        # A kind without a schema raises too.
        check_manifest(manifest, kubernetes)
    assert broken_rules(manifests) == {}
    assert violations(manifests) == []


def test_hostpath_weights_break_pod_security_in_that_one_point() -> None:
    manifests = render(HOST_PATH)

    assert broken_rules(manifests) == {}
    assert violations(manifests) == ["Deployment/try-vecgate: volume weights is a hostPath"]


def test_an_older_kubernetes_is_refused_by_name() -> None:
    with pytest.raises(HelmFailed, match=r"requires kubeVersion: >=1\.29"):
        render({}, "1.28")


@pytest.mark.parametrize("name", sorted(SETS.keys() - {"extended"}))
def test_every_image_comes_from_the_registry_of_the_site(name: str) -> None:
    registry = "airgap.local:5000"
    values = SETS[name] | {"global": {"imageRegistry": registry}}

    found = list(images(render(values)))

    weights = 1 if SETS[name].get("weights", {}).get("source") in {"image", "initContainer"} else 0
    evaluation = 1 if SETS[name].get("evaluation", {}).get("enabled") else 0
    assert len(found) == 2 + weights + evaluation, "of the server and of the test, and of what is turned on"
    assert [image for image in found if not image.startswith(f"{registry}/")] == []


@pytest.mark.parametrize("name", SETS)
def test_two_renders_are_equal(name: str) -> None:
    first = render_text(SETS[name])
    render_text.__globals__["_render"].cache_clear()

    assert render_text(SETS[name]) == first


@pytest.mark.parametrize("release", ["1st", "a.b-c", "vecgate", "x" * 53, "my-vecgate-eu", "true", "1e3"])
def test_every_name_of_a_release_gives_good_names(release: str) -> None:
    manifests = render({}, release=release)

    assert broken_rules(manifests) == {}
    assert len({named(manifest) for manifest in manifests}) == len(manifests)


def test_words_that_yaml_takes_for_something_else_stay_names() -> None:
    values = {"fullnameOverride": "true", "nameOverride": "null", "priorityClassName": "4", "podLabels": {"a": "no"}}
    manifests = render(values | {"serviceAccount": {"name": "on"}})

    assert broken_rules(manifests) == {}
    for manifest in manifests:
        check_manifest(manifest, KUBERNETES[-1])


def test_probes_ask_for_the_process_and_for_what_it_can_do_apart() -> None:
    (server,) = containers(next(pods(render({}))))
    asked = {name: server[f"{name}Probe"]["grpc"]["service"] for name in ("startup", "readiness", "liveness")}

    # /v1/health/ready of the HTTP port, which is asked over TLS, means the same: tests/service/web/test_endpoint.py.
    assert asked == {"startup": "liveness", "readiness": "vecgate.v1.EmbeddingService", "liveness": "liveness"}


def test_over_tls_probes_ask_the_http_port_and_the_service_is_named_for_it() -> None:
    by_hand = {
        "secrets": {"server": {name: {"existingSecret": "site-tls", "key": key} for name, key in PAIR.items()}},
    }
    for values, scheme in ((SECURED, "HTTPS"), (by_hand, "HTTPS")):
        manifests = render(values)
        (server,) = containers(next(pods(manifests)))
        asked = {name: server[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}

        assert asked == {
            "startup": {"port": "http", "path": "/v1/health/live", "scheme": scheme},
            "readiness": {"port": "http", "path": "/v1/health/ready", "scheme": scheme},
            "liveness": {"port": "http", "path": "/v1/health/live", "scheme": scheme},
        }
        assert not any("grpc" in server[f"{name}Probe"] for name in asked)
        services = [each["spec"]["ports"][0] for each in manifests if each["kind"] == "Service"]
        assert [port["appProtocol"] for port in services] == ["https", "https"]


def test_the_test_s_pod_has_what_a_secured_server_asks_for() -> None:
    def given(values: dict[str, Any]) -> list[tuple[str, list[str], bool]]:
        (pod,) = (each for each in render(values) if each["kind"] == "Pod")
        (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == "credentials")
        secrets = [each["secret"] for each in volume["projected"]["sources"]]
        return [
            (each["name"], [item["path"] for item in each["items"]], each.get("optional", False)) for each in secrets
        ]

    assert given(SECURED) == [("site-tls", ["ca.crt"], True), ("tester", ["tls.crt", "tls.key"], False)]
    assert given(EVERYTHING) == [("vectors-tls", ["ca.crt"], True), ("tester", ["api-key"], False)]


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_the_end_is_delayed_without_a_shell(kubernetes: str) -> None:
    (server,) = containers(next(pods(render({}, kubernetes))))
    action = server["lifecycle"]["preStop"]

    expected = {"exec": {"command": ["python", "-c", "import time; time.sleep(5)"]}}
    assert action == (expected if kubernetes == "1.29" else {"sleep": {"seconds": 5}})


def test_nothing_asks_for_a_gpu_without_one() -> None:
    for name in ("nim", "tiny"):
        assert "nvidia.com" not in render_text(PROFILES[name])


def test_a_gpu_pool_is_upgraded_in_place_unless_one_is_spare() -> None:
    values = PROFILES["clip-gpu"]
    spare = values | {"gpu": {"enabled": True, "surge": True}}
    rolling = [deployment(render(each))["spec"]["strategy"]["rollingUpdate"] for each in (values, spare, {})]

    assert rolling[0] == {"maxSurge": 0, "maxUnavailable": 1}
    assert rolling[1:] == [{"maxSurge": 1, "maxUnavailable": 0}] * 2


def test_a_gpu_pod_tolerates_the_taint_of_gpu_nodes_and_refuses_to_run_on_the_cpu() -> None:
    pod = next(pods(render(PROFILES["clip-gpu"])))
    (server,) = containers(pod)

    assert pod.spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == server["resources"]["requests"]["nvidia.com/gpu"] == 1
    assert {"name": "VECGATE_EMBEDDERS__CLIP__DEVICE", "value": "cuda"} in server["env"]


def test_secrets_are_mounted_files_and_never_values() -> None:
    pod = next(pods(render(EVERYTHING)))
    (server,) = (each for each in containers(pod) if each["name"] == "vecgate")
    (volume,) = (each for each in pod.spec["volumes"] if each["name"] == "secrets")
    variables = {each["name"]: each.get("value") for each in server["env"]}
    sources = [each["secret"] for each in volume["projected"]["sources"]]

    assert variables["VECGATE_EMBEDDERS__NIM_8B__API_KEY_FILE"] == "/etc/vecgate/secrets/embedders/nim-8b/api-key"
    assert variables["VECGATE_WEAVIATE__API_KEY_FILE"] == "/etc/vecgate/secrets/weaviate/api-key"
    assert {"VECGATE_EMBEDDERS__NIM_8B__API_KEY", "VECGATE_WEAVIATE__API_KEY"}.isdisjoint(variables)
    assert sources == [
        {"name": "callers", "items": [{"key": "clients.toml", "path": "auth/clients"}]},
        {"name": "nvidia", "items": [{"key": "api-key", "path": "embedders/nim-8b/api-key"}]},
        {"name": "rerank", "items": [{"key": "api.key", "path": "embedders/reranker/api-key"}]},
        {"name": "vectors-tls", "items": [{"key": "tls.crt", "path": "server/tls-cert"}]},
        {"name": "vectors-tls", "items": [{"key": "tls.key", "path": "server/tls-key"}]},
        {"name": "weaviate", "items": [{"key": "vecgate.key", "path": "weaviate/api-key"}]},
    ]


def test_a_certificate_is_for_every_name_of_the_services_and_goes_where_http_reads_it() -> None:
    (certificate,) = (each for each in render(EVERYTHING) if each["kind"] == "Certificate")
    names = certificate["spec"]["dnsNames"]
    own = [f"{service}{domain}" for service in ("vectors", "vectors-headless") for domain in DOMAINS]
    existing = {"tls": {"enabled": True, "existingSecret": "site-tls"}}
    by_hand = {"secrets": {"server": {name: {"existingSecret": "site-tls", "key": key} for name, key in PAIR.items()}}}

    assert names == [*own, "*.vectors.example", "vectors"]
    assert certificate["spec"]["secretName"] == "vectors-tls"
    assert certificate["spec"]["issuerRef"] == {
        "name": "site",
        "kind": "ClusterIssuer",
        "group": "issuers.example.com",
    }
    assert deployment(render(existing)) == deployment(render(by_hand))
    assert [each["kind"] for each in render(existing) if each["kind"] == "Certificate"] == []


def test_a_route_leads_to_the_service_where_one_is_asked_for() -> None:
    (route,) = (each for each in render(EVERYTHING) if each["kind"] == "GRPCRoute")

    assert [each for each in render({}) if each["kind"] == "GRPCRoute"] == []
    assert route["spec"] == {
        "parentRefs": [{"name": "edge", "namespace": "gateways", "sectionName": "grpc", "port": 443}],
        "hostnames": ["*.vectors.example"],
        "rules": [{"backendRefs": [{"name": "vectors", "port": 443}]}],
    }


def test_http_is_served_and_named_for_what_it_is_or_not_at_all() -> None:
    def protocols(values: dict[str, Any]) -> list[list[tuple[str, str]]]:
        services = [each for each in render(values) if each["kind"] == "Service"]
        return [[(port["name"], port["appProtocol"]) for port in each["spec"]["ports"]] for each in services]

    grpc = ("grpc", "kubernetes.io/h2c")
    without = {"settings": {"web": {"enabled": False}}}
    (server,) = containers(next(pods(render(without))))

    assert protocols({}) == [[grpc, ("http", "http")]] * 2
    assert protocols(EVERYTHING) == [[("grpc", "https"), ("http", "https")]] * 2
    assert protocols(without) == [[grpc]] * 2
    assert [port["name"] for port in server["ports"]] == ["grpc"]


def test_the_network_policy_opens_the_ports_that_the_settings_name() -> None:
    made = policy(render(EVERYTHING))
    ports = [[port["port"] for port in rule["ports"]] for rule in made["egress"]]

    assert ports == [[53, 53], [443, 50051, 8080], [443, 8123, 9123, 8000], [4318, 4317]]
    assert [port["port"] for port in made["ingress"][0]["ports"]] == ["grpc", "http"]


ORIGINS = {"secrets": {"fetch": {"origins": {"existingSecret": "origins", "key": "origins.toml"}}}}
STORE = {
    "networkPolicy": {"egress": {"fetch": {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "podPorts": [443, 9000]}}}
}


@pytest.mark.parametrize(("values", "ports"), [({}, []), (ORIGINS, []), (STORE, []), (ORIGINS | STORE, [443, 9000])])
def test_images_are_fetched_only_from_where_the_values_say_and_only_with_origins(
    values: dict[str, Any], ports: list[int]
) -> None:
    manifests = render(values)
    found = [rule for rule in policy(manifests)["egress"] if rule["to"] == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]]

    assert [port["port"] for rule in found for port in rule["ports"]] == ports
    assert len(policy(manifests)["egress"]) == 3 + bool(ports)
    assert broken_rules(manifests) == {}


def test_names_are_resolved_by_a_cache_on_the_node_too_and_nothing_else_is_asked_there() -> None:
    node = {"ipBlock": {"cidr": "169.254.0.0/16"}}
    for component in ("server", "test"):
        rules = [rule for rule in policy(render({}), component)["egress"] if node in rule["to"]]

        assert [[(port["port"], port["protocol"]) for port in rule["ports"]] for rule in rules] == [
            [(53, "UDP"), (53, "TCP")]
        ]


def test_the_pod_of_the_test_gets_through_where_everything_is_denied() -> None:
    manifests = render(EVERYTHING)
    (pod,) = (each for each in pods(manifests) if each.owner.startswith("Pod/"))
    own, server = policy(manifests, "test"), policy(manifests)
    ways = {
        port["port"]: peer["podSelector"]["matchLabels"]
        for rule in own["egress"]
        for peer in rule["to"]
        for port in rule["ports"]
        if "podSelector" in peer
    }

    assert own["ingress"] == []
    assert own["podSelector"]["matchLabels"].items() <= pod.labels.items()
    assert ways == {50070: server["podSelector"]["matchLabels"]}
    assert {"podSelector": own["podSelector"]} in server["ingress"][0]["from"]
    assert [each for each in render({"networkPolicy": {"enabled": False}}) if each["kind"] == "NetworkPolicy"] == []
    with pytest.raises(ValueError, match="not enough values"):
        policy(render({"test": {"enabled": False}}), "test")


@pytest.mark.parametrize(
    ("peers", "left"),
    [
        ({}, (2, 4)),
        ({"ingress": {"from": []}}, (2, 4)),
        ({"ingress": {"monitoring": {"from": []}}}, (1, 4)),
        ({"egress": {"dns": {"podPorts": []}}}, (2, 3)),
        ({"egress": {"dns": {"to": []}, "weaviate": {"to": []}}}, (2, 2)),
        ({"egress": {each: {"to": []} for each in ("dns", "weaviate", "nim", "tracing")}}, (2, 0)),
    ],
)
def test_an_empty_list_of_peers_or_ports_lets_nobody_through(peers: dict[str, Any], left: tuple[int, int]) -> None:
    values = {
        "networkPolicy": peers,
        "tracing": {"endpoint": "http://collector:4317"},
        "monitoring": {"serviceMonitor": {"enabled": True}},
    }
    manifests = render(values)
    made = policy(manifests)

    assert broken_rules(manifests) == {}
    assert (len(made["ingress"]), len(made["egress"])) == left
    assert made["policyTypes"] == ["Ingress", "Egress"]


def test_without_callers_and_without_a_test_nobody_may_call() -> None:
    values = {"networkPolicy": {"ingress": {"from": []}}, "test": {"enabled": False}}

    assert policy(render(values))["ingress"] == []


def test_without_a_nim_nothing_may_be_sent_to_one() -> None:
    peers = [peer for rule in policy(render(PROFILES["air-gapped"]))["egress"] for peer in rule["to"]]
    selectors = [peer["namespaceSelector"]["matchLabels"] for peer in peers if "namespaceSelector" in peer]

    assert [each["kubernetes.io/metadata.name"] for each in selectors] == ["kube-system", "weaviate"]


def test_the_companion_values_for_weaviate_fit_the_defaults() -> None:
    companion = yaml.safe_load((CHART / "examples" / "companions" / "weaviate.yaml").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))["settings"]["weaviate"]

    assert companion["image"] == {"tag": WEAVIATE_RELEASE}
    services = companion["service"], companion["grpcService"]
    assert [each["type"] for each in services] == ["ClusterIP"] * 2
    urls = [
        f"{scheme}://{each['name']}:{each['ports'][0]['port']}"
        for scheme, each in zip(("http", "grpc"), services, strict=True)
    ]
    assert urls == [defaults["httpUrl"], defaults["grpcUrl"]]
    assert companion["grpcService"]["enabled"] is True
    assert companion["initContainers"]["sysctlInitContainer"]["enabled"] is False
    pod = {"containers": [{"name": "weaviate", "securityContext": companion["containerSecurityContext"]}]}
    pod["securityContext"] = companion["securityContext"]
    assert violations([{"kind": "Pod", "metadata": {"name": "weaviate"}, "spec": pod}]) == []


def test_generated_parts_of_the_chart_are_fresh() -> None:
    command = [sys.executable, "-m", "helm.tools.generate", "--check"]
    done = subprocess.run(command, cwd=CHART.parents[1], capture_output=True, text=True, check=False)

    assert done.stderr == ""
    assert done.returncode == 0
