"""What a site adds to the chart's own: volumes, containers, variables, devices, ways in, and another autoscaler."""

import base64
import re
import tomllib
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from helm.tools.generate import documented_values, value_at
from helm.tools.helm import HelmFailed
from tests.helm.definitions import check_manifest
from tests.helm.manifests import Manifest, images
from tests.helm.pod_security import violations
from tests.helm.render import CHART, CONFINED, EVERYTHING, EXTENDED, PROFILES, render
from tests.helm.rules import broken_rules

DEVICES: dict[str, Any] = {
    "resourceClaims": [
        {"name": "gpu", "resourceClaimTemplateName": "one-gpu"},
        {"name": "link", "resourceClaimName": "shared-link"},
    ],
    "resources": {"claims": [{"name": "gpu", "request": "device"}]},
}


def only(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = (each for each in manifests if each["kind"] == kind)
    return found


def pod_of(values: dict[str, Any], kubernetes: str = "1.37") -> Manifest:
    spec: Manifest = only(render(values, kubernetes), "Deployment")["spec"]["template"]["spec"]
    return spec


def test_volumes_and_containers_stand_beside_the_chart_s_own() -> None:
    pod = pod_of(
        EXTENDED
        | {key: PROFILES["nim-failover"][key] for key in ("weights", "gpu")}
        | {"settings": EXTENDED["settings"] | PROFILES["nim-failover"]["settings"]}
    )
    server = pod["containers"][0]

    assert [each["name"] for each in pod["initContainers"]] == ["weights", "wait"]
    assert [each["name"] for each in pod["containers"]] == ["vecgate", "proxy"]
    assert pod["containers"][1] == {"name": "proxy", "image": "site/proxy:1", "securityContext": CONFINED}
    assert [each["name"] for each in pod["volumes"]] == ["tmp", "weights", "authorities", "cache"]
    assert [each["mountPath"] for each in server["volumeMounts"]] == ["/tmp", "/models", "/etc/ssl/site", "/cache"]


def test_variables_come_from_texts_fields_and_whole_maps() -> None:
    server = pod_of(EXTENDED)["containers"][0]
    given = {each["name"]: each for each in server["env"] if each["name"] in EXTENDED["extraEnv"]}

    assert given["PLAIN"] == {"name": "PLAIN", "value": "a$$(B)"}
    assert {name: each["valueFrom"] for name, each in given.items() if name != "PLAIN"} == {
        name: each["valueFrom"] for name, each in EXTENDED["extraEnv"].items() if name != "PLAIN"
    }
    assert server["envFrom"] == EXTENDED["extraEnvFrom"]


@pytest.mark.parametrize("kubernetes", ["1.34", "1.37"])
def test_devices_are_claimed_by_the_pod_and_used_by_the_server_and_never_by_one_pod_too_many(kubernetes: str) -> None:
    manifests = render(DEVICES, kubernetes)
    deployment = only(manifests, "Deployment")

    for manifest in manifests:
        check_manifest(manifest, kubernetes)
    assert (broken_rules(manifests), violations(manifests)) == ({}, [])
    assert deployment["spec"]["template"]["spec"]["resourceClaims"] == DEVICES["resourceClaims"]
    assert (
        deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["claims"] == DEVICES["resources"]["claims"]
    )
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert "resourceClaims" not in only(manifests, "Pod")["spec"]


def test_devices_are_refused_where_kubernetes_cannot_claim_them() -> None:
    with pytest.raises(HelmFailed, match=r"vecgate: resourceClaims need Kubernetes 1\.34 or newer"):
        render(DEVICES, "1.31")


STRATEGIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing said": ({}, {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}),
    "the kind alone": (
        {"type": "RollingUpdate"},
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
    ),
    "one number": (
        {"rollingUpdate": {"maxUnavailable": "25%"}},
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}},
    ),
    "a nought": (
        {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
        {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    ),
    "all at once": ({"type": "Recreate"}, {"type": "Recreate"}),
}


@pytest.mark.parametrize(("given", "made"), STRATEGIES.values(), ids=STRATEGIES)
def test_a_strategy_is_taken_and_filled_up(given: dict[str, Any], made: dict[str, Any]) -> None:
    deployment = only(render({"strategy": given, "minReadySeconds": 7, "revisionHistoryLimit": 0}), "Deployment")[
        "spec"
    ]

    assert deployment["strategy"] == made
    assert (deployment["minReadySeconds"], deployment["revisionHistoryLimit"]) == (7, 0)


def test_the_service_is_what_the_values_say_and_the_headless_one_only_shares_its_families() -> None:
    service, headless = (each for each in render(EXTENDED) if each["kind"] == "Service")
    given = EXTENDED["service"]
    families = {field: given[field] for field in ("ipFamilyPolicy", "ipFamilies")}
    own = ("type", "externalTrafficPolicy", "loadBalancerClass", "loadBalancerIP", "loadBalancerSourceRanges")

    assert {field: service["spec"][field] for field in own} == {field: given[field] for field in own}
    assert [port["nodePort"] for port in service["spec"]["ports"]] == [30070, 30071]
    assert service["metadata"]["annotations"] == given["annotations"]
    assert headless["metadata"]["annotations"] == given["headless"]["annotations"]
    assert headless["spec"].keys() == {
        "type",
        "clusterIP",
        "publishNotReadyAddresses",
        "selector",
        "ports",
        *families,
    }
    for each in (service, headless):
        assert {field: each["spec"][field] for field in families} == families
    assert not any("nodePort" in port for port in headless["spec"]["ports"])


def test_an_http_route_leads_to_the_http_port_beside_the_one_of_grpc() -> None:
    both = EVERYTHING | {"httpRoute": {"enabled": True, "parentRefs": [{"name": "edge"}], "paths": ["/", "/embed/v1"]}}
    manifests = render(both)
    route = only(manifests, "HTTPRoute")
    (plain,) = only(render(EXTENDED), "HTTPRoute")["spec"]["rules"]

    check_manifest(route, "1.37")
    assert broken_rules(manifests) == {}
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "vectors", "port": 8070}]
    assert [each["path"]["value"] for each in route["spec"]["rules"][0]["matches"]] == ["/", "/embed/v1"]
    assert plain["matches"] == [{"path": {"type": "PathPrefix", "value": "/v1"}}], "metrics are nobody's outside"
    assert only(manifests, "GRPCRoute")["spec"]["rules"] == [{"backendRefs": [{"name": "vectors", "port": 443}]}]


def test_keda_scales_instead_of_kubernetes_own_autoscaler() -> None:
    manifests = render(EXTENDED)
    spec = only(manifests, "ScaledObject")["spec"]

    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "try-vecgate"}
    assert (spec["minReplicaCount"], spec["maxReplicaCount"], spec["pollingInterval"]) == (2, 9, 30)
    assert (spec["triggers"], spec["fallback"]) == (EXTENDED["keda"]["triggers"], EXTENDED["keda"]["fallback"])
    assert "replicas" not in only(manifests, "Deployment")["spec"]
    assert [each for each in manifests if each["kind"] == "HorizontalPodAutoscaler"] == []


def test_the_trigger_in_the_readme_is_one_that_the_chart_takes() -> None:
    (example,) = re.findall(r"```yaml\n(keda:\n.*?)```", (CHART / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    manifests = render(yaml.safe_load(example))
    (trigger,) = only(manifests, "ScaledObject")["spec"]["triggers"]

    for manifest in manifests:
        check_manifest(manifest, "1.37")
    assert broken_rules(manifests) == {}
    assert "vecgate_embedder_queued_inputs{" in trigger["metadata"]["query"]


def test_names_are_resolved_as_the_site_says_by_the_server_and_by_the_test() -> None:
    for pod in (pod_of(EXTENDED), only(render(EXTENDED), "Pod")["spec"]):
        for field in ("dnsPolicy", "dnsConfig", "hostAliases"):
            assert pod[field] == EXTENDED[field]
    assert pod_of({}).keys().isdisjoint({"dnsPolicy", "dnsConfig", "hostAliases", "resourceClaims"})


def test_a_monitor_relabels() -> None:
    (endpoint,) = only(render(EXTENDED), "ServiceMonitor")["spec"]["endpoints"]
    given = EXTENDED["monitoring"]["serviceMonitor"]

    assert (endpoint["relabelings"], endpoint["metricRelabelings"]) == (
        given["relabelings"],
        given["metricRelabelings"],
    )


def test_every_resource_has_the_common_labels_and_annotations_and_keeps_its_own() -> None:
    for manifest in render(EVERYTHING):
        metadata = manifest["metadata"]

        assert metadata["labels"]["team"] == "search"
        assert metadata["labels"]["app.kubernetes.io/name"] == "vecgate"
        assert metadata["annotations"]["example.com/owner"] == EVERYTHING["commonAnnotations"]["example.com/owner"]
    service = next(each for each in render(EVERYTHING) if each["kind"] == "Service")
    assert service["metadata"]["annotations"]["example.com/note"] == "a: b, # c"
    template = only(render(EVERYTHING), "Deployment")["spec"]["template"]["metadata"]
    assert template["annotations"] == EVERYTHING["podAnnotations"]


@pytest.mark.timeout(600)
def test_a_null_is_refused_by_name_or_means_that_there_is_none() -> None:
    leaves = [path for path in documented_values() if not (isinstance(value_at(path), dict) and value_at(path))]
    refused = []
    for path in leaves:
        values: Any = None
        for key in reversed(path.split(".")):
            values = {key: values}
        try:
            manifests = render(values)
        except HelmFailed as error:
            assert re.search(rf"missing propert(y|ies).*'{path.rpartition('.')[2]}'|vecgate: ", str(error)), error
            refused.append(path)
            continue
        for manifest in manifests:
            check_manifest(manifest, "1.37")
        assert broken_rules(manifests) == {}, path

    assert {"extraVolumes", "strategy", "service.annotations", "replicas"}.isdisjoint(refused)


def test_the_chart_says_what_catalogues_ask_for() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((CHART.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    notes = {name.removeprefix("artifacthub.io/"): text for name, text in chart["annotations"].items()}
    media, _, icon = chart["icon"].partition(",")
    listed = {each["image"] for each in yaml.safe_load(notes["images"])}

    assert chart["home"]
    assert chart["maintainers"]
    assert media == "data:image/svg+xml;base64"
    assert ET.fromstring(base64.b64decode(icon)).tag.endswith("}svg")
    assert notes["license"] == project["license"]
    assert listed == {image for name in ("nim", "tiny") for image in images(render(PROFILES[name]))}
    assert {each["kind"] for each in yaml.safe_load(notes["changes"])} <= {"added", "changed", "fixed", "removed"}
