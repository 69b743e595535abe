"""RVL, the lossless depth compression of Wilson (ISS 2017), as compressed_depth_image_transport writes it.

A picture of 16-bit counts is a list of runs: how many zeros, how many others, then these as differences to the one
before. Each number is a chain of 4-bit nibbles, least significant first: three bits of value, one that says whether
more follow. Eight nibbles make a 32-bit word, the first one in its highest bits.
"""

from __future__ import annotations

import struct

import numba
import numpy as np
from numpy.typing import NDArray

_SIZE = struct.Struct("<II")  # columns, rows
_MOST_PIXELS = 2**26


def decode_rvl(data: bytes) -> NDArray[np.uint16]:
    """Size and words -> (H, W) counts.

    Raises:
        ValueError: damaged.
    """
    if len(data) < _SIZE.size:
        raise ValueError(f"{len(data)} bytes hold no size")
    columns, rows = _SIZE.unpack_from(data)
    if not 0 < columns * rows <= _MOST_PIXELS:
        raise ValueError(f"it says that it has {columns}x{rows} pixels")
    usable = (len(data) - _SIZE.size) // 4 * 4
    words = np.frombuffer(data, dtype="<u4", count=usable // 4, offset=_SIZE.size).astype(np.uint32)
    counts = np.zeros(columns * rows, np.uint16)
    if not _decode(words, counts):
        raise ValueError("its data end early or run over")
    return counts.reshape(rows, columns)


@numba.njit(cache=True)
def _decode(words: NDArray[np.uint32], counts: NDArray[np.uint16]) -> bool:
    nibble = 0  # the next one to read
    pixel = 0
    previous = 0
    others = -1  # of the present run still to read; -1: its two lengths come next
    zeros = -1
    while pixel < counts.size:
        value = 0
        shift = 0
        while True:
            if nibble >= 8 * words.size or shift > 30:
                return False
            bits = (words[nibble >> 3] >> np.uint32(28 - 4 * (nibble & 7))) & np.uint32(0xF)
            nibble += 1
            value |= int(bits & np.uint32(7)) << shift
            shift += 3
            if not bits & np.uint32(8):
                break
        if zeros < 0:
            zeros = value
            if pixel + zeros > counts.size:
                return False
            pixel += zeros
        elif others < 0:
            others = value
            if pixel + others > counts.size:
                return False
        else:
            previous += (value >> 1) ^ -(value & 1)  # zigzag: signs are in the lowest bit
            counts[pixel] = previous
            pixel += 1
            others -= 1
        if others == 0:
            zeros = -1
            others = -1
    return True
