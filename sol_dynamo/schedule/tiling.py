"""How each kernel is walked: a schedule for every nest, chosen from its axes and the capabilities.

A kernel is a contraction (a register tile of M points by N vectors), a window (depthwise, pooling:
vectors along an axis that every operand has), rows (softmax, norms, row sums: one row at a time,
vectors along it) or pointwise. Axes that lie next to each other in every address are fused first.
The figures behind the constants stand in benchmarks/RESULTS.md.
One file so far: the four kinds of kernels share the normal form that stands first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ..affine import Index
from ..ir import (
    DTYPES,
    Axis,
    Buffer,
    Expr,
    Extern,
    Kernel,
    Load,
    Loops,
    Op,
    Program,
    Schedule,
    Store,
    expressions,
    loads,
    walk,
)
from ..target import Caps
from .fusion import (
    drop_unit_axes,
    expr_symbols,
    is_contraction,
    map_leaves,
    product_factors,
    split_of,
    substitute,
)

UNIT_FLOPS = 1 << 17  # work of one unit: a few us, so that claiming it costs nothing
MAX_UNITS = 32  # units of a kernel: enough to balance threads, few enough to stay in cache
UNROLLED_TAPS = 25  # windows up to 5x5 are written out
LONG_SUM = 256  # terms from which a contraction sums in parts: eager's kernels do so too
PART = 128
PACKED_POINTS = 8  # uses of each element from which a copy in the order of the walk pays
POINTS = 1 << 14  # points of a pointwise unit


@dataclass
class Plan:
    """A kernel being scheduled, with the program's buffers to add to."""

    kernel: Kernel
    buffers: dict[str, Buffer]
    packs: list[Loops]
    caps: Caps
    copies: list[Kernel]

    def address(self, buffer: str, index: tuple[Index, ...]) -> Index:
        return self.buffers[buffer].address(index)


def tile(program: Program, caps: Caps) -> Program:
    """Choose schedules for all kernels; weights of contractions are packed for theirs."""
    buffers, packs = dict(program.buffers), list(program.packs)
    kernels: list[Kernel | Extern] = []
    packed: dict = {}
    copies: list[Kernel] = []  # of inputs that are used as weights are, before all else
    for k in program.kernels:
        if isinstance(k, Extern):
            kernels.append(k)
            continue
        plan = Plan(k, buffers, packs, caps, copies)
        normalize(plan)
        schedule_kernel(plan, packed)
        kernels.append(plan.kernel)
    for n, k in enumerate(copies):
        plan = Plan(k, buffers, packs, caps, [])
        schedule_pointwise(plan)
        copies[n] = plan.kernel
    shift = len(copies)
    bands = [replace(d, first=d.first + shift, last=d.last + shift) for d in program.depth_first]
    return replace(
        program,
        buffers=buffers,
        kernels=(*copies, *kernels),
        packs=tuple(packs),
        depth_first=tuple(bands),
    )


# -- normal form -----------------------------------------------------------------------------


def normalize(plan: Plan) -> None:
    """The last nest is pointwise, rows have the same axis names in every nest, axes of extent 1
    are constants, and neighbouring axes are fused."""
    k = plan.kernel
    if any(s.reduce for s in k.body[-1].stores) and not scan_axis(k.body[-1]):
        k = _with_root(plan, k)
    k = replace(k, body=tuple(drop_unit_axes(n) for n in k.body))
    k = replace(k, body=tuple(_split_reduce_axes(n) for n in k.body))
    k = _unify(plan, k)
    plan.kernel = _collapse(plan, k)


def _with_root(plan: Plan, k: Kernel) -> Kernel:
    """out[i] sum= ...  ==>  acc[i] sum= ...; out[i] = acc[i]"""
    nest = k.body[-1]
    stores, copies = [], []
    for s in nest.stores:
        if not s.reduce:
            stores.append(s)
            continue
        names = []
        for b in s.buffers:
            old = plan.buffers[b]
            acc = replace(
                old,
                name=f"{b}_acc",
                base=None,
                offset=0,
                scope="local",
                dtype=s.reduce.acc_dtype
                if old.dtype != "i64" or len(s.buffers) == 1
                else old.dtype,
                strides=_contiguous(old.shape),
            )
            plan.buffers[acc.name] = acc
            names.append(acc.name)
            value: Expr = Load(acc.name, s.index, acc.dtype)
            if acc.dtype != old.dtype:
                value = Op("cast", (value,), old.dtype)
            copies.append(Store((b,), s.index, (value,)))
        stores.append(replace(s, buffers=tuple(names)))
    used = {x for s in copies for i in s.index for x in i.symbols}
    root = Loops(tuple(a for a in nest.axes if a.symbol in used), tuple(copies))
    return replace(k, body=(*k.body[:-1], replace(nest, stores=tuple(stores)), root))


def _contiguous(shape):
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def _split_reduce_axes(nest: Loops) -> Loops:
    """x[k % 2 * 24 + k // 2] over k  ==>  x[k0 * 24 + k1] over k0, k1: a shuffle is an order."""
    for a in nest.reduce_axes:
        divisors = {
            atom.divisor
            for e in loads(nest)
            for i in e.index
            for atom, _ in i.terms
            if not isinstance(atom, str) and split_of(atom) == a.symbol
        }
        d = min(divisors, default=1)
        if d <= 1 or a.extent % d:
            continue
        outer, inner = (
            Axis(f"{a.symbol}_mod", d, "reduce"),
            Axis(f"{a.symbol}_div", a.extent // d, "reduce"),
        )
        at = [x.symbol for x in nest.axes].index(a.symbol)
        axes = (*nest.axes[:at], outer, inner, *nest.axes[at + 1 :])
        point = Index({inner.symbol: d, outer.symbol: 1})
        nest = substitute(nest, {a.symbol: point}, axes)
        ranges = {x.symbol: (0, x.extent - 1) for x in axes}

        def leaf(e: Expr, _, ranges=ranges) -> Expr:
            if not isinstance(e, Load):
                return e
            return Load(
                e.buffer, tuple(i.simplify(ranges) for i in e.index), e.dtype, e.mask, e.other
            )

        nest = map_leaves(nest, leaf)
    return nest


def _unify(plan: Plan, k: Kernel) -> Kernel:
    """Rename every nest's output axes as the root's of the same dimension, reduce axes apart."""
    root = k.body[-1]
    names = [next(iter(i.symbols)) if i.symbols else None for i in root.stores[0].index]
    plain = all(
        i.is_const or i == Index.of(n) for i, n in zip(root.stores[0].index, names, strict=True)
    )
    body = []
    for n, nest in enumerate(k.body[:-1]):
        index = nest.stores[0].index
        new: dict[str, str] = {}
        if plain and len(index) == len(names):
            for i, name in zip(index, names, strict=True):
                if name and i.symbols and i == Index.of(next(iter(i.symbols))):
                    new[next(iter(i.symbols))] = name
        for a in nest.axes:
            if a.symbol not in new:
                new[a.symbol] = a.symbol if len(k.body) == 2 else f"{a.symbol}_{n}"
        kept = {x for i in index for x in i.symbols if x in new}
        taken = {new[x] for x in kept}
        for x in new:
            if x not in kept and new[x] in taken:
                new[x] = f"{new[x]}_{n}"
        axes = tuple(replace(a, symbol=new[a.symbol]) for a in nest.axes)
        body.append(substitute(nest, new, axes))
    return replace(k, body=(*body, root))


def _collapse(plan: Plan, k: Kernel) -> Kernel:
    """Fuse root axes that are neighbours in every address: n, h, w of a 1x1 convolution are one."""
    root = k.body[-1]
    store = root.stores[0]
    axes = [a for a in root.axes]
    out = plan.address(store.buffers[0], store.index)
    axes.sort(key=lambda a: -out.coefficient(a.symbol))
    k = replace(k, body=(*k.body[:-1], replace(root, axes=tuple(axes))))
    n = len(axes) - 1
    while n > 0:
        outer, inner = axes[n - 1], axes[n]
        if _fusable(plan, k, outer, inner):
            k, fused = _fuse(plan, k, outer, inner)
            axes[n - 1 : n + 1] = [fused]
        n -= 1
    return k


def _locals(plan: Plan, k: Kernel) -> set[str]:
    return {
        b for n in k.body for s in n.stores for b in s.buffers if plan.buffers[b].scope == "local"
    }


def _fusable(plan: Plan, k: Kernel, outer: Axis, inner: Axis) -> bool:
    a, b, n = outer.symbol, inner.symbol, inner.extent
    if {outer.kind, inner.kind} != {"parallel"}:
        return False
    local = _locals(plan, k)
    walked = {
        e.buffer
        for nest in k.body
        for e in loads(nest)
        if e.buffer in local and any(i.symbols & {a, b} for i in e.index)
    }
    for nest in k.body:
        touched = {e.buffer for e in loads(nest)} | {x for s in nest.stores for x in s.buffers}
        if touched & walked and not {a, b} <= {x.symbol for x in nest.axes}:
            return False
        present = {x.symbol for x in nest.axes} & {a, b}
        if len(present) == 1 or nest.binds:
            return False
        if not present:
            continue
        for e in walk(*expressions(nest)):
            if isinstance(e, Load):
                if any(m.symbols & present for m in e.mask):
                    return False
                if e.buffer in local:
                    if not _both_or_neither(e.index, a, b):
                        return False
                    continue
                if not _proportional(plan.address(e.buffer, e.index), a, b, n):
                    return False
            elif not isinstance(e, Op) and hasattr(e, "index") and e.index.symbols & present:
                return False
        for s in nest.stores:
            if any(m.symbols & present for m in s.mask):
                return False
            if s.buffers[0] in local:
                if not _both_or_neither(s.index, a, b):
                    return False
            elif not all(_proportional(plan.address(x, s.index), a, b, n) for x in s.buffers):
                return False
    return True


def _both_or_neither(index, a: str, b: str) -> bool:
    plain = {
        next(iter(i.symbols)) for i in index if i.symbols and i == Index.of(next(iter(i.symbols)))
    }
    return (a in plain) == (b in plain) and all(i.is_const or i.symbols <= plain for i in index)


def _proportional(address: Index, a: str, b: str, n: int) -> bool:
    if not (address.is_affine_in(a) and address.is_affine_in(b)):
        return False
    return address.coefficient(a) == address.coefficient(b) * n


def _fuse(plan: Plan, k: Kernel, outer: Axis, inner: Axis) -> tuple[Kernel, Axis]:
    a, b, n = outer.symbol, inner.symbol, inner.extent
    fused = Axis(f"{a}{b}", outer.extent * n)
    f = Index.of(fused.symbol)
    values = {a: f // n, b: f % n}
    local = _locals(plan, k)
    merged: dict[str, tuple[int, int]] = {}
    body = []

    def drop(name: str, index: tuple[Index, ...]) -> tuple[Index, ...]:
        if not any(i == Index.of(b) for i in index):
            return index
        at = index.index(Index.of(b))
        merged[name] = (index.index(Index.of(a)), at)
        new = [f if i == Index.of(a) else i for i in index]
        del new[at]
        return tuple(new)

    for nest in k.body:
        if not {x.symbol for x in nest.axes} & {a, b}:
            body.append(nest)
            continue

        def leaf(e: Expr, _) -> Expr:
            if isinstance(e, Load) and e.buffer in local:
                return Load(e.buffer, drop(e.buffer, e.index), e.dtype, e.mask, e.other)
            return e

        nest = map_leaves(nest, leaf)
        stores = tuple(
            replace(s, index=drop(s.buffers[0], s.index)) if s.buffers[0] in local else s
            for s in nest.stores
        )
        for s in nest.stores:
            if s.buffers[0] in merged:
                merged.update(dict.fromkeys(s.buffers, merged[s.buffers[0]]))
        axes = [x for x in nest.axes if x.symbol != b]
        axes[[x.symbol for x in axes].index(a)] = fused
        body.append(substitute(replace(nest, stores=stores), values, tuple(axes)))
    for name, (kept, gone) in merged.items():
        old = plan.buffers[name]
        shape = list(old.shape)
        shape[kept] *= shape[gone]
        del shape[gone]
        plan.buffers[name] = replace(old, shape=tuple(shape), strides=_contiguous(shape))
    return replace(k, body=tuple(body)), fused


# -- choosing --------------------------------------------------------------------------------


def schedule_kernel(plan: Plan, packed: dict) -> None:
    k = plan.kernel
    nests = k.body
    if any(0 in [a.extent for a in n.axes if a.kind == "parallel"] for n in nests):
        plan.kernel = replace(k, body=())
        return
    if scan_axis(nests[-1]):
        schedule_scan(plan)
    elif len(nests) == 2 and is_contraction(nests[0]):
        schedule_contraction(plan, packed)
    elif len(nests) == 1:
        schedule_pointwise(plan)
    elif len(nests) == 2 and _vector_axis(plan, nests[-1]) in {a.symbol for a in nests[0].axes}:
        schedule_window(plan)
    else:
        schedule_rows(plan)


def _vector_axis(plan: Plan, nest: Loops) -> str | None:
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


def schedule_pointwise(plan: Plan) -> None:
    """Units of some points; vectors along the output's contiguous axis."""
    (nest,) = plan.kernel.body
    v = _vector_axis(plan, nest)
    order, tiles, parallel = _outer_loops(nest, v, POINTS)
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


def scan_axis(nest: Loops) -> Axis | None:
    return next((a for a in nest.axes if a.kind == "scan"), None)


def schedule_scan(plan: Plan) -> None:
    """Independent scans as units, with vectors across them where they lie side by side; positions
    in order, and what a position reduces inside it."""
    (nest,) = plan.kernel.body
    scan = scan_axis(nest)
    assert scan is not None
    side = Loops(tuple(a for a in nest.axes if a.kind == "parallel"), nest.stores)
    v = _vector_axis(plan, side)
    depth = max(prod(a.extent for a in nest.axes if a.kind != "parallel"), 1)
    order, tiles, parallel = _outer_loops(side, v, max(POINTS // depth, 1))
    inside = [f"{scan.symbol}.0", *(f"{a.symbol}.0" for a in nest.reduce_axes)]
    vector, unroll = None, frozenset()
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


def _outer_loops(nest: Loops, vector: str | None, points: int) -> tuple[list[str], dict, int]:
    """Loops outside the vector axis, cut into at most MAX_UNITS units of at least `points`."""
    axes = [a for a in nest.axes if a.symbol != vector]
    inner = nest.axis(vector).extent if vector else 1
    total = prod(a.extent for a in axes) * inner
    units = max(1, min(MAX_UNITS, total // points))
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
    tile of neighbouring pixels, small windows written out."""
    reduction, root = plan.kernel.body
    v = _vector_axis(plan, root)
    width = lanes(plan, reduction)
    taps = prod(a.extent for a in reduction.reduce_axes)
    spatial = [a for a in root.axes if a.symbol != v]
    masks = {s for e in loads(reduction) for m in e.mask for s in m.symbols}
    small = taps <= UNROLLED_TAPS
    overlap = _shared_axes(reduction, [a.symbol for a in spatial])
    tiles: dict[str, tuple[int, ...]] = {}
    order: list[str] = []
    unroll: set[str] = set()
    peel: set[str] = set()
    inner: list[str] = []
    column = spatial[-1] if spatial and (spatial[-1].symbol in overlap and small) else None
    row = spatial[-2] if column and len(spatial) > 1 and spatial[-2].symbol in overlap else None
    if column:
        stride = overlap[column.symbol]
        tc = 4 if column.extent >= 56 or column.extent % 7 else 7
        if stride > 1 or taps > 9:
            tc = min(tc, 4) if column.extent % 7 else 7
        tiles[column.symbol] = (even(column.extent, tc),)
        unroll.add(f"{column.symbol}.1")
        inner.append(f"{column.symbol}.1")
        if column.symbol in masks:
            peel.add(f"{column.symbol}.0")
        if row and overlap[row.symbol] == 1 and row.extent % 2 == 0 and taps <= 9:
            tiles[row.symbol] = (2,)
            unroll.add(f"{row.symbol}.1")
            inner.insert(0, f"{row.symbol}.1")
    work = prod(a.extent for a in root.axes) * taps
    units = max(1, min(MAX_UNITS, work // (UNIT_FLOPS // 16)))
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
        unroll=frozenset((*body, *(reduce_loops if small else ()))),
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
        outline=host
        if column and parallel < len(order) and order.index(host) >= parallel
        else None,
    )
    plan.kernel = replace(plan.kernel, schedules=(first, second))


def _shared_axes(nest: Loops, axes: list[str]) -> dict[str, int]:
    """Output axes whose neighbouring points read overlapping windows, with their strides."""
    reduces = {a.symbol for a in nest.reduce_axes}
    found = {}
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
    order, tiles, parallel = _outer_loops(frame, None, max(1, POINTS // 4 // max(row_points, 1)))
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
        vector, unroll = None, frozenset()
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


# -- contractions ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Roles:
    """Who uses each axis: m output and A, n output and B, k neither output, batch all three."""

    a: Expr
    b: Expr
    m: tuple[Axis, ...]
    n: Axis
    k: tuple[Axis, ...]
    batch: tuple[Axis, ...]


def roles(plan: Plan) -> Roles | None:
    nest, root = plan.kernel.body
    a, b = product_factors(nest.stores[0].values[0])
    v = _packable_axis(plan, nest, a, b) or _vector_axis(plan, root)
    if v is None or v not in {x.symbol for x in nest.axes}:
        return None
    if v in expr_symbols(a):
        a, b = b, a
    if v in expr_symbols(a) or not isinstance(b, Load):
        return None
    in_a, in_b = expr_symbols(a), expr_symbols(b)
    outputs = [x for x in root.axes if x.symbol != v]
    batch = tuple(x for x in outputs if x.symbol in in_b)
    m = tuple(x for x in outputs if x.symbol not in in_b)
    del in_a
    return Roles(a, b, m, root.axis(v), nest.reduce_axes, batch)


def _packable_axis(plan: Plan, nest: Loops, a: Expr, b: Expr) -> str | None:
    """The output axis of the weights alone: packed, they are contiguous along it, and the output
    may have any strides (a convolution's result as the user sees it: lanes are stored one by one).
    """
    for mine, other in ((a, b), (b, a)):
        if isinstance(mine, Load) and plan.buffers[mine.buffer].scope == "weight":
            own = [x for x in nest.axes if x.symbol in expr_symbols(mine) - expr_symbols(other)]
            if len(own) == 1 and own[0].kind == "parallel":
                return own[0].symbol
    return None


def tile_size(
    n: int, m: int, width: int, most: int, aliased: bool, widest: int = 8
) -> tuple[int, int]:
    """(vectors, points) of the register tile: the fewest FMA cycles for n by m outputs.

    A step of k issues vectors * points FMAs on two pipes, and vectors + points loads on two ports;
    8 FMAs must be in flight. Ties go to the larger tile, which loads less.
    """
    best, choice = None, (1, 1)
    for nv in (1, 2, 3, 4, 6, 8):
        if nv > 1 and ((nv - 1) * width >= n or nv > widest):
            continue
        for points in range(1, min(m, most // nv, 7 if aliased else most) + 1):
            size = even(m, points)
            if size != points:
                continue
            cost = 0.0
            for block, count in ((nv * width, n // (nv * width)), (n % (nv * width), 1)):
                if not block or not count:
                    continue
                vectors = -(-block // width)
                for p, times in ((points, m // points), (m % points, 1)):
                    if p:
                        fma = max(vectors * p / 2, 4.0)
                        cost += count * times * (max(fma, (vectors + p) / 2) + 0.5)
            key = (cost, -nv * points)
            if best is None or key < best:
                best, choice = key, (nv, points)
    return choice


def schedule_contraction(plan: Plan, packed: dict) -> None:
    """A register tile of points by vectors, K innermost, bands of tiles as units."""
    r = roles(plan)
    if r is None:
        schedule_fallback(plan)
        return
    nest, root = plan.kernel.body
    width = lanes(plan, nest)
    n = r.n.extent
    column = r.m[-1] if r.m else None
    points = column.extent if column else 1
    prologue = not isinstance(r.a, Load)
    step = (
        abs(_address_step(plan, r.a, column)) * DTYPES[nest.stores[0].values[0].dtype][0]
        if column
        else 0
    )
    aliased = step % 4096 == 0 and step > 0 and not prologue
    column_bytes = prod(a.extent for a in r.k) * width * DTYPES[r.b.dtype][0]
    widest = max(1, plan.caps.l2 * 3 // 8 // column_bytes)  # two blocks of weights stay in L2
    nv, tc = tile_size(n, points, width, plan.caps.max_accumulators, aliased, widest)
    nb = nv * width
    if _packs(plan, r):
        nest = _pack(plan, r, nest, nb, packed)
    size = DTYPES[nest.stores[0].values[0].dtype][0]
    kk = prod(a.extent for a in r.k)
    weight_bytes = kk * n * size
    work = 2 * kk * n * prod(a.extent for a in (*r.m, *r.batch))
    units = max(1, min(MAX_UNITS, work // UNIT_FLOPS))
    blocks = -(-n // nb)
    c, v = (column.symbol if column else None), r.n.symbol
    flat = column is not None and len(r.m) == 1
    rows = r.m[-2] if len(r.m) > 1 else None
    bands = -(-points // tc) if flat else rows.extent if rows else 1
    outer = [a for a in (*r.batch, *r.m[:-2]) if a.symbol]
    done = prod(a.extent for a in outer)
    per = max(1, -(-units // done))  # units wanted of each outer point
    heavy = weight_bytes > plan.caps.l2 // 2
    split_n = blocks > 1 and ((heavy and blocks >= 4) or bands < min(per, 4))
    group = max(1, -(-blocks // (per if heavy else -(-per // bands)))) if split_n else blocks
    pieces = max(1, min(bands, per if not split_n else max(1, per // -(-blocks // group))))
    if heavy and split_n:
        pieces = max(1, min(bands, per // -(-blocks // group)))
    band = -(-bands // pieces)
    depth = kk * size * (tc if flat else points)  # bytes of activations that one band row reads
    band = max(1, min(band, max(1, plan.caps.l2 // 3 // max(depth, 1))))
    inner_weights = weight_bytes <= plan.caps.l2 // 4 and len(r.k) == 1  # all of B stays in cache

    tiles: dict[str, tuple[int, ...]] = {}
    order = [f"{a.symbol}.0" for a in outer]
    par = len(order)
    if split_n and group < blocks:
        tiles[v] = (group * nb, nb)
        order.append(f"{v}.0")
        par += 1
        nl = f"{v}.1"
    else:
        tiles[v] = (nb,)
        nl = f"{v}.0"
    npoint = f"{v}.{len(tiles[v])}"
    peel: set[str] = set()
    if column is None:
        order += [nl, npoint]
        host, unroll = nl, {npoint}
    else:
        masked = {s for e in loads(nest) for m in e.mask for s in m.symbols}
        if flat:
            tiles[c] = (band * tc, tc)
            order.append(f"{c}.0")
            par += 1
            ml, mpoint, before = f"{c}.1", f"{c}.2", f"{c}.0"
            order += [ml, nl] if inner_weights and not prologue else [nl, ml]
        else:
            h = rows.symbol
            before = f"{h}.0"
            tiles[h] = (band,)
            order.append(before)
            par += 1
            tiles[c] = (tc,)
            ml, mpoint = f"{c}.0", f"{c}.1"
            order += [f"{h}.1", ml, nl] if inner_weights and not prologue else [nl, f"{h}.1", ml]
            if c in masked:
                peel.add(ml)
        host = order[-1]
        order += [mpoint, npoint]
        unroll = {mpoint, npoint}
    taps = [a for a in r.k if a.extent < 16]
    deep = [a for a in r.k if a.extent >= 16]
    if not deep and taps:
        deep = [max(reversed(taps), key=lambda a: a.extent)]
        taps = [a for a in taps if a is not deep[0]]
    elif len(deep) > 1:
        taps, deep = [*taps, *deep[:-1]], deep[-1:]
    inside = [f"{c}.0"] if column else []
    inside.append(f"{v}.0")
    reduce_loops = [f"{a.symbol}.0" for a in (*taps, *deep)]
    partial, cuts = None, {}
    if kk >= LONG_SUM and deep[0].extent > 2 * PART:
        cuts = {deep[0].symbol: (even(deep[0].extent, PART),)}
        partial = reduce_loops[-1]
        reduce_loops.append(f"{deep[0].symbol}.1")
    elif kk >= LONG_SUM and taps and deep[0].extent >= PART // 8:
        partial = reduce_loops[-2]
    first = Schedule(
        (*reduce_loops, *inside),
        cuts,
        unroll=frozenset(inside),
        vector=(f"{v}.0", width),
        at=(root.name, host),
        partial=partial,
    )
    second = Schedule(
        tuple(order),
        tiles,
        par,
        frozenset(unroll),
        (npoint, width),
        peel=frozenset(peel),
        outline=host,
        ahead=None if host == nl else nl if group > 1 else f"{v}.0",
    )
    body, schedules = [nest, root], [first, second]
    if prologue and column is not None and flat:
        staged = _stage(plan, nest, root, r, before, band * tc, width)
        if staged is not None:
            producer, nest, schedule = staged
            body, schedules = [producer, nest, root], [schedule, first, second]
    plan.kernel = replace(plan.kernel, body=tuple(body), schedules=tuple(schedules))


def _address_step(plan: Plan, e: Expr, axis: Axis) -> int:
    steps = [
        plan.address(x.buffer, x.index).coefficient(axis.symbol)
        for x in walk(e)
        if isinstance(x, Load)
    ]
    return max(steps, key=abs, default=0)


def _packs(plan: Plan, r: Roles) -> bool:
    """Weights always, once; inputs that are scattered along N, at each call, where that pays."""
    scope = plan.buffers[r.b.buffer].scope
    step = plan.address(r.b.buffer, r.b.index).coefficient(r.n.symbol)
    scattered = step != 1 and prod(a.extent for a in r.m) >= PACKED_POINTS
    along = {a.symbol for a in (*r.batch, *r.k, r.n)}
    if not {s for i in (*r.b.index, *r.b.mask) for s in i.symbols} <= along:
        return False
    return scope == "weight" or (scope == "input" and scattered)


def _pack(plan: Plan, r: Roles, nest: Loops, nb: int, packed: dict) -> Loops:
    """B[k..., n] ==> packed[n // nb][k...][n % nb], contiguous in the order of the walk."""
    n, count = r.n, -(-r.n.extent // nb)
    taps = [a for a in r.k if a.extent < 16]
    deep = [a for a in r.k if a.extent >= 16]
    ks = [*taps, *deep] if deep else list(r.k)
    others = [a for a in r.batch]
    shape = (*(a.extent for a in others), count, *(a.extent for a in ks), nb)
    key = (r.b, shape)
    if key not in packed:
        name, once = f"{plan.kernel.name}_packed", plan.buffers[r.b.buffer].scope == "weight"
        scope = "weight" if once else "arena"
        plan.buffers[name] = Buffer(name, r.b.dtype, shape, _contiguous(shape), scope=scope)
        block, lane = Index.of("block"), Index.of("lane")
        point = block * nb + lane
        mask = [m.subst({n.symbol: point}) for m in r.b.mask]
        if n.extent % nb:
            mask.append(n.extent - 1 - point)
        index = tuple(i.subst({n.symbol: point}) for i in r.b.index)
        axes = (*others, Axis("block", count), *ks, Axis("lane", nb))
        axes = tuple(replace(a, kind="parallel") for a in axes)
        other = 0.0 if r.b.other is None else r.b.other
        value = Load(r.b.buffer, index, r.b.dtype, tuple(mask), other)
        where = (
            *(Index.of(a.symbol) for a in others),
            block,
            *(Index.of(a.symbol) for a in ks),
            lane,
        )
        copy = Loops(axes, (Store((name,), where, (value,)),))
        if once:
            plan.packs.append(copy)
        else:
            why = "moves data: an input that is used as weights are, in the order of its walk"
            plan.copies.append(Kernel(name, (copy,), origin=plan.kernel.origin, note=why))
        packed[key] = name
    name = packed[key]
    v = Index.of(n.symbol)
    index = (
        *(Index.of(a.symbol) for a in others),
        v // nb,
        *(Index.of(a.symbol) for a in ks),
        v % nb,
    )
    new = Load(name, index, r.b.dtype)

    def leaf(e: Expr, _) -> Expr:
        return new if e is r.b else e

    return map_leaves(nest, leaf)


def _stage(plan: Plan, nest: Loops, root: Loops, r: Roles, at: str, band: int, width: int):
    """contraction of f(x) ==> per band: staged = f(x); contraction of staged."""
    c = r.m[-1]
    deep = list(r.k)
    if len(deep) != 1 or {s for s in expr_symbols(r.a)} - {c.symbol, deep[0].symbol}:
        return None
    depth = deep[0].extent
    pitch = -(-depth // 256) * 256 + 16  # never a multiple of 4 KB between points; few variants
    name = f"{plan.kernel.name}_staged"
    plan.buffers[name] = Buffer(name, r.a.dtype, (c.extent, depth), (pitch, 1), scope="local")
    i, k = Index.of(c.symbol), Index.of(deep[0].symbol)
    producer = Loops(
        (Axis(c.symbol, c.extent), Axis(deep[0].symbol, depth)), (Store((name,), (i, k), (r.a,)),)
    )
    load = Load(name, (i, k), r.a.dtype)
    store = nest.stores[0]
    other = next(f for f in product_factors(store.values[0]) if f is not r.a)
    value = Op("mul", (load, other), r.a.dtype)
    nest = replace(nest, stores=(replace(store, values=(value,)),))
    v = deep[0].symbol
    schedule = Schedule(
        (f"{c.symbol}.0", f"{v}.0", f"{v}.1"),
        {v: (2 * width,)},
        unroll=frozenset((f"{v}.1",)),
        vector=(f"{v}.1", width),
        at=(root.name, at),
        fold={name: band},
    )
    return producer, nest, schedule


def schedule_fallback(plan: Plan) -> None:
    """A contraction without a register tile: one output at a time, K innermost."""
    schedule_rows(plan)
