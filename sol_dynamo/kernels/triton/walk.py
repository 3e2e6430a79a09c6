"""How a GPU walks a kernel: which block of points each program of the grid computes.

Axes are first fused until a block has one to three dimensions: `m` (or `p`) of everything that lies
apart in memory, `x` of what lies together, `k` of what is summed in the block. A contraction whose
operands each have rows of their own becomes a product of blocks; windows (pooling, depthwise
convolutions) and scans go point by point of the window; rows and long sums have a dimension for
what they reduce. No constant here has been measured yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from ...affine import Index
from ...ir import (
    DTYPES,
    Axis,
    Buffer,
    Expr,
    Load,
    Loops,
    Op,
    Schedule,
    Store,
    contiguous,
    is_op,
    loads,
    walk,
)
from ...schedule.nests import is_contraction, product_factors, substitute
from ...schedule.normal_form import flatten
from ...schedule.plan import Plan, scan_axis, vector_axis

POINTS = 1024  # of a block of a pointwise kernel, at most
WARP = 128  # points that a warp loads at once
ROW = 8192  # the longest row that a block holds whole
CHUNK = 2048  # points of a row that are held at once where it is longer
WINDOW = 32  # taps up to which a window is written out
SMALLEST = 16  # rows, columns and terms from which a product of blocks pays
ALIGNED = 16  # bytes that a thread loads at once; what torch's allocators give at least
COLUMNS = 64  # of a product's block, at most
SHARED = 8  # programs that share a block at most,
TRIPS = 2  # each of them with so many iterations at least
DEEP = 16  # terms that lie together from which windows go tap by tap


def walk_kernel(plan: Plan) -> None:
    """Choose a kernel's blocks: `Target.walk`."""
    nests = plan.kernel.body
    if any(a.extent == 0 for n in nests for a in n.axes if a.kind == "parallel"):
        plan.kernel = replace(plan.kernel, body=())
        return
    if len(nests) == 2 and is_contraction(nests[0]) and _product(plan):
        return
    plan.kernel = replace(plan.kernel, body=tuple(map(_unrounded, nests)))
    if scan_axis(nests[-1]):
        _scan(plan)
    elif len(nests) == 1:
        _points(plan)
    else:
        _rows(plan)


def _unrounded(nest: Loops) -> Loops:
    """What multiplies outside of the units for it need not round for them."""

    return _with_factors(nest, _exact)


def _with_factors(nest: Loops, f: Callable[[Expr], Expr]) -> Loops:
    """A nest with f(x) * f(y) for each product x * y that it stores or sums."""

    def value(v: Expr) -> Expr:
        factors = product_factors(v)
        return v if factors is None else Op("mul", tuple(map(f, factors)), v.dtype)

    stores = (replace(s, values=tuple(map(value, s.values))) for s in nest.stores)
    return replace(nest, stores=tuple(stores))


def _exact(factor: Expr) -> Expr:
    return factor.args[0] if is_op(factor, "tf32") else factor


# -- kinds -----------------------------------------------------------------------------------


def _points(plan: Plan) -> None:
    (nest,) = plan.kernel.body
    (nest,), dims = _outer(plan, (nest,), nest.axes, _each(plan, nest.axes, POINTS))
    plan.kernel = replace(plan.kernel, body=(nest,), schedules=(_grid(dims),))


def _scan(plan: Plan) -> None:
    """Independent scans side by side, positions in order."""
    (nest,) = plan.kernel.body
    scan = scan_axis(nest)
    assert scan is not None
    rest = [a for a in nest.axes if a.kind == "parallel"]
    (nest,), dims = _outer(plan, (nest,), rest, _each(plan, rest, POINTS // 8))
    s = _grid(dims)
    inner = [f"{a.symbol}.0" for a in nest.axes if a.kind != "parallel"]
    s = replace(s, order=(*s.order[: s.parallel], *inner, *s.order[s.parallel :]))
    plan.kernel = replace(plan.kernel, body=(nest,), schedules=(s,))


def _rows(plan: Plan) -> None:
    """Reductions and what goes with them, over the axes that all nests share."""
    body = plan.kernel.body
    root = body[-1]
    shared = set.intersection(*({a.symbol for a in n.axes} for n in body))
    outer = [a for a in root.axes if a.symbol in shared]
    taps = prod(a.extent for a in body[0].reduce_axes)
    alone = len(body) == 2 and len(outer) == len(root.axes)
    x = vector_axis(plan, root)
    if alone and x in shared and (taps <= WINDOW or _overlaps(body[0], shared)):
        _window(plan, outer, taps)
        return
    together = _row_axis(plan, body, shared)
    longest = max(prod(a.extent for a in n.axes if a.symbol not in shared) for n in body)
    columns = 1 if together else min(32, pow2(prod(a.extent for a in outer)))
    if together:
        size = pow2(longest) if longest <= ROW else CHUNK
        columns = max(1, min(CHUNK // size, pow2(prod(a.extent for a in outer)) // 128))
    else:
        size = min(pow2(longest), 64)
    body, dims = _fused(plan, body, outer, columns)
    new, schedules = [], []
    for nest in body[:-1]:
        nest, loops, tiles, block = _inner(nest, {a.symbol for a, _ in dims}, size)
        lead = [f"{a.symbol}.0" for a, _ in dims]
        new.append(nest)
        at = (root.name, f"{dims[-1][0].symbol}.0" if dims else "")
        order = (*loops[:-1], *lead, *loops[-1:])
        schedules.append(Schedule(order, tiles, at=at, block=(*lead, *block)))
    last, loops, tiles, block = _inner(body[-1], {a.symbol for a, _ in dims}, size)
    s = _grid(dims)
    s = replace(
        s,
        order=(*s.order[: s.parallel], *loops[:-1], *s.order[s.parallel :], *loops[-1:]),
        tile={**s.tile, **tiles},
        block=(*s.block, *block),
    )
    if longest > size:
        _spill(plan, new, {a.symbol for a, _ in dims})
    plan.kernel = replace(plan.kernel, body=(*new, last), schedules=(*schedules, s))


def _window(plan: Plan, outer: Sequence[Axis], taps: int) -> None:
    """A reduction tap by tap, in registers."""
    points = _each(plan, outer, POINTS // 2)
    nest, root = plan.kernel.body
    together = vector_axis(plan, root)
    axes = sorted(nest.axes, key=lambda a: a.symbol == together)  # weights lie as results do
    nest = _with_factors(nest, lambda f: _packed(plan, f, axes, 1))
    (nest, root), dims = _outer(plan, (nest, root), outer, points)
    s = _grid(dims)
    window = [f"{a.symbol}.0" for a in nest.reduce_axes]
    lead = [f"{a.symbol}.0" for a, _ in dims]
    unroll = frozenset(window if taps <= WINDOW else ())
    at = (root.name, s.order[s.parallel - 1] if s.parallel else "")
    first = Schedule((*window, *lead), unroll=unroll, at=at, block=tuple(lead))
    plan.kernel = replace(plan.kernel, body=(nest, root), schedules=(first, s))


@dataclass(frozen=True)
class Matrix:
    """A nest's sum as a product of blocks: `a` over (m, k), `b` over (k, n)."""

    a: Expr
    b: Expr
    m: str
    n: str
    k: str


def matrix(nest: Loops, s: Schedule) -> Matrix | None:
    """What a `tl.dot` multiplies, of a nest whose block is (m, n, k); None for other nests."""
    if len(s.block) != 3 or len(nest.stores) != 1:
        return None
    m, n, k = (loop.rpartition(".")[0] for loop in s.block)
    factors = product_factors(nest.stores[0].values[0])
    reduce = nest.stores[0].reduce
    if factors is None or reduce is None or reduce.monoid != "sum":
        return None
    if [nest.axis(x).kind for x in (m, n, k)] != ["parallel", "parallel", "reduce"]:
        return None
    for a, b in (factors, factors[::-1]):
        if n not in _symbols(a) and m not in _symbols(b):
            return Matrix(a, b, m, n, k)
    return None


def _product(plan: Plan) -> bool:
    """out[m, n] = f(sum over k of a[m, k] * b[k, n]), all in blocks; False where rows, columns or
    terms are too few, or belong to both."""
    nest, root = plan.kernel.body
    store = nest.stores[0]
    factors = product_factors(store.values[0])
    x = vector_axis(plan, root)
    if factors is None or len(root.axes) != len(nest.axes) - len(nest.reduce_axes):
        return False
    of_a, of_b = map(_symbols, factors)
    if x is not None and x in of_a - of_b:
        factors, of_a, of_b = factors[::-1], of_b, of_a
    rows = [a for a in root.axes if a.symbol in of_a - of_b]
    columns = [a for a in root.axes if a.symbol in of_b - of_a]
    batch = [a for a in root.axes if a not in rows and a not in columns]
    terms = list(nest.reduce_axes)
    m, n, k = (prod(a.extent for a in axes) for axes in (rows, columns, terms))
    if min(m, n, k) < SMALLEST or store.reduce is None or store.reduce.acc_dtype != "f32":
        return False
    deep = _deep(plan, nest, terms)
    within = [a for a in terms if a is not deep] + ([deep] if deep else [])
    packed = tuple(
        _packed(plan, f, [*batch, *axes, *within], 1 if deep else len(within))
        for f, axes in ((factors[0], rows), (factors[1], columns))
    )
    if packed != factors:
        value = Op("mul", packed, store.values[0].dtype)
        nest = replace(nest, stores=(replace(store, values=(value,)),))
    body, m_axis = _fuse((nest, root), rows, "rows")
    body, n_axis = _fuse(body, columns, "columns")
    if deep is None:
        body, k_axis = _fuse(body, terms, "terms")
        taps: list[Axis] = []
    else:
        k_axis, taps = deep, [a for a in terms if a is not deep]
    nest, root = body
    within = prod(a.extent for a in taps)
    bm, bn, bk, parts = _tile(
        m, n, k_axis.extent, within, prod(a.extent for a in batch), plan.caps.cores
    )
    dims = [(a, 1) for a in batch] + [(m_axis, bm), (n_axis, bn)]
    s = _grid(dims)
    lead = [f"{m_axis.symbol}.0", f"{n_axis.symbol}.0"]
    point = f"{k_axis.symbol}.1"
    order = [f"{a.symbol}.0" for a in (*batch, *taps, k_axis)]
    at = (root.name, s.order[s.parallel - 1])
    first = Schedule(
        (*order, *lead, point), {k_axis.symbol: (bk,)}, at=at, block=(*lead, point), split=parts
    )
    plan.kernel = replace(plan.kernel, body=(nest, root), schedules=(first, s))
    return True


def _tile(m: int, n: int, k: int, taps: int, batch: int, cores: int) -> tuple[int, int, int, int]:
    """Rows, columns and terms of a block, and programs that share it: the largest blocks with which
    most multiprocessors get a program."""
    found = SMALLEST, 2 * SMALLEST, 64, 1
    for bm, bn in ((128, COLUMNS), (64, COLUMNS), (64, 32), (32, 32), (16, 32)):
        bm, bn = (min(b, max(pow2(e), SMALLEST)) for b, e in ((bm, m), (bn, n)))
        bk = min(max(pow2(k), SMALLEST), 64 if bm * bn <= 2048 else 32)
        blocks = batch * -(-m // bm) * -(-n // bn)
        trips = taps * -(-k // bk)
        parts = 1
        while parts < SHARED and 2 * parts * blocks <= cores and 2 * parts * TRIPS <= trips:
            parts *= 2
        found = bm, bn, bk, parts
        if blocks * parts >= 0.75 * cores:
            break
    return found


def _deep(plan: Plan, nest: Loops, terms: Sequence[Axis]) -> Axis | None:
    """The reduce axis along which an operand lies together in memory, if it is long enough."""
    for a in terms:
        steps = [plan.address(e.buffer, e.index) for e in loads(nest)]
        if a.extent >= DEEP and any(i.coefficient(a.symbol) == 1 for i in steps):
            return a
    return None


def _packed(plan: Plan, factor: Expr, axes: Sequence[Axis], padded: int) -> Expr:
    """Weights are read as they are walked, their terms together from aligned addresses, and are
    rounded once: a factor that is one becomes a load of a copy over `axes`, of which the last
    `padded` together start at an aligned address each."""
    load = _exact(factor)
    if not isinstance(load, Load) or plan.buffers[load.buffer].scope != "weight" or load.mask:
        return factor
    address = plan.address(load.buffer, load.index)
    own = [a for a in axes if a.symbol in address.symbols]
    if address.symbols != {a.symbol for a in own} or not all(
        address.is_affine_in(a.symbol) for a in own
    ):
        return factor
    each = ALIGNED // DTYPES[load.dtype][0]
    steps = [address.coefficient(a.symbol) for a in own]
    if load is factor and steps[-1] == 1 and all(n % each == 0 for n in steps[:-1]):
        return factor
    shape = tuple(a.extent for a in own)
    apart = sum(a not in axes[-padded:] for a in own)  # from here on, terms that lie together
    pitch = -(-prod(shape[apart:]) // each) * each
    strides = (*contiguous((*shape[:apart], pitch))[:-1], *contiguous(shape[apart:]))
    key = load, (*shape, load is factor)
    if key not in plan.packed:
        name = plan.packed[key] = f"{plan.kernel.name}_packed"
        plan.buffers[name] = Buffer(name, load.dtype, shape, strides, scope="weight")
        store = Store((name,), tuple(Index.of(a.symbol) for a in own), (factor,))
        plan.packs.append(Loops(tuple(replace(a, kind="parallel") for a in own), (store,)))
    index = tuple(Index.of(a.symbol) for a in own)
    made = Load(plan.packed[key], index, load.dtype)
    return made if load is factor else Op("tf32", (made,), "f32")


def _each(plan: Plan, axes: Iterable[Axis], most: int) -> int:
    """Points of a block: as many as keep the multiprocessors busy, a warp's at least."""
    total = prod(a.extent for a in axes if a.kind == "parallel")
    return min(most, max(WARP, pow2(total // plan.caps.cores)))


# -- fusing axes into a block's dimensions -------------------------------------------------------

Dims = list[tuple[Axis, int]]  # axes of the grid, outermost first, and points of each in a block


def _outer(
    plan: Plan, body: tuple[Loops, ...], axes: Iterable[Axis], points: int
) -> tuple[tuple[Loops, ...], Dims]:
    """The axes as one or two: `x`, along which results lie together, and `p` of all others."""
    axes = [a for a in axes if a.kind == "parallel"]
    x = next((a for a in axes if a.symbol == vector_axis(plan, body[-1])), None)
    rest = [a for a in axes if a is not x]
    if x is None or not rest or pow2(x.extent) > 1.3 * x.extent or x.extent < 8:
        return _fused(plan, body, axes, points)
    bx = min(pow2(x.extent), 256)
    total = prod(a.extent for a in rest)
    body, p = _fuse(body, rest, "points")
    return tuple(flatten(plan, n) for n in body), [(p, min(points // bx, pow2(total))), (x, bx)]


def _fused(
    plan: Plan, body: tuple[Loops, ...], axes: Iterable[Axis], points: int
) -> tuple[tuple[Loops, ...], Dims]:
    """The axes as one."""
    axes = list(axes)
    if not axes:
        return body, []
    total = prod(a.extent for a in axes)
    body, p = _fuse(body, axes, "points")
    return tuple(flatten(plan, n) for n in body), [(p, min(points, pow2(total)))]


def _fuse(
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


def _inner(
    nest: Loops, outer: set[str], size: int
) -> tuple[Loops, list[str], dict[str, tuple[int, ...]], list[str]]:
    """A nest's own axes as one, in chunks of a block: (nest, loops, tiles, loops of the block)."""
    own = [a for a in nest.axes if a.symbol not in outer]
    if not own:
        return nest, [], {}, []
    total = prod(a.extent for a in own)
    # equal names of equal rows: what one nest holds of them, another reads
    name = f"k{total}"
    if len(own) == 1:
        values = {own[0].symbol: Index.of(name)}
        axes = tuple(replace(a, symbol=name) if a is own[0] else a for a in nest.axes)
        nest = substitute(nest, values, axes)
    else:
        (nest,), _ = _fuse((nest,), own, name)
    return nest, [f"{name}.0", f"{name}.1"], {name: (min(size, pow2(total)),)}, [f"{name}.1"]


def _grid(dims: Dims) -> Schedule:
    """A block of each axis for each program; axes of one point at a time are no dimension."""
    cut = [a.symbol for a, n in dims if n > 1 or len(dims) <= 2]
    return Schedule(
        (*(f"{a.symbol}.0" for a, _ in dims), *(f"{a}.1" for a in cut)),
        {a.symbol: (n,) for a, n in dims if a.symbol in cut},
        parallel=len(dims),
        block=tuple(f"{a}.1" for a in cut),
    )


def _spill(plan: Plan, nests: Sequence[Loops], outer: set[str]) -> None:
    """What a nest makes along rows too long for registers is in memory until another reads it."""
    for nest in nests:
        for s in nest.stores:
            if s.reduce is None and not {x for i in s.index for x in i.symbols} <= outer:
                for b in s.buffers:
                    if plan.buffers[b].scope == "local":
                        plan.buffers[b] = replace(plan.buffers[b], scope="arena")


# -- questions -------------------------------------------------------------------------------


def _row_axis(plan: Plan, body: Sequence[Loops], shared: set[str]) -> bool:
    """Whether what a row's points read lies together in memory."""
    for nest in body:
        for e in loads(nest):
            if plan.buffers[e.buffer].scope == "local":
                continue
            address = plan.address(e.buffer, e.index)
            if address.symbols <= shared:
                continue
            if any(address.coefficient(a.symbol) == 1 for a in nest.axes if a.symbol in shared):
                return False
    return True


def _overlaps(nest: Loops, outer: set[str]) -> bool:
    """Whether neighbouring results read the same elements: windows."""
    inner = {a.symbol for a in nest.reduce_axes}
    both = (i for e in loads(nest) for i in e.index if i.symbols & outer and i.symbols & inner)
    return not all(_one_to_one(i, nest) for i in both)


def _one_to_one(index: Index, nest: Loops) -> bool:
    """Whether an index is another for each point of its axes."""
    axes = [a for a in nest.axes if a.symbol in index.symbols]
    if not all(index.is_affine_in(a.symbol) for a in axes):
        return False
    reach = 0
    for c, extent in sorted((abs(index.coefficient(a.symbol)), a.extent) for a in axes):
        if c <= reach:
            return False
        reach += c * (extent - 1)
    return True


def _symbols(e: Expr) -> set[str]:
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
