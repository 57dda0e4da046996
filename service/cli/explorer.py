"""The explorer, the server's page for browsers, opened on a search of the command line."""

import json
import os
import sys
import webbrowser
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import typer

from service.cli.conditions import parse_conditions, split_condition
from service.cli.connection import DEFAULT_ADDRESS, Connection
from service.cli.output import EXIT_WRONG_USE, fail, note, say
from vecgate.client import Client

HTTP_PORT = 8070

# What an address can hold, and options that say nothing of the query.
QUERY = frozenset({"words", "near_object", "keywords", "hybrid", "where", "target_vector", "tenant", "collection"})
BESIDE = frozenset({"address", "in_browser", "limit", "pictures"})
OPERATORS = {
    "=": "EQUAL",
    "!=": "NOT_EQUAL",
    ">": "GREATER",
    ">=": "GREATER_OR_EQUAL",
    "<": "LESS",
    "<=": "LESS_OR_EQUAL",
    "~": "LIKE",
}


def open_search(context: typer.Context, client: Client, collection: str) -> None:
    """Open the explorer on the search of a command, or print its address where no browser can be opened.

    Args:
        context: of `vecgate search`.
        client: of the server, asked for the types of properties in conditions.
        collection: to search.
    """
    given = context.params
    left = [
        each.opts[0]
        for each in context.command.params
        if each.name not in QUERY | BESIDE and _is_given(context, str(each.name))
    ]
    vectors = given["target_vector"] or []
    if len(vectors) > 1:
        left.append("--target-vector more than once")
    if left:
        more = "; drop the picture onto the page" if "--image" in left else ""
        fail(f"--open cannot take {', '.join(left)} along in the address of a page{more}", EXIT_WRONG_USE)
    if given["where"]:
        parse_conditions(client.get_collection(collection), given["where"])
    alpha = 0.0 if given["keywords"] else given["hybrid"]
    values = {
        "collection": collection,
        "tenant": given["tenant"],
        "vector": next(iter(vectors), ""),
        "words": given["words"],
        "like": given["near_object"],
        "alpha": None if alpha is None else f"{alpha:g}",
        "filter": _filter(given["where"] or ()),
    }
    found = context.find_object(Connection) or Connection(DEFAULT_ADDRESS)
    base = found.explorer_url or explorer_at(given["address"] or found.address, tls=found.credentials is not None)
    query = urlencode({name: value for name, value in values.items() if value})
    _open(f"{base.partition('#')[0].rstrip('/')}/#/search?{query}")


def explorer_at(address: str, *, tls: bool) -> str:
    """Return where the explorer of a server is by default: at port 8070 of the host of its gRPC address.

    Args:
        address: as gRPC takes it, such as `vecgate:50070` or `dns:///vecgate:50070`.
        tls: whether the server is called over TLS.
    """
    scheme, colon, rest = address.partition(":")
    known = colon and scheme in {"dns", "ipv4", "ipv6", "unix", "unix-abstract"}
    target = rest.rpartition("/")[2] if known else address
    if target.startswith("["):
        host = target.partition("]")[0] + "]"
    else:
        host = f"[{target}]" if target.count(":") > 1 else target.partition(":")[0]
    if known and scheme.startswith("unix"):
        host = "127.0.0.1"
    return f"{'https' if tls else 'http'}://{host}:{HTTP_PORT}"


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _filter(conditions: Sequence[str]) -> str:
    """Return conditions as the page's address has them; empty without any."""
    items: list[dict[str, Any]] = []
    for name, sign, value in map(split_condition, conditions):
        operator = f"FILTER_OPERATOR_{OPERATORS[sign]}"
        items.append({"target": f"property:{name}", "operator": operator, "values": [value]})
    return json.dumps({"join": "all", "items": items}, separators=(",", ":")) if items else ""


def _open(url: str) -> None:
    if _can_show_pages() and webbrowser.open(url):
        note(f"opened {url}")
        return
    note("no browser can be opened here; open this address in one:")
    say(url)


def _can_show_pages() -> bool:
    """Return whether a browser with a window may be there; one in the terminal does not show the page."""
    if sys.platform in {"darwin", "win32"}:
        return True
    return any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))
