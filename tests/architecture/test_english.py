"""Plain English: phrases that must not come back in pages, protos, the chart, and the code's texts and comments."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.pages import ROOT, pages

# Each with what to write instead.
PHRASES = {
    r"\b(is|are|was|be) none of\b": "is not one of, is unknown",
    r"\b(which|that|what) (is|are) none\b": "which is not one",
    r"(?<!there )\bis no (UUID|number|text|picture|JSON|HTTP|base64|file|name|key|module|request)\b": "is not a",
    r"\bgive one such as\b": "must be ..., such as",
    r"\bthere (is|can be) none of that name\b": "has that name",
    r"\bis asked no more\b|\bnot (be )?asked any more\b|\basked no more\b": "the circuit breaker is open",
    r"\ba \w+ of (its|their|our) own\b|\bof (our|his) own\b": "its own, their own",
    r"\b(he|his|him|himself)\b": "they, it",
    r"\bwhat became of\b": "the result of",
    r"\bto be otherwise\b": "to change",
    r"\bwhat is said of\b": "messages for",
    r"\bhow often an? \w+ came to\b": "times that",
    r"\banew\b": "again",
    r"\bin passing\b": "temporarily",
    r"\bwhoever\b": "the caller that, everyone who",
    r"\band no more may\b": "which is the limit",
    r"\bmay not touch\b": "may not access",
}
FOLDERS = ("embedders/", "service/", "protos/", "helm/")
# Generated files, and the record of how the bundled model was made.
LEFT_OUT = ("embedders/models/",)
SUFFIXES = (".md", ".proto", ".yaml", ".tpl", ".txt", ".toml")


def texts() -> Iterator[tuple[str, int, str]]:
    """Yield each line of text that someone reads, with its file and number."""
    listed = subprocess.run(["git", "ls-files", "-z", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True)
    for path in {*(ROOT / name for name in listed.stdout.split("\0") if name), *pages()}:
        name = str(path.relative_to(ROOT))
        if name.startswith(LEFT_OUT) or "_pb2" in name or not path.is_file():
            continue
        if name.endswith(".py"):
            yield from ((name, number, line) for number, line in code_texts(path))
        elif name.endswith(SUFFIXES):
            lines = path.read_text(encoding="utf-8").splitlines()
            yield from ((name, number, line) for number, line in enumerate(lines, 1))


def code_texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a module's comments and strings, docstrings among them."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from ((node.lineno + at, line) for at, line in enumerate(node.value.splitlines()))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def test_phrases_that_are_hard_to_read_do_not_come_back() -> None:
    found = [
        f"{name}:{number}: {match[0]!r}, rather {better!r}: {line.strip()[:120]}"
        for name, number, line in texts()
        for phrase, better in PHRASES.items()
        if (match := re.search(phrase, line, re.IGNORECASE))
    ]

    assert not found, "\n".join(sorted(found))
