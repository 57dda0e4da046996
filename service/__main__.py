"""The command `vecgate`, also as `python -m service`."""

import io
import sys

from service.process import collector

EXIT_WRONG_USE = 2


def main() -> None:
    """Run the command line, or say what it needs to be installed."""
    try:
        with collector.paused():
            from service.cli import app  # noqa: PLC0415 -- the package alone has no command line
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"rich", "typer"}:
            raise
        print("the command line needs: pip install 'vecgate[cli]'", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_WRONG_USE)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As standard error does: what the terminal's encoding has not is shown as an escape.
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="vecgate")


if __name__ == "__main__":
    main()
