"""What can be wrong with a source, a mapping and a row."""

import reprlib
from collections.abc import Sequence

from service.domain.keys import as_text

MAX_DETAIL_CHARS = 200


class InvalidSource(Exception):
    """Something cannot be read.

    Attributes:
        location: what, with bytes of its name that are not text as in a URL.
        reason: why, and what helps.
        final: whether it stays so, as of a file that is missing or too large. Everything else may pass, such as a
            server that does not answer.
    """

    def __init__(self, location: str, reason: str, *, final: bool = False) -> None:
        super().__init__(location, reason)
        self.location = as_text(location)
        self.reason = as_text(reason)
        self.final = final

    def __str__(self) -> str:
        return f"{self.location}: {self.reason}"


class InvalidMapping(Exception):
    """A mapping does not fit a source and a collection.

    Attributes:
        faults: every one of them.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__(faults)
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n".join(self.faults)


class Unfit(Exception):
    """A value does not fit what it is to become.

    Attributes:
        reason: why, the same text for values with the same fault.
        detail: the value, or what else differs.
    """

    def __init__(self, reason: str, detail: object = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail if isinstance(detail, str) else reprlib.repr(detail)


class RowRefused(Exception):
    """A row cannot be stored; the rows around it can.

    Attributes:
        reason: why, the same text for rows with the same fault.
        row: where it is, such as "shard.tar, key 000012".
        column: the column with the fault; empty if it is the whole row.
        detail: the value, or what else differs from row to row; the middle of a long one is left out.
    """

    def __init__(self, reason: str, row: str, column: str = "", detail: str = "") -> None:
        super().__init__(reason, row, column, detail)
        self.reason = as_text(reason)
        self.row = as_text(row)
        self.column = as_text(column)
        self.detail = as_text(_shortened(detail))

    def __str__(self) -> str:
        parts = (self.row, self.column, self.reason, self.detail)
        return ": ".join(each for each in parts if each)


def _shortened(text: str) -> str:
    """Return the start and the end of a text: of a picture that cannot be read, the path and the reason."""
    half = MAX_DETAIL_CHARS // 2
    return text if len(text) <= MAX_DETAIL_CHARS else f"{text[:half]}...{text[-half:]}"
