"""`vecgate serve`: the server."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from service.cli.output import EXIT_WRONG_USE, fail, print_table, say

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

NEEDS_SERVER = "the server needs: pip install 'vecgate[server]', and vecgate[server,clip] for local models"


class ServeCommand(TyperCommand):
    """A command whose help ends with every setting."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help and the settings."""
        super().format_help(ctx, formatter)
        try:
            from service.settings import KINDS, describe_embedders, describe_settings  # noqa: PLC0415 -- server only
        except ModuleNotFoundError:
            say(NEEDS_SERVER)
            return
        say("Settings, all of them environment variables:", style="bold")
        _print_settings(describe_settings())
        for kind in KINDS:
            say(f"Settings of an embedder of kind {kind}, with its name for <NAME>, such as NEMOTRON_8B:", style="bold")
            _print_settings(describe_embedders(kind))
        say("Tracing is set by OpenTelemetry's own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT.")


def _print_settings(described: "Iterable[tuple[str, FieldInfo]]") -> None:
    rows = []
    for variable, field in described:
        default = field.get_default(call_default_factory=True)
        # A kind has to be said, although the field has a value.
        none = default is None or variable.endswith("__KIND")
        shown = "" if none else ",".join(default) if isinstance(default, list) else str(default)
        rows.append((variable, shown.lower() if isinstance(default, bool) else shown, field.description or ""))
    print_table(("variable", "default", "meaning"), rows, whole=("variable",))


def serve() -> None:
    """Serve gRPC and HTTP until SIGTERM or Ctrl-C; then finish the calls in flight and stop."""
    try:
        from service.settings import InvalidSettings, load_settings  # noqa: PLC0415 -- not there with the client alone
    except ModuleNotFoundError:
        fail(NEEDS_SERVER, EXIT_WRONG_USE)
    try:
        settings = load_settings()
    except InvalidSettings as error:
        fail("the settings are wrong:", EXIT_WRONG_USE, more=[f"  {line}" for line in str(error).splitlines()])
    try:
        import uvloop  # noqa: PLC0415 -- not there with the client alone

        from service.app import run  # noqa: PLC0415 -- for this command only

        serving = run(settings)
    except ModuleNotFoundError as error:
        fail(f"{NEEDS_SERVER} (there is no module {error.name})", EXIT_WRONG_USE)
    raise typer.Exit(uvloop.run(serving))
