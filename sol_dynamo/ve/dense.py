"""The walk of a contraction on the vector engine: which operand is the vector, and what is copied.

A tile is P vectors by Q scalars of 64 bits, all sums in registers, K innermost. Either the scalars
are pairs of neighbouring results (vectors of 256 float32, each in both halves of an element), or
the lanes are (vectors of 512, each scalar in both halves): `pairs`. The scalars' operand is always
brought into the order of the walk; the vectors' operand is read in place, from zero-padded planes
(one for each phase of a stride, so that each tap is a constant offset) or in the order of the
walk. All that is decided from axes, addresses and extents, by the cost of KERNELS.md's cycle
model; `emit_dense` writes the C. Knows no op: convolutions, products of matrices and their
gradients are sums of products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any

from ..affine import Index
from ..ir import (
    Axis,
    Buffer,
    Expr,
    Iota,
    Kernel,
    Load,
    Loops,
    Op,
    Program,
    Schedule,
    Store,
    contiguous,
    expressions,
    loads,
    rewrite,
    walk,
)
from ..kernels.c.nest import Code
from ..schedule.nests import expr_symbols, is_contraction, map_leaves, product_factors
from ..schedule.plan import Plan
from .packed import supported
from .emit_dense import LANES, LINE, Product, emit_product
from .stage import Copy, emit_copy, stage_cost, stage_kernel
from .window import MONOIDS, RING, Window, emit_window

REGISTERS = 54  # for sums, the ring and copies: the others are for totals and what follows
FMA = 3  # pipes
LATENCY = 26  # cycles of an FMA, which accumulators must cover
AHEAD = 400  # cycles that a load from memory takes
PART = 256  # terms of a sum that one accumulator takes: longer ones are added in parts
MOST_TAPS = 64  # steps that are written out
START = 700  # cycles in which a tile's first loads come
TRY = None
FLAGS = "/* flags: -mllvm -enable-misched=false */\n"  # the order of the text is that of issue
# cycles for a result that a kernel of its own finishes, where it lies as that reads it or not
IN_ORDER, APART = 0.3, 6.0
LEAST_WORK = 1 << 14  # products below which a kernel of its own kind is not worth its start


@dataclass(frozen=True)
class Operand:
    """One factor, how its address moves and what must be copied before the walk."""

    load: Load
    before: tuple[Kernel, ...] = ()
    buffers: tuple[Buffer, ...] = ()
    pack: Loops | None = None
    cost: float = 0.0


def schedule_dense(plan: Plan) -> bool:
    """Schedule out = f(sum over k of a * b) as a product; False where that is not what it is, or
    another way is as good."""
    if not _eligible(plan):
        return False
    if _sums_products(plan.kernel.body[0]):
        choices = [c for c in _choices(plan) if c is not None]
    else:
        choices = [c for c in (_window(plan),) if c is not None]
    if not choices:
        return False
    best = min(choices, key=lambda c: c.cost)
    best.apply(plan)
    return True


def _eligible(plan: Plan) -> bool:
    body = plan.kernel.body
    if len(body) != 2 or any(n.binds for n in body):
        return False
    nest, root = body
    if not all(isinstance(a.extent, int) and a.extent > 0 for n in body for a in n.axes):
        return False
    if any(a.kind == "scan" for n in body for a in n.axes) or root.reduce_axes:
        return False
    store = nest.stores[0]
    if store.reduce is None or store.reduce.monoid not in MONOIDS or len(nest.stores) > 1:
        return False
    if store.reduce.acc_dtype != "f32" or store.mask or any(s.mask or s.reduce for s in root.stores):
        return False
    if store.values[0].dtype != "f32":
        return False
    outputs = {a.symbol for a in nest.axes if a.kind == "parallel"}
    if {a.symbol for a in root.axes} != outputs:
        return False
    if not _reads_at_its_point(root, store):
        return False
    if not all(isinstance(s, int) for b in _touched(plan) for s in (*b.strides, b.offset)):
        return False
    return prod(a.extent for a in nest.axes) >= LEAST_WORK


def _sums_products(nest: Loops) -> bool:
    """A contraction, or the product of a matrix by a vector."""
    if is_contraction(nest):
        return True
    s = nest.stores[0]
    if s.reduce is None or s.reduce.monoid != "sum" or len(nest.stores) > 1:
        return False
    factors = product_factors(s.values[0])
    if factors is None:
        return False
    outputs = {a.symbol for a in nest.axes if a.kind == "parallel"}
    a, b = (_all_symbols(f) for f in factors)
    return bool(a & b) and bool(outputs) and not (a & b & outputs)


def _reads_at_its_point(root: Loops, store: Store) -> bool:
    return all(
        e.index == store.index and not e.mask for e in loads(root) if e.buffer == store.buffers[0]
    )


def _touched(plan: Plan) -> Iterator[Buffer]:
    for nest in plan.kernel.body:
        for name in (*(e.buffer for e in loads(nest)), *(b for s in nest.stores for b in s.buffers)):
            yield plan.buffers[name]


# -- who uses which axis -------------------------------------------------------------------------


def _all_symbols(e: Expr) -> set[str]:
    found = set(expr_symbols(e))
    for x in walk(e):
        if isinstance(x, Load):
            found.update(s for m in x.mask for s in m.symbols)
    return found


@dataclass
class Choice:
    """One way to walk a kernel, with its cost in cycles of a core."""

    product: Product
    vector: Operand
    scalar: Operand | None
    split: bool  # what follows the sum is a kernel of its own
    cost: float
    window: Window | None = None

    def apply(self, plan: Plan) -> None:
        nest, root = plan.kernel.body
        for operand in (self.vector, self.scalar):
            if operand is None:
                continue
            for b in operand.buffers:
                plan.buffers.setdefault(b.name, b)
            plan.before.extend(operand.before)
            if operand.pack is not None and operand.pack not in plan.packs:
                plan.packs.append(operand.pack)
        kernel = plan.kernel
        store = nest.stores[0]
        value: Expr = self.vector.load
        if self.scalar is not None:
            value = Op("mul", (self.vector.load, self.scalar.load), "f32")
        start = store.reduce.init if store.reduce else None
        if self.split:
            root, after = _split(plan, self.product, nest, root)
            plan.after.append(after)
        assert store.reduce is not None
        reduce = replace(store.reduce, init=None)
        if start is not None:  # added once at the end: no term of the sum is rounded to its size
            acc = store.buffers[0]

            def leaf(e: Expr, _: object) -> Expr:
                if isinstance(e, Load) and e.buffer == acc:
                    return Op("add", (e, start[0]), "f32")
                return e

            root = map_leaves(root, leaf)
        nest = replace(nest, stores=(replace(store, values=(value,), reduce=reduce),))
        p = self.product
        order = tuple(f"{a.symbol}.0" for a in root.axes)
        inner = tuple(f"{s}.0" for s in (*p.deep, *p.taps))
        if order:
            first = Schedule(inner, own=self.window or p, at=(root.name, order[-1]))
        else:
            first = Schedule(inner, own=self.window or p, at=(root.name, ""))
        plan.kernel = replace(kernel, body=(nest, root), schedules=(first, Schedule(order)))


def _choices(plan: Plan) -> Iterator[Choice | None]:
    nest, root = plan.kernel.body
    factors = product_factors(nest.stores[0].values[0])
    assert factors is not None
    fused = _fusable(plan, nest, root)
    for v, s in (factors, factors[::-1]):
        for pairs in (True, False):
            if fused:
                yield _choice(plan, v, s, pairs, split=False)
            yield _choice(plan, v, s, pairs, split=True)


def _window(plan: Plan) -> Choice | None:
    """A depthwise convolution or pooling: nobody but the windows' operand has the points' axes."""
    nest, root = plan.kernel.body
    store = nest.stores[0]
    assert store.reduce is not None
    factors = product_factors(store.values[0]) if store.reduce.monoid == "sum" else None
    e, weight = (store.values[0], None) if factors is None else factors
    outputs = sorted(root.axes, key=lambda a: -_place(plan, root, a))
    names = {a.symbol for a in outputs}
    if weight is not None and not names <= _all_symbols(e):
        e, weight = weight, e
    if not isinstance(e, Load) or not names <= _all_symbols(e):
        return None
    tapped = {a.symbol for a in nest.reduce_axes}
    own = set() if weight is None else _all_symbols(weight)
    still = [
        a
        for a in outputs
        if (a.symbol in own if weight is not None else _alone(e, a, tapped)) and a.extent > 1
    ]
    if not still or not own - tapped <= {still[-1].symbol}:
        return None
    c = still[-1]
    at = outputs.index(c)
    batch, vs = tuple(outputs[:at]), tuple(outputs[at + 1 :])
    addresses = _followers(plan, nest, root)
    fused = _fusable(plan, nest, root) and len(_together(vs, addresses)) == len(vs)
    fused = fused and all(x.is_affine_in(a.symbol) for x in addresses for a in (*batch, c))
    found = _planes(plan, e, (*batch, c), vs, nest.reduce_axes, c) if vs else None
    if found is None or found[1]:
        return None
    elements, _, taps, vector, _ = found
    scalar = None
    if weight is not None:
        scalar = _ordered(plan, weight, (), (c,), taps, 2, False, "scalars")
    chunks = -(-elements // LANES)
    points = prod(a.extent for a in vs)
    for vectors in (4, 3, 2, 1):
        groups = -(-chunks // vectors)
        length = -(-elements // (groups * vectors))
        last = elements - (groups - 1) * vectors * length
        exact = last % vectors == 0
        # where there are gaps a last vector may end late: another row of zeros is behind them
        late = elements != points and (len(vs) > 1 or vectors <= 2)
        if length <= LANES and last > 0 and (exact or late) and vectors <= chunks:
            break
    written = prod(a.extent for a in taps)
    ring = max(d for d in range(1, RING + 1) if written * vectors % d == 0)
    pairs, cores = -(-c.extent // 2), max(plan.caps.cores, 1)
    many = prod(a.extent for a in batch) * groups
    per = max(1, min(pairs, pairs * many // (4 * cores)))
    symbols = (tuple(a.symbol for a in axes) for axes in (vs, (c,), batch, (), taps))
    product = Product(True, *symbols, vectors, 1, length, groups, 1, ring, 1)
    window = Window(product, store.reduce.monoid, per, weight is not None)
    return Choice(product, vector, scalar, not fused, vector.cost, window)


def _alone(e: Load, a: Axis, tapped: set[str]) -> bool:
    """Whether an axis is one of a load's dimensions, without taps."""
    mine = [i for i in e.index if a.symbol in i.symbols]
    return len(mine) == 1 and not mine[0].symbols & tapped and mine[0].is_affine_in(a.symbol)


def _fusable(plan: Plan, nest: Loops, root: Loops) -> bool:
    """Whether what follows the sum can be computed on the registers of a tile."""
    exprs = [*expressions(root)]
    init = nest.stores[0].reduce and nest.stores[0].reduce.init
    exprs += init or ()
    stored = (plan.buffers[b].dtype for s in root.stores for b in s.buffers)
    return all(map(supported, exprs)) and all(d == "f32" for d in stored)


def _followers(plan: Plan, nest: Loops, root: Loops) -> list[Index]:
    """The addresses of all that a tile's epilogue reads and writes."""
    acc = nest.stores[0].buffers[0]
    init = (nest.stores[0].reduce and nest.stores[0].reduce.init) or ()
    found = [plan.address(b, s.index) for s in root.stores for b in s.buffers]
    for e in walk(*expressions(root), *init):
        if isinstance(e, Load) and e.buffer != acc:
            found.append(plan.address(e.buffer, e.index))
    return found


def _together(axes: Sequence[Axis], addresses: Sequence[Index]) -> list[Axis]:
    """The innermost of the axes that are one axis in all addresses."""
    kept: list[Axis] = []
    for a in reversed(axes):
        if not all(x.is_affine_in(a.symbol) for x in addresses):
            break
        if kept:
            inner = kept[0]
            if not all(
                x.coefficient(a.symbol) == x.coefficient(inner.symbol) * inner.extent
                for x in addresses
            ):
                break
        kept.insert(0, a)
    return kept


def _choice(plan: Plan, v: Expr, s: Expr, pairs: bool, split: bool) -> Choice | None:
    nest, root = plan.kernel.body
    in_v, in_s = _all_symbols(v), _all_symbols(s)
    addresses = [] if split else _followers(plan, nest, root)
    outputs = sorted(root.axes, key=lambda a: -_place(plan, root, a))
    own_v = [a for a in outputs if a.symbol in in_v - in_s]
    own_s = [a for a in outputs if a.symbol in in_s - in_v]
    if len(own_v) + len(own_s) + sum(a.symbol in in_v & in_s for a in outputs) != len(outputs):
        return None
    vs, ss = _together(own_v, addresses), _together(own_s, addresses)
    if not vs or (own_s and not ss) or (pairs and not ss):
        return None
    batch = tuple(a for a in outputs if a not in vs and a not in ss)
    if not split and not all(x.is_affine_in(a.symbol) for x in addresses for a in batch):
        return None
    made = _vector_operand(plan, v, pairs, batch, tuple(vs), nest.reduce_axes)
    if made is None:
        return None
    elements, deep, taps, vector, blocked = made
    columns = prod(a.extent for a in ss)
    apart = not split and _place(plan, root, vs[-1]) != 1
    sizes = _sizes(plan, pairs, elements, prod(a.extent for a in vs), columns, deep, taps, batch, apart)
    if sizes is None:
        return None
    cost, product = sizes
    product = replace(
        product,
        v=tuple(a.symbol for a in vs),
        s=tuple(a.symbol for a in ss),
        batch=tuple(a.symbol for a in batch),
    )
    width = product.scalars * (2 if pairs else 1)
    scalar = _ordered(plan, s, batch, tuple(ss), (*deep, *taps), width, not pairs, "scalars")
    if scalar is None:
        return None
    if blocked:
        width = product.vectors * product.length * 2
        laid = _ordered(plan, v, batch, tuple(vs), (*deep, *taps), width, False, "vectors")
        if laid is None:
            return None
        vector = laid
    if not blocked and not pairs and product.groups * product.vectors * product.length * 2 != (
        prod(a.extent for a in vs)
    ):
        return None  # the last vector would read past the end of a row
    total = cost + (vector.cost + scalar.cost) / max(plan.caps.cores, 1)
    if split:
        each = IN_ORDER if _place(plan, root, vs[-1]) == 1 else APART
        total += prod(a.extent for a in root.axes) * each / max(plan.caps.cores, 1) + START
    return Choice(product, vector, scalar, split, total)


def _place(plan: Plan, root: Loops, a: Axis) -> Any:
    return plan.address(root.stores[0].buffers[0], root.stores[0].index).coefficient(a.symbol)


def _split(plan: Plan, p: Product, nest: Loops, root: Loops) -> tuple[Loops, Kernel]:
    """sum; out = f(sum)  ==>  sum; total = sum, and a kernel of its own: out = f(total)."""
    acc = nest.stores[0].buffers[0]
    axes = {a.symbol: a for a in root.axes}
    order = [axes[x] for x in (*p.batch, *p.s, *p.v)]
    name = f"{acc}_total"
    shape = tuple(a.extent for a in order)
    plan.buffers[name] = Buffer(name, "f32", shape, contiguous(shape))
    place = tuple(Index.of(a.symbol) for a in order)
    index = nest.stores[0].index
    made = Loops(tuple(order), (Store((name,), place, (Load(acc, index, "f32"),)),))

    def leaf(e: Expr, _: object) -> Expr:
        if isinstance(e, Load) and e.buffer == acc:
            return Load(name, place, "f32")
        return e

    kernel = plan.kernel
    after = Kernel(f"{kernel.name}_rest", (map_leaves(root, leaf),), (), kernel.origin)
    return made, after


# -- the operands --------------------------------------------------------------------------------


def _vector_operand(
    plan: Plan,
    e: Expr,
    pairs: bool,
    batch: tuple[Axis, ...],
    vs: tuple[Axis, ...],
    ks: tuple[Axis, ...],
) -> tuple[int, tuple[Axis, ...], tuple[Axis, ...], Operand, bool] | None:
    """Elements of its walk, the deep axes and the taps, the operand, and whether it is yet to be
    laid out in blocks."""
    if isinstance(e, Load) and not e.mask and not plan.moves(e.buffer):
        address = plan.address(e.buffer, e.index)
        whole = len(_together(vs, [address])) == len(vs)
        if whole and address.coefficient(vs[-1].symbol) == 1 and _affine(address, batch, ks):
            cut = _deep_and_taps(address, ks)
            if cut is not None and (pairs or _even(plan, e, address, (*batch, *ks))):
                return prod(a.extent for a in vs), *cut, Operand(e), False
    if not pairs:
        return prod(a.extent for a in vs), ks, (), Operand(_dummy()), True
    if isinstance(e, Load) and e.other in (None, 0.0):
        found = _planes(plan, e, batch, vs, ks)
        if found is not None:
            return found
    laid = _ordered(plan, e, batch, vs, ks, prod(a.extent for a in vs), False, "columns")
    return None if laid is None else (prod(a.extent for a in vs), ks, (), laid, False)


def _dummy() -> Load:
    return Load("", (), "f32")


def _affine(address: Index, *axes: tuple[Axis, ...]) -> bool:
    return all(address.is_affine_in(a.symbol) for group in axes for a in group)


def _even(plan: Plan, e: Load, address: Index, others: tuple[Axis, ...]) -> bool:
    """Whether pairs of neighbours are aligned to 8 bytes in memory that we place."""
    b = plan.buffers[e.buffer]
    base = plan.buffers[b.base or b.name]
    placed = base.scope in ("arena", "output", "saved")
    return (
        placed and address.const % 2 == 0 and all(address.coefficient(a.symbol) % 2 == 0 for a in others)
    )


def _deep_and_taps(
    address: Index, ks: tuple[Axis, ...]
) -> tuple[tuple[Axis, ...], tuple[Axis, ...]] | None:
    ordered = tuple(sorted(ks, key=lambda a: -abs(address.coefficient(a.symbol))))
    together = _together(ordered, [address])
    if len(together) == len(ordered):
        return ordered, ()
    deep = max(ordered, key=lambda a: a.extent)
    taps = tuple(a for a in ordered if a is not deep)
    return ((deep,), taps) if prod(a.extent for a in taps) <= MOST_TAPS else None


def _ordered(
    plan: Plan,
    e: Expr,
    batch: tuple[Axis, ...],
    own: tuple[Axis, ...],
    ks: tuple[Axis, ...],
    width: int,
    twice: bool,
    what: str,
) -> Operand | None:
    """e[batch, own, k]  ==>  laid[batch, own // width, k, own % width], and perhaps both halves of
    64 bits; once for weights, else at each call."""
    n = prod(a.extent for a in own)
    count = -(-n // width)
    used = _all_symbols(e)
    groups = tuple(a for a in batch if a.symbol in used)
    along = tuple(a for a in ks if a.symbol in used)
    if what == "scalars" and _in_rows(plan, e, own, along):
        return _rows(plan, e, groups, own, along, twice)
    block, lane = Axis("block", count), Axis("lane", width)
    point = Index.of("block") * width + Index.of("lane")
    values = _unflatten(point, own)
    mask = (n - 1 - point,) if n % width else ()
    plain = isinstance(e, Load) and plan.buffers[e.buffer].scope == "weight" and len(own) == 1
    axes = tuple(replace(a, kind="parallel") for a in (*groups, block, *along, lane))
    if twice:
        axes = (*axes, Axis("half", 2))
    shape = tuple(a.extent for a in axes)
    value = _at(e, values, mask)
    place = tuple(Index.of(a.symbol) for a in axes)
    flat = _flat(own)
    index = tuple(
        flat // width if a is block else flat % width if a.symbol == "lane"
        else Index() if a.symbol == "half" else Index.of(a.symbol)
        for a in (*groups, block, *along, lane, *axes[len(groups) + len(along) + 2 :])
    )  # fmt: skip
    key: tuple[Any, ...] = ("laid", e, axes, mask, plan.images)
    once = plain and _all_affine(e)
    scope = "weight" if once else "arena"
    name = plan.packed.get(key)  # type: ignore[call-overload]
    known = name is not None
    if name is None:
        name = f"{plan.kernel.name}_{what}"
    buffer = Buffer(name, "f32", shape, contiguous(shape), scope=scope)
    load = Load(name, index, "f32")
    if known:
        return Operand(load)
    store = Store((name,), place, (value,))
    if once:
        return Operand(load, buffers=(buffer,), pack=Loops(axes, (store,)))
    kernel = stage_kernel(plan, Loops(axes, (store,)), twice)
    return Operand(load, (kernel,), (buffer,), cost=stage_cost(kernel))


def _in_rows(plan: Plan, e: Expr, own: tuple[Axis, ...], ks: tuple[Axis, ...]) -> bool:
    """Whether an operand of this call lies along the sum's axes: as a matrix by rows."""
    if not isinstance(e, Load) or e.mask or plan.buffers[e.buffer].scope == "weight":
        return False
    address = plan.address(e.buffer, e.index)
    apart = not own or abs(address.coefficient(own[-1].symbol)) > 1
    along = len(_together(ks, [address])) == len(ks) > 0
    return apart and along and address.coefficient(ks[-1].symbol) == 1 and _affine(address, own)


def _rows(
    plan: Plan,
    e: Expr,
    groups: tuple[Axis, ...],
    own: tuple[Axis, ...],
    ks: tuple[Axis, ...],
    twice: bool,
) -> Operand:
    """e[batch, own, k]  ==>  laid[batch, own // 2, k, own % 2], or with both halves of 64 bits: as
    it lies. Rows are an odd number of lines apart: a tile's are in different sets of the cache."""
    n, depth = prod(a.extent for a in own), prod(a.extent for a in ks)
    pitch = (-(-depth // LINE) | 1) * LINE
    row = Axis("row", n if twice else -(-n // 2))
    term, half = Axis("term", pitch), Axis("half", 2)
    point = Index.of("row") if twice else Index({"row": 2, "half": 1})
    mask = () if twice or n % 2 == 0 else (n - 1 - point,)
    mask += (depth - 1 - Index.of("term"),) if pitch > depth else ()
    axes = tuple(replace(a, kind="parallel") for a in (*groups, row, term, half))
    value = _at(e, _unflatten(point, own) | _unflatten(Index.of("term"), ks), mask)
    name = f"{plan.kernel.name}_scalars"
    shape = tuple(a.extent for a in axes)
    buffer = Buffer(name, "f32", shape, contiguous(shape))
    store = Store((name,), tuple(Index.of(a.symbol) for a in axes), (value,))
    flat = _flat(own)
    place = (flat, _flat(ks), Index()) if twice else (flat // 2, _flat(ks), flat % 2)
    load = Load(name, (*(Index.of(a.symbol) for a in groups), *place), "f32")
    kernel = stage_kernel(plan, Loops(axes, (store,)), twice)
    return Operand(load, (kernel,), (buffer,), cost=stage_cost(kernel))


def _all_affine(e: Expr) -> bool:
    return isinstance(e, Load) and all(
        isinstance(atom, str) for i in e.index for atom, _ in i.terms
    )


def _flat(axes: Sequence[Axis]) -> Index:
    flat = Index()
    for a in axes:
        flat = flat * a.extent + Index.of(a.symbol)
    return flat


def _unflatten(point: Index, axes: Sequence[Axis]) -> dict[str, Index]:
    values: dict[str, Index] = {}
    step = prod(a.extent for a in axes)
    for n, a in enumerate(axes):
        step //= a.extent
        values[a.symbol] = point // step if n == 0 else (point // step) % a.extent
    return values


def _at(e: Expr, values: dict[str, Index], mask: tuple[Index, ...]) -> Expr:
    """An expression at other points; where a mask fails its loads are 0."""
    def leaf(x: Expr) -> Expr:
        if isinstance(x, Load):
            index = tuple(i.subst(values) for i in x.index)
            masks = (*(m.subst(values) for m in x.mask), *mask)
            other = (0.0 if x.other is None else x.other) if masks else None
            return Load(x.buffer, index, x.dtype, masks, other)
        return Iota(x.index.subst(values), x.dtype) if isinstance(x, Iota) else x

    return rewrite(e, leaf)


def _planes(
    plan: Plan,
    e: Load,
    batch: tuple[Axis, ...],
    vs: tuple[Axis, ...],
    ks: tuple[Axis, ...],
    two: Axis | None = None,
) -> tuple[int, tuple[Axis, ...], tuple[Axis, ...], Operand, bool] | None:
    """x[.., a*s + k*d - pad, ..] where that is inside  ==>  planes[.., phase, a + (k*d) // s, ..]
    with zeros around; the rows of a plane lie at one pitch. Neighbours along `two` are the halves
    of an element."""
    if plan.buffers[e.buffer].dtype != "f32":
        return None
    shape = plan.buffers[e.buffer].shape
    of_axis = {a.symbol: a for a in (*vs, *ks, *batch)}
    spatial: list[tuple[int, Axis, int, Index, int]] = []  # dimension, axis, stride, taps, least
    tapped: set[str] = set()
    bounds: set[Index] = set()
    ranges = {a.symbol: (0, a.extent - 1) for a in of_axis.values()}
    for d, i in enumerate(e.index):
        mine = [a for a in vs if a.symbol in i.symbols]
        if not mine:
            continue
        if len(mine) > 1 or not i.is_affine_in(mine[0].symbol):
            return None
        stride = i.coefficient(mine[0].symbol)
        taps = i - Index.of(mine[0].symbol) * stride
        if stride <= 0 or not all(isinstance(t, str) for t, _ in taps.terms):
            return None
        if not taps.symbols <= {a.symbol for a in ks} or taps.symbols & tapped:
            return None
        tapped |= taps.symbols
        low = taps.bounds(ranges)[0]
        spatial.append((d, mine[0], stride, taps - low, low))
        bounds |= {i, shape[d] - 1 - i}
    if [x[1] for x in spatial] != list(vs) or not set(e.mask) <= bounds:
        return None
    others = {s for d, i in enumerate(e.index) if d not in {x[0] for x in spatial} for s in i.symbols}
    if others & tapped:
        return None
    taps_axes = tuple(a for a in ks if a.symbol in tapped)
    if prod(a.extent for a in taps_axes) > MOST_TAPS:
        return None
    deep = tuple(a for a in ks if a.symbol not in tapped)
    phases, rows = [], []
    for n, (_, a, stride, t, low) in enumerate(spatial):
        most = t.bounds(ranges)[1]
        phases.append(Axis(f"phase{n}", min(stride, most + 1)))
        rows.append(a.extent + most // stride + (n == 0))
    # the columns behind a row are those before the next one, where all of them are zeros
    d, a, stride, t, low = spatial[-1]
    wide, size = a.extent + t.bounds(ranges)[1], shape[d]
    shared = wide - (size - low)
    if stride == 1 and len(spatial) > 1 and 0 < shared <= -low and a.extent <= size - low:
        rows[-1] = size - low
    groups = tuple(x for x in (*batch, *deep) if x.symbol in others)
    if two is not None:
        pair = Axis("pair", -(-two.extent // 2))
        groups = tuple(pair if x is two else x for x in groups)
    lines = [Axis(f"line{n}", r) for n, r in enumerate(rows)]
    halves = () if two is None else (Axis("half", 2),)
    axes = tuple(replace(x, kind="parallel") for x in (*groups, *phases, *lines, *halves))
    index, mask = list(e.index), []
    if two is not None:
        channel = Index({"pair": 2, "half": 1})
        index = [i.subst({two.symbol: channel}) for i in index]
        mask += [two.extent - 1 - channel] if two.extent % 2 else []
    spans = {x.symbol: (0, x.extent - 1) for x in axes}
    for n, (d, _, stride, _, low) in enumerate(spatial):
        p = Index.of(f"line{n}") * stride + Index.of(f"phase{n}") + low
        index[d] = p
        lo, hi = p.bounds(spans)
        mask += ([p] if lo < 0 else []) + ([shape[d] - 1 - p] if hi >= shape[d] else [])
    extents = tuple(x.extent for x in axes)
    strides = contiguous(extents)
    name = f"{plan.kernel.name}_planes"
    buffer = Buffer(name, "f32", extents, strides)
    flat = replace(buffer, name=f"{name}_flat", shape=(prod(extents),), strides=(1,), base=name)
    place = Index()
    for x, step in zip(axes, strides, strict=True):
        if x in phases:
            _, _, stride, t, _ = spatial[phases.index(x)]
            place = place + (t % stride) * step
        elif x in lines:
            _, a, stride, t, _ = spatial[lines.index(x)]
            place = place + (Index.of(a.symbol) + t // stride) * step
        elif two is not None and x.symbol == "pair":
            place = place + Index.of(two.symbol) // 2 * step
        elif two is not None and x.symbol == "half":
            place = place + Index.of(two.symbol) % 2
        else:
            place = place + Index.of(x.symbol) * step
    place = place.simplify(ranges)
    other = 0.0 if e.other is None else e.other
    value = Load(e.buffer, tuple(index), "f32", tuple(mask), other)
    store = Store((name,), tuple(Index.of(x.symbol) for x in axes), (value,))
    kernel = stage_kernel(plan, Loops(axes, (store,)), False)
    span = {a.symbol: strides[len(groups) + len(phases) + n] for n, a in enumerate(vs)}
    elements = 1 + sum((a.extent - 1) * span[a.symbol] for a in vs) // (1 if two is None else 2)
    operand = Operand(Load(flat.name, (place,), "f32"), (kernel,), (buffer, flat), None, stage_cost(kernel))
    return elements, deep, taps_axes, operand, False


# -- sizes ---------------------------------------------------------------------------------------


def _sizes(
    plan: Plan,
    pairs: bool,
    elements: int,
    points: int,
    columns: int,
    deep: tuple[Axis, ...],
    taps: tuple[Axis, ...],
    batch: tuple[Axis, ...],
    apart: bool,
) -> tuple[float, Product] | None:
    """The tile that takes the fewest cycles, and these. `apart`: results along the vectors lie apart
    in memory."""
    lanes = elements if pairs else -(-elements // 2)
    words = -(-columns // 2) if pairs else columns
    depth, written = prod(a.extent for a in deep), prod(a.extent for a in taps)
    terms, times = depth * written, prod(a.extent for a in batch)
    cores = max(plan.caps.cores, 1)
    best: tuple[float, float, Product] | None = None
    for vectors in (1, 2, 4, 8):
        if vectors > 1 and lanes < vectors * 16:
            continue
        # the second of two vectors may start one early or end one late only where there are gaps
        if pairs and (vectors > 2 or (vectors == 2 and elements % 2 and elements == points)):
            continue
        least = -(-lanes // (LANES * vectors))
        for groups in dict.fromkeys((least, least + 1, -(-least // cores) * cores)):
            length = -(-lanes // (groups * vectors))
            count = -(-lanes // (length * vectors))
            if length > LANES or count != groups:
                continue
            for scalars in range(1, min(32 // vectors, words) + 1):
                blocks = -(-words // scalars)
                if scalars != -(-words // blocks):
                    continue
                if TRY and TRY != (pairs, vectors, scalars):
                    continue
                sets = _sets(vectors * scalars, length)
                steps, ring = _ring(depth, written, vectors, scalars, pairs, length, sets)
                while steps * written % sets:
                    sets //= 2
                step = _step_cost(vectors, scalars, pairs, length, sets)
                turns = -(-length // 32)
                flushes = terms // PART * vectors * scalars * turns * 1.5
                tail = vectors * scalars * (length if apart else 4 * turns)
                tile = START + terms * step + flushes + tail + steps * written * scalars * vectors
                if ring * step < AHEAD:
                    tile += terms / ring * (AHEAD - ring * step) / 2
                units = times * groups * blocks
                cost = -(-units // cores) * tile
                part = max(1, PART // (steps * written))
                p = Product(
                    pairs, (), (), (), tuple(a.symbol for a in deep), tuple(a.symbol for a in taps),
                    vectors, scalars, length, groups, steps, ring, part, sets,
                )  # fmt: skip
                key = (cost, -vectors * scalars)
                if best is None or key < best[:2]:
                    best = (*key, p)
    return None if best is None else (best[0], best[2])


def _sets(sums: int, length: int) -> int:
    """Sets of sums that take turns: with few of them each would wait for itself."""
    busy = sums * -(-length // 32) / FMA
    return 1 if 2 * busy > LATENCY else 2 if 4 * busy > LATENCY or sums > 8 else 4


def _step_cost(vectors: int, scalars: int, pairs: bool, length: int, sets: int = 1) -> float:
    """Cycles of one term of the sum for a tile: pipes, issue, latency, and lines of scalars."""
    turns = -(-length // 32)
    fma = vectors * scalars * turns / FMA
    issue = vectors * scalars + scalars * 1.07 + vectors * (3 if pairs else 2)
    lines = scalars * 8 / 128 * 30
    return max(fma, issue, LATENCY / sets, lines, vectors * 8.5)


def _ring(
    depth: int, written: int, vectors: int, scalars: int, pairs: bool, length: int, sets: int
) -> tuple[int, int]:
    """How many steps of the deep axes a turn has, and how many loads are under way: so many divide
    the turn's, reach back for the latency of memory and leave registers."""
    free = REGISTERS - vectors * scalars * sets - (2 * vectors if pairs else 0)
    most = max(1, free // vectors)
    want = ceil(AHEAD / _step_cost(vectors, scalars, pairs, length, sets))
    best, choice = None, (1, 1)
    for steps in range(1, min(depth, 32) + 1):
        size = steps * written
        if steps > 1 and size > 32:
            break
        if size % sets and depth * written >= sets:
            continue
        rest = depth % steps
        for ring in range(1, min(most, size) + 1):
            if size % ring:
                continue
            key = (max(want - ring, 0) + rest * written * 0.5 + size * 0.05, size)
            if best is None or key < best:
                best, choice = key, (steps, ring)
    return choice


def emit_dense(
    kernel: Kernel, program: Program, name: str, memory: dict[str, str], attempt: int = 0
) -> Code | None:
    """C of a kernel that was scheduled here; None for others. A further attempt needs fewer
    registers: loads are less far ahead."""
    own = kernel.schedules[0].own if kernel.schedules else None
    if isinstance(own, Window) and not attempt:
        code = emit_window(kernel, program, own, name, memory)
    elif isinstance(own, Product) and attempt < 2:
        size = own.steps * prod(a.extent for a in kernel.body[0].axes if a.symbol in own.taps)
        if attempt:
            fewer = max(d for d in range(1, own.ring + 1) if size % d == 0 and 2 * d <= own.ring + 1)
            own = replace(own, ring=fewer)
        code = emit_product(kernel, program, own, name, memory)
    elif isinstance(own, Copy) and not attempt:
        code = emit_copy(kernel, program, name, memory)
    else:
        return None
    return replace(code, text=FLAGS + code.text)
