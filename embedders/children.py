"""Child processes: what they get to know of this one, and how they ended."""

import os
import signal
import sys
from collections.abc import Sequence

_ENDING_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
# Python ignores them, and what it starts would, too.
for each in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(each, signal.SIG_DFL)
# A parent that had ended before sends no signal any more.
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def environment() -> dict[str, str]:
    """Return the environment for a child that imports this one's modules and does not need its keys and settings."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("VECGATE_")}
    return known | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def how_it_ended(code: int) -> str:
    """Say in words how a process ended, given its exit code as subprocess tells it: negative for a signal."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def ending_with_this(command: Sequence[str]) -> list[str]:
    """Return a command for a program that knows nothing of us, but gets SIGTERM when this process ends, even if killed.

    It costs one start of Python, which then becomes the program. Linux sends the signal when the thread that starts the
    command ends, and no other system has it: there, the command stays as it is.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _ENDING_WITH_PARENT, str(os.getpid()), *command]
