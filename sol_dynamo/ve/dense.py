"""The walk of a contraction on the vector engine: which operand is the vector, and what is copied.

A tile is P vectors by Q scalars of 64 bits, all sums in registers, K innermost. Either the scalars
are pairs of neighbouring results (vectors of 256 float32, each in both halves of an element), or
the lanes are (vectors of 512, each scalar in both halves). Every way that an operand can be brought
into such a walk (`operands`) is taken with the best tile for it (`tile_sizes`), and the cheapest is
chosen: all from axes, addresses and extents. `emit_dense`, `stage` and `window` write the C. Knows
no op: convolutions, products of matrices and their gradients are sums of products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from ..affine import Index
from ..ir import (
    Axis,
    Buffer,
    Expr,
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
    walk,
)
from ..kernels.c.nest import Code
from ..schedule.nests import is_contraction, map_leaves, product_factors
from ..schedule.plan import Plan
from .emit_dense import LANES, Product, emit_product
from .operands import Operand, all_symbols, ordered, planes, together, vector_operand
from .packed import supported
from .stage import Copy, emit_copy, schedule_pointwise
from .tile_sizes import START, tile
from .window import MONOIDS, RING, VECTORS, Window, emit_window

# cycles for a result that a kernel of its own finishes, where it lies as that reads it or not
IN_ORDER, APART = 0.3, 6.0
FLAGS = "/* flags: -mllvm -enable-misched=false */\n"  # the order of the text is that of issue
LEAST_WORK = 1 << 14  # products below which a kernel of its own kind is not worth its start


def schedule_dense(plan: Plan) -> bool:
    """Schedule out = f(sum over k of a * b) as a product; False where that is not what it is, or
    another way is as good."""
    if len(plan.kernel.body) == 1:
        return schedule_pointwise(plan)
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
    if (
        store.reduce.acc_dtype != "f32"
        or store.mask
        or any(s.mask or s.reduce for s in root.stores)
    ):
        return False
    if store.values[0].dtype != "f32" or plan.buffers[store.buffers[0]].dtype != "f32":
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
    a, b = (all_symbols(f) for f in factors)
    return bool(a & b) and bool(outputs) and not (a & b & outputs)


def _reads_at_its_point(root: Loops, store: Store) -> bool:
    return all(
        e.index == store.index and not e.mask for e in loads(root) if e.buffer == store.buffers[0]
    )


def _touched(plan: Plan) -> Iterator[Buffer]:
    for nest in plan.kernel.body:
        for name in (
            *(e.buffer for e in loads(nest)),
            *(b for s in nest.stores for b in s.buffers),
        ):
            yield plan.buffers[name]


# -- who uses which axis -------------------------------------------------------------------------


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
                plan.packed[operand.key] = operand.load.buffer
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
    if weight is not None and not names <= all_symbols(e):
        e, weight = weight, e
    if not isinstance(e, Load) or not names <= all_symbols(e):
        return None
    tapped = {a.symbol for a in nest.reduce_axes}
    own = set() if weight is None else all_symbols(weight)
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
    fused = _fusable(plan, nest, root) and len(together(vs, addresses)) == len(vs)
    fused = fused and all(x.is_affine_in(a.symbol) for x in addresses for a in (*batch, c))
    found = planes(plan, e, (*batch, c), vs, nest.reduce_axes, c) if vs else None
    if found is None or found.deep or found.operand is None:
        return None
    elements, taps, vector = found.elements, found.taps, found.operand
    scalar = None
    if weight is not None:
        scalar = ordered(plan, weight, (), (c,), (), taps, 2, False, "scalars")
    chunks = -(-elements // LANES)
    points = prod(a.extent for a in vs)
    for vectors in range(VECTORS, 0, -1):
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
    vn, bn, tn = (tuple(a.symbol for a in axes) for axes in (vs, batch, taps))
    product = Product(True, vn, (c.symbol,), bn, (), tn, vectors, 1, length, groups, 1, ring, 1)
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


def _choice(plan: Plan, v: Expr, s: Expr, pairs: bool, split: bool) -> Choice | None:
    nest, root = plan.kernel.body
    in_v, in_s = all_symbols(v), all_symbols(s)
    addresses = [] if split else _followers(plan, nest, root)
    outputs = sorted(root.axes, key=lambda a: -_place(plan, root, a))
    own_v = [a for a in outputs if a.symbol in in_v - in_s]
    own_s = [a for a in outputs if a.symbol in in_s - in_v]
    if len(own_v) + len(own_s) + sum(a.symbol in in_v & in_s for a in outputs) != len(outputs):
        return None
    vs, ss = together(own_v, addresses), together(own_s, addresses)
    if not vs or (own_s and not ss) or (pairs and not ss):
        return None
    batch = tuple(a for a in outputs if a not in vs and a not in ss)
    if not split and not all(x.is_affine_in(a.symbol) for x in addresses for a in batch):
        return None
    made = vector_operand(plan, v, pairs, batch, tuple(vs), nest.reduce_axes)
    if made is None:
        return None
    deep, taps, vector = made.deep, made.taps, made.operand
    columns = prod(a.extent for a in ss)
    apart = not split and _place(plan, root, vs[-1]) != 1
    sizes = tile(
        plan, pairs, made.elements, prod(a.extent for a in vs), columns, deep, taps, batch, apart
    )
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
    scalar = ordered(plan, s, batch, tuple(ss), deep, taps, width, not pairs, "scalars")
    if vector is None:
        width = product.vectors * product.length * 2
        vector = ordered(plan, v, batch, tuple(vs), deep, taps, width, False, "vectors")
    elif not pairs and product.groups * product.vectors * product.length * 2 != (
        prod(a.extent for a in vs)
    ):
        return None  # the last vector would read past the end of a row
    total = cost + (vector.cost + scalar.cost) / max(plan.caps.cores, 1)
    if split:
        each = IN_ORDER if _place(plan, root, vs[-1]) == 1 else APART
        total += prod(a.extent for a in root.axes) * each / max(plan.caps.cores, 1) + START
    return Choice(product, vector, scalar, split, total)


def _place(plan: Plan, root: Loops, a: Axis) -> int:
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
            fewer = max(
                d for d in range(1, own.ring + 1) if size % d == 0 and 2 * d <= own.ring + 1
            )
            own = replace(own, ring=fewer)
        code = emit_product(kernel, program, own, name, memory, roomy=not attempt)
    elif isinstance(own, Copy) and not attempt:
        code = emit_copy(kernel, program, name, memory)
    else:
        return None
    return replace(code, text=FLAGS + code.text)
