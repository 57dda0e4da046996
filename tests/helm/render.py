"""The chart rendered: with a profile from its examples or with other values, for a version of Kubernetes."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from helm.tools.helm import HELM
from tests.helm.manifests import Manifest

CHART = Path(__file__).parents[2] / "helm" / "vecgate"
KUBERNETES = ("1.29", "1.31", "1.34", "1.37")
NEWEST = KUBERNETES[-1]
PROFILES = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((CHART / "examples").glob("*.yaml"))
}
EVERYTHING: dict[str, Any] = {
    "global": {"imageRegistry": "registry.local:5000/mirror", "imagePullSecrets": ["registry", "other.registry"]},
    "fullnameOverride": "vectors",
    "image": {"digest": "sha256:" + "a1" * 32, "pullPolicy": "Always"},
    "settings": {
        "server": {"maxRequestBytes": 134217728, "drainDelayS": 0.5, "maxCallS": 2.5, "host": "[::]"},
        "embedder": {"order": ["clip", "nim-8b", "second"], "cacheBytes": 0},
        "embedders": {
            "clip": {
                "kind": "clip",
                "model": "/weights/clip $(HOME) \"quoted\" 'twice' # {{ no }} ü",
                "device": "auto",
            },
            "nim-8b": {
                "kind": "nim",
                "baseUrl": ["https://nim.example/v1", "http://other.example:8123"],
                "maxRequestBytes": 134217728,
            },
            "second": {"kind": "clip"},
            "reranker": {"kind": "nim-rerank", "baseUrl": ["http://rerank.example:9123"]},
            "gone": None,
        },
        "weaviate": {"httpUrl": "https://weaviate", "grpcUrl": "grpcs://weaviate-grpc:50051"},
        "web": {"pathPrefix": "/embed"},
    },
    "tracing": {"endpoint": "https://collector.example:4318"},
    "secrets": {
        "embedders": {
            "nim-8b": {"apiKey": {"existingSecret": "nvidia", "key": "api-key"}},
            "reranker": {"apiKey": {"existingSecret": "rerank", "key": "api.key"}},
        },
        "weaviate": {"apiKey": {"existingSecret": "weaviate", "key": "vecgate.key"}},
        "auth": {"clients": {"existingSecret": "callers", "key": "clients.toml"}},
    },
    "tls": {
        "enabled": True,
        "certificate": {
            "enabled": True,
            "issuerRef": {"name": "site", "kind": "ClusterIssuer", "group": "issuers.example.com"},
            "dnsNames": ["*.vectors.example", "vectors"],
        },
    },
    "extraEnv": {"HTTPS_PROXY": "http://proxy:3128", "HOME": "/tmp/home"},
    "gpu": {"enabled": True, "resource": "nvidia.com/mig-1g.10gb", "runtimeClassName": "nvidia", "count": 2},
    "weights": {
        "source": "initContainer",
        "mountPath": "/weights",
        "image": {"digest": "sha256:" + "b2" * 32},
        "initContainer": {"command": ["copy", "--all", "a: b"]},
    },
    "service": {"port": 443, "annotations": {"example.com/note": "a: b, # c"}},
    "grpcRoute": {
        "enabled": True,
        "parentRefs": [{"name": "edge", "namespace": "gateways", "sectionName": "grpc", "port": 443}],
        "hostnames": ["*.vectors.example"],
        "annotations": {"example.com/note": "a: b"},
    },
    "serviceAccount": {"name": "vectors-account", "annotations": {"example.com/role": "reader"}},
    "probes": {"readiness": {"timeoutSeconds": 4}},
    "termination": {"preStopSeconds": 20},
    "autoscaling": {
        "enabled": True,
        "targetCPUUtilizationPercentage": 0,
        "targetQueuedInputs": 200,
        "podMetrics": [{"name": "requests_per_second", "averageValue": "100"}],
    },
    "podDisruptionBudget": {"maxUnavailable": "25%"},
    "networkPolicy": {
        "ingress": {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}, {"podSelector": {"matchLabels": {"may": "call"}}}]},
        "egress": {"nim": {"to": [{"ipBlock": {"cidr": "2001:db8::/32"}}], "podPorts": [8000, 8000]}},
    },
    "monitoring": {
        "serviceMonitor": {
            "enabled": True,
            "labels": {"release": "prometheus", "app.kubernetes.io/name": "never"},
            "intervalSeconds": 5,
            "authorization": {"existingSecret": "scrape"},
            "ca": {"existingSecret": "vectors-tls"},
        },
        "prometheusRule": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "disabled": ["VecgateFileDescriptors"],
        },
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Search"}},
    },
    "topologySpread": {"whenUnsatisfiable": "DoNotSchedule"},
    "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    "tolerations": [{"key": "only", "operator": "Equal", "value": "vectors", "effect": "NoExecute"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "important",
    "commonLabels": {"team": "search", "app.kubernetes.io/name": "never"},
    "commonAnnotations": {"example.com/owner": "search: a, # b", "example.com/note": "never"},
    "podLabels": {"example.com/cost": "42", "app.kubernetes.io/component": "never"},
    "podAnnotations": {"example.com/scrape": "true"},
    "test": {"apiKey": {"existingSecret": "tester", "key": "key"}},
    "evaluation": {
        "enabled": True,
        "collections": ["Pictures", "Holidays/team-a"],
        "schedule": "@daily",
        "existingClaim": "evaluations",
        "apiKey": {"existingSecret": "evaluator", "key": "key"},
    },
}
"""Values that take every way through the templates that the profiles do not take, but for SECURED."""

SECURED: dict[str, Any] = {
    "tls": {"enabled": True, "existingSecret": "site-tls"},
    "secrets": {"server": {"tlsClientCa": {"existingSecret": "authority", "key": "ca.crt"}}},
    "test": {"clientCertificate": "tester"},
    "evaluation": {
        "enabled": True,
        "collections": ["Pictures"],
        "ca": {"existingSecret": "site-tls", "key": "ca.crt"},
        "clientCertificate": {"existingSecret": "evaluator", "key": "tls-combined.pem"},
    },
}
"""Values for TLS on both ports, with clients that show certificates of their own on one."""

CONFINED: dict[str, Any] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
EXTENDED: dict[str, Any] = {
    "minReadySeconds": 3,
    "revisionHistoryLimit": 2,
    "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "50%"}},
    "settings": {"server": {"host": "::"}, "web": {"host": "::"}},
    "extraEnv": {
        "PLAIN": "a$(B)",
        "NODE": {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        "TOKEN": {"valueFrom": {"secretKeyRef": {"name": "tokens", "key": "one", "optional": True}}},
        "CORES": {"valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
        "REGION": {"valueFrom": {"configMapKeyRef": {"name": "site", "key": "region"}}},
    },
    "extraEnvFrom": [{"configMapRef": {"name": "site"}}, {"prefix": "SITE_", "secretRef": {"name": "tokens"}}],
    "extraVolumes": [{"name": "authorities", "configMap": {"name": "site"}}, {"name": "cache", "emptyDir": {}}],
    "extraVolumeMounts": [
        {"name": "authorities", "mountPath": "/etc/ssl/site", "readOnly": True},
        {"name": "cache", "mountPath": "/cache"},
    ],
    "initContainers": [{"name": "wait", "image": "site/wait:1", "securityContext": CONFINED}],
    "extraContainers": [{"name": "proxy", "image": "site/proxy:1", "securityContext": CONFINED}],
    "service": {
        "type": "LoadBalancer",
        "annotations": {"example.com/pool": "edge"},
        "nodePort": 30070,
        "httpNodePort": 30071,
        "externalTrafficPolicy": "Local",
        "loadBalancerClass": "example.com/edge",
        "loadBalancerIP": "192.0.2.7",
        "loadBalancerSourceRanges": ["10.0.0.0/8", "2001:db8::/32"],
        "ipFamilyPolicy": "PreferDualStack",
        "ipFamilies": ["IPv6", "IPv4"],
        "headless": {"annotations": {"example.com/pool": "inside"}},
    },
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "edge"}], "hostnames": ["vectors.example"]},
    "keda": {
        "enabled": True,
        "maxReplicas": 9,
        "triggers": [{"type": "cron", "metadata": {"timezone": "UTC", "desiredReplicas": "4"}}],
        "fallback": {"failureThreshold": 3, "replicas": 4},
        "annotations": {"autoscaling.keda.sh/paused": "false"},
    },
    "monitoring": {
        "serviceMonitor": {
            "enabled": True,
            "relabelings": [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}],
            "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "python_gc_.*"}],
        }
    },
    "dnsPolicy": "None",
    "dnsConfig": {
        "nameservers": ["10.0.0.10", "fd00::a"],
        "searches": ["default.svc.cluster.local"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    },
    "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["nim", "nim.example"]}],
}
"""Values for what a site adds to the chart's own, in sections that EVERYTHING does not have or cannot have."""


@cache
def _render(values: str, kubernetes: str, release: str, namespace: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(values)
        file.flush()
        where = ("--kube-version", f"{kubernetes}.0", "--namespace", namespace)
        return HELM.run("template", release, CHART, *where, "--values", file.name)


def render_text(
    values: dict[str, Any], kubernetes: str = NEWEST, release: str = "try", namespace: str = "default"
) -> str:
    """Return what helm makes of the chart with values, or raise HelmFailed."""
    return _render(yaml.safe_dump(values), kubernetes, release, namespace)


def render(
    values: dict[str, Any], kubernetes: str = NEWEST, release: str = "try", namespace: str = "default"
) -> list[Manifest]:
    """Return the rendered manifests, those of hooks too, or raise HelmFailed."""
    text = render_text(values, kubernetes, release, namespace)
    # The loader in C takes a tenth of the time of yaml.safe_load_all.
    return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]
