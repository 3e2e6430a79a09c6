"""Memory for what a call returns."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...compat import empty_cuda, part_of
from ...ir import Buffer
from ...lowering.graph import TORCH_DTYPE
from ...schedule.memory import nbytes
from ..host import Blocks, Operands, PartOf

MANY, SMALL, ALL = 16, 1 << 14, 1 << 20  # results, bytes of each and of all of one dtype
APART = 256  # bytes: where memory of torch's allocators begins

Part = tuple[tuple[int, ...], tuple[int, ...], int]  # shape, strides, and first element


class Fresh:
    """For each call new memory for each result, but for what is saved for backward (`Blocks`), and
    for many small results, as the gradients of biases and norms are: they are parts of one piece of
    memory, which takes a third of the time. Who keeps one of them keeps at most `ALL` bytes."""

    def __init__(
        self,
        operands: Operands,
        device_type: str,
        saved_parts: Mapping[str, PartOf],
    ):
        """`saved_parts`: views of what is saved, by name."""
        self._cuda = device_type == "cuda"
        together, self._sizes = _together(operands.outputs)
        small = {b.name for parts in together.values() for b, _ in parts}
        alone = [b for b in operands.outputs if b.name not in small]
        self._alone = [(tuple(b.shape), tuple(b.strides), TORCH_DTYPE[b.dtype]) for b in alone]
        self._parts: dict[torch.dtype, list[Part]] = {
            dtype: [(tuple(b.shape), tuple(b.strides), at) for b, at in parts]
            for dtype, parts in together.items()
        }
        self._saved, self._saved_parts = operands.saved, saved_parts
        self._lock = threading.Lock()
        self._blocks: dict[tuple[torch.device, int | None], Blocks] = {}
        self.names = [
            *(b.name for b in alone),
            *(b.name for parts in together.values() for b, _ in parts),
            *(b.name for b in operands.saved),
            *saved_parts,
        ]

    @property
    def places(self) -> list[tuple] | None:
        """Shape, strides and dtype of each result, on a GPU; None if some are not made alone."""
        return self._alone if self._cuda and len(self._alone) == len(self.names) else None

    def new(self, device: torch.device, stream: int | None) -> list[torch.Tensor]:
        """A tensor for each of `names`, on a device, which is the current one where it is a GPU. It
        is free again, like memory of torch's allocators, for what runs on the same stream; for a
        call that somebody records (`stream` is None) all is new."""
        if self._cuda:
            made = [empty_cuda(*place) for place in self._alone]
        else:
            made = [torch.empty_strided(n, s, dtype=d, device=device) for n, s, d in self._alone]
        for dtype, parts in self._parts.items():
            whole = torch.empty(self._sizes[dtype], dtype=dtype, device=device)
            made += [part_of(whole, *part) for part in parts]
        if self._saved and self._cuda and stream is None:
            made += [t for _, t in self._new_blocks(device).take()]
        elif self._saved:
            with self._lock:
                if (device, stream) not in self._blocks:
                    self._blocks[device, stream] = self._new_blocks(device)
                made += [t for _, t in self._blocks[device, stream].take()]
        return made

    def _new_blocks(self, device: torch.device) -> Blocks:
        return Blocks(self._saved, str(device), self._saved_parts)


def _together(
    outputs: Sequence[Buffer],
) -> tuple[dict[torch.dtype, list[tuple[Buffer, int]]], dict[torch.dtype, int]]:
    """Small results by dtype, each with its place in memory of so many elements."""
    small = [b for b in outputs if 0 < nbytes(b) <= SMALL]
    parts: dict[torch.dtype, list[tuple[Buffer, Any]]] = {}
    sizes: dict[torch.dtype, int] = {}
    for b in small if len(small) >= MANY else ():
        dtype = TORCH_DTYPE[b.dtype]
        at = sizes.get(dtype, 0)
        end = at + -(-nbytes(b) // APART) * (APART // dtype.itemsize)
        if end * dtype.itemsize <= ALL:
            sizes[dtype] = end
            parts.setdefault(dtype, []).append((b, at))
    return parts, sizes
