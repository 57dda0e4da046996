"""TIFFs of every form, written sample by sample, because no library at hand writes them all."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NO_COMPRESSION, _DEFLATE, _PACK_BITS = 1, 8, 32773
_KINDS = {"u": 1, "i": 2, "f": 3, "b": 1, "c": 6}


def tiff(
    samples: NDArray[Any],
    *,
    photometric: int,
    bits: int | None = None,
    big_endian: bool = False,
    separate: bool = False,
    compression: int = _NO_COMPRESSION,
    predictor: int = 1,
    fill_order: int = 1,
    tiled: bool = False,
    extra: Sequence[int] = (),
    tags: Sequence[tuple[int, int, Sequence[int]]] = (),
) -> bytes:
    """Return a TIFF of one picture.

    Args:
        samples: shape (height, width) or (height, width, samples); the dtype is the file's, unless `bits` are fewer.
        photometric: what the samples mean, such as 0 for grey whose 0 is white, 1 for grey, 2 for RGB, 3 for a palette.
        bits: of a sample, where they are fewer than the dtype's.
        big_endian: whether numbers have their most significant byte first.
        separate: whether each sample has a plane of its own.
        compression: 1 for none, 8 for deflate, 32773 for PackBits.
        predictor: 1 for none, 2 for differences, 3 for differences of the bytes of floating-point numbers.
        fill_order: 1 if the first pixel of a byte is in its highest bits, 2 if in its lowest.
        tiled: whether the picture is in tiles of 32 x 32 instead of strips of 16 rows.
        extra: what the samples beyond the colours are: 0 for anything, 1 for associated and 2 for unassociated alpha.
        tags: more of them: number, type (2 for ASCII, 3 for SHORT, 4 for LONG) and values.
    """
    if samples.ndim == 2:
        samples = samples[..., None]
    order = ">" if big_endian else "<"
    height, width, count = samples.shape
    bits = bits or samples.dtype.itemsize * 8
    planes = [samples[..., at : at + 1] for at in range(count)] if separate else [samples]
    parts = [
        _packed(part, bits, order, compression, predictor, fill_order)
        for plane in planes
        for part in (_tiles(plane) if tiled else _strips(plane))
    ]
    entries = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * count),
        259: (3, [compression]),
        262: (3, [photometric]),
        266: (3, [fill_order]),
        277: (3, [count]),
        284: (3, [2 if separate else 1]),
        317: (3, [predictor]),
        338: (3, list(extra)),
        339: (3, [_KINDS[samples.dtype.kind]] * count),
        **({322: (4, [32]), 323: (4, [32])} if tiled else {278: (4, [16])}),
        **{number: (kind, list(values)) for number, kind, values in tags},
    }
    return _file(entries, parts, order, tiled=tiled)


def _file(entries: dict[int, tuple[int, list[int]]], parts: list[bytes], order: str, *, tiled: bool) -> bytes:
    places, lengths = (324, 325) if tiled else (273, 279)
    entries = {**entries, places: (4, [0] * len(parts)), lengths: (4, [len(each) for each in parts])}
    rows = sorted((number, kind, values) for number, (kind, values) in entries.items() if values)
    behind = 8 + 2 + 12 * len(rows) + 4
    size = {1: 1, 2: 1, 3: 2, 4: 4}
    start = behind + sum(size[kind] * len(values) for _, kind, values in rows if size[kind] * len(values) > 4)
    offsets = [start + sum(map(len, parts[:at])) for at in range(len(parts))]
    directory, values_behind = b"", b""
    for number, kind, values in rows:
        chosen = offsets if number == places else values
        packed = struct.pack(f"{order}{len(chosen)}{ {1: 'B', 2: 'B', 3: 'H', 4: 'I'}[kind] }", *chosen)
        directory += struct.pack(f"{order}HHI", number, kind, len(chosen))
        if len(packed) <= 4:
            directory += packed.ljust(4, b"\0")
        else:
            directory += struct.pack(f"{order}I", behind + len(values_behind))
            values_behind += packed
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}IH", 8, len(rows))
    return head + directory + bytes(4) + values_behind + b"".join(parts)


def _strips(plane: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for top in range(0, plane.shape[0], 16):
        yield plane[top : top + 16]


def _tiles(plane: NDArray[Any]) -> Iterator[NDArray[Any]]:
    height, width, _ = plane.shape
    whole = np.pad(plane, ((0, -height % 32), (0, -width % 32), (0, 0)), mode="edge")
    for top in range(0, height, 32):
        for left in range(0, width, 32):
            yield whole[top : top + 32, left : left + 32]


def _packed(part: NDArray[Any], bits: int, order: str, compression: int, predictor: int, fill_order: int) -> bytes:
    if predictor == 2:
        part = np.concatenate([part[:, :1], np.diff(part.astype(part.dtype), axis=1)], axis=1).astype(part.dtype)
    if predictor == 3:
        rows = part.astype(part.dtype.newbyteorder(">")).view(np.uint8).reshape(part.shape[0], -1, part.itemsize)
        flat = rows.transpose(0, 2, 1).reshape(part.shape[0], -1)
        step = part.shape[2]
        data = np.concatenate([flat[:, :step], flat[:, step:] - flat[:, :-step]], axis=1).tobytes()
    elif bits == part.dtype.itemsize * 8:
        data = part.astype(part.dtype.newbyteorder(order)).tobytes()
    else:
        values = part.reshape(part.shape[0], -1, 1)
        shifts = np.arange(bits - 1, -1, -1)
        data = np.packbits((values >> shifts & 1).astype(np.uint8).reshape(part.shape[0], -1), axis=1).tobytes()
    if compression == _DEFLATE:
        data = zlib.compress(data)
    if compression == _PACK_BITS:
        # Only runs of literal bytes, which no row may share with the next.
        row = len(data) // part.shape[0]
        data = b"".join(
            bytes([len(some) - 1]) + some
            for start in range(0, len(data), row)
            for some in (data[at : min(at + 128, start + row)] for at in range(start, start + row, 128))
        )
    if fill_order == 2:
        data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)).reshape(-1, 8)[:, ::-1]).tobytes()
    return data
