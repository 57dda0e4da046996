"""The bytes that a call holds beside its request, counted with those of all calls."""

from collections.abc import Callable
from contextvars import ContextVar

Hold = Callable[[int], None]


def _uncounted(size: int) -> None:
    """Count nothing: outside of calls there is no bound."""


hold: ContextVar[Hold] = ContextVar("hold", default=_uncounted)
"""Adds bytes to what the current call holds until it ends; a negative number takes some away before that.

It raises Overloaded if the calls of the server hold as much as they may.
"""
