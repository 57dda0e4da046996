"""`vecgate auth`: keys of clients."""

import hashlib
import secrets
from typing import Annotated

import typer

from service.cli.output import note, say

KEY_BYTES = 32
PREFIX = "vg_"

app = typer.Typer(help="Keys of clients.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `new-key` a subcommand although it is the only one."""


@app.command("new-key")
def new_key(name: Annotated[str, typer.Argument(metavar="CLIENT", help="The client's name.")]) -> None:
    """Create a key. Print it once, with the lines for the file of VECGATE_AUTH__CLIENTS_FILE.

    The file holds the key's SHA-256 digest alone; the key itself is kept nowhere. Nothing needs to be running.
    """
    key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    note(f"the key of {name}, shown only this once:")
    say(key)
    note("the client in the file, read again within seconds; more keys in the list let it change them one by one:")
    for line in (
        f"[clients.{name}]",
        f'keys_sha256 = ["{hashlib.sha256(key.encode()).hexdigest()}"]',
        'permissions = ["embed", "search"]  # of embed, search, write, admin',
        'collections = ["*"]',
        'tenants = ["*"]',
    ):
        note(line)
