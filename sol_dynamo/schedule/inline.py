"""Reading through: views of computed buffers, then pointwise producers at the place of their loads.

  resolve   a load through a view of a computed buffer ==> a load of the buffer itself
  inline    consumer(load(p)) ==> consumer(p's expression), where p is pointwise; addresses that
            come to be formulas of indices are `direct`
Each is one sweep in program order; an intermediate's memory disappears when nobody else reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ..affine import Index
from ..ir import (
    DTYPES,
    HALVES,
    OPS,
    Buffer,
    Const,
    Expr,
    Extern,
    Iota,
    Kernel,
    Load,
    Loops,
    Op,
    Origin,
    Program,
    loads,
    read,
    rewrite,
    subst,
    walk,
    written,
)
from .direct import direct, formula
from .nests import bytes_read, is_contraction, map_leaves, points_of, split_of

CHEAP = 4  # vector instructions that are worth repeating rather than a trip through memory
REPEATED = 12  # the same where all readers can repeat them, and memory is read no more often
MANY, LONG = 16, 1 << 14  # points for which a value is made once, in a nest of so many points
VECTORS = 1.02  # operands along one axis of a large tensor count for nothing
ROW = 64  # points of a row for which a value of the row costs nothing
LARGE = 512  # vector instructions of an expression that grows no more: sweeps stay linear


def resolve_views(program: Program) -> Program:
    """load(view of b)[i] ==> load(b)[j] where b is dense and one nest computes all of it."""
    whole = {
        b
        for k in program.kernels
        if isinstance(k, Kernel)
        for b in written(k)
        if program.buffers[b].base is None and is_dense(program.buffers[b])
    }

    def leaf(e: Expr, ranges) -> Expr:
        if not isinstance(e, Load):
            return e
        v = program.buffers[e.buffer]
        if v.base not in whole:
            return e
        base = program.buffers[v.base]
        index = at_address(base, v.address(e.index), ranges)
        if index is None:
            return e
        return Load(base.name, index, e.dtype, e.mask, e.other)

    kernels = tuple(
        k if isinstance(k, Extern) else replace(k, body=tuple(map_leaves(n, leaf) for n in k.body))
        for k in program.kernels
    )
    return replace(program, kernels=kernels)


def is_dense(b: Buffer) -> bool:
    step = 1
    for n, s in sorted(zip(b.shape, b.strides, strict=True), key=lambda p: (p[1], p[0])):
        if n != 1:
            if s != step:
                return False
            step *= n
    return step > 0 and 0 not in b.shape


def at_address(b: Buffer, address: Index, ranges) -> tuple[Index, ...] | None:
    """The index of a dense buffer's element at an address."""
    index = [Index()] * len(b.shape)
    for d, (n, s) in enumerate(zip(b.shape, b.strides, strict=True)):
        if n > 1:
            index[d] = ((address // s).simplify(ranges) % n).simplify(ranges)
    return tuple(index)


@dataclass
class Producer:
    """A pointwise kernel that readers may absorb."""

    position: int
    value: Expr
    index: tuple[Index, ...]
    cost: int
    follows_reduction: bool  # it can be that reduction's epilogue
    repeats: bool  # all readers together may repeat it: that costs no more memory traffic


def inline(program: Program, columns: int = 1, row_cost: int = 0) -> Program:
    """Absorb pointwise producers into their readers, in program order; what is an operand of a
    product is made once for so many of its columns; `row_cost` as in `Caps`."""
    readers: dict[str, int] = {}
    for k in program.kernels:
        for b in read(k):
            readers[b] = readers.get(b, 0) + 1
    foreign = {
        program.base(b).name for k in program.kernels if isinstance(k, Extern) for b in read(k)
    }
    named = {b for k in program.kernels for b in (*read(k), *written(k))}
    viewed = {program.buffers[b].base for b in named}
    absorbers = _absorbers(program)
    producers: dict[str, Producer] = {}
    reductions: set[str] = set()
    kernels: list[Kernel | Extern] = []
    for position, k in enumerate(program.kernels):
        if isinstance(k, Extern):
            kernels.append(k)
            continue
        absorbed: list[Origin] = []
        nest, refused = _absorb(
            program, k.body[0], producers, readers, kernels, absorbed, columns, row_cost
        )
        for p in refused:
            kept = kernels[p.position]
            assert isinstance(kept, Kernel)
            why = f"moves data: {k.name} sums over it, at addresses that it would have to divide"
            kernels[p.position] = replace(kept, note=why)
        kernels.append(replace(k, body=(nest,), origin=merge_origins(*absorbed, k.origin)))
        store = nest.stores[0]
        if store.reduce is not None:
            reductions.update(store.buffers)
            continue
        name = store.buffers[0]
        buffer = program.buffers[name]
        if buffer.base is not None or buffer.scope != "arena" or name in foreign or name in viewed:
            continue
        if len(nest.stores) > 1 or nest.binds or not _is_identity(nest):
            continue
        value = formula(store.values[0], nest)
        cost = sum(OPS[e.name].cost for e in walk(value) if isinstance(e, Op))
        follows = any(e.buffer in reductions and _same_elements(e, nest) for e in loads(nest))
        repeats = absorbers.get(name, 0) == readers.get(name) and _saves(
            program, nest, buffer, readers.get(name, 0)
        )
        producers[name] = Producer(position, value, store.index, cost, follows, repeats)
    return replace(program, kernels=_without_dead(program, kernels))


def _absorb(
    program: Program,
    nest: Loops,
    producers: dict[str, Producer],
    readers: dict[str, int],
    kernels: list[Kernel | Extern],
    absorbed: list[Origin],
    columns: int,
    row_cost: int,
) -> tuple[Loops, list[Producer]]:
    """A nest with its producers' expressions in place of their loads, whose origins are added to
    `absorbed`; and the movements that it must leave where they are."""
    refused: list[Producer] = []
    contraction = is_contraction(nest)
    reduces = any(s.reduce for s in nest.stores)
    points = prod(a.extent for a in nest.axes)
    reuse = 1
    if reduces:
        reuse = 2 if contraction or any(e.mask for e in loads(nest)) or _overlaps(nest) else 1

    def wanted(e: Load) -> Producer | None:
        p = producers.get(e.buffer)
        if p is None or p.cost > LARGE:
            return None
        movement = p.cost == 0
        if movement:
            splits = {a.symbol for a in nest.reduce_axes} if contraction else set()
            if not reduces or _stays_affine(program, p, e, splits):
                return p
            refused.append(p)
            return None
        share = points // max(points_of(e, nest), 1)
        share = -(-share // columns) if contraction else share
        many = share > 1 and (p.cost > CHEAP or (share >= MANY and points >= LONG))
        of_row = p.cost <= row_cost and not contraction and _is_a_rows(program, e, nest)
        if many and not of_row and not _is_wider(p.value):
            return None  # one value for many points
        once = readers[e.buffer] == 1
        if reduces and p.follows_reduction:
            return None
        if contraction and e.mask:
            return None
        if once and (reuse == 1 or contraction):
            return p
        if reuse > 1 or p.follows_reduction:
            return None
        return p if p.cost <= (REPEATED if p.repeats else CHEAP) and _few(p) else None

    def leaf(e: Expr, ranges) -> Expr:
        if not isinstance(e, Load):
            return e
        p = wanted(e)
        if p is None:
            return e
        absorbed.append(kernels[p.position].origin)
        return inlined(e, p.value, p.index, ranges)

    return direct(map_leaves(nest, leaf)), refused


def inlined(e: Load, value: Expr, index: tuple[Index, ...], ranges) -> Expr:
    """The producer's expression at the place of a load of its result."""
    at = {next(iter(i.symbols)): j for i, j in zip(index, e.index, strict=True) if not i.is_const}
    new = subst(value, at)

    def simplified(x: Expr) -> Expr:
        if isinstance(x, Iota):
            return Iota(x.index.simplify(ranges), x.dtype)
        if isinstance(x, Load):
            position = tuple(i.simplify(ranges) for i in x.index)
            mask = tuple(dict.fromkeys((*(m.simplify(ranges) for m in x.mask), *e.mask)))
            other = x.other if x.mask else (0 if e.mask else None)
            return Load(x.buffer, position, x.dtype, mask, other)
        return x

    new = rewrite(new, simplified)
    if e.mask:
        if isinstance(new, Load) and (new.other == e.other or new.mask == e.mask):
            return Load(new.buffer, new.index, new.dtype, new.mask, e.other)
        conditions = [Op("ge", (Iota(m), Const(0, "i64")), "bool") for m in e.mask]
        guard = conditions[0]
        for c in conditions[1:]:
            guard = Op("and", (guard, c), "bool")
        new = Op("where", (guard, new, Const(e.other, e.dtype)), e.dtype)
    return new


def _is_wider(value: Expr) -> bool:
    """Whether a value is 16-bit data as it is computed with: what reads the data has it."""
    return (
        isinstance(value, Op)
        and value.name == "cast"
        and value.dtype == "f32"
        and isinstance(value.args[0], Load)
        and value.args[0].dtype in HALVES
    )


def _is_a_rows(program: Program, e: Load, nest: Loops) -> bool:
    """Whether a value is one for long rows of what lies together in memory: whoever walks a row
    makes it once."""
    inside = {s for i in e.index for s in i.symbols}
    s = nest.stores[0]
    places = [(s.buffers[0], s.index)] if s.reduce is None else [
        (x.buffer, x.index) for x in loads(nest)
    ]  # fmt: skip
    found = {
        a.symbol
        for b, index in places
        for a in nest.axes
        if a.extent >= ROW and program.buffers[b].address(index).coefficient(a.symbol) == 1
    }
    return bool(found) and not found & inside


def _few(p: Producer) -> bool:
    return p.repeats or _loads(p.value) <= 1


def _absorbers(program: Program) -> dict[str, int]:
    """How many kernels read a buffer once for each of their points: they may repeat its making."""
    found: dict[str, int] = {}
    for k in program.kernels:
        if isinstance(k, Kernel):
            nest = k.body[0]
            if not any(s.reduce for s in nest.stores) or not (
                is_contraction(nest) or any(e.mask for e in loads(nest)) or _overlaps(nest)
            ):
                for b in read(k):
                    found[b] = found.get(b, 0) + 1
    return found


def _saves(program: Program, nest: Loops, out: Buffer, readers: int) -> bool:
    """Whether all readers load what a producer loads, rather than its result, for no more bytes."""
    size = bytes_read(nest)
    own = prod(a.extent for a in nest.axes) * DTYPES[out.dtype][0]
    return size * readers <= (size + own * (readers + 1)) * VECTORS


def _overlaps(nest: Loops) -> bool:
    """Whether some load is repeated for several output points (pooling windows)."""
    outputs = {a.symbol for a in nest.axes if a.kind == "parallel" and a.extent > 1}
    inner = {a.symbol for a in nest.reduce_axes if a.extent > 1}
    for e in loads(nest):
        symbols = set().union(*(i.symbols for i in e.index)) if e.index else set()
        if outputs - symbols and inner & symbols:
            return True
        if any(i.symbols & outputs and i.symbols & inner for i in e.index):
            return True
    return False


def _loads(e: Expr) -> int:
    return sum(isinstance(x, Load) for x in walk(e))


def _stays_affine(program: Program, p: Producer, e: Load, splits: set[str]) -> bool:
    """Whether a moved load has an address without division, `splits` being axes that may be cut."""
    at = {next(iter(i.symbols)): j for i, j in zip(p.index, e.index, strict=True) if not i.is_const}
    for x in walk(subst(p.value, at)):
        if isinstance(x, Load):
            for atom, _ in program.buffers[x.buffer].address(x.index).terms:
                if not isinstance(atom, str) and split_of(atom) not in splits:
                    return False
    return True


def _is_identity(nest: Loops) -> bool:
    """Whether the store covers its buffer point by point, one axis a dimension."""
    s = nest.stores[0]
    symbols = [next(iter(i.symbols)) for i in s.index if not i.is_const]
    return (
        not s.mask
        and len(set(symbols)) == len(symbols)
        and all(i.is_const or i == Index.of(next(iter(i.symbols))) for i in s.index)
        and {a.symbol for a in nest.axes if a.extent != 1} <= set(symbols)
    )


def _same_elements(e: Load, nest: Loops) -> bool:
    """Whether a load reads, for each output point, the point of the same index."""
    return e.index == nest.stores[0].index and not e.mask


def _without_dead(program: Program, kernels: list) -> tuple:
    """Kernels whose results are read or returned, by one backward sweep."""
    needed = {program.base(o).name for o in program.outputs if o is not None}
    kept = []
    for k in reversed(kernels):
        names = [b for b in written(k) if program.buffers[b].scope != "local"]
        if isinstance(k, Extern) or any(program.base(b).name in needed for b in names):
            kept.append(k)
            needed.update(
                program.base(b).name for b in read(k) if program.buffers[b].scope != "local"
            )
    return tuple(reversed(kept))


def merge_origins(*origins: Origin) -> Origin:
    return Origin(
        tuple(dict.fromkeys(n for o in origins for n in o.nodes)),
        tuple(t for o in origins for t in o.ops),
        next((o.line for o in origins if o.line), ""),
    )
