"""Memory that programs' steps write for each other: blocks for each stream, taken for a call."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch

from ...ir import Program
from .graphs import NoGraph


class Pool:
    """Memory of what ATen's calls make in the graphs of one scratch, and the stream on which these
    are recorded: cuBLAS has a workspace for each, which graphs that run at once must not share."""

    def __init__(self) -> None:
        self._memory: Any = None
        self._stream: torch.cuda.Stream | None = None

    def memory(self) -> Any:
        """The `torch.cuda.MemPool`. Errors: `NoGraph` where torch's allocator has none."""
        if self._memory is None:
            try:
                self._memory = torch.cuda.MemPool()
            except RuntimeError as e:
                raise NoGraph(f"no pool of memory: {e}") from None
        return self._memory

    def stream(self, device: torch.device) -> torch.cuda.Stream:
        self._stream = self._stream or torch.cuda.Stream(device)
        return self._stream


class Scratch(NamedTuple):
    """What a program's steps write for each other."""

    arena: torch.Tensor
    counters: torch.Tensor
    addresses: tuple[int, int]
    sizes: tuple[int, int]
    pool: Pool

    @classmethod
    def new(
        cls, device: torch.device, size: int, counters: int, pool: Pool | None = None
    ) -> Scratch:
        arena = torch.empty(size, dtype=torch.uint8, device=device)
        zeros = torch.zeros(counters, dtype=torch.int32, device=device)
        at = arena.data_ptr(), zeros.data_ptr()
        return cls(arena, zeros, at, (size, counters), pool or Pool())


class Arenas:
    """Scratch memory of one device, for all programs: for each stream that they run on, as many
    blocks as calls were under way there at once."""

    def __init__(self) -> None:
        self._free: dict[int, list[Scratch]] = {}

    def take(self, device: torch.device, stream: int, size: int, counters: int) -> Scratch:
        """At least so many bytes, which are the caller's until it gives them back, and so many
        counters, which are zero between kernels."""
        try:
            found = self._free[stream].pop()
        except (KeyError, IndexError):
            return Scratch.new(device, size, counters)
        if found.sizes[0] < size or found.sizes[1] < counters:
            size, counters = max(size, found.sizes[0]), max(counters, found.sizes[1])
            pool = found.pool
            del found  # its memory may become part of the new one
            return Scratch.new(device, size, counters, pool)
        return found

    def give_back(self, stream: int, scratch: Scratch) -> None:
        self.free(stream).append(scratch)

    def free(self, stream: int) -> list[Scratch]:
        """Those of a stream that nobody has."""
        return self._free.setdefault(stream, [])


_arenas: WeakValueDictionary[torch.device, Arenas] = WeakValueDictionary()


def arenas(device: torch.device) -> Arenas:
    """Those of a device, while somebody has them."""
    return _arenas.setdefault(device, Arenas())


def parts_at(program: Program) -> int:
    """Where partial sums begin, behind a program's arena."""
    return -(-program.arena_bytes // 256) * 256


class Where(NamedTuple):
    """What a call runs on; `stream` is None where it is not to be a graph."""

    scratch: Scratch
    device: torch.device
    stream: int | None
