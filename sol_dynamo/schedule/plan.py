"""A kernel being scheduled, and what every kind of schedule asks of it.

The figures behind the constants stand in benchmarks/RESULTS.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..affine import Index
from ..ir import DTYPES, Axis, Buffer, Expr, Kernel, Loops, expressions, walk
from ..target import Caps


@dataclass
class Plan:
    """A kernel being scheduled, with the program's buffers to add to."""

    kernel: Kernel
    buffers: dict[str, Buffer]
    packs: list[Loops]
    caps: Caps
    copies: list[Kernel]  # of inputs that are used as weights are, before all else
    packed: dict[tuple[Expr, tuple[Any, ...]], str]  # what lies packed already: its buffer
    # for a kernel that runs image by image: how many they are, and `Program.chunked`
    images: int = 1
    chunked: dict[str, int] = field(default_factory=dict)
    # kernels that run right before and behind this one: what it reads brought into an order, what
    # is made of its result; those without schedules are walked as any kernel
    before: list[Kernel] = field(default_factory=list)
    after: list[Kernel] = field(default_factory=list)

    def moves(self, buffer: str) -> bool:
        """Whether a buffer starts at the image that the kernel works on."""
        return self.images > 1 and (self.buffers[buffer].base or buffer) in self.chunked

    def unused(self, name: str) -> str:
        """A buffer's name like this one that no buffer has."""
        while name in self.buffers:
            name += "_2"
        return name

    def address(self, buffer: str, index: tuple[Index, ...]) -> Index:
        return self.buffers[buffer].address(index)


Walk = Callable[[Plan], None]  # chooses the schedules of one kernel's nests: sets `plan.kernel`


def vector_axis(plan: Plan, nest: Loops) -> str | None:
    """The axis along which the nest's output is contiguous."""
    s = nest.stores[0]
    address = plan.address(s.buffers[0], s.index)
    for a in nest.axes:
        if address.coefficient(a.symbol) == 1 and address.is_affine_in(a.symbol):
            return a.symbol
    return None


def lanes(plan: Plan, *nests: Loops) -> int:
    """Vector lanes for the widest floating type that the nests touch; half precision is computed
    in float32."""
    sizes = [
        DTYPES[e.dtype][0]
        for n in nests
        for e in walk(*expressions(n))
        if DTYPES[e.dtype][1] == "f"
    ]
    return max(plan.caps.vector_bytes // max([*sizes, 4]), 2)


def even(extent: int, most: int) -> int:
    """The size of equal pieces of at most `most` (the last may be smaller)."""
    return -(-extent // -(-extent // most)) if extent > 0 else 1


def scan_axis(nest: Loops) -> Axis | None:
    return next((a for a in nest.axes if a.kind == "scan"), None)
