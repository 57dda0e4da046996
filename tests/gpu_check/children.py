"""Child processes of the check, each bounded in time and ended with all that it has started."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
END_S = 5.0
MARK = "@"
"""Begins the lines of a child that are figures; all other lines are for the reader of its output."""

LIMIT = "GPU_CHECK_ENDS_AT"
"""Variable of a child's environment: when it will be ended, in seconds since the epoch."""

NO_TIME = "no time was left"

Figure = dict[str, Any]


def say(**figure: Any) -> None:
    """Give the check a figure; called in a child."""
    print(f"{MARK}{json.dumps(figure)}", flush=True)


def time_for(seconds: float, **cell: Any) -> bool:
    """Return whether a child has so much time for a cell, and say that it is skipped if not; called in the child."""
    enough = time.time() + seconds < float(os.environ.get(LIMIT, "inf"))
    if not enough:
        say(**cell, skipped=NO_TIME)
    return enough


def run_child(arguments: Sequence[str], limit_s: float, log: Callable[[str], None]) -> Iterator[Figure]:
    """Run Python in a child process and yield its figures as they come.

    Args:
        arguments: of its command line, such as -m tests.gpu_check.bare.
        limit_s: seconds after which it is ended, with its children.
        log: gets its other lines.

    The last figure is {"ended": None} if it ended well, else {"ended": why}.
    """
    end = time.monotonic() + limit_s
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            LIMIT: f"{time.time() + limit_s - 2 * END_S}",
        },
    )
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
    reader.start()
    try:
        while True:
            line = lines.get(timeout=max(0.0, end - time.monotonic()))
            if line is None:
                break
            if line.startswith(MARK):
                yield json.loads(line[len(MARK) :])
            else:
                log(line)
        code = process.wait(END_S)
        yield {"ended": None if code == 0 else f"exit code {code}"}
    except queue.Empty:
        yield {"ended": f"ended after {limit_s:.0f} s"}
    finally:
        end_group(process)
        reader.join(END_S)


def end_group(process: "subprocess.Popen[str]") -> None:
    """End a process that leads a session, and all that it has started; kill what does not end."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _read(process: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(line.rstrip("\n"))
    lines.put(None)
