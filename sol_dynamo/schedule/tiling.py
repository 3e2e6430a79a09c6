"""How each kernel is walked: a schedule for every nest, chosen from its axes and the capabilities.

A kernel is a contraction (a register tile of M points by N vectors), a window (depthwise, pooling:
vectors along an axis that every operand has), rows (softmax, norms, row sums: one row at a time,
vectors along it) or pointwise. The figures behind the constants stand in benchmarks/RESULTS.md.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd, lcm, prod
from typing import Any

from ..ir import (
    Expr,
    Extern,
    Kernel,
    Loops,
    Op,
    Program,
    Schedule,
    blamed,
    expressions,
    loads,
    walk,
)
from ..target import Caps
from .carried import schedule_carried
from .contraction import schedule_contraction
from .nests import is_contraction
from .normal_form import normalize
from .plan import Plan, Walk, even, lanes, scan_axis, vector_axis

UNROLLED_TAPS = 9  # windows up to 3x3 are written out, of larger ones the rows
POINTS = 1 << 14  # points of a pointwise unit
PERIOD = 8  # a tile is a multiple of up to so many points, so that divisions come out even


def tile(program: Program, caps: Caps, walk: Walk | None = None) -> Program:
    """Choose schedules for all kernels, as `walk` does for one; weights of contractions are packed
    for theirs."""
    walk = walk or schedule_kernel
    buffers, packs = dict(program.buffers), list(program.packs)
    copies: list[Kernel] = []
    packed: dict[tuple[Expr, tuple[Any, ...]], str] = {}
    chunked = dict(program.chunked)
    images = {p: d.trips for d in program.depth_first for p in range(d.first, d.last)}
    kernels: list[Kernel | Extern] = []
    place: list[int] = []  # of each kernel's first one, and the end
    for p, k in enumerate(program.kernels):
        place.append(len(kernels))
        if not isinstance(k, Kernel):
            kernels.append(k)
            continue
        with blamed(k):
            left = [k]
            while left:
                k = left.pop(0)
                plan = Plan(k, buffers, packs, caps, copies, packed, images.get(p, 1), chunked)
                if not k.schedules:
                    normalize(plan)
                    walk(plan)
                if plan.before:
                    kernel = plan.kernel
                    left = [*plan.before, kernel, *plan.after, *left]
                else:
                    kernels.append(plan.kernel)
                    left = [*plan.after, *left]
    place.append(len(kernels))
    for n, copy in enumerate(copies):
        plan = Plan(copy, buffers, packs, caps, [], {})
        walk(plan)
        copies[n] = plan.kernel
    shift = len(copies)
    bands = [
        replace(d, first=place[d.first] + shift, last=place[d.last] + shift)
        for d in program.depth_first
    ]
    return replace(
        program,
        buffers=buffers,
        kernels=(*copies, *kernels),
        packs=tuple(packs),
        depth_first=tuple(bands),
        chunked=chunked,
    )


# -- choosing --------------------------------------------------------------------------------


def schedule_kernel(plan: Plan) -> None:
    """The schedule that fits a kernel's kind."""
    nests = plan.kernel.body
    if any(a.extent == 0 for n in nests for a in n.axes if a.kind == "parallel"):
        plan.kernel = replace(plan.kernel, body=())
    elif scan_axis(nests[-1]):
        schedule_scan(plan)
    elif len(nests) == 1:
        schedule_pointwise(plan)
    elif len(nests) == 2 and is_contraction(nests[0]):
        if not schedule_carried(plan) and not schedule_contraction(plan):
            schedule_rows(plan)
    elif len(nests) == 2 and vector_axis(plan, nests[-1]) in {a.symbol for a in nests[0].axes}:
        schedule_window(plan)
    else:
        schedule_rows(plan)


def schedule_pointwise(plan: Plan) -> None:
    """Units of some points; vectors along the output's contiguous axis."""
    (nest,) = plan.kernel.body
    v = vector_axis(plan, nest)
    order, tiles, parallel = _outer_loops(nest, v, POINTS, plan.caps)
    if v is None:
        plan.kernel = replace(plan.kernel, schedules=(Schedule(tuple(order), tiles, parallel),))
        return
    width = lanes(plan, nest)
    extent = nest.axis(v).extent
    unroll = 2 * width if _light(nest) and extent >= 4 * width else width
    levels = len(tiles.get(v, ()))
    tiles[v] = (*tiles.get(v, ()), unroll)
    order += [f"{v}.{levels}", f"{v}.{levels + 1}"]
    s = Schedule(tuple(order), tiles, parallel, frozenset((order[-1],)), (order[-1], width))
    plan.kernel = replace(plan.kernel, schedules=(s,))


def schedule_scan(plan: Plan) -> None:
    """Independent scans as units, with vectors across them where they lie side by side; positions
    in order, and what a position reduces inside it."""
    (nest,) = plan.kernel.body
    scan = scan_axis(nest)
    assert scan is not None
    side = Loops(tuple(a for a in nest.axes if a.kind == "parallel"), nest.stores)
    v = vector_axis(plan, side)
    depth = max(prod(a.extent for a in nest.axes if a.kind != "parallel"), 1)
    order, tiles, parallel = _outer_loops(side, v, max(POINTS // depth, 1), plan.caps)
    inside = [f"{scan.symbol}.0", *(f"{a.symbol}.0" for a in nest.reduce_axes)]
    vector: tuple[str, int] | None = None
    unroll = frozenset[str]()
    if v is None:
        order += inside
    else:
        width, levels = lanes(plan, nest), len(tiles.get(v, ()))
        tiles[v] = (*tiles.get(v, ()), width)
        point = f"{v}.{levels + 1}"
        order += [f"{v}.{levels}", *inside, point]
        vector, unroll = (point, width), frozenset((point,))
    s = Schedule(tuple(order), tiles, parallel, unroll, vector)
    plan.kernel = replace(plan.kernel, schedules=(s,))


def _light(nest: Loops) -> bool:
    return sum(isinstance(e, Op) for e in walk(*expressions(nest))) <= 16


def _outer_loops(
    nest: Loops, vector: str | None, points: int, caps: Caps
) -> tuple[list[str], dict, int]:
    """Loops outside the vector axis, cut into at most `caps.units` units of at least `points`."""
    axes = [a for a in nest.axes if a.symbol != vector]
    inner = nest.axis(vector).extent if vector else 1
    total = prod(a.extent for a in axes) * inner
    units = max(1, min(caps.units, total // points))
    order: list[str] = []
    tiles: dict[str, tuple[int, ...]] = {}
    parallel = 0
    if vector and inner > 4 * points // 2 and prod(a.extent for a in axes) < units:
        step = max(even(inner, max(-(-inner // units), 64)), 1)
        step = -(-step // 64) * 64
        tiles[vector] = (step,)
        order.append(f"{vector}.0")
        parallel = 1
        return [*order, *(f"{a.symbol}.0" for a in axes)], tiles, parallel
    for n, a in enumerate(axes):
        if units <= 1:
            order += [f"{x.symbol}.0" for x in axes[n:]]
            break
        step = max(1, a.extent // units) if a.extent > units else 1
        if step > 1:
            tiles[a.symbol] = (step,)
        order.append(f"{a.symbol}.0")
        parallel += 1
        done = -(-a.extent // step)
        units = units // done
        if step > 1:
            order += [f"{a.symbol}.1", *(f"{x.symbol}.0" for x in axes[n + 1 :])]
            break
    return order, tiles, parallel


def schedule_window(plan: Plan) -> None:
    """Depthwise convolutions, pooling, sums over outer axes: vectors along the channels, a register
    tile of neighbouring pixels, small windows (of large ones: their rows) written out."""
    reduction, root = plan.kernel.body
    v = vector_axis(plan, root)
    assert v is not None
    width = lanes(plan, reduction)
    taps = prod(a.extent for a in reduction.reduce_axes)
    spatial = [a for a in root.axes if a.symbol != v]
    masks = {s for e in loads(reduction) for m in e.mask for s in m.symbols}
    written = _written_out(reduction)
    overlap = _shared_axes(reduction, [a.symbol for a in spatial])
    tiles: dict[str, tuple[int, ...]] = {}
    order: list[str] = []
    unroll: set[str] = set()
    peel: set[str] = set()
    inner: list[str] = []
    column = spatial[-1] if spatial and (spatial[-1].symbol in overlap and written) else None
    row = spatial[-2] if column and len(spatial) > 1 and spatial[-2].symbol in overlap else None
    if column:
        stride = overlap[column.symbol]
        tc = 4 if column.extent >= 56 or column.extent % 7 else 7
        if stride > 1 or taps > 9:
            tc = min(tc, 4) if column.extent % 7 else 7
        if stride == 1 and taps > 9:
            tc = plan.caps.max_accumulators // 2
        tc = even(column.extent, tc)
        if (d := _divisor(reduction, column.symbol)) <= PERIOD:
            tc = max(tc // d, 1) * d  # in each tile, the same points have the same remainders
        tiles[column.symbol] = (tc,)
        unroll.add(f"{column.symbol}.1")
        inner.append(f"{column.symbol}.1")
        if column.symbol in masks:
            peel.add(f"{column.symbol}.0")
        if row and overlap[row.symbol] == 1 and row.extent % 2 == 0 and taps <= 9:
            tiles[row.symbol] = (2,)
            unroll.add(f"{row.symbol}.1")
            inner.insert(0, f"{row.symbol}.1")
    work = prod(a.extent for a in root.axes) * taps
    units = max(1, min(plan.caps.units, work // (plan.caps.unit_flops // 16)))
    parallel, fixed = 0, {column.symbol} if column else set()
    for a in spatial:
        if a.symbol in fixed:
            continue
        count = -(-a.extent // tiles.get(a.symbol, (1,))[0])
        order.append(f"{a.symbol}.0")
        if units > 1 and parallel == len(order) - 1:
            parallel += 1
            units //= count
    blocks = width * (1 if inner else 4)
    channels = root.axis(v).extent
    if units > 1 and parallel == len(order) and channels >= 2 * blocks:
        group = max(1, -(-channels // blocks) // units) * blocks
        tiles[v] = (group, blocks)
        order.insert(parallel, f"{v}.0")
        parallel += 1
        loop = f"{v}.1"
    else:
        tiles[v] = (blocks,)
        loop = f"{v}.0"
    point = f"{v}.{len(tiles[v])}"
    if column:
        order.append(f"{column.symbol}.0")
    host = order[-1] if order else None
    order += [loop, *inner, point]
    unroll.add(point)
    reduce_loops = [f"{a.symbol}.0" for a in reduction.reduce_axes]
    names = {a.symbol for a in reduction.axes}
    body = [f"{x.rsplit('.', 1)[0]}.0" for x in (*inner, point) if x.rsplit(".", 1)[0] in names]
    first = Schedule(
        (*reduce_loops, *body),
        unroll=frozenset((*body, *written)),
        vector=(f"{v}.0", width),
        at=(root.name, loop),
    )
    second = Schedule(
        tuple(order),
        tiles,
        parallel,
        frozenset(unroll),
        (point, width),
        peel=frozenset(peel),
        outline=host if column and host and order.index(host) >= parallel else None,
    )
    plan.kernel = replace(plan.kernel, schedules=(first, second))


def _written_out(reduction: Loops) -> list[str]:
    """The reduce loops, innermost ones first to be chosen, that are few enough steps to unroll."""
    written: list[str] = []
    steps = 1
    for a in reversed(reduction.reduce_axes):
        steps *= a.extent
        if steps > UNROLLED_TAPS:
            break
        written.append(f"{a.symbol}.0")
    return written


def _divisor(nest: Loops, axis: str) -> int:
    """By what an axis is divided in addresses and masks: the least number of points after which
    all remainders come again."""
    found = [1]
    for e in loads(nest):
        for i in (*e.index, *e.mask):
            for atom, _ in i.terms:
                if not isinstance(atom, str) and (c := abs(atom.numerator.coefficient(axis))):
                    found.append(atom.divisor // gcd(atom.divisor, c))
    return lcm(*found)


def _shared_axes(nest: Loops, axes: list[str]) -> dict[str, int]:
    """Output axes whose neighbouring points read overlapping windows, with their strides."""
    reduces = {a.symbol for a in nest.reduce_axes}
    found: dict[str, int] = {}
    for e in loads(nest):
        for i in e.index:
            for a in axes:
                if a in i.symbols and i.symbols & reduces:
                    found[a] = abs(i.coefficient(a))
    return found


def schedule_rows(plan: Plan) -> None:
    """One row at a time: every nest walks it with vectors where it is contiguous."""
    body = plan.kernel.body
    root = body[-1]
    shared = set.intersection(*({a.symbol for a in n.axes} for n in body))
    rows = [a for a in root.axes if a.symbol in shared]
    rest = [a for a in root.axes if a.symbol not in shared]
    schedules = []
    row_points = max(prod(a.extent for a in n.axes if a.symbol not in shared) for n in body)
    frame = Loops(tuple(rows), root.stores)
    order, tiles, parallel = _outer_loops(
        frame, None, max(1, POINTS // 4 // max(row_points, 1)), plan.caps
    )
    if not rows:
        order, tiles, parallel = [], {}, 0
    host = order[-1] if order else None
    for n, nest in enumerate(body):
        last = n == len(body) - 1
        inner = rest if last else [a for a in nest.axes if a.symbol not in shared]
        v = _row_vector(plan, nest, [a.symbol for a in inner])
        width = lanes(plan, nest)
        inner = sorted(inner, key=lambda a: a.symbol == v)
        parallel_first = sorted(inner, key=lambda a: (a.symbol == v, a.kind == "reduce"))
        loops = [f"{a.symbol}.0" for a in parallel_first]
        extra: dict[str, tuple[int, ...]] = {}
        vector: tuple[str, int] | None = None
        unroll = frozenset[str]()
        if v is not None and nest.axis(v).extent > 1:
            parts = 4 if nest.axis(v).kind == "reduce" and _light(nest) else 1
            extra[v] = (width * parts,)
            loops.append(f"{v}.1")
            vector, unroll = (f"{v}.1", width), frozenset((f"{v}.1",))
        if last:
            schedules.append(
                Schedule((*order, *loops), {**tiles, **extra}, parallel, unroll, vector)
            )
        else:
            at = (root.name, host if host else "")
            schedules.append(Schedule(tuple(loops), extra, 0, unroll, vector, at=at))
    plan.kernel = replace(plan.kernel, schedules=tuple(schedules))


def _row_vector(plan: Plan, nest: Loops, axes: list[str]) -> str | None:
    """The axis of a nest along which its loads (else its store) are contiguous."""
    scores: dict[str, int] = {}
    for e in loads(nest):
        address = plan.address(e.buffer, e.index)
        for a in axes:
            if address.coefficient(a) == 1 and address.is_affine_in(a):
                scores[a] = scores.get(a, 0) + 1
    for s in nest.stores:
        if s.reduce and s.reduce.monoid == "welford":
            return None
        address = plan.address(s.buffers[0], s.index)
        for a in axes:
            if address.coefficient(a) == 1 and address.is_affine_in(a):
                scores[a] = scores.get(a, 0) + 1
    return max(scores, key=lambda a: scores[a]) if scores else None
