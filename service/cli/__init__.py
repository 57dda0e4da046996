"""The command line, a command or a group of them each module.

All but serve, demo, doctor, weaviate and weights talk gRPC through vecgate.client.

Exit codes: 0 done, 1 something failed, 2 wrong use or settings, 3 the server cannot be reached.
"""

import typer

from service.cli import (
    collections,
    demo,
    doctor,
    embed,
    importing,
    probe,
    search,
    serve,
    status,
    tenants,
    weaviate,
    weaviate_config,
    weights,
)
from service.cli.connection import DEFAULT_ADDRESS, Connection, GlobalAddressOption

__all__ = ["app"]

app = typer.Typer(
    name="vecgate",
    help="Multimodal embedding and search: NVIDIA NIM or a local CLIP model in front of Weaviate.",
    epilog="Exit codes: 0 done, 1 something failed, 2 wrong use or settings, 3 the server cannot be reached.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _connection(context: typer.Context, address: GlobalAddressOption = DEFAULT_ADDRESS) -> None:
    context.obj = Connection(address)


app.command("serve", cls=serve.ServeCommand)(serve.serve)
app.command("demo")(demo.demo)
app.add_typer(weaviate.app, name="weaviate")
app.add_typer(weights.app, name="weights")
app.command("doctor")(doctor.doctor)
app.command("weaviate-config")(weaviate_config.weaviate_config)
app.command("status")(status.status)
app.add_typer(collections.app, name="collections")
app.add_typer(tenants.app, name="tenants")
app.command("import")(importing.import_)
app.command("search")(search.search)
app.command("embed")(embed.embed)
app.command("probe")(probe.probe)
