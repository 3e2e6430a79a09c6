"""A call of a program that is one CUDA graph, in as little Python as that takes.

The first calls find their way through `execute` and `segment`. What they found there is a `Replay`,
which stands for them as long as a call differs from the last one in the places of its inputs and
results only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ...compat import cuda_device, cuda_stream, empty_cuda
from .graphs import NoGraph
from .scratch import Scratch, Where
from .segment import Recorded


class Replay:
    """What calls on one stream have in common."""

    def __init__(
        self,
        recorded: Recorded,
        where: Where,
        free: list[Scratch],
        made: Sequence[tuple[tuple[int, ...], tuple[int, ...], torch.dtype]],
        addresses: Sequence[int],
        results: Sequence[int | None],
        read: int | None,
    ):
        """`free`: the stream's scratch that nobody uses; `made`: shapes, strides and dtypes of
        results; `addresses`, behind those of the scratch, and `results` are positions among a
        call's inputs and what is made; `read`: the position of an input that kernels read."""
        self._recorded, self._free, self._sizes = recorded, free, where.scratch.sizes
        assert where.stream is not None
        self._device, self._stream, self._read = where.device, where.stream, read
        self._made, self._addresses, self._results = list(made), list(addresses), list(results)

    def __call__(self, inputs: list[Any], weights: Any) -> list[Any] | None:
        """The results; None, and nothing is done, for a call that it is not for."""
        index, stream = self._device.index, self._stream
        if cuda_device() != index or cuda_stream(self._device) != stream:
            return None
        if self._read is not None and inputs[self._read].get_device() != index:
            return None
        if stream and torch.cuda.is_current_stream_capturing():
            return None
        try:
            scratch = self._free.pop()
        except IndexError:
            return None
        try:
            if any(a < b for a, b in zip(scratch.sizes, self._sizes, strict=True)):
                return None
            every = [*inputs, *[empty_cuda(*m) for m in self._made]]
            given = [*scratch.addresses, *[every[i].data_ptr() for i in self._addresses]]
            if self._recorded(given, {}, weights, stream) is None:
                return None
        except NoGraph:
            return None
        finally:
            self._free.append(scratch)
        return [None if i is None else every[i] for i in self._results]
