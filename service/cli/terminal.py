"""How a terminal can show pictures, by asking the terminal itself.

Variables do not tell: they are missing over ssh, and old ones are passed on by tmux. The last question is one that
every terminal answers, and terminals answer in order: once its answer is there, nothing more comes that would stand in
the next command line. A terminal that does not answer shows no pictures.
"""

import os
import re
import select
import shutil
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

ANSWER_S = 1.0
"""How long a terminal may take: a round trip over a slow connection."""

_ANSWER_BYTES = 4096
_SILENT = frozenset({"", "dumb", "linux", "unknown"})
_MULTIPLEXERS = ("screen", "tmux")

_KITTY = b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\"
# A terminal that does not know kitty's question may write it; so it is asked at a saved place and wiped away.
_GRAPHICS = b"\x1b7" + _KITTY + b"\x1b8\x1b[K"
_VERSION = b"\x1b[>q"
_CELL = b"\x1b[16t"
_ATTRIBUTES = b"\x1b[c"

_KITTY_YES = b"\x1b_Gi=31;OK\x1b\\"
_VERSION_ITERM2 = re.compile(rb"\x1bP>\|iTerm2")
_CELL_IS = re.compile(rb"\x1b\[6;(\d{1,4});(\d{1,4})t")
_ATTRIBUTES_ARE = re.compile(rb"\x1b\[\?([\d;]*)c")
_SIXEL = b"4"

_USUAL_CELL = (10, 20)
_SMALLEST_CELL, _LARGEST_CELL = (4, 8), (32, 64)


class Way(Enum):
    """How pictures reach the screen."""

    KITTY = "kitty's graphics protocol"
    ITERM2 = "iTerm2's inline images"
    SIXEL = "sixel graphics"
    BLOCKS = "coloured half blocks"


@dataclass(frozen=True, slots=True)
class Screen:
    """Where pictures are shown.

    Attributes:
        way: how they reach it.
        columns: characters of a line.
        cell: width and height of a character, in pixels.
    """

    way: Way
    columns: int
    cell: tuple[int, int] = _USUAL_CELL


def block_screen() -> Screen:
    """Return a screen that shows pictures as coloured half blocks, as any terminal does and `less -R`, too."""
    return Screen(Way.BLOCKS, _columns(), (1, 2))


def ask_terminal() -> Screen | None:
    """Ask the terminal how it shows pictures; takes at most ANSWER_S.

    Returns:
        None where standard input and output are not a terminal in the foreground, or it cannot show pictures, or does
        not answer, or something was typed that this program must not read.
    """
    if os.environ.get("TERM", "") in _SILENT or not (os.isatty(0) and os.isatty(1)):
        return None
    with suppress(OSError):
        # A program in the background would be stopped for changing the terminal.
        if os.tcgetpgrp(0) != os.getpgrp():
            return None
    try:
        answer = _ask(_CELL + _ATTRIBUTES if _is_multiplexed() else _GRAPHICS + _VERSION + _CELL + _ATTRIBUTES)
    except (ModuleNotFoundError, OSError):  # Windows has no termios; a terminal may be gone
        return None
    way = _way(answer)
    return None if way is None else Screen(way, _columns(), _cell(answer))


def _is_multiplexed() -> bool:
    """Return whether tmux or screen stands between; both take kitty's question for a title of the window."""
    return bool(os.environ.get("TMUX") or os.environ.get("STY")) or os.environ["TERM"].startswith(_MULTIPLEXERS)


def _ask(questions: bytes) -> bytes:
    """Return what the terminal answers, whole or empty; nothing of it is shown or left behind."""
    import termios  # noqa: PLC0415 -- not there on Windows
    import tty  # noqa: PLC0415

    before = termios.tcgetattr(0)
    answer = b""
    try:
        tty.setcbreak(0, termios.TCSANOW)
        if select.select([0], [], [], 0)[0]:
            return answer
        os.write(1, questions)
        end = time.monotonic() + ANSWER_S
        while not _ATTRIBUTES_ARE.search(answer) and len(answer) < _ANSWER_BYTES:
            if not select.select([0], [], [], max(0.0, end - time.monotonic()))[0]:
                # What may still come stands in no command line.
                termios.tcflush(0, termios.TCIFLUSH)
                return b""
            answer += os.read(0, _ANSWER_BYTES)
    finally:
        termios.tcsetattr(0, termios.TCSANOW, before)
    return answer


def _way(answer: bytes) -> Way | None:
    if _KITTY_YES in answer:
        return Way.KITTY
    if _VERSION_ITERM2.search(answer):
        return Way.ITERM2
    attributes = _ATTRIBUTES_ARE.search(answer)
    return Way.SIXEL if attributes and _SIXEL in attributes[1].split(b";") else None


def _cell(answer: bytes) -> tuple[int, int]:
    """Return the size of a character as the kernel, the terminal or nobody tells it."""
    told = _CELL_IS.search(answer)
    width, height = _cell_by_kernel() or ((int(told[2]), int(told[1])) if told else _USUAL_CELL)
    return (
        min(max(width, _SMALLEST_CELL[0]), _LARGEST_CELL[0]),
        min(max(height, _SMALLEST_CELL[1]), _LARGEST_CELL[1]),
    )


def _cell_by_kernel() -> tuple[int, int] | None:
    import fcntl  # noqa: PLC0415 -- not there on Windows
    import termios  # noqa: PLC0415

    rows, columns, width, height = struct.unpack("HHHH", fcntl.ioctl(1, termios.TIOCGWINSZ, bytes(8)))
    return (width // columns, height // rows) if rows and columns and width and height else None


def _columns() -> int:
    return shutil.get_terminal_size().columns
