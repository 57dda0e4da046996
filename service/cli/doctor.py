"""`vecgate doctor`: what the settings need from outside, and what is wrong with them."""

from typing import Annotated

import typer

from service.cli.output import EXIT_FAILED, EXIT_WRONG_USE, NEEDS_SERVER, fail, print_table, say


def doctor(
    *,
    air_gap: Annotated[
        bool, typer.Option("--air-gap", help="Treat every need from outside the site as a fault.")
    ] = False,
) -> None:
    """Show what `vecgate serve` needs from outside, and what is wrong; exit code 1 if something is.

    It reads the settings and looks at files. It connects to nothing.
    """
    try:
        from service.diagnosis import diagnose  # noqa: PLC0415 -- with the server only
        from service.settings import InvalidSettings, load_settings  # noqa: PLC0415 -- with the server only
    except ModuleNotFoundError:
        fail(NEEDS_SERVER, EXIT_WRONG_USE)
    try:
        diagnosis = diagnose(load_settings())
    except InvalidSettings as error:
        fail("the settings are wrong:", EXIT_WRONG_USE, more=[f"  {line}" for line in str(error).splitlines()])
    if diagnosis.contacts:
        rows = [(each.what, each.where, each.reach.value, each.setting) for each in diagnosis.contacts]
        print_table(("speaks with", "at", "which is", "by"), rows)
        say()
    outside = diagnosis.outside
    say(f"Needs from outside: {', '.join(f'{each.what} at {each.where}' for each in outside) or 'nothing'}.")
    for title, lines in (("Wrong", diagnosis.faults), ("To know", diagnosis.notes)):
        say(f"{title}: " + ("nothing." if not lines else ""))
        for line in lines:
            say(f"  {line}")
    if diagnosis.faults or (air_gap and outside):
        raise typer.Exit(EXIT_FAILED)
