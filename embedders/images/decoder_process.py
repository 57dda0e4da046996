"""What runs in the processes of embedders.images.decoders: a template, which forks decoders that do a job at a time.

The template has loaded everything and holds nothing of the server, so a decoder costs a few milliseconds and little
memory of its own. The operating system bounds a decoder's time and memory, also within native code: one that exceeds
its time is ended, and the server sees its connection end.
"""

import contextlib
import gc
import importlib.util
import io
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import AvifImagePlugin, Image, features

from embedders import cleaning
from embedders.contract import InputLimits
from embedders.errors import InputRejected
from embedders.images import budget
from embedders.images.decoding import as_nim_image
from embedders.images.likeness import copies
from embedders.images.pixels import Place, opened
from embedders.images.scaling import Scaling, scaled

FRAME = struct.Struct("<QQ")
"""In front of each message: the bytes of its head (a pickled job, or a reply in JSON), and of what follows it."""

MIB = 1024 * 1024

_NICENESS = 5
"""Other work of the machine goes first: calls without pictures, and the model, which pictures wait for anyway."""

_OWN_BYTES = 256 * MIB
_BYTES_PER_PIXEL = 24
"""Memory for a decoder itself, and for each pixel allowed. Decoding a WebP takes 15 bytes a pixel."""

ORDER = struct.Struct("<cQ")
"""What the server wants of the template: to fork a decoder of that number, or to end it and tell how it ended."""

FORK, END = b"f", b"e"

STATUS = struct.Struct("<i")
"""How a decoder ended, as os.waitstatus_to_exitcode tells it."""


class Job(NamedTuple):
    """Something to do in a decoder.

    Attributes:
        function: gets the content and the arguments; returns what JSON can tell, and bytes.
        arguments: of the function, beside the content.
        cpu_s: seconds of CPU time; decoding gets more for more pixels.
        max_bytes: memory.
    """

    function: "Callable[..., Result]"
    arguments: tuple[Any, ...]
    cpu_s: float
    max_bytes: int


Result = tuple[Any, bytes]


def memory_for(limits: InputLimits) -> int:
    """Return the bytes of memory that decoding a picture within these limits may take."""
    return _OWN_BYTES + _BYTES_PER_PIXEL * limits.max_image_pixels


def scale(content: bytes, limits: InputLimits, scaling: Scaling, place: Place, index: int) -> Result:
    """Decode a picture, and write its pixels into a slot of the server's memory."""
    opened(place, index, (*scaling.size, 3), np.uint8)[...] = scaled(content, limits, scaling)
    return None, b""


def scaled_picture(content: bytes, limits: InputLimits, scaling: Scaling) -> Result:
    """Return a picture in the size that a model reads, as a PNG, which every embedder decodes to the same pixels."""
    file = io.BytesIO()
    Image.fromarray(scaled(content, limits, scaling)).save(file, "PNG", compress_level=1)
    return None, file.getvalue()


def nim_image(content: bytes, limits: InputLimits, max_converted_pixels: int) -> Result:
    """Return a picture's media type and its bytes for a NIM; no bytes if they are those of the file."""
    media_type, sent = as_nim_image(content, limits, max_converted_pixels=max_converted_pixels)
    return media_type, b"" if sent == content else sent


def changed_copies(content: bytes, limits: InputLimits) -> Result:
    """Return the sizes of a picture's changed copies, and these one behind the other."""
    made = copies(content, limits)
    return [len(each) for each in made], b"".join(made)


def clean(content: bytes, form: str) -> Result:
    """Clean a text; None if it is invalid."""
    try:
        return cleaning.clean(content.decode(), form), b""
    except ValueError:
        return None, b""


def main(control: int) -> None:
    """Fork and end decoders as the orders on the connection `control` say; when that ends, end them all."""
    # A Ctrl-C in the terminal is for the server.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A decoder's memory holds somebody's picture.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What Pillow warns of may come with every picture, and tells nobody anything.
    warnings.simplefilter("ignore")
    os.nice(_NICENESS)
    Image.init()
    if features.check("avif"):
        # Each decoder has a core.
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    if importlib.util.find_spec("ftfy"):
        import ftfy  # noqa: F401 -- before the first text comes
    gc.freeze()
    pids: dict[int, int] = {}
    with socket.socket(fileno=control) as connection:
        while True:
            order, descriptors, _, _ = socket.recv_fds(connection, ORDER.size, 1, socket.MSG_WAITALL)
            if not order:
                os.killpg(0, signal.SIGKILL)
            kind, number = ORDER.unpack(order)
            if kind == END:
                connection.sendall(STATUS.pack(_ended(pids.pop(number, 0))))
                continue
            with socket.socket(fileno=descriptors[0]) as decoder, contextlib.suppress(OSError):
                # If there are too many processes, the server sees that the decoder's connection ends.
                pids[number] = _forked(connection, decoder)


def _ended(pid: int) -> int:
    """End a decoder, if it has not ended by itself, and return how it ended."""
    if not pid:
        return 0
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _forked(control: socket.socket, connection: socket.socket) -> int:
    """Return the process id of a new decoder."""
    if pid := os.fork():
        return pid
    control.close()
    try:
        _serve(connection)
    except (ConnectionError, EOFError):  # the server is gone, or wants this one no more
        os._exit(0)
    finally:
        os._exit(1)


def _serve(connection: socket.socket) -> None:
    """Do jobs until the connection ends."""
    while True:
        head_bytes, content_bytes = FRAME.unpack(_received(connection, FRAME.size))
        job: Job = pickle.loads(_received(connection, head_bytes))  # noqa: S301 -- from the server
        content = _received(connection, content_bytes)
        reply, body = _done(job, content)
        del content
        head = json.dumps(reply).encode()
        connection.sendall(FRAME.pack(len(head), len(body)) + head)
        connection.sendall(body)


def _received(connection: socket.socket, count: int) -> bytes:
    # At once and without a copy; in pieces only if a signal comes.
    content = connection.recv(count, socket.MSG_WAITALL) if count else b""
    if len(content) < count:
        raise EOFError
    return content


def _done(job: Job, content: bytes) -> Result:
    """Do a job within its bounds."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (job.max_bytes, most))
    budget.begin(job.cpu_s)
    try:
        result, body = job.function(content, *job.arguments)
    except InputRejected as error:
        return {"rejected": [type(error).__name__, str(error)]}, b""
    except MemoryError:
        return {"memory": job.max_bytes // MIB}, b""
    except Exception as error:  # noqa: BLE001 -- the server tells the caller
        with contextlib.suppress(OSError):
            traceback.print_exc(file=sys.stderr)
        return {"failed": type(error).__name__}, b""
    else:
        return {"done": result}, body
    finally:
        budget.end()
