"""Constants of the IR as the values that generated code works with, whatever its language."""

from __future__ import annotations

import struct
from math import inf, isnan

from ..ir import DTYPES


def whole(value: float | int | bool, dtype: str) -> int:
    """An integer constant; +-inf, a monoid's identity, is the dtype's greatest or least value."""
    if value in (inf, -inf):
        bits, signed = 8 * DTYPES[dtype][0], DTYPES[dtype][1] == "i"
        top = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        return top if value > 0 else (-top - 1 if signed else 0)
    return int(value)


def bits(value: float | int | bool, dtype: str) -> int:
    """The 16 bits of a constant, rounded as generated code rounds: by way of float32."""
    value = float(value)
    if isnan(value):
        return 0x7E00 if dtype == "f16" else 0x7FC0
    sign = 0x8000 if struct.pack(">d", value)[0] & 0x80 else 0
    try:
        (word,) = struct.unpack("<I", struct.pack("<f", abs(value)))
        if dtype == "bf16":
            return sign | (word + 0x7FFF + (word >> 16 & 1)) >> 16
        (half,) = struct.unpack(
            "<H", struct.pack("<e", *struct.unpack("<f", struct.pack("<I", word)))
        )
        return sign | half
    except OverflowError:
        return sign | (0x7C00 if dtype == "f16" else 0x7F80)


def rounded(value: float | int | bool, dtype: str) -> float:
    """The float that a constant of a 16-bit dtype is."""
    word = bits(value, dtype)
    if dtype == "f16":
        return struct.unpack("<e", struct.pack("<H", word))[0]
    return struct.unpack("<f", struct.pack("<I", word << 16))[0]
