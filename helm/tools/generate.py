"""What the chart says of settings and values, made from where these are: python -m helm.tools.generate [--check].

The schema of `settings` and `secrets` in values.schema.json comes from service/settings; the tables in the chart's
README come from there, from the comments in values.yaml and from the alerts; the dashboard comes from dashboard.py.
"""

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, SecretStr

from helm.tools.dashboard import make_dashboard
from service.settings import KINDS, Settings
from service.settings.embedders import MAX_NAME_LENGTH, NAME
from service.settings.table import shown_default, with_block

CHART = Path(__file__).parents[1] / "vecgate"
SCHEMA = CHART / "values.schema.json"
VALUES = CHART / "values.yaml"
README = CHART / "README.md"
ALERTS = CHART / "files" / "alerts.yaml"
DASHBOARD = CHART / "files" / "dashboard.json"
TEXT = {"$ref": "#/$defs/text"}
SECRET = {"$ref": "#/$defs/secret"}
FILE = "_file"
# Files that an image or the weights can hold. Of all others the chart has to know: probes, ports and tests go by them.
HELD_FILES = frozenset({"ca_file", "probe_file"})
# With TLS the kubelet probes the HTTP port, and has no certificate to show.
UNUSABLE = frozenset({("WebSettings", "tls_client_ca")})
MAX_INTEGER = 2**53 - 1
KEY_LINE = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z]\w*):(?P<rest>.*)$")


def camel(name: str) -> str:
    """Return a setting's name as it stands in the values; the chart's templates turn it back."""
    first, *others = name.split("_")
    cased = first + "".join(each.capitalize() for each in others)
    assert re.sub("([A-Z])", r"_\1", cased).lower() == name, f"{name} cannot be written in camelCase and turned back"
    return cased


def groups() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield each group of settings with its model."""
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def secret_fields(model: type[BaseModel]) -> set[str]:
    """Return the names of a group's fields that hold secrets."""
    return {name for name, field in model.model_fields.items() if SecretStr in _types(field.annotation)}


def _types(annotation: Any) -> Iterator[Any]:
    """Yield an annotation and all that it is made of."""
    yield annotation
    for each in get_args(annotation):
        yield from _types(each)


def mountable(model: type[BaseModel]) -> set[str]:
    """Return what a group can have from a file that a setting names: api_key, from nim.api_key_file."""
    files = {name.removesuffix(FILE) for name in model.model_fields if name.endswith(FILE)}
    return {name for name in files if (model.__name__, name) not in UNUSABLE}


def plain_fields(model: type[BaseModel]) -> list[str]:
    """Return a group's fields that may stand among the values: no secrets, and no files that come out of a Secret."""
    hidden = secret_fields(model) | {name for name in model.model_fields if name.endswith(FILE)} - HELD_FILES
    return [name for name in model.model_fields if name not in hidden]


def settings_schemas() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schemas of `settings` and of `secrets`: a secret is never a setting, but the name of a Secret."""
    settings, secrets = {}, {}
    for name, model in groups():
        properties = model.model_json_schema()["properties"]
        settings[camel(name)] = _closed(
            {
                camel(field): _value_schema(properties[field], model.model_fields[field].description)
                for field in plain_fields(model)
            }
        )
        if files := sorted(mountable(model)):
            secrets[camel(name)] = _closed({camel(field): SECRET for field in files})
    settings["embedders"] = _by_name({"$ref": "#/$defs/embedder"}, "embedders and rerankers by name")
    files = sorted(set().union(*map(mountable, KINDS.values())))
    secrets["embedders"] = _by_name(_closed({camel(field): SECRET for field in files}), "secrets of each embedder")
    return _closed(settings), _closed(secrets)


def embedder_schema() -> dict[str, Any]:
    """Return the schema of one embedder, whose kind decides on its fields."""
    return {
        "type": ["object", "null"],
        "required": ["kind"],
        "properties": {"kind": {"enum": list(KINDS)}},
        "allOf": [
            {
                "if": {"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]},
                "then": {"$ref": f"#/$defs/{_definition(kind)}"},
            }
            for kind in KINDS
        ],
    }


def kind_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of an embedder of a kind."""
    properties = model.model_json_schema()["properties"]
    closed = _closed(
        {
            camel(field): _value_schema(properties[field], model.model_fields[field].description)
            for field in plain_fields(model)
        }
    )
    if "baseUrl" in closed["properties"]:
        # Of a pod's own address there is no NIM.
        closed["required"] = ["baseUrl"]
        addresses = closed["properties"]["baseUrl"]
        addresses["uniqueItems"] = True
        addresses["items"] = {"$ref": "#/$defs/address"}
    return closed


def _definition(kind: str) -> str:
    return f"embedder-{kind}"


def _by_name(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "propertyNames": {"pattern": f"^{NAME.pattern}$", "maxLength": MAX_NAME_LENGTH},
        "additionalProperties": schema,
    }


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _value_schema(schema: dict[str, Any], description: str | None) -> dict[str, Any]:
    """Return pydantic's schema of a field as one of a value: no null, no defaults, and texts in one line."""
    plain = {key: value for key, value in schema.items() if key not in {"title", "default", "description", "format"}}
    if "anyOf" in plain:
        (plain,) = (each for each in plain["anyOf"] if each.get("type") != "null")
        plain.pop("format", None)
    if plain.get("type") == "integer":
        # Helm reads numbers as floats, which know larger ones only roughly.
        plain.setdefault("maximum", MAX_INTEGER)
    if plain.get("type") == "array" and plain["items"] == {"type": "string"}:
        # It reaches the service as one text with commas between.
        plain["items"] = {"allOf": [TEXT, {"type": "string", "pattern": "^[^\\s,]+$"}]}
    if plain == {"type": "string"}:
        plain = dict(TEXT)
    elif plain.get("type") == "string" and "enum" not in plain and "const" not in plain:
        plain = {"allOf": [TEXT, plain]}
    return {"description": description, **plain} if description else plain


def with_settings(text: str) -> str:
    """Return the text of values.schema.json with the settings as they should be."""
    schema = json.loads(text)
    definitions = schema["$defs"]
    definitions["settings"], definitions["secrets"] = settings_schemas()
    definitions["embedder"] = embedder_schema()
    definitions |= {_definition(kind): kind_schema(model) for kind, model in KINDS.items()}
    return json.dumps(schema, indent=2) + "\n"


def documented_values() -> dict[str, str]:
    """Return the comments in values.yaml by the path of the value that they stand above."""
    found: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in VALUES.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#"):
            comment.append(line.lstrip().removeprefix("#").strip())
            continue
        if match := KEY_LINE.match(line):
            indent = len(match["indent"])
            above = [each for each in above if each[0] < indent] + [(indent, match["key"])]
            if comment:
                found[".".join(key for _, key in above)] = " ".join(comment)
        comment = []
    return found


@cache
def _defaults() -> Any:
    return yaml.safe_load(VALUES.read_text(encoding="utf-8"))


def value_at(path: str) -> Any:
    """Return a value's default."""
    value = _defaults()
    for key in path.split("."):
        value = value[key]
    return value


def make_values_table() -> str:
    """Return the table of values in Markdown."""
    rows = ["| Value | Default | What it is |", "| --- | --- | --- |"]
    for path, comment in documented_values().items():
        value = value_at(path)
        shown = "" if isinstance(value, dict) and value else f"`{json.dumps(value)}`"
        rows.append(f"| `{path}` | {shown} | {comment} |")
    return "\n".join(rows) + "\n"


def make_settings_table() -> str:
    """Return the table of settings in Markdown, by the names that they have among the values."""
    rows = ["| Value | Service's default | What it is |", "| --- | --- | --- |"]
    each = [(camel(group), model) for group, model in groups()]
    for group, model in [*each, *((f"embedders.NAME ({kind})", model) for kind, model in KINDS.items())]:
        plain = plain_fields(model)
        for name, field in model.model_fields.items():
            variable = f"VECGATE_{group}__{name}".upper()
            path = f"{group}.{camel(name)}"
            if name in plain:
                rows.append(f"| `settings.{path}` | {shown_default(variable, field)} | {field.description} |")
            if name.removesuffix(FILE) in mountable(model) - {name}:
                path = f"{group}.{camel(name.removesuffix(FILE))}"
                rows.append(f"| `secrets.{path}` |  | {field.description} |")
    return "\n".join(rows) + "\n"


def make_alerts_table() -> str:
    """Return the table of alerts in Markdown, with what to do about each."""
    rows = ["| Alert | Severity | What is wrong | What to do |", "| --- | --- | --- | --- |"]
    for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            # What stands for a label's value in the alert is the label's name in the table.
            told = {name: re.sub(r"{{ \$labels\.(\w+) }}", r"*\1*", text) for name, text in rule["annotations"].items()}
            rows.append(f"| `{rule['alert']}` | {rule['labels']['severity']} | {told['summary']} | {told['runbook']} |")
    return "\n".join(rows) + "\n"


def with_tables(text: str) -> str:
    """Return the README's text with the tables as they should be."""
    tables = {"values": make_values_table(), "settings": make_settings_table(), "alerts": make_alerts_table()}
    for name, table in tables.items():
        text = with_block(text, name, table)
    return text


def main(arguments: list[str]) -> int:
    """Write the files, or with --check say which are not as they should be."""
    stale = []
    made = {SCHEMA: with_settings, README: with_tables, DASHBOARD: lambda _: make_dashboard()}
    for path, change in made.items():
        text = path.read_text(encoding="utf-8")
        if (changed := change(text)) != text:
            stale.append(path.name)
            if "--check" not in arguments:
                path.write_text(changed, encoding="utf-8")
    if stale and "--check" in arguments:
        sys.stderr.write(f"not as the settings and values.yaml say: {', '.join(stale)}; run `make docs`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
