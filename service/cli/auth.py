"""`vecgate auth`: keys of clients."""

import re
from typing import Annotated

import typer

from service.cli.output import EXIT_WRONG_USE, fail, note, say

__all__ = ["app"]

NEEDS_SERVER = "this needs: pip install 'vecgate[server]'"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"

app = typer.Typer(help="Keys of clients.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keys of clients."""


@app.command("new-key")
def new_key(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The client's name, for logs, metrics and quotas.")],
    permission: Annotated[
        list[str] | None,
        typer.Option("--permission", help="embed, search, write or admin; repeat it for several.", show_default="all"),
    ] = None,
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", metavar="PATTERN", help="Names it may use, such as 'Shop*'.", show_default="all"),
    ] = None,
    tenant: Annotated[
        list[str] | None,
        typer.Option("--tenant", metavar="PATTERN", help="Tenants it may use.", show_default="all"),
    ] = None,
) -> None:
    """Make a key, print it once, and print what the server's file of keys (auth.keys_file) needs of it.

    The file holds a hash only: nobody can read the key there, and a lost key is replaced by a new one.
    """
    try:
        from service.auth.clients import Permission  # noqa: PLC0415 -- with the server only
        from service.auth.keys import hash_key  # noqa: PLC0415 -- with the server only
        from service.auth.keys import new_key as make_key  # noqa: PLC0415 -- with the server only
    except ModuleNotFoundError:
        fail(NEEDS_SERVER, EXIT_WRONG_USE)
    if not re.fullmatch(NAME, name):
        fail(f"{name!r} is no client's name: up to 63 letters, digits, dots, dashes and underscores", EXIT_WRONG_USE)
    known = [str(each) for each in Permission]
    if wrong := [each for each in permission or () if each not in known]:
        fail(f"--permission {wrong[0]}: there are {', '.join(known)}", EXIT_WRONG_USE)
    key = make_key()
    note("the key, which is not shown again:")
    say(key)
    note("\nfor the file that VECGATE_AUTH__KEYS_FILE names:")
    lines = [f'[clients."{name}"]', f"keys = {_toml([hash_key(key)])}", f"permissions = {_toml(permission or known)}"]
    lines += [f"collections = {_toml(collection)}"] if collection else []
    lines += [f"tenants = {_toml(tenant)}"] if tenant else []
    say("\n".join(lines))


def _toml(values: list[str]) -> str:
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return "[" + ", ".join(f'"{value}"' for value in escaped) + "]"
