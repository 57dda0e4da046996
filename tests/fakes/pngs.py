"""PNGs of every colour type and depth, written sample by sample, because no library at hand writes them all."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Of Adam7's passes: first column and row, and the steps between columns and rows.
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(
    samples: NDArray[Any],
    *,
    colour_type: int,
    depth: int,
    interlaced: bool = False,
    palette: Sequence[int] = (),
    transparent: bytes = b"",
) -> bytes:
    """Return a PNG.

    Args:
        samples: integers of shape (height, width) or (height, width, samples).
        colour_type: 0 for grey, 2 for RGB, 3 for a palette, 4 for grey with alpha, 6 for RGB with alpha.
        depth: bits of a sample.
        interlaced: whether the rows come in Adam7's passes.
        palette: red, green and blue of each colour.
        transparent: the body of a tRNS chunk.
    """
    samples = samples.reshape(*samples.shape[:2], -1)
    height, width, _ = samples.shape
    passes = [samples[top::down, left::across] for left, top, across, down in PASSES] if interlaced else [samples]
    rows = b"".join(b"\0" + _packed(row, depth) for each in passes if each.size for row in each)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    return b"".join(
        [
            SIGNATURE,
            chunk(b"IHDR", header),
            chunk(b"PLTE", bytes(palette)) if palette else b"",
            chunk(b"tRNS", transparent) if transparent else b"",
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


def chunk(name: bytes, body: bytes, *, sound: bool = True) -> bytes:
    """Return a chunk, with a wrong checksum if it is not to be sound."""
    checksum = zlib.crc32(name + body) ^ (not sound)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def chunks_of(content: bytes) -> list[tuple[bytes, bytes]]:
    """Return the names and bodies of a sound PNG's chunks."""
    position, found = len(SIGNATURE), []
    while position < len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        found.append((name, content[position + 8 : position + 8 + length]))
        position += 12 + length
    return found


def _packed(row: NDArray[Any], depth: int) -> bytes:
    if depth >= 8:
        return row.astype(">u2" if depth == 16 else np.uint8).tobytes()
    bits = row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1) & 1
    return np.packbits(bits.astype(np.uint8).ravel()).tobytes()
