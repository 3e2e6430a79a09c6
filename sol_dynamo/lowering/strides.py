"""Strides of memory that is filled, and whether two tell the same."""

from __future__ import annotations

from collections.abc import Sequence

import torch


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
