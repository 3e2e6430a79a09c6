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
        together, sizes = _together(operands.outputs)
        small = {b.name for parts in together.values() for b, _ in parts}
        alone = [b for b in operands.outputs if b.name not in small]
        # shape, strides, dtype of what is allocated, and which of it the other results are parts of
        self.places = [
            *((tuple(b.shape), tuple(b.strides), TORCH_DTYPE[b.dtype]) for b in alone),
            *(((sizes[dtype],), (1,), dtype) for dtype in together),
        ]
        self.parts: list[tuple[int, Part]] = [
            (n, (tuple(b.shape), tuple(b.strides), at))
            for n, parts in enumerate(together.values(), len(alone)) for b, at in parts
        ]  # fmt: skip
        self._saved, self._saved_parts = operands.saved, saved_parts
        self.lock = threading.Lock()  # of whoever takes memory that is saved
        self._blocks: dict[tuple[torch.device, int | None], Blocks] = {}
        self.alone = [b.name for b in alone]
        self.small = [b.name for parts in together.values() for b, _ in parts]
        self.saved = [*(b.name for b in operands.saved), *saved_parts]
        self.names = [*self.alone, *self.small, *self.saved]

    def new(self, device: torch.device, stream: int | None) -> list[torch.Tensor]:
        """A tensor for each of `names`, on a device, which is the current one where it is a GPU. It
        is free again, like memory of torch's allocators, for what runs on the same stream; for a
        call that somebody records (`stream` is None) all is new."""
        if self._cuda:
            whole = [empty_cuda(*place) for place in self.places]
        else:
            whole = [torch.empty_strided(n, s, dtype=d, device=device) for n, s, d in self.places]
        made = [*whole[: len(self.alone)], *(part_of(whole[n], *part) for n, part in self.parts)]
        if self._saved and self._cuda and stream is None:
            made += [t for _, t in self._new_blocks(device).take()]
        elif self._saved:
            with self.lock:
                if (device, stream) not in self._blocks:
                    self._blocks[device, stream] = self._new_blocks(device)
                made += [t for _, t in self._blocks[device, stream].take()]
        return made

    def blocks(self, device: torch.device, stream: int) -> Blocks | None:
        """What is saved by calls there, for who has the lock."""
        return self._blocks.get((device, stream))

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
