"""The command line, a command or a group of them each module.

All but auth, bulk, demo, doctor, serve, weaviate and weights talk gRPC through vecgate.client.

Exit codes: 0 done, 1 something failed, 2 wrong use or settings, 3 the server cannot be reached.
"""

import os
from typing import Any

import typer
from typer.core import TyperGroup

from service.cli import (
    aliases,
    auth,
    binding,
    bulk,
    checking,
    collections,
    demo,
    doctor,
    duplicates,
    embed,
    evaluating,
    importing,
    objects,
    probe,
    search,
    serve,
    status,
    tenants,
    weaviate,
    weaviate_config,
    weights,
)
from service.cli.connection import (
    DEFAULT_ADDRESS,
    CaOption,
    CertOption,
    Connection,
    ExplorerOption,
    GlobalAddressOption,
    KeyOption,
    TlsOption,
    credentials_of,
)
from service.cli.output import EXIT_WRONG_USE, fail

__all__ = ["app"]


NOT_TEXT = "an argument is not text in UTF-8"


class _Root(TyperGroup):
    """Refuses arguments that are not text, which cannot be sent. Names of files that are there may be any bytes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Check the arguments, those of the commands too."""
        for each in args:
            # Where a byte is not UTF-8, Python puts half of a character.
            is_text = each.encode(errors="replace").decode() == each
            if not is_text and not os.path.lexists(each.rpartition("=")[2]):
                fail(NOT_TEXT, EXIT_WRONG_USE)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; it fails to send a text that has the name of a file, which no check of arguments can see."""
        try:
            return super().invoke(ctx)
        except UnicodeEncodeError:
            fail(NOT_TEXT, EXIT_WRONG_USE)


app = typer.Typer(
    name="vecgate",
    cls=_Root,
    help="Multimodal embedding and search: NVIDIA NIM or a local CLIP model in front of Weaviate.",
    epilog="Exit codes: 0 done, 1 something failed, 2 wrong use or settings, 3 the server cannot be reached.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _connection(
    context: typer.Context,
    *,
    address: GlobalAddressOption = DEFAULT_ADDRESS,
    api_key_file: KeyOption = None,
    tls: TlsOption = False,
    ca_file: CaOption = None,
    cert_file: CertOption = None,
    explorer_url: ExplorerOption = "",
) -> None:
    key = os.environ.get("VECGATE_API_KEY", "").strip()
    if api_key_file is not None:
        try:
            key = api_key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            fail(f"{api_key_file}: {reason}", EXIT_WRONG_USE)
    context.obj = Connection(address, key, credentials_of(tls=tls, ca=ca_file, cert=cert_file), explorer_url)


app.command("serve", cls=serve.ServeCommand)(serve.serve)
app.command("demo")(demo.demo)
app.add_typer(weaviate.app, name="weaviate")
app.add_typer(weights.app, name="weights")
app.add_typer(auth.app, name="auth")
app.command("doctor")(doctor.doctor)
app.command("weaviate-config")(weaviate_config.weaviate_config)
app.command("status")(status.status)
collections.app.command("bind")(binding.bind)
app.add_typer(collections.app, name="collections")
app.add_typer(aliases.app, name="aliases")
app.add_typer(tenants.app, name="tenants")
app.add_typer(objects.app, name="objects")
app.command("import")(importing.import_)
app.command("duplicates")(duplicates.duplicates)
app.command("bulk")(bulk.bulk)
app.command("search")(search.search)
app.command("embed")(embed.embed)
app.command("evaluate")(evaluating.evaluate)
app.command("check")(checking.check)
app.command("probe")(probe.probe)
