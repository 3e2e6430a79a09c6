"""Windows over few channels read a copy of the image: its border is zeros, a pixel's channels lie
together.

The terms of a 7x7 window over three planes lie in 21 runs. Each element is loaded alone then, by an
address that takes two divisions, and only where it is in the image. In the copy, of four channels,
a row of the window is 28 terms one behind the other, at an aligned address, and nothing is asked:
what is copied is little beside what is loaded once for each point of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from ...affine import Index
from ...ir import (
    DTYPES,
    HALVES,
    Axis,
    Buffer,
    Expr,
    Kernel,
    Load,
    Loops,
    Op,
    Store,
    contiguous,
    is_op,
    rewrite,
)
from ...schedule.plan import Plan
from .cost import DRAM

TOGETHER = 4  # channels of a copy are a multiple
ALONE = (
    1.5  # us that a copy takes at least, whose reader starts while it ends (RESULTS, 2026-11-29)
)


@dataclass(frozen=True)
class Row:
    """The terms of a window's row: neighbours `along` a dimension, channels in another one."""

    value: Expr  # what the copy holds
    load: Load  # of which that is made
    along: int
    channel: int
    neighbours: Axis
    channels: Axis

    @property
    def padded(self) -> int:
        """Channels in the copy."""
        return -(-self.channels.extent // TOGETHER) * TOGETHER

    @property
    def terms(self) -> int:
        return self.neighbours.extent * self.padded


def row(factor: Expr, other: Expr, terms: Sequence[Axis], most: int) -> Row | None:
    """The row of a window of fewer than `most` channels, if a product's factor reads one."""
    load = _loaded(factor)
    if load is None or _loaded(other) is None or _borders(load) is None:
        return None
    channels, along = list[tuple[int, Axis]](), list[tuple[int, Axis]]()
    for a in terms:
        dims = [d for d, i in enumerate(load.index) if a.symbol in i.symbols]
        if len(dims) != 1:
            return None
        index = load.index[dims[0]]
        if index == Index.of(a.symbol):
            channels.append((dims[0], a))
        elif index.coefficient(a.symbol) == 1 and index.is_affine_in(a.symbol):
            along.append((dims[0], a))
    if len(channels) != 1 or not along or not 1 < channels[0][1].extent < most:
        return None
    (channel, c), (d, k) = channels[0], max(along, key=lambda x: (x[1].extent, x[0]))
    value = factor
    if is_op(factor, "tf32") or (is_op(factor, "cast") and factor.args[0].dtype in HALVES):
        value = factor.args[0]
    return Row(value, load, d, channel, k, c)


def microseconds(r: Row, nest: Loops) -> float:
    """What the copy takes."""
    pixels = prod(hi - lo + 1 for d, (lo, hi) in enumerate(_bounds(r, nest)) if d != r.channel)
    read, written = (DTYPES[e.dtype][0] for e in (r.load, r.value))
    return ALONE + pixels * (r.channels.extent * read + r.padded * written) / DRAM


def copied(
    plan: Plan, nest: Loops, r: Row, factors: tuple[Expr, Expr]
) -> tuple[tuple[Expr, Expr], tuple[Axis, Axis]]:
    """The factors, of which one reads a copy that a kernel of `plan.before` makes, and the other
    one is zero for channels that the copy only pads; and the axes of the terms that lie together:
    neighbours, channels."""
    bounds, last = _bounds(r, nest), (r.along, r.channel)
    order = [*(d for d in range(len(bounds)) if d not in last), *last]
    axes = [Axis(f"d{d}", hi - lo + 1) for d, (lo, hi) in enumerate(bounds)]
    axes[r.channel] = replace(axes[r.channel], extent=r.padded)
    at = [Index.of(a.symbol) + lo for a, (lo, _) in zip(axes, bounds, strict=True)]
    mask = [at[d] * sign + c for d, sign, c in _borders(r.load) or ()]
    if r.padded > r.channels.extent:
        mask.append(-at[r.channel] + r.channels.extent - 1)
    inside = Load(r.load.buffer, tuple(at), r.load.dtype, tuple(mask), 0.0)
    value = rewrite(r.value, lambda e: inside if e is r.load else e)
    shape = tuple(axes[d].extent for d in order)
    key = value, (shape, tuple(order))
    if key not in plan.packed:
        name = plan.packed[key] = plan.unused(f"{plan.kernel.name}_bordered")
        plan.buffers[name] = Buffer(name, value.dtype, shape, contiguous(shape))
        store = Store((name,), tuple(Index.of(axes[d].symbol) for d in order), (value,))
        copy = Loops(tuple(axes[d] for d in order), (store,))
        why = "moves data: channels together and a border of zeros, for windows"
        plan.before.append(Kernel(name, (copy,), origin=plan.kernel.origin, note=why))
    index = tuple(r.load.index[d] - bounds[d][0] for d in order)
    read = Load(plan.packed[key], index, value.dtype)
    channels = replace(r.channels, extent=r.padded)
    within = Index.of(r.channels.extent - 1) - channels.symbol

    def weight(e: Expr) -> Expr:
        if not isinstance(e, Load) or channels == r.channels:
            return e
        return Load(e.buffer, e.index, e.dtype, (*e.mask, within), 0.0)

    def factor(f: Expr) -> Expr:
        if _loaded(f) is not r.load:
            return rewrite(f, weight)
        return read if f is r.value else Op(f.name, (read,), f.dtype)  # type: ignore[attr-defined]

    a, b = map(factor, factors)
    return (a, b), (r.neighbours, channels)


def _loaded(factor: Expr) -> Load | None:
    """What a factor is but for roundings, so that it is zero where that is zero."""
    e = factor
    while is_op(e, "tf32") or (is_op(e, "cast") and e.dtype in (*HALVES, "f32")):
        e = e.args[0]
    return e if isinstance(e, Load) and e.other in (None, 0) else None


def _bounds(r: Row, nest: Loops) -> list[tuple[int, int]]:
    """The least and the greatest index of each dimension, outside of the image, too."""
    ranges = {a.symbol: (0, max(a.extent - 1, 0)) for a in nest.axes}
    return [i.bounds(ranges) for i in r.load.index]


def _borders(load: Load) -> list[tuple[int, int, int]] | None:
    """A mask's conditions as (d, sign, c): sign * index of dimension d + c >= 0; None where one is
    about something else."""
    found = []
    for m in load.mask:
        about = (
            (d, sign, rest.const)
            for d, i in enumerate(load.index)
            for sign in (1, -1)
            if not i.is_const and (rest := m - i * sign).is_const
        )
        if (condition := next(about, None)) is None:
            return None
        found.append(condition)
    return found
