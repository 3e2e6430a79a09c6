"""The schedule of a contraction: who uses each axis, the register tile, and how tiles are walked.

A tile is `points` of M by a block of N, whole vectors, with K innermost; weights are packed once in
the order of that walk, so that they are read as a stream. A unit of work is a band of M by a group
of blocks, small enough that what it reads stays in L2. One mechanism for convolution (grouped,
dilated, strided), linear, matmul and bmm; it asks the capabilities for every size.
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
    Kernel,
    Load,
    Loops,
    Op,
    Schedule,
    Store,
    contiguous,
    loads,
    walk,
)
from ..target import Caps
from .nests import expr_symbols, map_leaves, product_factors
from .plan import Plan, even, lanes, vector_axis

LONG_SUM = 256  # terms from which a contraction sums in parts: eager's kernels do so too
PART = 128
PACKED_POINTS = 8  # uses of each element from which a copy in the order of the walk pays
STAGED_POINTS = 128  # the same for one that is brought together element by element
TAPS = 16  # shorter reduce axes are the window of a convolution, longer ones its channels


@dataclass(frozen=True)
class Roles:
    """Who uses each axis: m output and A, n output and B, k neither output, batch all three."""

    a: Expr
    b: Load
    m: tuple[Axis, ...]
    n: Axis
    k: tuple[Axis, ...]
    batch: tuple[Axis, ...]
    across: bool = False  # A's terms lie far apart in memory, as a transposed matrix's do

    @property
    def taps(self) -> tuple[Axis, ...]:
        return tuple(a for a in self.k if a.extent < TAPS)

    @property
    def deep(self) -> tuple[Axis, ...]:
        return tuple(a for a in self.k if a.extent >= TAPS)

    @property
    def outer(self) -> tuple[Axis, ...]:
        """The axes outside of rows and columns: one point of them at a time."""
        return (*self.batch, *self.m[:-2])

    @property
    def staged(self) -> bool:
        """Whether A is to be made, a band at a time, for the walk: computed from what is loaded, or
        brought together."""
        return self.across or not isinstance(self.a, Load)


@dataclass(frozen=True)
class Blocking:
    """The sizes of a contraction's walk."""

    width: int  # lanes
    block: int  # points of N in a tile, a multiple of the lanes
    points: int  # points of M in a tile, along its last axis
    group: int  # blocks of N that a unit takes, of `blocks`
    blocks: int
    band: int  # rows of M that a unit takes, or tiles where M is one axis
    weights_inside: bool  # a unit's weights stay in cache: they are walked inside of a row


def schedule_contraction(plan: Plan) -> bool:
    """Schedule out = f(sum over k of a * b) as register tiles; False where N has no axis."""
    r = roles(plan)
    if r is None:
        return False
    nest, root = plan.kernel.body
    b = blocking(plan, r, nest)
    if packs(plan, r):
        nest = pack(plan, r, nest, b.block)
    outer = tiles_walk(r, b, {s for e in loads(nest) for m in e.mask for s in m.symbols})
    assert outer.outline is not None
    inner = sum_walk(r, b, at=(root.name, outer.outline))
    body, schedules = [nest, root], [inner, outer]
    if r.staged and len(r.m) == 1:
        band_loop = outer.order[outer.parallel - 1]
        staged = stage(plan, nest, r, (root.name, band_loop), b)
        if staged is not None:
            producer, nest, first = staged
            body, schedules = [producer, nest, root], [first, inner, outer]
    plan.kernel = replace(plan.kernel, body=tuple(body), schedules=tuple(schedules))
    return True


def roles(plan: Plan) -> Roles | None:
    """Classify the axes of a contraction; None where no output axis is B's alone."""
    nest, root = plan.kernel.body
    factors = product_factors(nest.stores[0].values[0])
    assert factors is not None
    a, b = factors
    v = _packable_axis(plan, nest, a, b) or vector_axis(plan, root)
    if v is None or v not in {x.symbol for x in nest.axes}:
        return None
    if v in expr_symbols(a):
        a, b = b, a
    if v in expr_symbols(a) or not isinstance(b, Load):
        return None
    in_b = expr_symbols(b)
    outputs = [x for x in root.axes if x.symbol != v]
    batch = tuple(x for x in outputs if x.symbol in in_b)
    m = tuple(x for x in outputs if x.symbol not in in_b)
    n, k = root.axis(v), nest.reduce_axes
    across = len(k) == len(m) == 1 and n.extent >= STAGED_POINTS and _apart(plan, a, k[0])
    return Roles(a, b, m, n, k, batch, across)


def _apart(plan: Plan, e: Expr, axis: Axis) -> bool:
    """Whether what is read along an axis is so far apart that lines of it displace each other."""
    step = abs(_address_step(plan, e, axis)) * DTYPES[e.dtype][0]
    return step >= plan.caps.l1_way // 4 and step * axis.extent > plan.caps.l2 // 4


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


# -- sizes -----------------------------------------------------------------------------------


def tile_size(n: int, m: int, width: int, caps: Caps, points: int, vectors: int) -> tuple[int, int]:
    """(vectors, points) of the register tile: the fewest FMA cycles for n by m outputs, with at
    most so many points and vectors.

    A step of k issues vectors * points FMAs on the FMA pipes, and vectors + points loads on the
    load ports; the pipes' latency must be covered, and a point's value and the vectors that it
    multiplies have registers, too. Ties go to the larger tile, which loads less.
    """
    best, choice = None, (1, 1)
    for nv in (1, 2, 3, 4, 6, 8):
        if nv > 1 and ((nv - 1) * width >= n or nv > vectors):
            continue
        fit = min(caps.max_accumulators, caps.vector_registers - nv - 1) // nv
        for count in range(1, min(m, fit, points) + 1):
            if even(m, count) != count:
                continue
            cost = 0.0
            for block, blocks in ((nv * width, n // (nv * width)), (n % (nv * width), 1)):
                if not block or not blocks:
                    continue
                v = -(-block // width)
                for p, times in ((count, m // count), (m % count, 1)):
                    if p:
                        fma = max(v * p, caps.fmas_in_flight) / caps.fma_pipes
                        cost += blocks * times * (max(fma, (v + p) / caps.load_ports) + 0.5)
            key = (cost, -nv * count)
            if best is None or key < best:
                best, choice = key, (nv, count)
    return choice


def blocking(plan: Plan, r: Roles, nest: Loops) -> Blocking:
    """The tile, then units that are enough for all cores and small enough for their caches."""
    caps, width = plan.caps, lanes(plan, nest)
    n, size = r.n.extent, DTYPES[nest.stores[0].values[0].dtype][0]
    depth = prod(a.extent for a in r.k)
    columns = r.m[-1].extent if r.m else 1
    step = abs(_address_step(plan, r.a, r.m[-1])) * size if r.m and not r.staged else 0
    # points a whole way apart share the few lines of one set
    most = caps.l1_ways - 1 if step and step % caps.l1_way == 0 else columns
    column_bytes = depth * width * DTYPES[r.b.dtype][0]
    widest = max(1, caps.l2 * 3 // 8 // column_bytes)  # two blocks of weights stay in L2
    vectors, points = tile_size(n, columns, width, caps, most, min(widest, 8))
    block = vectors * width

    blocks, weight_bytes = -(-n // block), depth * n * size
    work = 2 * depth * n * prod(a.extent for a in (*r.m, *r.batch))
    units = max(1, min(caps.units, work // caps.unit_flops))
    rows = r.m[-2].extent if len(r.m) > 1 else -(-columns // points)
    per = max(1, -(-units // prod(a.extent for a in r.outer)))  # units wanted of each outer point
    heavy = weight_bytes > caps.l2 // 2
    group = blocks
    if blocks > 1 and ((heavy and blocks >= 4) or rows < min(per, 4)):
        group = max(1, -(-blocks // (per if heavy else -(-per // rows))))
    pieces = max(1, min(rows, per // -(-blocks // group)))
    row_bytes = depth * size * (columns if len(r.m) > 1 else points)  # of A
    band = max(1, min(-(-rows // pieces), caps.l2 // 3 // max(row_bytes, 1)))
    inside = weight_bytes <= caps.l2 // 4 and len(r.k) == 1 and not r.staged
    return Blocking(width, block, points, group, blocks, band, inside)


def _address_step(plan: Plan, e: Expr, axis: Axis) -> int:
    """How far apart in memory neighbouring points of an axis are read, in elements."""
    steps = [
        plan.address(x.buffer, x.index).coefficient(axis.symbol)
        for x in walk(e)
        if isinstance(x, Load)
    ]
    return max(steps, key=abs, default=0)


# -- the walk --------------------------------------------------------------------------------


def tiles_walk(r: Roles, b: Blocking, masked: set[str]) -> Schedule:
    """The schedule of the output: units, blocks of N and rows of M, then a tile written out."""
    v = r.n.symbol
    tiles: dict[str, tuple[int, ...]] = {}
    order = [f"{a.symbol}.0" for a in r.outer]
    if b.group < b.blocks:
        tiles[v] = (b.group * b.block, b.block)
        order.append(f"{v}.0")
        block_loop, lane_loop = f"{v}.1", f"{v}.2"
    else:
        tiles[v] = (b.block,)
        block_loop, lane_loop = f"{v}.0", f"{v}.1"
    peel, unroll = frozenset[str](), [lane_loop]
    if not r.m:
        parallel, rows = len(order), []
    else:
        c = r.m[-1].symbol
        if len(r.m) == 1:
            tiles[c] = (b.band * b.points, b.points)
            order.append(f"{c}.0")
            rows, point_loop = [f"{c}.1"], f"{c}.2"
        else:
            h = r.m[-2].symbol
            tiles[h], tiles[c] = (b.band,), (b.points,)
            order.append(f"{h}.0")
            rows, point_loop = [f"{h}.1", f"{c}.0"], f"{c}.1"
            if c in masked:
                peel = frozenset((f"{c}.0",))
        unroll = [point_loop, lane_loop]
        parallel = len(order)
    order += [*rows, block_loop] if b.weights_inside else [block_loop, *rows]
    tile_loop = order[-1]
    ahead = block_loop if b.group > 1 else f"{v}.0"
    return Schedule(
        (*order, *unroll),
        tiles,
        parallel,
        frozenset(unroll),
        (lane_loop, b.width),
        peel=peel,
        outline=tile_loop,
        ahead=None if tile_loop == block_loop else ahead,
    )


def sum_walk(r: Roles, b: Blocking, at: tuple[str, str]) -> Schedule:
    """The schedule of a tile's sum: taps outside, channels innermost, long sums in parts."""
    taps, deep = r.taps, r.deep
    if not deep and taps:
        deep = (max(reversed(taps), key=lambda a: a.extent),)
        taps = tuple(a for a in taps if a is not deep[0])
    elif len(deep) > 1:
        taps, deep = (*taps, *deep[:-1]), deep[-1:]
    tile = [*([f"{r.m[-1].symbol}.0"] if r.m else []), f"{r.n.symbol}.0"]
    order = [f"{a.symbol}.0" for a in (*taps, *deep)]
    partial, cuts = None, {}
    if prod(a.extent for a in r.k) >= LONG_SUM:
        if deep[0].extent > 2 * PART:
            cuts = {deep[0].symbol: (even(deep[0].extent, PART),)}
            partial = order[-1]
            order.append(f"{deep[0].symbol}.1")
        elif taps and deep[0].extent >= PART // 8:
            partial = order[-2]
    return Schedule(
        (*order, *tile),
        cuts,
        unroll=frozenset(tile),
        vector=(tile[-1], b.width),
        at=at,
        partial=partial,
    )


# -- operands --------------------------------------------------------------------------------


def packs(plan: Plan, r: Roles) -> bool:
    """Weights always, once; inputs that are scattered along N, at each call, where that pays."""
    scope = plan.buffers[r.b.buffer].scope
    step = plan.address(r.b.buffer, r.b.index).coefficient(r.n.symbol)
    scattered = step != 1 or _apart(plan, r.b, r.deep[-1] if r.deep else r.k[-1])
    scattered = scattered and prod(a.extent for a in r.m) >= PACKED_POINTS
    along = {a.symbol for a in (*r.batch, *r.k, r.n)}
    if not {s for i in (*r.b.index, *r.b.mask) for s in i.symbols} <= along:
        return False
    if plan.moves(r.b.buffer) and not _by_image(plan, r.b):
        return False
    return scope == "weight" or (scope == "input" and scattered)


def _by_image(plan: Plan, e: Load) -> bool:
    """Whether a load from what starts at the kernel's image says so: its first index is that."""
    b = plan.buffers[e.buffer]
    base = plan.buffers[b.base or b.name]
    first = bool(b.shape) and b.shape[0] == plan.images and e.index[0] == Index()
    return first and bool(base.shape) and b.strides[0] == base.strides[0]


def pack(plan: Plan, r: Roles, nest: Loops, block: int) -> Loops:
    """B[k..., n] ==> packed[n // nb][k...][n % nb], contiguous in the order of the walk.

    Of an input that starts at the kernel's image, those of all images are packed.
    """
    n, count = r.n, -(-r.n.extent // block)
    ks = (*r.taps, *r.deep) if r.deep else r.k
    each = (Axis("image", plan.images),) if plan.moves(r.b.buffer) else ()
    shape = (*(a.extent for a in (*each, *r.batch)), count, *(a.extent for a in ks), block)
    batch, k = ([Index.of(a.symbol) for a in axes] for axes in (r.batch, ks))
    key = (r.b, shape)
    if key not in plan.packed:
        name, once = f"{plan.kernel.name}_packed", plan.buffers[r.b.buffer].scope == "weight"
        scope = "weight" if once else "arena"
        plan.buffers[name] = Buffer(name, r.b.dtype, shape, contiguous(shape), scope=scope)
        number, lane = Index.of("block"), Index.of("lane")
        point = number * block + lane
        mask = [m.subst({n.symbol: point}) for m in r.b.mask]
        if n.extent % block:
            mask.append(n.extent - 1 - point)
        index = tuple(i.subst({n.symbol: point}) for i in r.b.index)
        image = tuple(Index.of(a.symbol) for a in each)
        if each:
            index = (*image, *index[1:])
            plan.chunked[name] = plan.buffers[name].strides[0] * DTYPES[r.b.dtype][0]
        axes = (*each, *r.batch, Axis("block", count), *ks, Axis("lane", block))
        axes = tuple(replace(a, kind="parallel") for a in axes)
        other = 0.0 if r.b.other is None else r.b.other
        value = Load(r.b.buffer, index, r.b.dtype, tuple(mask), other)
        copy = Loops(axes, (Store((name,), (*image, *batch, number, *k, lane), (value,)),))
        if once:
            plan.packs.append(copy)
        else:
            why = "moves data: an input that is used as weights are, in the order of its walk"
            plan.copies.append(Kernel(name, (copy,), origin=plan.kernel.origin, note=why))
        plan.packed[key] = name
    name = plan.packed[key]
    v = Index.of(n.symbol)
    new = Load(name, (*(Index() for _ in each), *batch, v // block, *k, v % block), r.b.dtype)

    def leaf(e: Expr, _: object) -> Expr:
        return new if e is r.b else e

    return map_leaves(nest, leaf)


def stage(
    plan: Plan, nest: Loops, r: Roles, at: tuple[str, str], b: Blocking
) -> tuple[Loops, Loops, Schedule] | None:
    """contraction of f(x) ==> per band: staged = f(x); contraction of staged."""
    c = r.m[-1]
    if len(r.k) != 1 or expr_symbols(r.a) - {c.symbol, r.k[0].symbol}:
        return None
    v, depth = r.k[0].symbol, r.k[0].extent
    pitch = -(-depth // 256) * 256 + 16  # never a multiple of 4 KB between points; few variants
    name = f"{plan.kernel.name}_staged"
    along, outside, strides = v, c.symbol, (pitch, 1)
    if r.across:  # its terms stay apart, by no more than the band
        along, outside, strides = c.symbol, v, (1, b.band * b.points)
    plan.buffers[name] = Buffer(name, r.a.dtype, (c.extent, depth), strides, scope="local")
    place = (Index.of(c.symbol), Index.of(v))
    axes = (Axis(c.symbol, c.extent), Axis(v, depth))
    producer = Loops(axes, (Store((name,), place, (r.a,)),))
    store = nest.stores[0]
    (other,) = (f for f in product_factors(store.values[0]) or () if f is not r.a)
    value = Op("mul", (Load(name, place, r.a.dtype), other), r.a.dtype)
    schedule = Schedule(
        (f"{outside}.0", f"{along}.0", f"{along}.1"),
        {along: (2 * b.width if along == v else b.width,)},
        unroll=frozenset((f"{along}.1",)),
        vector=(f"{along}.1", b.width),
        at=at,
        fold={name: b.band * b.points},
    )
    return producer, replace(nest, stores=(replace(store, values=(value,)),)), schedule
