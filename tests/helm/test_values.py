"""What may be put into the values, and how settings reach the service."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from helm.tools.generate import (
    SCHEMA,
    camel,
    documented_values,
    groups,
    mountable,
    plain_fields,
    secret_fields,
    value_at,
)
from helm.tools.helm import HelmFailed
from service.diagnosis import diagnose
from service.settings import KINDS, InvalidSettings, load_settings
from tests.helm.definitions import check_manifest
from tests.helm.manifests import containers, pods
from tests.helm.pod_security import violations
from tests.helm.render import CHART, EVERYTHING, NEWEST, PROFILES, SECURED, render
from tests.helm.rules import broken_rules
from tests.helm.schema_values import values_of

ROOT = json.loads(SCHEMA.read_text(encoding="utf-8"))
REFUSALS = ("values don't meet the specifications of the schema(s)", "vecgate: ")
MOUNTED = "/etc/vecgate/secrets"
# An example takes a tenth of a second and more, so a failing one is shown as it was found.
PHASES = (Phase.explicit, Phase.generate)
SECRET = {"existingSecret": "a", "key": "b"}
KUBERNETES_OWN = {"affinity", "extraContainers", "extraVolumes", "initContainers"}
"""What goes into the pod as it is."""


@st.composite
def some_values(draw: st.DrawFn) -> dict[str, Any]:
    """Draw values for a few of the chart's sections at once; for all of them nearly none would fit together."""
    sections = sorted(ROOT["properties"].keys() - KUBERNETES_OWN)
    chosen = draw(st.lists(st.sampled_from(sections), min_size=1, max_size=4, unique=True))
    return {section: draw(values_of(ROOT["properties"][section], ROOT)) for section in chosen}


@pytest.mark.timeout(600)
def test_values_that_the_schema_takes_render_to_good_manifests() -> None:
    taken: list[bool] = []

    @settings(max_examples=60, phases=PHASES, suppress_health_check=list(HealthCheck))
    @given(some_values())
    def draw(values: dict[str, Any]) -> None:
        try:
            manifests = render(values)
        except HelmFailed as error:
            assert any(refusal in str(error) for refusal in REFUSALS), error
            taken.append(False)
            return
        taken.append(True)
        for manifest in manifests:
            check_manifest(manifest, NEWEST)
        broken = broken_rules(manifests)
        if values.get("gpu", {}).get("surge") or values.get("strategy"):
            # Asked for in so many words.
            broken.pop("rollouts", None)
        assert broken == {}
        if values.get("weights", {}).get("source") != "hostPath":
            assert violations(manifests) == []

    draw()

    assert 10 < sum(taken) < len(taken), "it says nothing if all are refused"


def environment_of(values: dict[str, Any]) -> dict[str, str]:
    """Return the variables of the server's container as Kubernetes hands them over, but for those from elsewhere."""
    server = next(each for each in containers(next(pods(render(values)))) if each["name"] == "vecgate")
    return {each["name"]: each["value"].replace("$$", "$") for each in server["env"] if "value" in each}


def loaded(values: dict[str, Any], secrets: Path) -> dict[str, dict[str, Any]]:
    """Return the settings that the service loads in the pod of a render, its Secrets in a folder."""
    environment = {
        name: value.replace(MOUNTED, str(secrets)) if name.endswith(("_FILE", "_CERTIFICATE")) else value
        for name, value in environment_of(values).items()
    }
    for value in environment.values():
        if value.startswith(str(secrets)):
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).write_text("secret")
    with patch.dict(os.environ, environment):
        return load_settings().model_dump()


SETTING_SCHEMAS = {
    (group, field): schema
    for group, each in {
        **ROOT["$defs"]["settings"]["properties"],
        **{f"embedders.{kind}": ROOT["$defs"][f"embedder-{kind}"] for kind in KINDS},
    }.items()
    for field, schema in each.get("properties", {}).items()
    if (group, field) != ("embedder", "order")
}
some_setting = st.sampled_from(sorted(SETTING_SCHEMAS)).flatmap(
    lambda path: st.tuples(st.just(path), values_of(SETTING_SCHEMAS[path], ROOT))
)


def test_every_setting_among_the_values_reaches_the_service_as_it_was_written(tmp_path: Path) -> None:
    arrived_paths = set()

    @settings(max_examples=60, phases=PHASES, suppress_health_check=list(HealthCheck))
    @given(some_setting)
    def draw(drawn: tuple[tuple[str, str], Any]) -> None:
        (group, field), value = drawn
        try:
            arrived = loaded(values_with(group, {field: value}), tmp_path)
            for each in (*group.replace(".", ".my-").split("."), field):
                arrived = arrived[snake(each)]
        except HelmFailed as error:
            assert any(refusal in str(error) for refusal in REFUSALS), error
        except InvalidSettings as error:
            # Rules between settings, and of files that have to be there, are the service's own.
            assert "VECGATE_" in str(error)
        else:
            assert arrived == (type(arrived)(value) if isinstance(value, str) else value), f"{group}.{field}"
            arrived_paths.add((group, field))

    draw()

    assert len(arrived_paths) > 15


def values_with(group: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return values with some settings of a group, or of an embedder of a kind, which is called my-KIND."""
    _, _, kind = group.partition(".")
    if not kind:
        return {"settings": {group: fields}}
    needed = {} if kind == "clip" else {"baseUrl": ["http://nim"]}
    embedders = {f"my-{kind}": {"kind": kind, **needed, **fields}}
    if kind == "nim-rerank":
        embedders["clip"] = {"kind": "clip"}
    return {"settings": {"embedders": embedders}}


def some_of(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=values)


def some_secrets(*fields: str) -> st.SearchStrategy[dict[str, Any]]:
    return some_of(**dict.fromkeys(fields, st.just(SECRET)))


plaintext = some_of(allowPlaintext=st.sampled_from([True, False, None]))
some_security = st.fixed_dictionaries(
    {
        "tls": some_of(enabled=st.booleans(), existingSecret=st.just("a")),
        "secrets": some_of(
            server=some_secrets("tlsCert", "tlsKey", "tlsClientCa"),
            auth=some_secrets("clients", "jwks"),
        ),
        "tracing": some_of(endpoint=st.sampled_from(["", "https://a:4317"]), ca=st.sampled_from([{}, SECRET])),
        "settings": some_of(
            server=plaintext,
            auth=some_of(jwtIssuer=st.just("a"), jwtAudience=st.just("b")),
        ),
        "test": st.just({"enabled": False}),
    }
)


@pytest.mark.timeout(600)
def test_no_pod_ends_as_it_starts_for_what_is_said_of_certificates_and_keys(tmp_path: Path) -> None:
    taken: list[bool] = []

    @settings(max_examples=100, phases=PHASES, suppress_health_check=list(HealthCheck))
    @given(some_security)
    def draw(values: dict[str, Any]) -> None:
        try:
            loaded(values, tmp_path)
        except HelmFailed as error:
            assert "vecgate: " in str(error)
            taken.append(False)
        else:
            taken.append(True)

    draw()

    assert 10 < sum(taken) < len(taken), "it says nothing if all are refused"


def snake(name: str) -> str:
    return re.sub("([A-Z])", r"_\1", name).lower()


def test_every_way_through_the_templates_gives_settings_that_the_service_takes(tmp_path: Path) -> None:
    arrived, secured = loaded(EVERYTHING, tmp_path), loaded(SECURED, tmp_path)

    given, embedders = EVERYTHING["settings"]["embedders"], arrived["embedders"]
    assert embedders.keys() == {"clip", "nim-8b", "second", "reranker"}
    assert embedders["clip"]["model"] == given["clip"]["model"]
    assert embedders["clip"]["device"] == "auto", "the settings win over what the chart sets for a GPU"
    assert embedders["second"]["device"] == "cuda"
    assert embedders["nim-8b"]["max_request_bytes"] == 134217728
    assert embedders["reranker"]["api_key_file"] == tmp_path / "embedders" / "reranker" / "api-key"
    assert arrived["embedder"]["order"] == ["clip", "nim-8b", "second"]
    assert arrived["server"]["max_request_bytes"] == 134217728
    assert embedders["nim-8b"]["api_key_file"] == tmp_path / "embedders" / "nim-8b" / "api-key"
    assert arrived["server"]["tls_key_file"] == tmp_path / "server" / "tls-key"
    assert secured["server"]["tls_cert_file"] == tmp_path / "server" / "tls-cert"
    assert secured["server"]["tls_client_ca_file"] == tmp_path / "server" / "tls-client-ca"


def test_every_setting_can_be_set_and_every_secret_is_one() -> None:
    schema = ROOT["$defs"]
    known = {
        f"{group}.{field}"
        for part in ("settings", "secrets")
        for group, each in schema[part]["properties"].items()
        for field in each.get("properties", {})
    }
    assert schema["settings"]["properties"]["embedders"]["additionalProperties"] == {"$ref": "#/$defs/embedder"}
    for kind, model in KINDS.items():
        plain, secret = map(set, (plain_fields(model), mountable(model)))
        assert schema[f"embedder-{kind}"]["properties"].keys() == set(map(camel, plain))
        kept = schema["secrets"]["properties"]["embedders"]["additionalProperties"]["properties"]
        assert set(map(camel, secret)) <= kept.keys()
        assert secret_fields(model) <= secret, "a secret that no pod can be given"
    fields = {
        f"{camel(group)}.{camel(name)}"
        for group, model in groups()
        for name in (*plain_fields(model), *mountable(model))
    }
    unreachable = {f"{group}.{name}" for group, model in groups() for name in secret_fields(model) - mountable(model)}

    assert known == fields
    assert unreachable == set(), "a secret that no pod can be given"
    assert "writeOnly" not in SCHEMA.read_text(encoding="utf-8"), "a secret stands among the values"


def test_every_value_has_its_meaning_above_it() -> None:
    documented = documented_values()
    # What stands for a group, whose values are Kubernetes' own or the service's.
    whole = {
        "settings",
        "weights.image",
        "weights.initContainer.resources",
        "resources",
        "test.resources",
        "evaluation.resources",
    }

    def leaves(value: Any, path: str) -> list[str]:
        if not isinstance(value, dict) or not value or path in whole - {"settings", "weights.image"}:
            return [path]
        return [leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}".lstrip("."))]

    # A default of it would win over the tags of a chart above.
    sections = ROOT["properties"].keys() - {"enabled"}
    paths = [leaf for section in sections for leaf in leaves(value_at(section), section)]
    assert [path for path in paths if path not in documented] == []


def inner(schema: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield what a schema says about a value inside of its own."""
    if "$ref" in schema:
        yield from inner(ROOT["$defs"][schema["$ref"].rpartition("/")[2]], name)
    for part in (*schema.get("allOf", ()), *schema.get("anyOf", ()), *([schema["then"]] if "then" in schema else [])):
        yield from inner(part, name)
    others = schema.get("additionalProperties")
    if name in schema.get("properties", {}):
        yield schema["properties"][name]
    elif others:
        yield others if isinstance(others, dict) else {"additionalProperties": True}


def is_a_value(path: str) -> bool:
    schemas = [ROOT]
    for name in path.split("."):
        schemas = [each for schema in schemas for each in inner(schema, name)]
    return bool(schemas)


@pytest.mark.parametrize(
    "text", ["README.md", "values.yaml", "files/alerts.yaml", "templates/NOTES.txt", "templates/_check.tpl"]
)
def test_every_value_that_a_text_of_the_chart_names_is_there(text: str) -> None:
    written = (CHART / text).read_text(encoding="utf-8")
    named = set(re.findall(rf"(?<![\w./$-])(?:{'|'.join(ROOT['properties'])})(?:\.[A-Za-z]\w*)+", written))

    assert len(named) > 5
    # These are names of files.
    assert [path for path in sorted(named - {"tls.crt", "tls.key"}) if not is_a_value(path)] == []


@pytest.mark.parametrize("name", PROFILES)
def test_no_profile_needs_anybody_outside_the_cluster(name: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    environment = {
        variable: str(tmp_path / "key") if variable.endswith("_FILE") else value
        for variable, value in environment_of(PROFILES[name]).items()
    }
    with patch.dict(os.environ, environment):
        diagnosis = diagnose(load_settings())

    assert diagnosis.contacts
    assert diagnosis.outside == ()
