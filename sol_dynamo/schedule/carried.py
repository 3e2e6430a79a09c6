"""The schedule of a contraction over much memory whose result is small: a convolution's gradient of
its weights, summed over all images and pixels.

Neither operand is packed, and neither fits in cache. So the sum is cut into chunks of both that do;
for each chunk all tiles of a unit's results are added to, which are in memory meanwhile:

    for chunk of k: for tile of (m, n): part = sum over the chunk; results[tile] += part

Chunks depend on sizes and caches alone, so that results do not depend on the number of cores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ..affine import Index
from ..ir import DTYPES, Axis, Buffer, Load, Loops, Schedule, Store
from .contraction import tile_size
from .nests import expr_symbols, map_leaves, product_factors
from .plan import Plan, even, lanes, vector_axis

NEAR = 8  # elements: points of a tile that are at most so far apart share lines
CHUNK = 256  # terms after which sums go to memory: few enough for L1, and for the sum's accuracy


@dataclass(frozen=True)
class Roles:
    """Lanes lie along `n`, where `b` is contiguous; a tile has points along `m`, of `a` alone."""

    a: Load
    b: Load
    n: Axis
    m: Axis | None
    others: tuple[Axis, ...]  # of the result


def schedule_carried(plan: Plan) -> bool:
    """Schedule out = f(sum over k of a * b) with sums in memory; False where that does not suit."""
    nest, root = plan.kernel.body
    r = _roles(plan)
    if r is None:
        return False
    width, size = lanes(plan, nest), DTYPES[r.b.dtype][0]
    columns = r.m.extent if r.m else 1
    vectors, points = tile_size(r.n.extent, columns, width, plan.caps, columns, 8)
    block = vectors * width
    blocks = -(-r.n.extent // block)
    units = min(plan.caps.units, 2 * plan.caps.cores)
    group = -(-blocks // units)
    shared = [r.n]
    for a in r.others:
        if prod(x.extent for x in shared[1:]) * -(-blocks // group) < units:
            shared.append(a)
    rows = columns + -(-blocks // plan.caps.units) * block
    chunk = max(1, min(CHUNK, plan.caps.l2 // 2 // (rows * size)))
    outside, inside, tiles = _chunks(nest.reduce_axes, chunk)

    nest, root = _in_memory(plan, nest, root, r, group * block)
    copies: list[tuple[Loops, Schedule]] = []
    if outside:
        held = {a.symbol: tiles.get(a.symbol, (a.extent,))[0] for a in nest.reduce_axes}
        held |= {loop.rpartition(".")[0]: 1 for loop in outside if loop[:-2] not in tiles}
        for e, along, count in ((r.b, r.n, group * block), (r.a, r.m, columns)):
            if along is not None and _is_plain(nest, e, along):
                at = nest.name, outside[-1]
                nest, copy, schedule = _staged(plan, nest, e, along, count, held, at)
                copies.append((copy, schedule))
    order = [*outside, *(f"{a.symbol}.0" for a in r.others), f"{r.n.symbol}.0"]
    unroll = [f"{r.n.symbol}.1"]
    tiles[r.n.symbol] = (block,)
    if r.m:
        tiles[r.m.symbol] = (points,)
        order.append(f"{r.m.symbol}.0")
        unroll.insert(0, f"{r.m.symbol}.1")
    tile = order[-1]
    parallel = [f"{a.symbol}.0" for a in shared]
    first = Schedule(
        (*order, *inside, *unroll),
        tiles,
        unroll=frozenset(unroll),
        vector=(unroll[-1], width),
        at=(root.name, parallel[-1]),
        fold={nest.name: group * block},
        outline=tile,
        carry=outside[-1] if outside else None,
    )
    rest = [f"{a.symbol}.0" for a in root.axes if a not in shared]
    second = Schedule(
        (*parallel, *rest, f"{r.n.symbol}.1"),
        {r.n.symbol: (group * block,)},
        len(parallel),
    )
    if vector_axis(plan, root) == r.n.symbol:
        lane = f"{r.n.symbol}.2"
        second = replace(
            second,
            order=(*second.order, lane),
            tile={r.n.symbol: (group * block, width)},
            unroll=frozenset((lane,)),
            vector=(lane, width),
        )
    body, schedules = (
        (*(c for c, _ in copies), nest, root),
        (*(c for _, c in copies), first, second),
    )
    plan.kernel = replace(plan.kernel, body=body, schedules=schedules)
    return True


def _roles(plan: Plan) -> Roles | None:
    """Who is who; None for what is packed, fits in cache, or has no lanes."""
    nest, root = plan.kernel.body
    (store,) = nest.stores
    loads = [f for f in product_factors(store.values[0]) or () if isinstance(f, Load)]
    if len(loads) != 2 or store.reduce is None or store.reduce.init:
        return None
    if len(nest.reduce_axes) < 2 and prod(a.extent for a in nest.reduce_axes) < 4 * CHUNK:
        return None
    if any(plan.buffers[x.buffer].scope == "weight" for x in loads):
        return None
    if sum(_bytes(plan, nest, x) for x in loads) <= plan.caps.l2:
        return None
    found: list[tuple[int, Roles]] = []
    for a, b in (loads, loads[::-1]):
        of_a, of_b = expr_symbols(a), expr_symbols(b)
        address = plan.address(b.buffer, b.index)
        mine = [x for x in root.axes if x.symbol in of_b - of_a]
        ns = [x for x in mine if address.coefficient(x.symbol) == 1]
        if len(ns) != 1 or {s for m in b.mask for s in m.symbols} & {ns[0].symbol}:
            continue
        step = plan.address(a.buffer, a.index)
        masked = {s for m in a.mask for s in m.symbols}
        ms = [x for x in root.axes if x.symbol in of_a - of_b and x.symbol not in masked]
        m = min(ms, key=lambda x: (x.extent < 4, abs(step.coefficient(x.symbol))), default=None)
        if m is not None and abs(step.coefficient(m.symbol)) > NEAR:
            continue
        others = tuple(x for x in root.axes if x not in (ns[0], m))
        found.append((ns[0].extent, Roles(a, b, ns[0], m, others)))
    if not found:
        return None
    wide = lanes(plan, nest) * 2
    return max(found, key=lambda f: (min(f[0], wide), f[0]))[1]  # units read all of `a`


def _bytes(plan: Plan, nest: Loops, x: Load) -> int:
    symbols = {s for i in x.index for s in i.symbols}
    return prod(a.extent for a in nest.axes if a.symbol in symbols) * DTYPES[x.dtype][0]


def _chunks(axes: tuple[Axis, ...], points: int) -> tuple[list[str], list[str], dict]:
    """Loops over chunks of at most so many points, the loops in a chunk, and how axes are cut."""
    outside: list[str] = []
    inside: list[str] = []
    tiles: dict[str, tuple[int, ...]] = {}
    size = 1
    for a in reversed(axes):
        if not outside and size * a.extent <= points:
            inside.insert(0, f"{a.symbol}.0")
            size *= a.extent
            continue
        piece = even(a.extent, max(1, points // size)) if not outside else 1
        outside.insert(0, f"{a.symbol}.0")
        if piece > 1:
            tiles[a.symbol] = (piece,)
            inside.insert(0, f"{a.symbol}.1")
    return outside, inside, tiles


def _in_memory(plan: Plan, nest: Loops, root: Loops, r: Roles, rows: int) -> tuple[Loops, Loops]:
    """The sum's local buffer with `n` first, of which `rows` are kept, innermost in memory; then
    the tile's points."""
    (store,) = nest.stores
    (name,) = store.buffers
    axes = [r.n, *r.others, *([r.m] if r.m else [])]
    place = tuple(Index.of(a.symbol) for a in axes)
    strides, step = [1], rows
    for a in reversed(axes[1:]):
        strides.insert(1, step)
        step *= a.extent
    old = plan.buffers[name]
    plan.buffers[name] = replace(old, shape=tuple(a.extent for a in axes), strides=tuple(strides))

    def leaf(e, _: object):
        return Load(name, place, e.dtype) if isinstance(e, Load) and e.buffer == name else e

    return replace(nest, stores=(replace(store, index=place),)), map_leaves(root, leaf)


def _is_plain(nest: Loops, e: Load, along: Axis) -> bool:
    """Whether an operand is read without a mask, at an affine address of the sum's axes and one of
    the result's."""
    axes = {along.symbol, *(a.symbol for a in nest.reduce_axes)}
    return not e.mask and all(atom in axes for i in e.index for atom, _ in i.terms)


def _staged(
    plan: Plan,
    nest: Loops,
    e: Load,
    along: Axis,
    count: int,
    held: dict[str, int],
    at: tuple[str, str],
) -> tuple[Loops, Loops, Schedule]:
    """... e[k, along] ...  ==>  copy[k, along] = e[k, along] for a chunk; ... copy[k, along] ...

    Rows of the copy lie next to each other, where the operand's are so far apart that lines of them
    displace each other, and that no prefetcher follows them.
    """
    name = f"{nest.name}_{e.buffer}_chunk"
    width = lanes(plan, nest)
    symbols = {s for i in e.index for s in i.symbols}
    axes = [
        *(replace(a, kind="parallel") for a in nest.axes if a.symbol in symbols - {along.symbol})
    ]
    axes.append(along)
    strides = [1]
    step = -(-count // 16) * 16
    step += 16 if step % 64 == 0 else 0  # else lines of one column fall on few sets
    for a in reversed(axes[:-1]):
        strides.insert(0, step)
        step *= held[a.symbol]
    shape = tuple(a.extent for a in axes)
    plan.buffers[name] = Buffer(name, e.dtype, shape, tuple(strides), scope="local")
    place = tuple(Index.of(a.symbol) for a in axes)
    new = Load(name, place, e.dtype)
    copy = Loops(tuple(axes), (Store((name,), place, (e,)),))
    lane = f"{along.symbol}.1"
    schedule = Schedule(
        (*(f"{a.symbol}.0" for a in axes), lane),
        {along.symbol: (width,)},
        unroll=frozenset((lane,)),
        vector=(lane, width),
        at=at,
    )
    return map_leaves(nest, lambda x, _: new if x is e else x), copy, schedule


__all__ = ["schedule_carried"]
