"""Strides of memory that is filled, and whether two tell the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..ir import Buffer

ROW = 16  # bytes of what a kernel loads at a time


def dense(value: torch.Tensor) -> tuple[int, ...]:
    """The tensor's own strides if it fills its memory, else contiguous ones in the same order."""
    return dense_strides(tuple(value.shape), tuple(value.stride()))


def dense_strides(shape: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Strides in the same order that fill memory."""
    order = sorted(range(len(shape)), key=lambda d: (-strides[d], d))
    out, step = [0] * len(shape), 1
    for d in reversed(order):
        out[d] = step
        step *= max(shape[d], 1)
    return tuple(out)


def same_strides(shape, a, b) -> bool:
    return all(n == 1 or x == y for n, x, y in zip(shape, a, b, strict=True)) or 0 in shape


def rows_lie(b: Buffer, size: int, traced: torch.Tensor) -> bool:
    """Whether the elements of each row, of `size` bytes, lie side by side, rows as well aligned
    as those of the traced tensor."""
    if not b.shape or 0 in b.shape:
        return True
    if b.strides[-1] != 1 and b.shape[-1] != 1:
        return False
    return _aligned(b.shape, b.strides, b.offset, size) or not _aligned(
        b.shape, traced.stride(), int(traced.storage_offset()), size
    )


def _aligned(shape: Sequence[int], strides: Sequence[int], offset: int, size: int) -> bool:
    steps = [s for n, s in zip(shape[:-1], strides[:-1], strict=True) if n > 1]
    return all(s * size % ROW == 0 for s in (offset, *steps))
