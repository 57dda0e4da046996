"""The driver's books: the result of each row, fragment by fragment, and the progress of the run."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pyarrow as pa

from service.bulk.ledger import Duplicate, Entry, Ledger, Rejection
from service.bulk.rows import STAGES
from service.domain.keys import as_text
from service.sources.fragments import Fragment

MAX_PART_CHARS = 200
"""Of the description of a part, as the ledger tells it to people."""


@dataclass(slots=True)
class Progress:
    """How far a run is.

    Attributes:
        fragments: how many are done, in this run.
        wanted: how many this run has to do.
        rows: rows with an outcome.
        stored: those of them that are stored.
        rejected: those that are not, by reason.
        skipped: those that are not because they duplicate another object.
        seconds: working time of all processes, by stage.
        outages: rows whose write failed at first, so that Weaviate may have lost entries of its indexes.
        unreadable: fragments that could not be read to their end, and why.
        started_s: when the run began, by time.monotonic.
    """

    wanted: int
    fragments: int = 0
    rows: int = 0
    stored: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    outages: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    started_s: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Rows a second since the beginning."""
        return self.rows / max(1e-3, time.monotonic() - self.started_s)

    @property
    def left_s(self) -> float | None:
        """Seconds that are left at the pace so far; None before a fragment is done."""
        if not self.fragments:
            return None
        return (time.monotonic() - self.started_s) / self.fragments * (self.wanted - self.fragments)

    def shares(self) -> dict[str, float]:
        """Return which share of the working time each stage took."""
        total = sum(self.seconds.values()) or 1.0
        return {stage: seconds / total for stage, seconds in self.seconds.items()}


@dataclass(slots=True)
class _Open:
    """A fragment of which some rows have an outcome.

    Attributes:
        total: its rows, once that is known.
        seen: a byte for each row, 1 if it has an outcome: rows come in any order.
        count: how many have one.
        ids: of stored rows.
        rejections: rows that are not stored.
        duplicates: rows that duplicate another object, stored or not.
    """

    total: int | None = None
    seen: bytearray = field(default_factory=bytearray)
    count: int = 0
    ids: list[bytes] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)

    def note(self, number: int) -> bool:
        """Note that a row has an outcome, and return whether it had none."""
        if number >= len(self.seen):
            self.seen.extend(bytes(number + 1 - len(self.seen)))
        new, self.seen[number] = not self.seen[number], 1
        self.count += new
        return new


class Accounts:
    """Takes outcomes as they come, and adds an entry to the ledger for each fragment that is complete.

    It holds the ids of fragments in progress, and the names alone of those that are done.
    """

    def __init__(self, ledger: Ledger, fragments: Mapping[str, Fragment]) -> None:
        """Begin with fragments of which none is done, by the names of their entries."""
        self._ledger = ledger
        self._fragments = fragments
        self._open: dict[str, _Open] = {}
        self._closed: set[str] = set()
        self.progress = Progress(len(fragments))

    def take(self, outcomes: pa.Table) -> None:
        """Take a batch of outcomes, as the last stage gives them.

        Raises:
            LedgerFailed: the ledger cannot be written.
        """
        for each in outcomes.to_pylist():
            name = each["fragment"]
            if name in self._closed:
                # Ray does a task again whose machine is lost, though its rows may have come.
                continue
            fragment = self._open.setdefault(name, _Open())
            if each["end"]:
                if each["reason"]:
                    # Without an entry it is read again by the next command.
                    self.progress.unreadable.append((self._fragments[name].location, each["message"]))
                    continue
                fragment.total = each["number"]
            elif fragment.note(each["number"]):
                self._note(fragment, each)
            if fragment.count == fragment.total:
                self._close(name, self._open.pop(name))

    def _note(self, fragment: _Open, row: dict[str, Any]) -> None:
        progress = self.progress
        progress.rows += 1
        progress.outages += row["outage"]
        for stage in STAGES:
            progress.seconds[stage] += row[f"{stage}_s"]
        if reason := row["reason"]:
            progress.rejected[reason] += 1
            fragment.rejections.append(Rejection(row["number"], row["place"], reason, row["message"]))
            return
        if (other := row["duplicate_of"]) is not None:
            own, of = str(UUID(bytes=row["id"])), str(UUID(bytes=other["id"]))
            found = Duplicate(
                row["number"], row["place"], own, of, other["cosine"], other["same_content"], other["skipped"]
            )
            fragment.duplicates.append(found)
            if found.skipped:
                progress.skipped += 1
                return
        progress.stored += 1
        fragment.ids.append(row["id"])

    def _close(self, name: str, fragment: _Open) -> None:
        own = self._fragments[name]
        location, part = as_text(own.location), as_text(own.part)
        reasons = Counter(each.reason for each in fragment.rejections)
        skipped = sum(each.skipped for each in fragment.duplicates)
        entry = Entry(
            name,
            location,
            part[:MAX_PART_CHARS],
            own.identity,
            fragment.count,
            len(fragment.ids),
            dict(reasons),
            self._ledger.run,
            skipped,
            len(fragment.duplicates) - skipped,
        )
        self._ledger.add(entry, fragment.ids, fragment.rejections, fragment.duplicates)
        self._closed.add(name)
        self.progress.fragments += 1
