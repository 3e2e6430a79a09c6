"""Contractions as products of blocks: which axes are rows, columns and terms, how large the blocks
are, and how weights are laid out for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product as every
from math import prod
from typing import NamedTuple

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
    Schedule,
    Store,
    Work,
    contiguous,
    is_op,
    loads,
    subst,
)
from ...schedule.nests import product_factors, unit_of
from ...schedule.plan import Plan, vector_axis
from . import bordered
from .blocks import ALIGNED, axis_of, fuse, grid, pow2, symbols_of
from .cost import (
    DRAM,
    LAUNCH,
    SMALL_ROWS,
    Machine,
    Shape,
    Tile,
    aten_microseconds,
    loads_of,
    microseconds,
)
from .register_tile import split

SMALLEST = 16  # rows, columns and terms of a block
# terms that still pay where they fill half of the units, of so many results that memory is what
# takes long: point by point 8 terms of 24 columns ran at half of its speed (RESULTS,
# 2026-11-29 02:10)
LEAST_TERMS, MANY_RESULTS = 8, 1 << 22
FEWEST = 4  # rows or columns for which a block that they do not fill still pays
# rows and columns of a block: of two that the model takes for equal, the one with fewer rows, whose
# operand may be computed, is the faster one (3 % in the median of 273 pairs, 7 % in DenseNet's)
SIZES = (
    *((128, 128), (64, 128), (128, 64), (128, 32), (64, 64), (64, 32), (32, 128), (32, 64)),
    *((32, 32), (16, 64), (16, 32), (64, 16)),
)
TERMS = (32, 64, 128)
# rows up to which the plain pipes multiply them one by one, and for these: how many a program takes
# at most, of how many columns and terms, with how many warps (RESULTS, 2026-11-26 23:20)
FEW_ROWS = ((4, 4, 2, 512, 4), (8, 4, 4, 512, 2), (16, 4, 4, 256, 2), (64, 8, 16, 128, 8))
MANY = 4096  # columns up to which they do; of more, blocks are faster (RESULTS, 2026-11-27 02:45),
SO_FEW = 16  # but where so few rows wait for long columns
PARTS = (1, 2, 4, 8)  # programs that share one,
TRIPS = 2  # each of them with so many iterations at least
STAGES = (2, 3, 4)
# times of tiles between which the model does not decide: the one that loads less is 0.4 % better in
# the mean of what was measured (RESULTS, 2026-11-29 02:10)
EQUAL = 1.01
WAYS = 12  # that are timed, where tiles are chosen so
LARGE = 1 << 28  # flop from which a call of ATen is thought of
LARGER = 1 << 30  # where nothing but the call itself is gained
GAIN = 0.7  # of our time that it has to keep below,
GAIN_ALIKE, GAIN_ADDED = 0.8, 0.95  # where both are one kernel, and one that adds
# blocks for each multiprocessor below which cuBLAS's float32 products with a sum inside take 10 to
# 33 us more than without (H100; RESULTS, 2026-11-27 21:30)
FEW_BLOCKS = 0.6
DOUBLES = 1 << 20  # float64 products from which ATen computes them
# blocks for each multiprocessor from which taps are innermost: what a program reads is what it or
# another one has just read (10 % of a 3x3 convolution at 56 x 56; RESULTS, 2026-11-29 02:10)
MANY_BLOCKS = 2
ACROSS = (
    10_000  # elements that a multiprocessor reads per us more slowly than terms that lie together
)
DEEP = 16  # terms that lie together from which windows go tap by tap
# terms up to which each is loaded alone at the speed of memory; and what neighbouring rows that
# read the same elements take, of the model's time (H200; RESULTS, 2026-11-29 02:10)
GATHERED, OVERLAPPING, CLEARLY = 32, 0.85, 0.9


class Roles(NamedTuple):
    """Whose axes are whose in a sum of products: rows are the first factor's alone."""

    factors: tuple[Expr, Expr]
    rows: list[Axis]
    columns: list[Axis]
    batch: list[Axis]


class Laid(NamedTuple):
    """A sum whose operands lie as they are read."""

    nest: Loops
    deep: Axis | None  # along which terms lie together
    # whether neighbouring rows read the same elements: loads that are ahead of their use go past
    # the first-level cache, those of one stage come from there (RESULTS, 2026-11-29 02:10)
    overlapping: bool = False


class Terms(NamedTuple):
    """What is summed: an axis in chunks, for taps one by one."""

    k: Axis
    taps: list[Axis]
    together: bool  # whether an operand's terms lie so

    def schedule(
        self, t: Tile, batch: Sequence[str], lead: tuple[str, str], at: tuple[str, str], many: bool
    ) -> Schedule:
        """Of the sum in blocks of `lead`, at a loop of what follows; whether blocks are `many`."""
        k, point = self.k, f"{self.k.symbol}.1"
        walked = [f"{a.symbol}.0" for a in ((k, *self.taps) if many else (*self.taps, k))]
        order = (*batch, *walked, *lead, point)
        chunk = {k.symbol: (min(t.terms, max(pow2(k.extent), SMALLEST)),)}
        return Schedule(order, chunk, at=at, block=(*lead, point), split=t.parts)


def product(plan: Plan) -> list[Kernel]:
    """out[m, n] = f(sum over k of a[m, k] * b[k, n]), all in blocks: the kernel with blocks of
    several sizes, first those that a model takes for the fastest. Of several sums each starts from
    the one before (`schedule/one_sum.py`). None where rows, columns or terms are too few, or belong
    to both."""
    *nests, root = plan.kernel.body
    roles = [r for nest in nests if (r := roles_of(plan, nest, root)) is not None]
    if len(roles) < len(nests) or any(r[1:] != roles[0][1:] for r in roles):
        return []
    _, rows, columns, batch = roles[0]
    m, n = (prod(a.extent for a in axes) for axes in (rows, columns))
    fewest = min(prod(a.extent for a in nest.reduce_axes) for nest in nests)
    unit = multiplied_by(nests[0].stores[0].values[0])
    least = LEAST_TERMS if unit[1] != "ieee" and m * n >= MANY_RESULTS else SMALLEST
    if max(m, n) < SMALLEST or fewest < least or min(m, n) < 2:
        return []
    lying = [laid(plan, nest, r) for nest, r in zip(nests, roles, strict=True)]
    body, m_axis = fuse((*(x.nest for x in lying), root), rows, "rows")
    body, n_axis = fuse(body, columns, "columns")
    nests, sums = [], list[Terms]()
    for place, (nest, x) in enumerate(zip(body, lying, strict=False)):
        terms = list(nest.reduce_axes)
        if x.deep is None:
            (nest,), k = fuse((nest,), terms, f"terms{place or ''}")
            sums.append(Terms(k, [], False))
        else:
            sums.append(Terms(x.deep, [a for a in terms if a != x.deep], True))
        nests.append(nest)
    root = body[-1]
    few = list[Kernel]()
    if len(nests) == 1:
        few = few_rows(plan, nests[0], root, *sorted((m_axis, n_axis), key=lambda a: a.extent))
    if min(m, n) < FEWEST:
        return few
    lead = f"{m_axis.symbol}.0", f"{n_axis.symbol}.0"
    made = []
    shape = shape_of((m, n), sums, prod(a.extent for a in batch), unit)
    ways = tiles(shape, Machine(plan.caps.cores, plan.caps.local_bytes))
    if any(x.overlapping for x in lying):
        ways = tuple(dict.fromkeys(t._replace(stages=1) for t in ways))
    for t in ways:
        last = grid([(a, 1) for a in batch] + [(m_axis, t.rows), (n_axis, t.columns)])
        last = replace(last, warps=t.warps, stages=t.stages)
        at = (root.name, last.order[last.parallel - 1])
        blocks = prod(a.extent for a in batch) * -(-m // t.rows) * -(-n // t.columns)
        many = blocks >= MANY_BLOCKS * plan.caps.cores
        outer = [f"{a.symbol}.0" for a in batch]
        schedules = [x.schedule(t, outer, lead, at, many) for x in sums]
        body = (*nests, root)
        made.append(replace(plan.kernel, body=body, schedules=(*schedules, last)))
    return [*few, *made]


def roles_of(plan: Plan, nest: Loops, root: Loops) -> Roles | None:
    """None for a sum that is none of products of blocks in float32."""
    store = nest.stores[0]
    factors = product_factors(store.values[0])
    if factors is None or len(root.axes) != len(nest.axes) - len(nest.reduce_axes):
        return None
    if store.reduce is None or store.reduce.acc_dtype != "f32":
        return None
    x = vector_axis(plan, root)
    of_a, of_b = map(symbols_of, factors)
    if x is not None and x in of_a - of_b:
        factors, of_a, of_b = factors[::-1], of_b, of_a
    rows = [a for a in root.axes if a.symbol in of_a - of_b]
    columns = [a for a in root.axes if a.symbol in of_b - of_a]
    batch = [a for a in root.axes if a not in rows and a not in columns]
    return Roles(factors, rows, columns, batch)


def laid(plan: Plan, nest: Loops, r: Roles) -> Laid:
    """A sum of products, with copies of operands where that is faster."""
    terms, factors, store = list(nest.reduce_axes), r.factors, nest.stores[0]
    m, n = (prod(a.extent for a in axes) for axes in (r.rows, r.columns))
    deep = deep_of(plan, nest, terms)
    together = [deep] if deep else []
    if deep is None and (row := _row(plan, nest, r)) is not None:
        factors, (neighbours, channels) = bordered.copied(plan, nest, row, factors)
        terms.remove(row.channels)
        terms.append(channels)
        together = [neighbours, channels]
    within = [*(a for a in terms if a not in together), *together]
    a, b = (
        packed(plan, f, [*r.batch, *axes, *within], len(together) or len(within), copied)
        for f, axes, copied in (
            (factors[0], r.rows, _lies_across(plan, factors[0], r.rows, terms, n)),
            (factors[1], r.columns, _lies_across(plan, factors[1], r.columns, terms, m)),
        )
    )
    if (a, b) == r.factors:
        return Laid(nest, deep)
    value = Op("mul", (a, b), store.values[0].dtype)
    nest = replace(nest, stores=(replace(store, values=(value,)),))
    if len(together) < 2:
        return Laid(nest, deep)
    outer = [a for a in nest.axes if a.kind != "reduce"]
    nest = replace(nest, axes=(*outer, *within))
    (nest,), deep = fuse((nest,), together, "".join(a.symbol for a in together))
    return Laid(nest, deep, overlapping=True)


def _row(plan: Plan, nest: Loops, r: Roles) -> bordered.Row | None:
    """The row of a window for whose image a copy with a border pays: not where the plain pipes
    multiply, which take longer than any load."""
    terms, machine = nest.reduce_axes, Machine(plan.caps.cores, plan.caps.local_bytes)
    m, n, batch = (prod(a.extent for a in axes) for axes in (r.rows, r.columns, r.batch))
    count, unit = prod(a.extent for a in terms), multiplied_by(nest.stores[0].values[0])
    if nest.binds or min(m, n) < FEWEST or count <= GATHERED or unit[1] == "ieee":
        return None
    for factor, other in (r.factors, r.factors[::-1]):
        row = bordered.row(factor, other, terms, DEEP)
        if row is None:
            continue
        rest = prod(a.extent for a in terms if a not in (row.neighbours, row.channels))
        apart = Shape(m, n, count, 1, batch, True, *unit)
        together = Shape(m, n, row.terms, rest, batch, False, *unit)
        now, then = (microseconds(s, tiles(s, machine)[0], machine) for s in (apart, together))
        copied = OVERLAPPING * then + bordered.microseconds(row, nest)
        return row if copied < CLEARLY * now else None
    return None


def shape_of(
    size: tuple[int, int], sums: Sequence[Terms], batch: int, unit: tuple[int, str]
) -> Shape:
    """What the model is asked about; several sums are one of all terms."""
    counts = [(s.k.extent, prod(a.extent for a in s.taps)) for s in sums]
    terms, of_taps = counts[0] if len(sums) == 1 else (sum(map(prod, counts)), 1)
    scattered = not all(s.together for s in sums)
    return Shape(*size, terms, of_taps, batch, scattered, *unit, len(sums))


def few_rows(plan: Plan, nest: Loops, root: Loops, few: Axis, many: Axis) -> list[Kernel]:
    """A product of few rows without `tl.dot`: a program loads some terms of some columns, and
    multiplies them with several rows'. None where terms are several axes or do not lie together."""
    plain = multiplied_by(nest.stores[0].values[0])[1] == "ieee"
    if len(nest.reduce_axes) != 1 or few.extent > (FEW_ROWS[-1][0] if plain else FEWEST - 1):
        return []
    if nest.binds or root.binds:
        return []
    (k,) = nest.reduce_axes
    for e in loads(nest):
        address = plan.address(e.buffer, e.index)
        if k.symbol in address.symbols and address.coefficient(k.symbol) != 1:
            return []
    _, most, columns, terms, warps = next(x for x in FEW_ROWS if few.extent <= x[0])
    if many.extent > MANY and (few.extent > SO_FEW or k.extent < terms):
        return []
    results = _divisor(few.extent, most)
    if results == 1:
        results = _divisor(few.extent, FEW_ROWS[-1][1])
    if results == 1:
        return []
    nest, root = split((nest, root), few, results, "result")
    batch = [a.symbol for a in root.axes if a.symbol not in (few.symbol, many.symbol, "result")]
    outer = (*(f"{a}.0" for a in batch), f"{many.symbol}.0", f"{few.symbol}.0")
    of_block = (f"{many.symbol}.1", f"{k.symbol}.1")
    last = Schedule(
        (*outer, of_block[0], "result.0"),
        {many.symbol: (min(columns, pow2(many.extent)),)},
        parallel=len(outer),
        unroll=frozenset(("result.0",)),
        block=of_block[:1],
        warps=warps,
        stages=2,
    )
    first = Schedule(
        (f"{k.symbol}.0", *outer, of_block[1], "result.0"),
        {k.symbol: (min(terms, pow2(k.extent)),)},
        unroll=frozenset(("result.0",)),
        at=(root.name, outer[-1]),
        block=(outer[-2], of_block[1]),
    )
    return [replace(plan.kernel, body=(nest, root), schedules=(first, last))]


def _divisor(n: int, most: int) -> int:
    return max(d for d in range(1, most + 1) if n % d == 0)


@lru_cache(1024)
def tiles(shape: Shape, machine: Machine, whole: bool = False) -> tuple[Tile, ...]:
    """Blocks to choose from, first the `preferred` one, then by their times; or of the `whole`
    width, each one program's."""
    found: dict[Tile, float] = {}
    for (bm, bn), bk, parts, stages in every(SIZES, TERMS, PARTS, STAGES):
        bm, bn, bk = (
            min(b, max(pow2(e), SMALLEST))
            for b, e in ((bm, shape.rows), (bn, shape.columns), (bk, shape.terms))
        )
        if whole and (bn < shape.columns or parts > 1):
            continue
        trips = shape.taps * -(-shape.terms // bk)
        if (parts > 1 and trips < TRIPS * parts) or stages > max(2, trips // parts):
            continue
        size = bm * bn
        for warps in (2, 4) if size <= 1024 else (4,) if size <= 8192 else (8,):
            t = Tile(bm, bn, bk, parts, warps, stages)
            if t not in found:
                found[t] = microseconds(shape, t, machine)
    return tuple(dict.fromkeys((preferred(shape, found), *sorted(found, key=found.__getitem__))))[
        :WAYS
    ]


def preferred(shape: Shape, times: Mapping[Tile, float]) -> Tile:
    """The quickest tile, or one that is equal to it by the model and loads less."""
    least = min(times.values())
    equal = [t for t, time in times.items() if time <= EQUAL * least]
    return min(equal, key=lambda t: (loads_of(shape, t), times[t]))


def elsewhere(w: Work, machine: Machine) -> str:
    """Why ATen is to compute sums of products, or ""."""
    products = w.batch * w.rows * w.columns * w.terms * w.taps
    if w.kind == "sum inside":
        blocks = w.batch * -(-w.rows // 128) * -(-w.columns // 128)
        few = w.unit == "ieee" and blocks < FEW_BLOCKS * machine.processors
        return "cuBLAS's product with a sum inside is another, slower one" if few else ""
    if w.unit == "double":
        return "" if products < DOUBLES else "products of float64 are not by units of ours"
    if w.kind == "weight gradient":
        return "sums over all points are ATen's"
    if w.kind == "convolution" and w.taps > 1 and not w.constant:
        return "weights that may change lie otherwise than products read them"
    convolved = w.kind == "convolution" and (w.taps > 1 or w.unit != "ieee")
    if 2 * products < (LARGER if w.rectified else LARGE) or min(w.rows, w.columns) < FEWEST:
        return ""
    scattered = w.taps > 1 and w.terms < DEEP
    if convolved and w.unit != "ieee" and (scattered or not w.rectified):
        return ""  # our kernels are as fast, and what follows is part of them
    shape = _shape_of(w)
    ours = microseconds(shape, tiles(shape, machine)[0], machine)
    theirs = aten_microseconds(shape, machine, convolved, w.followed and not w.rectified)
    gain = GAIN if w.followed and not w.rectified else GAIN_ALIKE
    if w.added:  # is read by both, for which nothing is lost
        read = w.batch * w.rows * w.columns * shape.bytes / DRAM
        ours, theirs, gain = ours + read, theirs + read, GAIN_ADDED
        if (other := w.beside) is not None and one_sum(w) and one_sum(other):
            apart, both = _shape_of(other), _shape_of(w, other)
            theirs += microseconds(apart, tiles(apart, machine)[0], machine)
            ours = microseconds(both, tiles(both, machine)[0], machine)
    if theirs > gain * ours:
        return ""
    return f"ATen's {w.kind} is faster: {theirs:.0f} us, ours {ours:.0f}"


def _shape_of(w: Work, *others: Work) -> Shape:
    """Of a sum of products, or of several as one."""
    scattered = any(x.taps > 1 and x.terms < DEEP for x in (w, *others))
    terms, taps = w.terms, w.taps
    if scattered or others:
        terms, taps = sum(x.terms * x.taps for x in (w, *others)), 1
    size = 2 if w.unit == "half" else 4
    loops = 1 + len(others)
    return Shape(w.rows, w.columns, terms, taps, w.batch, scattered, size, w.unit, loops)


def one_sum(w: Work) -> bool:
    """Whether a sum may be one with others in a kernel: it is of products of blocks."""
    fewest = FEW_ROWS[-1][0] + 1 if w.unit == "ieee" else FEWEST
    return min(max(w.rows, w.columns), w.terms) >= SMALLEST and min(w.rows, w.columns) >= fewest


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
    m, n, k = map(axis_of, s.block)
    factors = product_factors(nest.stores[0].values[0])
    reduce = nest.stores[0].reduce
    if factors is None or reduce is None or reduce.monoid != "sum":
        return None
    if [nest.axis(x).kind for x in (m, n, k)] != ["parallel", "parallel", "reduce"]:
        return None
    for a, b in (factors, factors[::-1]):
        if n not in symbols_of(a) and m not in symbols_of(b):
            return Matrix(a, b, m, n, k)
    return None


def adds_products(x: Store) -> bool:
    """Whether a reduction is a sum of products in the dtype of the sum."""
    (e, *more), r = x.values, x.reduce
    assert r is not None
    product = not more and is_op(e, "mul") and r.monoid == "sum"
    return product and e.dtype == r.acc_dtype and e.dtype in ("f32", "f64")


def multiplied_by(value: Expr) -> tuple[int, str]:
    """Bytes of a product's operands, and what multiplies them: see `Shape`."""
    factors = product_factors(value)
    assert factors is not None
    unit = unit_of(factors)
    return 2 if unit == "half" else 4, unit


def deep_of(plan: Plan, nest: Loops, terms: Sequence[Axis]) -> Axis | None:
    """The reduce axis along which an operand lies together in memory, if it is long enough to go
    along it for each point of a window."""
    for a in terms:
        steps = [plan.address(e.buffer, e.index) for e in loads(nest)]
        if (a.extent >= DEEP or len(terms) == 1) and any(
            i.coefficient(a.symbol) == 1 for i in steps
        ):
            return a
    return None


def _lies_across(
    plan: Plan, factor: Expr, own: Sequence[Axis], terms: Sequence[Axis], others: int
) -> bool:
    """Whether an operand's terms lie apart, which TF32's units read more slowly, so that a copy of
    it pays: each block of the `others` reads it again."""
    load = exact(factor)
    if load is factor or not isinstance(load, Load) or len(terms) != 1 or len(own) != 1:
        return False
    address = plan.address(load.buffer, load.index)
    size = own[0].extent * terms[0].extent
    again = others / SMALL_ROWS * size / (ACROSS * plan.caps.cores)
    once = LAUNCH + 2 * DTYPES[load.dtype][0] * size / DRAM
    return address.coefficient(own[0].symbol) == 1 and again > 2 * once


def packed(
    plan: Plan, factor: Expr, axes: Sequence[Axis], padded: int, copied: bool = False
) -> Expr:
    """Weights are read as they are walked, their terms together from aligned addresses, and are
    rounded once: a factor that is one becomes a load of a copy over `axes`, of which the last
    `padded` together start at an aligned address each. So does another one that is to be `copied`,
    at each call."""
    load = exact(factor)
    if is_op(load, "cast") and load.args[0].dtype in HALVES:
        inner = packed(plan, load.args[0], axes, padded)
        return factor if inner is load.args[0] else Op("cast", (inner,), load.dtype)
    if not isinstance(load, Load):
        return factor
    weight = plan.buffers[load.buffer].scope == "weight"
    if not weight and (load.mask or not copied):
        return factor
    address = plan.address(load.buffer, load.index)
    own = [a for a in axes if a.symbol in address.symbols]
    symbols = {a.symbol for a in own}
    if not own or address.symbols != symbols:
        return factor
    if load.mask and (address.const < 0 or any(i.symbols - symbols for i in load.mask)):
        return factor
    if not all(address.is_affine_in(a.symbol) for a in own):
        return factor
    each = ALIGNED // DTYPES[load.dtype][0]
    steps = [address.coefficient(a.symbol) for a in own]
    aligned = steps[-1] == 1 and all(n % each == 0 for n in steps[:-1])
    if load is factor and not load.mask and aligned:
        return factor
    shape = tuple(a.extent for a in own)
    apart = sum(a not in axes[-padded:] for a in own)  # from here on, terms that lie together
    pitch = -(-prod(shape[apart:]) // each) * each
    strides = (*contiguous((*shape[:apart], pitch))[:-1], *contiguous(shape[apart:]))
    key = load, (tuple(a.symbol for a in own), strides, load is factor)
    if key not in plan.packed:
        name = plan.packed[key] = plan.unused(f"{plan.kernel.name}_packed")
        scope = "weight" if weight else "arena"
        plan.buffers[name] = Buffer(name, load.dtype, shape, strides, scope=scope)
        value = factor if weight else load  # which is rounded, too, where its only readers do so
        same = {s for i in load.index for s in i.symbols} - symbols  # along these it repeats
        value = subst(value, dict.fromkeys(same, 0))
        store = Store((name,), tuple(Index.of(a.symbol) for a in own), (value,))
        copy = Loops(tuple(replace(a, kind="parallel") for a in own), (store,))
        if weight:
            plan.packs.append(copy)
        else:
            why = "moves data: an operand whose terms lie apart"
            plan.before.append(Kernel(name, (copy,), origin=plan.kernel.origin, note=why))
    index = tuple(Index.of(a.symbol) for a in own)
    made = Load(plan.packed[key], index, load.dtype)
    return made if load is factor else Op("tf32", (made,), "f32")


def unrounded(nest: Loops) -> Loops:
    """What multiplies outside of the units for it need not round for them."""
    return with_factors(nest, exact)


def with_factors(nest: Loops, f: Callable[[Expr], Expr]) -> Loops:
    """A nest with f(x) * f(y) for each product x * y that it stores or sums."""

    def value(v: Expr) -> Expr:
        factors = product_factors(v)
        return v if factors is None else Op("mul", tuple(map(f, factors)), v.dtype)

    stores = (replace(s, values=tuple(map(value, s.values))) for s in nest.stores)
    return replace(nest, stores=tuple(stores))


def exact(factor: Expr) -> Expr:
    return factor.args[0] if is_op(factor, "tf32") else factor
