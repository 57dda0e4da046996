"""What is refused of the values and how, and what only looks as if it should be."""

import json
from typing import Any

import pytest

from helm.tools.generate import SCHEMA
from helm.tools.helm import HelmFailed
from service.settings import EmbedderSettings, LimitSettings
from tests.helm.render import render
from tests.helm.rules import broken_rules

ISSUED = {"enabled": True, "issuerRef": {"name": "site"}}
SECRET = {"existingSecret": "a", "key": "b"}
JWKS = {"auth": {"clients": SECRET, "jwks": SECRET}}
INPUTS, QUEUED = LimitSettings().max_inputs, EmbedderSettings().max_queued_inputs
CLIP: dict[str, Any] = {"embedders": {"clip": {"kind": "clip"}}}


def nim(**fields: Any) -> dict[str, Any]:
    """Return values with a NIM that has these settings."""
    return {"settings": {"embedders": {"a": {"kind": "nim", "baseUrl": ["http://a"], **fields}}}}


CRON: dict[str, Any] = {"type": "cron", "metadata": {"timezone": "UTC", "desiredReplicas": "4"}}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown value": ({"replica": 3}, "additional properties 'replica' not allowed"),
    "an unknown value below": ({"gpu": {"on": True}}, "at '/gpu': additional properties 'on' not allowed"),
    "an unknown setting": ({"settings": {"server": {"hosts": "a"}}}, "at '/settings/server'.*'hosts' not allowed"),
    "an unknown group": ({"settings": {"servers": {}}}, "at '/settings'.*'servers' not allowed"),
    "a setting by its variable's name": ({"settings": {"server": {"max_call_s": 1}}}, "'max_call_s' not allowed"),
    "a setting out of bounds": ({"settings": {"server": {"port": 70000}}}, "/settings/server/port.*maximum"),
    "a setting of another kind": (nim(dimensions="big"), "got string, want integer"),
    "a secret among the settings": (nim(apiKey="k"), "'apiKey' not allowed"),
    "a secret in plain words": ({"secrets": {"embedders": {"nim": {"apiKey": "k"}}}}, "got string, want object"),
    "a secret without its key": (
        {"secrets": {"embedders": {"nim": {"apiKey": {"existingSecret": "a"}}}}},
        "missing property 'key'",
    ),
    "one address for both of Weaviate's ports": (
        {"settings": {"weaviate": {"httpUrl": "https://Weaviate", "grpcUrl": "grpcs://weaviate:443/"}}},
        "vecgate: settings.weaviate.grpcUrl is weaviate:443, the address of Weaviate's HTTP port",
    ),
    "calls that are larger than the queue": (
        {"settings": {"embedder": {"maxQueuedInputs": INPUTS - 1}}},
        f"vecgate: settings.limits.maxInputs is {INPUTS}, but only settings.embedder.maxQueuedInputs = {INPUTS - 1}",
    ),
    "more inputs of a call than may wait": (
        {"settings": {"limits": {"maxInputs": QUEUED + 1}}},
        f"vecgate: settings.limits.maxInputs is {QUEUED + 1}, but only settings.embedder.maxQueuedInputs = {QUEUED}",
    ),
    "a secret of no embedder": (
        {"secrets": {"embedders": {"other": {"apiKey": SECRET}}}},
        "vecgate: secrets.embedders.other is for an embedder that settings.embedders does not have",
    ),
    "a key of a local model": (
        {"settings": CLIP, "secrets": {"embedders": {"clip": {"apiKey": SECRET}}}},
        "vecgate: secrets.embedders.clip.apiKey is nothing that an embedder of kind clip takes; it takes: probe",
    ),
    "a probe of a reranker": (
        {
            "settings": CLIP
            | {"embedders": {**CLIP["embedders"], "r": {"kind": "nim-rerank", "baseUrl": ["http://r"]}}},
            "secrets": {"embedders": {"r": {"probe": SECRET}}},
        },
        "vecgate: secrets.embedders.r.probe is nothing that an embedder of kind nim-rerank takes",
    ),
    "an embedder of no kind": ({"settings": {"embedders": {"a": {"model": "b"}}}}, "missing property 'kind'"),
    "an embedder of an unknown kind": ({"settings": {"embedders": {"a": {"kind": "gpt"}}}}, "/embedders/a/kind"),
    "an embedder with another kind's setting": (nim(device="cpu"), "'device' not allowed"),
    "a name that no variable can have": (
        {"settings": {"embedders": {"My_Nim": {"kind": "clip"}}}},
        "invalid propertyName 'My_Nim'",
    ),
    "several embedders in no order": (
        {"settings": {"embedders": {"a": {"kind": "clip"}, "b": {"kind": "clip"}}}},
        r"vecgate: there are several embedders \(a, b\); name all of them in settings.embedder.order",
    ),
    "an order that leaves one out": (
        {"settings": {"embedder": {"order": ["a"]}, "embedders": {"a": {"kind": "clip"}, "b": {"kind": "clip"}}}},
        "vecgate: settings.embedder.order must name each embedder once, and they are: a, b",
    ),
    "an order with another name": (
        {"settings": {"embedder": {"order": ["clip"]}}},
        "vecgate: settings.embedder.order must name each embedder once, and they are: nim",
    ),
    "rerankers alone": (
        {"settings": {"embedders": {"r": {"kind": "nim-rerank", "baseUrl": ["http://r"]}}}},
        "vecgate: settings.embedders has rerankers alone",
    ),
    "a secret of no setting": ({"secrets": {"limits": {}}}, "additional properties 'limits' not allowed"),
    "a setting in the environment": (
        {"extraEnv": {"VECGATE_EMBEDDERS__NIM__API_KEY": "k"}},
        "VECGATE_EMBEDDERS__NIM__API_KEY",
    ),
    "a setting in the environment in small letters": (
        {"extraEnv": {"vecgate_embedders__nim__api_key": "k"}},
        "vecgate_embedders__nim__api_key",
    ),
    "a line break": ({"extraEnv": {"A": "b\nc"}}, "does not match pattern"),
    "a control character": (nim(model="a\u0007"), "does not match pattern"),
    "a server that nobody reaches": ({"settings": {"server": {"host": "127.0.0.1"}}}, "/settings/server/host"),
    "a port of root's": ({"settings": {"server": {"port": 443}}}, "want 1,024"),
    "an embedded Weaviate": ({"settings": {"weaviate": {"embedded": True}}}, "/settings/weaviate/embedded"),
    "an embedder twice": ({"settings": {"embedder": {"order": ["nim", "nim"]}}}, "/settings/embedder/order.*equal"),
    "a NIM nowhere": ({"settings": {"embedders": {"a": {"kind": "nim"}}}}, "missing property 'baseUrl'"),
    "a GPU for nobody": ({"gpu": {"enabled": True}}, "vecgate: gpu.enabled is for local models"),
    "weights for nobody": (
        {"weights": {"source": "hostPath", "hostPath": {"path": "/a"}}},
        "vecgate: weights are for local models",
    ),
    "a claim without a name": ({"weights": {"source": "existingClaim"}}, "/weights/existingClaim/name"),
    "an image of weights of any age": ({"weights": {"source": "image"}}, "/weights/image"),
    "weights over the temporary files": ({"weights": {"mountPath": "/tmp/models"}}, "/weights/mountPath"),
    "weights over the program": ({"weights": {"mountPath": "/opt"}}, "/weights/mountPath"),
    "weights over the program itself": ({"weights": {"mountPath": "/opt/vecgate/lib"}}, "/weights/mountPath"),
    "weights over Python": ({"weights": {"mountPath": "/usr/lib"}}, "/weights/mountPath"),
    "weights over libraries": ({"weights": {"mountPath": "/lib64"}}, "/weights/mountPath"),
    "weights over what they are copied from": (
        {
            "settings": {"embedders": {"clip": {"kind": "clip"}}},
            "weights": {"source": "initContainer", "mountPath": "/weights", "image": {"tag": "a"}},
        },
        "vecgate: weights.mountPath hides /weights",
    ),
    "a registry of another name": (
        {"global": {"imageRegistryy": "a"}},
        "imageRegistryy.*one of 'imageRegistry', 'imagePullSecrets'",
    ),
    "a registry in small letters": (
        {"global": {"image_registry": "a"}},
        "image_registry.*one of 'imageRegistry', 'imagePullSecrets'",
    ),
    "one Secret for images": (
        {"global": {"imagePullSecret": "a"}},
        "imagePullSecret.*one of 'imageRegistry', 'imagePullSecrets'",
    ),
    "no labels at all": ({"commonLabels": None}, "missing property 'commonLabels'"),
    "no labels of pods at all": ({"podLabels": None}, "missing property 'podLabels'"),
    "more memory than the limit": (
        {"resources": {"requests": {"memory": "4Gi"}}},
        "vecgate: resources.requests.memory is 4Gi, which is more than its limit 2Gi",
    ),
    "more CPU than the limit": (
        {"weights": {"initContainer": {"resources": {"limits": {"cpu": "99m"}}}}},
        "vecgate: weights.initContainer.resources.requests.cpu is 100m, which is more than its limit 99m",
    ),
    "root": ({"podSecurityContext": {"runAsUser": 0}}, "/podSecurityContext/runAsUser"),
    "a weaker pod": ({"podSecurityContext": {"runAsNonRoot": False}}, "'runAsNonRoot' not allowed"),
    "a network of 99 bits": ({"networkPolicy": {"ingress": {"from": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}}}, "cidr"),
    "a peer that is two": (
        {"networkPolicy": {"ingress": {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}}},
        "/networkPolicy/ingress/from/0",
    ),
    "memory in a made-up unit": ({"resources": {"limits": {"memory": "10 GB"}}}, "/resources/limits/memory"),
    "more at least than at most": ({"autoscaling": {"enabled": True, "minReplicas": 9}}, "vecgate: autoscaling"),
    "a scaler that goes by nothing": (
        {"autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": 0}},
        "vecgate: autoscaling has no metric",
    ),
    "a certificate of nobody": ({"tls": {"certificate": {"enabled": True}}}, "/tls/certificate/issuerRef/name"),
    "a file that the chart would have to know of": (
        {"settings": {"server": {"tlsCertFile": "/a"}}},
        "/settings/server.*'tlsCertFile' not allowed",
    ),
    "a certificate for nothing": (
        {"tls": {"certificate": ISSUED}},
        "vecgate: tls.existingSecret and tls.certificate.enabled.*no server uses",
    ),
    "a Secret with a certificate for nothing": (
        {"tls": {"existingSecret": "a"}},
        "vecgate: tls.existingSecret and tls.certificate.enabled.*no server uses",
    ),
    "clear text that is not allowed": (
        {"settings": {"server": {"allowPlaintext": False}}},
        "vecgate: settings.server.allowPlaintext",
    ),
    "clear text that nobody allows any more": (
        {"settings": {"server": {"allowPlaintext": None}}},
        "vecgate: settings.server.allowPlaintext",
    ),
    "a certificate without its key": (
        {"secrets": {"server": {"tlsCert": SECRET}}},
        "vecgate: secrets.server.tlsCert and secrets.server.tlsKey",
    ),
    "a key without its certificate": (
        {"secrets": {"server": {"tlsKey": SECRET}}},
        "vecgate: secrets.server.tlsCert and secrets.server.tlsKey",
    ),
    "clients' certificates without TLS": (
        {"secrets": {"server": {"tlsClientCa": SECRET}}, "test": {"clientCertificate": "a"}},
        "vecgate: secrets.server.tlsClientCa",
    ),
    "tokens of nobody": (
        {"secrets": JWKS, "test": {"enabled": False}, "settings": {"auth": {"jwtIssuer": "a"}}},
        "vecgate: secrets.auth.jwks needs",
    ),
    "tokens without clients": (
        {"secrets": {"auth": {"jwks": SECRET}}, "settings": {"auth": {"jwtIssuer": "a", "jwtAudience": "b"}}},
        "vecgate: secrets.auth.jwks needs",
    ),
    "an authority of no collector": (
        {"tracing": {"ca": SECRET, "endpoint": "http://a:4317"}},
        "vecgate: tracing.ca",
    ),
    "TLS without a certificate": ({"tls": {"enabled": True}}, "vecgate: tls.enabled needs a certificate"),
    "two certificates": (
        {"tls": {"enabled": True, "existingSecret": "a", "certificate": ISSUED}},
        "vecgate: tls.existingSecret and tls.certificate",
    ),
    "a certificate renewed before it is made": (
        {"tls": {"enabled": True, "certificate": {**ISSUED, "duration": "24h"}}},
        "vecgate: tls.certificate.renewBefore",
    ),
    "the certificate twice": (
        {
            "tls": {"enabled": True, "existingSecret": "a"},
            "secrets": {"server": {"tlsCert": SECRET, "tlsKey": SECRET}},
        },
        "vecgate: tls.enabled and secrets.server.tlsCert",
    ),
    "TLS that nobody can probe": (
        {"tls": {"enabled": True, "existingSecret": "a"}, "settings": {"web": {"enabled": False}}},
        "vecgate: TLS is probed at the HTTP port",
    ),
    "certificates that the kubelet cannot show": (
        {
            "tls": {"enabled": True, "existingSecret": "a"},
            "secrets": {"web": {"tlsClientCa": SECRET}},
        },
        "/secrets.*'web' not allowed",
    ),
    **{
        f"readiness {each!r} that nobody can ask for": (
            {"tls": {"enabled": True, "existingSecret": "a"}, "probes": {"readiness": {"service": each}}},
            "vecgate: probes.readiness.service must be vecgate.v1.EmbeddingService",
        )
        for each in ("", "vecgate.v1.SearchService")
    },
    "probes without a key": ({"settings": {"auth": {"withoutKey": ["metrics"]}}}, "vecgate: settings.auth.withoutKey"),
    "a test without a key": (
        {"secrets": {"auth": {"clients": SECRET}}},
        "vecgate: helm test needs a key",
    ),
    "a test without a certificate": (
        {
            "tls": {"enabled": True, "existingSecret": "a"},
            "secrets": {"server": {"tlsClientCa": SECRET}},
        },
        "vecgate: helm test needs a certificate",
    ),
    "a route of no gateway": ({"grpcRoute": {"enabled": True}}, "/grpcRoute/parentRefs"),
    "an HTTP route of no gateway": ({"httpRoute": {"enabled": True}}, "/httpRoute/parentRefs"),
    "an HTTP route to nothing": (
        {"httpRoute": {"enabled": True, "parentRefs": [{"name": "a"}]}, "settings": {"web": {"enabled": False}}},
        "vecgate: httpRoute is for the HTTP port",
    ),
    "two autoscalers": (
        {"autoscaling": {"enabled": True}, "keda": {"enabled": True, "triggers": [CRON]}},
        "vecgate: autoscaling.enabled and keda.enabled are two autoscalers",
    ),
    "a ScaledObject that goes by nothing": ({"keda": {"enabled": True}}, "/keda/triggers.*minItems"),
    "a ScaledObject of more at least than at most": (
        {"keda": {"enabled": True, "minReplicas": 9, "triggers": [CRON]}},
        "vecgate: keda.minReplicas is more than keda.maxReplicas",
    ),
    "half a fallback": ({"keda": {"fallback": {"replicas": 3}}}, "/keda/fallback.*failureThreshold"),
    "a share of CPU that is not asked for": (
        {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}},
        "vecgate: autoscaling.targetCPUUtilizationPercentage.*container vecgate requests no cpu",
    ),
    "a share of CPU that a sidecar does not ask for": (
        {"autoscaling": {"enabled": True}, "extraContainers": [{"name": "proxy", "image": "a"}]},
        "vecgate: autoscaling.targetCPUUtilizationPercentage.*container proxy requests no cpu",
    ),
    "a strategy of no kind": ({"strategy": {"type": "Rolling"}}, "/strategy/type"),
    "numbers for a strategy without any": (
        {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
        "/strategy/rollingUpdate",
    ),
    **{
        f"a strategy that may not move, as {none!r}": (
            {"strategy": {"rollingUpdate": {"maxSurge": none}}},
            "vecgate: strategy.rollingUpdate allows neither",
        )
        for none in (0, "0%")
    },
    "a strategy that may not move on a GPU pool": (
        {
            "settings": {"embedders": {"clip": {"kind": "clip"}}},
            "gpu": {"enabled": True},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0}},
        },
        "vecgate: strategy.rollingUpdate allows neither",
    ),
    "a deadline before the start's": ({"progressDeadlineSeconds": 600}, "vecgate: progressDeadlineSeconds is 600"),
    "a port of nodes without one": ({"service": {"nodePort": 30070}}, "vecgate: service.nodePort is for service.type"),
    "a load balancer's network without one": (
        {"service": {"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}},
        "vecgate: service.loadBalancerSourceRanges is for service.type LoadBalancer, and it is NodePort",
    ),
    "one port of nodes for two": (
        {"service": {"type": "NodePort", "nodePort": 30070, "httpNodePort": 30070}},
        "vecgate: service.nodePort and service.httpNodePort",
    ),
    "two families in a single stack": (
        {"service": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"}},
        "vecgate: service.ipFamilies has two",
    ),
    "a family that nobody listens on": (
        {"service": {"ipFamilies": ["IPv6"]}},
        r"vecgate: the Services may have IPv6, and settings\.\w+\.host is 0\.0\.0\.0",
    ),
    "both families, one of which nobody listens on": (
        {"service": {"ipFamilyPolicy": "PreferDualStack"}, "settings": {"server": {"host": "::"}}},
        "vecgate: the Services may have IPv6, and settings.web.host",
    ),
    "no name server at all": ({"dnsPolicy": "None"}, "/dnsConfig.*'nameservers'"),
    "no name server in the list": ({"dnsPolicy": "None", "dnsConfig": {"nameservers": []}}, "/dnsConfig/nameservers"),
    "a mount of two paths": (
        {"extraVolumeMounts": [{"name": "a", "mountPath": "/a", "subPath": "b", "subPathExpr": "c"}]},
        "/extraVolumeMounts/0",
    ),
    "a mount of another's path": (
        {"extraVolumeMounts": [{"name": "a", "mountPath": "/a", "subPath": "../b"}]},
        "/extraVolumeMounts/0/subPath",
    ),
    "a mount that is read-only below alone": (
        {"extraVolumeMounts": [{"name": "a", "mountPath": "/a", "recursiveReadOnly": "Enabled"}]},
        "/extraVolumeMounts/0.*'readOnly'",
    ),
    "an address that is none": ({"hostAliases": [{"ip": "10.0.0.256", "hostnames": ["a"]}]}, "/hostAliases/0/ip"),
    "a volume of the chart's name": (
        {"extraVolumes": [{"name": "tmp", "emptyDir": {}}]},
        "vecgate: extraVolumes has tmp, which is a volume already",
    ),
    "a volume twice": (
        {"extraVolumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]},
        "vecgate: extraVolumes has a, which is a volume already",
    ),
    "a volume of two kinds": (
        {"extraVolumes": [{"name": "a", "emptyDir": {}, "secret": {"secretName": "a"}}]},
        "/extraVolumes/0",
    ),
    "a mount of no volume": (
        {"extraVolumeMounts": [{"name": "a", "mountPath": "/a"}]},
        "vecgate: extraVolumeMounts names volume a, which is not in extraVolumes",
    ),
    "a mount over another": (
        {"extraVolumes": [{"name": "a", "emptyDir": {}}], "extraVolumeMounts": [{"name": "a", "mountPath": "/tmp"}]},
        "/extraVolumeMounts/0/mountPath",
    ),
    "a mount over the secrets": (
        {
            "extraVolumes": [{"name": "a", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "a", "mountPath": "/etc/vecgate/secrets"}],
        },
        "vecgate: extraVolumeMounts has /etc/vecgate/secrets, where something is mounted already",
    ),
    "a mount over the program": ({"extraVolumeMounts": [{"name": "a", "mountPath": "/opt/vecgate"}]}, "mountPath"),
    "a container of the server's name": (
        {"extraContainers": [{"name": "vecgate", "image": "a"}]},
        "vecgate: extraContainers has vecgate, which is a container already",
    ),
    "a container before and beside the server": (
        {"initContainers": [{"name": "a", "image": "a"}], "extraContainers": [{"name": "a", "image": "a"}]},
        "vecgate: extraContainers has a, which is a container already",
    ),
    "a container without an image": ({"initContainers": [{"name": "a"}]}, "/initContainers/0.*'image'"),
    "a variable from nowhere": ({"extraEnv": {"A": {"valueFrom": {}}}}, "/extraEnv/A"),
    "a setting from a Secret": (
        {"extraEnv": {"VECGATE_A__B": {"valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}}},
        "VECGATE_A__B",
    ),
    "variables from two places at once": (
        {"extraEnvFrom": [{"configMapRef": {"name": "a"}, "secretRef": {"name": "a"}}]},
        "/extraEnvFrom/0",
    ),
    "a claim of nothing": (
        {"resources": {"claims": [{"name": "gpu"}]}},
        "vecgate: resources.claims names gpu, which is not in resourceClaims",
    ),
    "a relabelling of a made-up kind": (
        {"monitoring": {"serviceMonitor": {"relabelings": [{"action": "rename"}]}}},
        "/monitoring/serviceMonitor/relabelings/0/action",
    ),
    "a budget that stops every drain": ({"podDisruptionBudget": {"maxUnavailable": 0}}, "maxUnavailable"),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_values_are_refused_with_the_place_and_the_reason(values: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmFailed, match=f"(?s){message}"):
        render(values)


TAKEN: dict[str, dict[str, Any]] = {
    "weights beside the program": {"weights": {"mountPath": "/opt/models"}},
    "weights among variable data": {"weights": {"mountPath": "/var/lib/models"}},
    "what a chart above shares": {"global": {"imageTag": "a", "image": {"a": "b"}, "storageClass": "c"}},
    "as much as the limit, in another unit": {
        "resources": {"requests": {"cpu": 1, "memory": "2048Mi"}, "limits": {"cpu": "1000m"}},
    },
    "a request without a limit": {"resources": {"limits": {"memory": None}}},
    "no resources of the copy": {"weights": {"initContainer": {"resources": {"requests": None}}}},
    "any number": {"resources": {"requests": {"cpu": 1000000}, "limits": {"cpu": 1000000}}},
    **{
        f"no {each}": {each: None}
        for each in ("nameOverride", "fullnameOverride", "nodeSelector", "affinity", "podAnnotations")
    },
}


@pytest.mark.parametrize("values", TAKEN.values(), ids=TAKEN)
def test_values_that_only_look_wrong_are_taken(values: dict[str, Any]) -> None:
    assert broken_rules(render(values)) == {}


def test_a_section_that_is_taken_away_is_refused_or_means_its_emptiness() -> None:
    for section in json.loads(SCHEMA.read_text(encoding="utf-8"))["properties"]:
        try:
            render({section: None})
        except HelmFailed as error:
            assert f"missing property '{section}'" in str(error)
