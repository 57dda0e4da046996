"""The README's table of settings, made from the settings themselves: python -m service.settings.table."""

from pathlib import Path

from pydantic.fields import FieldInfo

from service.settings import describe_settings

README = Path(__file__).parents[2] / "README.md"
BEGIN = "<!-- settings: begin -->\n"
END = "<!-- settings: end -->"
MIB = 1024 * 1024


def default_text(value: object) -> str:
    """Return a default as a reader would write it."""
    match value:
        case None:
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case int() if value >= MIB and value % MIB == 0:
            return f"`{value}` ({value // MIB} MiB)"
        case list():
            return f"`{','.join(value)}`"
    return f"`{value}`"


def shown_default(name: str, field: FieldInfo) -> str:
    """Return a setting's default as it stands in a table."""
    # Where data lies depends on the user, so the table names the rule instead of one user's folder.
    if name.endswith("DATA_DIR"):
        return "`vecgate/weaviate` in the user's data folder"
    return default_text(field.get_default(call_default_factory=True))


def make_table() -> str:
    """Return the table in Markdown."""
    rows = ["| Variable | Default | What it is |", "| --- | --- | --- |"]
    for name, field in describe_settings():
        rows.append(f"| `{name}` | {shown_default(name, field)} | {field.description} |")
    return "\n".join(rows) + "\n"


def with_table(text: str) -> str:
    """Return the README's text with the table as it should be."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{make_table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
