"""Axes as the dimensions of a block: fused, cut, and shared out as the programs of a grid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import prod

from ...affine import Index
from ...ir import Axis, Expr, Load, Loops, Schedule, walk
from ...schedule.nests import substitute
from ...schedule.normal_form import flatten
from ...schedule.plan import Plan, vector_axis

WARP = 128  # points that a warp loads at once
FILLED = 1.25  # points of the blocks of one axis for each of the axis, at most; not measured
ALIGNED = 16  # bytes that a thread loads at once; what torch's allocators give at least

Dims = list[tuple[Axis, int]]  # axes of the grid, outermost first, and points of each in a block


def points_each(plan: Plan, axes: Iterable[Axis], most: int) -> int:
    """Points of a block: as many as keep the multiprocessors busy, a warp's at least."""
    total = prod(a.extent for a in axes if a.kind == "parallel")
    return min(most, max(WARP, pow2(total // plan.caps.cores)))


def fuse_outer(
    plan: Plan, body: tuple[Loops, ...], axes: Iterable[Axis], points: int
) -> tuple[tuple[Loops, ...], Dims]:
    """The axes as one or two: `x`, along which results lie together, and `p` of all others."""
    axes = [a for a in axes if a.kind == "parallel"]
    x = next((a for a in axes if a.symbol == vector_axis(plan, body[-1])), None)
    rest = [a for a in axes if a is not x]
    if x is None or not rest or pow2(x.extent) > 1.3 * x.extent or x.extent < 8:
        return fuse_all(plan, body, axes, points)
    bx = min(pow2(x.extent), 256, points)
    total = prod(a.extent for a in rest)
    body, p = fuse(body, rest, "points")
    return tuple(flatten(plan, n) for n in body), [(p, min(points // bx, pow2(total))), (x, bx)]


def fuse_beside(
    plan: Plan, body: tuple[Loops, ...], axes: Iterable[Axis], points: int
) -> tuple[tuple[Loops, ...], Dims]:
    """The axes as two: points of `x`, along which results lie together, for one of all others at a
    time, so that what these read is read once; as one, where that would leave much of a block
    empty."""
    axes = list(axes)
    x = next((a for a in axes if a.symbol == vector_axis(plan, body[-1])), None)
    rest = [a for a in axes if a is not x]
    if x is None or not rest or -(-x.extent // points) * points > FILLED * x.extent:
        return fuse_all(plan, body, axes, points)
    body, p = fuse(body, rest, "points")
    return tuple(flatten(plan, n) for n in body), [(p, 1), (x, points)]


def fuse_all(
    plan: Plan, body: tuple[Loops, ...], axes: Iterable[Axis], points: int
) -> tuple[tuple[Loops, ...], Dims]:
    """The axes as one."""
    axes = list(axes)
    if not axes:
        return body, []
    total = prod(a.extent for a in axes)
    body, p = fuse(body, axes, "points")
    return tuple(flatten(plan, n) for n in body), [(p, min(points, pow2(total)))]


def fuse(
    body: tuple[Loops, ...], axes: Sequence[Axis], name: str
) -> tuple[tuple[Loops, ...], Axis]:
    """x[a, b]  ==>  x[f // B, f % B] in all nests that have the axes."""
    if len(axes) == 1:
        return body, axes[0]
    total = rest = prod(a.extent for a in axes)
    fused = Axis(name, total, axes[0].kind)
    values: dict[str, Index] = {}
    for n, a in enumerate(axes):
        rest //= a.extent
        at = Index.of(name) // rest
        values[a.symbol] = at % a.extent if n else at
    gone = set(values)
    made = []
    for nest in body:
        if gone <= {a.symbol for a in nest.axes}:
            kept = [a for a in nest.axes if a.symbol not in gone]
            place = min(i for i, a in enumerate(nest.axes) if a.symbol in gone)
            kind = nest.axis(axes[0].symbol).kind
            kept.insert(min(place, len(kept)), replace(fused, kind=kind))
            nest = substitute(nest, values, tuple(kept))
        made.append(nest)
    return tuple(made), fused


def grid(dims: Dims) -> Schedule:
    """A block of each axis for each program; axes of one point at a time are no dimension, unless
    there is no other."""
    cut = [a.symbol for a, n in dims if n > 1] or [a.symbol for a, _ in dims[-1:]]
    return Schedule(
        (*(f"{a.symbol}.0" for a, _ in dims), *(f"{a}.1" for a in cut)),
        {a.symbol: (n,) for a, n in dims if a.symbol in cut},
        parallel=len(dims),
        block=tuple(f"{a}.1" for a in cut),
    )


def symbols_of(e: Expr) -> set[str]:
    """The axes on which a value depends, by address or mask."""
    found: set[str] = set()
    for x in walk(e):
        if isinstance(x, Load):
            found.update(s for i in (*x.index, *x.mask) for s in i.symbols)
        elif hasattr(x, "index"):
            found |= x.index.symbols
    return found


def pow2(n: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(n - 1, 0).bit_length()


def axis_of(loop: str) -> str:
    """The axis of which a loop is a part."""
    return loop.rpartition(".")[0]


def in_one_chunk(nest: Loops, s: Schedule, loop: str) -> bool:
    """Whether a loop over chunks has one chunk."""
    symbol = axis_of(loop)
    return symbol in s.tile and nest.axis(symbol).extent <= s.tile[symbol][0]
