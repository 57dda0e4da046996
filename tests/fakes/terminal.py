"""A terminal of another program: it shows pictures in its way, and answers questions as such terminals do."""

import base64
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

ROOT = Path(__file__).parents[2]
KITTY, VERSION, CELL, ATTRIBUTES = b"\x1b_Gi=31", b"\x1b[>q", b"\x1b[16t", b"\x1b[c"

AS_KITTY = {KITTY: b"\x1b_Gi=31;OK\x1b\\", VERSION: b"\x1bP>|kitty(0.43.1)\x1b\\", ATTRIBUTES: b"\x1b[?62;52;c"}
AS_ITERM2 = {
    VERSION: b"\x1bP>|iTerm2 3.5.11\x1b\\",
    CELL: b"\x1b[6;16;8t",
    ATTRIBUTES: b"\x1b[?64;1;2;4;6;17;18;21;22c",
}
AS_FOOT = {VERSION: b"\x1bP>|foot(1.23.1)\x1b\\", CELL: b"\x1b[6;16;8t", ATTRIBUTES: b"\x1b[?62;4;22;28;29c"}
AS_VTE = {VERSION: b"\x1bP>|VTE(7800)\x1b\\", CELL: b"\x1b[6;16;8t", ATTRIBUTES: b"\x1b[?65;1;9c"}
AS_TMUX = {ATTRIBUTES: b"\x1b[?1;2;4c"}
SILENT: dict[bytes, bytes] = {}


@dataclass(slots=True)
class Shown:
    """What a program did to a terminal.

    Attributes:
        code: its exit code.
        written: all that it wrote, with the answers if they were echoed.
        unread: what was typed and not read.
        restored: whether it left the terminal's modes as they were.
        asked: the questions that came.
    """

    code: int
    written: bytes
    unread: bytes
    restored: bool
    asked: list[bytes] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What was written without pictures and questions, as lines of a file."""
        rest = self.written.replace(b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\", b"")
        rest = re.sub(rb"\x1b_G.*?\x1b\\|\x1b\]1337;File=.*?\x07|\x1bP[\d;]*q.*?\x1b\\", b"[picture]", rest)
        rest = re.sub(rb"\x1b\[>q|\x1b\[16t|\x1b\[c|\x1b7|\x1b8|\x1b\[K|\x1b\[[\d;]*m", b"", rest)
        return rest.replace(b"\r\n", b"\n").decode()

    def kitty_pictures(self) -> "list[Image.Image]":
        """The pictures in kitty's protocol."""
        content, found = b"", []
        for control, piece in re.findall(rb"\x1b_G([^;]*);(.*?)\x1b\\", self.written):
            if b"a=q" not in control:
                content += piece
                if b"m=0" in control:
                    found.append(_picture(content))
                    content = b""
        return found

    def iterm2_pictures(self) -> "list[Image.Image]":
        """The pictures in iTerm2's protocol."""
        return [_picture(each) for each in re.findall(rb"\x1b\]1337;File=[^:]*:(.*?)\x07", self.written)]

    def sixel_colours(self) -> list[set[tuple[int, ...]]]:
        """The colours of each sixel picture, in percent."""
        return [
            {tuple(map(int, colour)) for colour in re.findall(rb"#\d+;2;(\d+);(\d+);(\d+)", each)}
            for each in re.findall(rb"\x1bP[\d;]*q(.*?)\x1b\\", self.written)
        ]


def _picture(base64_: bytes) -> "Image.Image":
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(base64_, validate=True)))
    picture.load()
    return picture


def run_in_terminal(
    report: Path,
    answers: Mapping[bytes, bytes],
    *arguments: str,
    typed: bytes = b"",
    pixels: tuple[int, int] = (0, 0),
    seconds: float = 60,
    **variables: str,
) -> Shown:
    """Run a command of the command line in a terminal.

    Args:
        report: a file to write.
        answers: of the terminal, by question.
        arguments: of the command.
        typed: before the command starts.
        pixels: width and height of the terminal of 80 columns and 24 lines, as the kernel tells them.
        seconds: after which the command is killed.
        variables: of the environment, TERM among them.
    """
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, *pixels))
        os.write(master, typed)
        kept = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "TMUX", "STY"}}
        path = f"{ROOT}{os.pathsep}{ROOT / 'protos'}"
        running = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.terminal", str(report), *arguments],
            cwd=ROOT,
            env=kept | {"TERM": "xterm-256color", "PYTHONPATH": path} | variables,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        with running:
            written, asked = _converse(master, running, answers, time.monotonic() + seconds)
    finally:
        os.close(master)
        os.close(slave)
    told = json.loads(report.read_text(encoding="utf-8"))
    return Shown(told["code"], written, told["unread"].encode(), told["restored"], asked)


def _converse(
    master: int, running: "subprocess.Popen[bytes]", answers: Mapping[bytes, bytes], end: float
) -> tuple[bytes, list[bytes]]:
    """Read what the program writes, and answer in the order of its questions, until it has ended."""
    written, asked, answered = b"", [], 0
    questions = re.compile(b"|".join(map(re.escape, (KITTY, VERSION, CELL, ATTRIBUTES))))
    while True:
        ended = running.poll() is not None
        if time.monotonic() > end:
            running.kill()
        readable = select.select([master], [], [], 0 if ended else 0.1)[0]
        if not readable and ended:
            return written, asked
        if readable:
            try:
                written += os.read(master, 65536)
            except OSError:  # the other side is closed
                return written, asked
            for found in questions.finditer(written, answered):
                asked.append(found[0])
                answered = found.end()
                os.write(master, answers.get(found[0], b""))


def _main() -> None:
    """Run the command as a shell does, which has a session with the terminal, and report how the terminal is left."""
    report, *arguments = sys.argv[1:]
    os.login_tty(0)
    # For the command, which inherits none of this handler.
    signal.signal(signal.SIGINT, lambda *_: None)
    before = termios.tcgetattr(0)
    code = subprocess.call([sys.executable, "-m", "service", *arguments])
    restored = termios.tcgetattr(0) == before
    tty.setcbreak(0, termios.TCSANOW)
    unread = os.read(0, 4096).decode() if select.select([0], [], [], 0)[0] else ""
    told = {"code": code, "restored": restored, "unread": unread}
    Path(report).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    _main()
