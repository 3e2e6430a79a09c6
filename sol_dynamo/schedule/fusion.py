"""Which nests share a kernel: pointwise producers inlined, epilogues and rows grouped.

Three steps, each linear in the size of the program:
  resolve   a load through a view of a computed buffer ==> a load of the buffer itself
  inline    consumer(load(p)) ==> consumer(p's expression), where p is pointwise
  group     reduction; pointwise of its result ==> one kernel, the result in registers
What is computed is unchanged; an intermediate's memory disappears when nobody else reads it.
One file: the three steps share the producer and group records.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..affine import Index
from ..ir import (
    OPS,
    Axis,
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
    Store,
    loads,
    read,
    rewrite,
    subst,
    walk,
    written,
)

CHEAP = 4  # vector instructions that are worth repeating rather than a trip through memory


def fuse(program: Program) -> Program:
    """One nest a kernel ==> as many as belong together."""
    for k in program.kernels:
        if isinstance(k, Kernel) and len(k.body) != 1:
            raise ValueError(f"kernel {k.name} has {len(k.body)} nests before fusion")
    program = without_unit_axes(program)
    program = resolve_views(program)
    program = inline(program)
    program = group(program)
    return drop_unused(program)


def substitute(nest: Loops, values: dict, axes: tuple[Axis, ...]) -> Loops:
    """A nest over other axes, its symbols replaced."""
    ranges = {a.symbol: (0, max(a.extent - 1, 0)) for a in axes}

    def f(e: Expr) -> Expr:
        return subst(e, values)

    def i(x: Index) -> Index:
        return x.subst(values).simplify(ranges)

    stores = tuple(
        replace(
            s,
            index=tuple(map(i, s.index)),
            values=tuple(map(f, s.values)),
            mask=tuple(map(i, s.mask)),
            reduce=s.reduce
            and replace(s.reduce, init=s.reduce.init and tuple(map(f, s.reduce.init))),
        )
        for s in nest.stores
    )
    return Loops(axes, stores, tuple(replace(b, value=f(b.value)) for b in nest.binds))


def drop_unit_axes(nest: Loops) -> Loops:
    ones = {a.symbol: Index() for a in nest.axes if a.extent == 1}
    keep = tuple(a for a in nest.axes if a.extent != 1)
    return substitute(nest, ones, keep) if ones else nest


def without_unit_axes(program: Program) -> Program:
    """An axis of extent 1 is the constant 0: then equal indices are equal objects."""
    kernels = tuple(
        k if isinstance(k, Extern) else replace(k, body=tuple(map(drop_unit_axes, k.body)))
        for k in program.kernels
    )
    return replace(program, kernels=kernels)


# -- resolve ---------------------------------------------------------------------------------


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


def map_leaves(nest: Loops, leaf) -> Loops:
    """A nest with leaf(expr, ranges of the axes) in place of every load, constant and iota."""
    ranges = {a.symbol: (0, max(a.extent - 1, 0)) for a in nest.axes}
    ranges |= {b.symbol: (0, max(b.bound - 1, 0)) for b in nest.binds}

    def f(e: Expr) -> Expr:
        return rewrite(e, lambda x: leaf(x, ranges))

    stores = tuple(
        replace(
            s,
            values=tuple(map(f, s.values)),
            reduce=s.reduce
            and replace(s.reduce, init=s.reduce.init and tuple(map(f, s.reduce.init))),
        )
        for s in nest.stores
    )
    return replace(
        nest, stores=stores, binds=tuple(replace(b, value=f(b.value)) for b in nest.binds)
    )


# -- inline ----------------------------------------------------------------------------------


@dataclass
class Producer:
    """A pointwise kernel that readers may absorb."""

    position: int
    value: Expr
    index: tuple[Index, ...]
    cost: int
    follows_reduction: bool  # it can be that reduction's epilogue


def inline(program: Program) -> Program:
    """Absorb pointwise producers into their readers, in program order."""
    readers: dict[str, int] = {}
    for k in program.kernels:
        for b in read(k):
            readers[b] = readers.get(b, 0) + 1
    foreign = {
        program.base(b).name for k in program.kernels if isinstance(k, Extern) for b in read(k)
    }
    named = {b for k in program.kernels for b in (*read(k), *written(k)) if b}
    viewed = {program.buffers[b].base for b in named}
    producers: dict[str, Producer] = {}
    reductions: set[str] = set()
    kernels: list[Kernel | Extern] = []
    for position, k in enumerate(program.kernels):
        if isinstance(k, Extern):
            kernels.append(k)
            continue
        absorbed: list[Origin] = []
        nest = _absorb(program, k.body[0], producers, readers, kernels, absorbed)
        kernels.append(replace(k, body=(nest,), origin=merge_origins(*absorbed, k.origin)))
        store = nest.stores[0]
        if store.reduce is not None:
            reductions.update(store.buffers)
            continue
        name = store.buffers[0]
        b = program.buffers[name]
        if b.base is not None or b.scope != "arena" or name in foreign or name in viewed:
            continue
        if len(nest.stores) > 1 or nest.binds or not _is_identity(nest):
            continue
        cost = sum(OPS[e.name].cost for e in walk(store.values[0]) if isinstance(e, Op))
        follows = any(e.buffer in reductions and _same_elements(e, nest) for e in loads(nest))
        producers[name] = Producer(position, store.values[0], store.index, cost, follows)
    return replace(program, kernels=_without_dead(program, kernels))


def _absorb(program, nest: Loops, producers, readers, kernels, absorbed) -> Loops:
    contraction = is_contraction(nest)
    reduces = any(s.reduce for s in nest.stores)
    reuse = 1
    if reduces:
        reuse = 2 if contraction or any(e.mask for e in loads(nest)) or _overlaps(nest) else 1

    def wanted(e: Load) -> Producer | None:
        p = producers.get(e.buffer)
        if p is None:
            return None
        movement = p.cost == 0
        if movement:
            splits = {a.symbol for a in nest.reduce_axes} if contraction else set()
            free = not reduces or _stays_affine(program, p, e, splits)
            return p if free else None
        once = readers[e.buffer] == 1
        if reduces and p.follows_reduction:
            return None
        if contraction and e.mask:
            return None
        if once and (reuse == 1 or contraction):
            return p
        return (
            p
            if p.cost <= CHEAP and reuse == 1 and _loads(p.value) <= 1 and not p.follows_reduction
            else None
        )

    def leaf(e: Expr, ranges) -> Expr:
        if not isinstance(e, Load):
            return e
        p = wanted(e)
        if p is None:
            return e
        absorbed.append(kernels[p.position].origin)
        return inlined(e, p.value, p.index, ranges)

    return map_leaves(nest, leaf)


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


def is_contraction(nest: Loops) -> bool:
    """A sum of products of two factors of which each lacks an output axis that the other has."""
    s = nest.stores[0]
    if s.reduce is None or s.reduce.monoid != "sum" or len(nest.stores) > 1:
        return False
    factors = product_factors(s.values[0])
    if factors is None or not nest.reduce_axes:
        return False
    a, b = map(expr_symbols, factors)
    outputs = set().union(*(i.symbols for i in s.index))
    big = {x.symbol for x in nest.axes if x.extent > 1}
    shared = a & b & {x.symbol for x in nest.reduce_axes} & big
    return bool((outputs & b & big) - a) and bool(
        shared or not big & {x.symbol for x in nest.reduce_axes}
    )


def product_factors(e: Expr) -> tuple[Expr, Expr] | None:
    if isinstance(e, Op) and e.name == "mul":
        return e.args[0], e.args[1]
    return None


def expr_symbols(e: Expr) -> set[str]:
    found: set[str] = set()
    for x in walk(e):
        if isinstance(x, Load):
            found.update(*(i.symbols for i in x.index))
        elif isinstance(x, Iota):
            found |= x.index.symbols
    return found


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


def split_of(atom) -> str | None:
    """The axis that is divided, where it alone is."""
    terms = atom.numerator.terms
    return (
        terms[0][0] if len(terms) == 1 and terms[0][1] == 1 and atom.numerator.const == 0 else None
    )


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
    needed |= {program.base(b).name for b in program.mutations.values()}
    kept = []
    for k in reversed(kernels):
        names = [b for b in written(k) if b and program.buffers[b].scope != "local"]
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


# -- group -----------------------------------------------------------------------------------


@dataclass
class Group:
    """Nests of one kernel to be; `rows` are the dimensions that all of them walk in step."""

    members: list[Kernel]
    rank: int
    rows: frozenset[int]
    shape: tuple[int, ...]
    closed: bool = False  # nothing may be added


def group(program: Program) -> Program:
    """Put reductions, what follows point by point, and chains over equal rows into one kernel."""
    groups: list[Group | Extern] = []
    home: dict[str, int] = {}  # buffer -> group that writes it
    first_reader: dict[str, int] = {}
    for k in program.kernels:
        place = None
        if isinstance(k, Kernel):
            place = _joinable(program, k, groups, home, first_reader)
        if place is None:
            groups.append(k if isinstance(k, Extern) else _new_group(k))
            place = len(groups) - 1
        else:
            groups[place] = _joined(groups[place], k)
        for b in read(k):
            if home.get(b) != place:
                first_reader.setdefault(b, place)
        for b in written(k):
            home[b] = place
            base = program.base(b).name
            if base != b:
                home[base] = place
                first_reader.pop(base, None)
    readers: dict[str, set[int]] = {}
    for n, g in enumerate(groups):
        for k in [g] if isinstance(g, Extern) else g.members:
            for b in read(k):
                readers.setdefault(program.base(b).name, set()).add(n)
    buffers = dict(program.buffers)
    kernels = [
        g if isinstance(g, Extern) else _kernel(program, buffers, g, n, readers)
        for n, g in enumerate(groups)
    ]
    return replace(program, buffers=buffers, kernels=tuple(kernels))


def _new_group(k: Kernel) -> Group:
    nest = k.body[0]
    index = nest.stores[0].index
    ranks = _dimensions(nest)
    simple = ranks is not None and not nest.binds and len(nest.stores) == 1
    simple = simple and not _scans(nest)  # each position is stored: nothing may follow in step
    rows = frozenset(d for d, i in enumerate(index) if not i.is_const) if simple else frozenset()
    extents = {a.symbol: a.extent for a in nest.axes}
    shape = tuple(1 if i.is_const else extents.get(next(iter(i.symbols)), 1) for i in index)
    return Group([k], len(index), rows, shape, closed=not simple or not nest.stores[0].reduce)


def _scans(nest: Loops) -> bool:
    return any(a.kind == "scan" for a in nest.axes)


def _dimensions(nest: Loops) -> list[str | None] | None:
    """The axis of each output dimension, or None where the store is not axis by axis."""
    dims: list[str | None] = []
    for i in nest.stores[0].index:
        if i.is_const:
            dims.append(None)
        elif len(i.symbols) == 1 and i == Index.of(next(iter(i.symbols))):
            dims.append(next(iter(i.symbols)))
        else:
            return None
    return dims


def _joinable(program, k: Kernel, groups, home, first_reader) -> int | None:
    """The group that kernel k may become part of."""
    nest = k.body[0]
    if nest.binds or len(nest.stores) > 1 or _scans(nest) or _dimensions(nest) is None:
        return None
    sources = {home[b] for b in read(k) if b in home}
    for b in read(k):
        base = program.base(b).name
        if base in home:
            sources.add(home[base])
    if not sources:
        return None
    place = max(sources)
    g = groups[place]
    if isinstance(g, Extern) or g.closed:
        return None
    # the group will run where k stands now: nobody may have read its results before
    for m in g.members:
        for b in written(m):
            if first_reader.get(b, place) != place:
                return None
    return place if _aligned(nest, g) else None


def _aligned(nest: Loops, g: Group) -> bool:
    """Whether a nest walks the group's rows point by point and reads its results along them."""
    dims = _dimensions(nest)
    extents = {a.symbol: a.extent for a in nest.axes}
    made = {b: m for m in g.members for b in written(m)}
    reduces = nest.stores[0].reduce is not None
    contraction = any(is_contraction(m.body[0]) for m in g.members) or is_contraction(nest)
    if len(dims) != g.rank or (reduces and contraction):
        return False
    for d in g.rows:
        if dims[d] is None or extents[dims[d]] != g.shape[d]:
            return False
    identity = True
    for e in loads(nest):
        if e.buffer not in made:
            continue
        if e.mask or len(e.index) != g.rank:
            return False
        for d, i in enumerate(e.index):
            if d in g.rows:
                if i != Index.of(dims[d]):
                    return False
            elif not (i.is_const or (len(i.symbols) == 1 and i == Index.of(next(iter(i.symbols))))):
                return False
        identity = identity and e.index == nest.stores[0].index
    several = len(g.members) > 1 or reduces or not identity
    if several:  # rows: every nest must have its reduced dimensions innermost
        if contraction or not g.rows <= frozenset(range(len(g.rows))):
            return False
        for m in (*[m.body[0] for m in g.members], nest):
            if not _row_nest(m, len(g.rows)):
                return False
    return True


def _row_nest(nest: Loops, rows: int) -> bool:
    """Whether the loads of a nest are free of windows: one axis a dimension."""
    return all(len(i.symbols) <= 1 for e in loads(nest) for i in e.index) or rows == 0


def _joined(g: Group, k: Kernel) -> Group:
    nest = k.body[0]
    members = [*g.members, k]
    reduces = any(m.body[0].stores[0].reduce for m in members[1:])
    point = not reduces and all(
        e.index == nest.stores[0].index
        for e in loads(nest)
        if e.buffer in {b for m in g.members for b in written(m)}
    )
    del point
    return replace(g, members=members)


def _kernel(program, buffers, g: Group, n: int, readers) -> Kernel:
    """One kernel from a group: intermediates become local, the last nest is its root."""
    made = [b for m in g.members for b in written(m)]
    last = g.members[-1].body[0]
    if _scans(last):
        return g.members[-1]
    outs = {o for o in program.outputs if o is not None}
    bodies = [m.body[0] for m in g.members]
    origin = merge_origins(*(m.origin for m in g.members))
    root_is_plain = last.stores[0].reduce is None
    extra: list[Store] = []
    renamed: dict[str, str] = {}
    tail: list[Loops] = []
    for b in made:
        if root_is_plain and b in last.stores[0].buffers:
            continue
        kept = (
            b in outs
            or buffers[b].base is not None
            or any(r != n for r in readers.get(program.base(b).name, ()))
        )
        local = f"{b}_acc" if kept else b
        old = buffers[b]
        buffers[local] = replace(
            old, name=local, base=None, offset=0, scope="local", strides=_contiguous(old.shape)
        )
        if not kept:
            continue
        renamed[b] = local
        maker = next(m.body[0] for m in g.members if b in written(m))
        position = maker.stores[0].buffers.index(b)
        store = maker.stores[0]
        value = Load(local, store.index, old.dtype)
        same = root_is_plain and _same_space(maker, last)
        if same:
            axes = dict(zip(_dimensions(maker), _dimensions(last), strict=True))
            index = tuple(i.subst({a: c for a, c in axes.items() if a and c}) for i in store.index)
            extra.append(Store((b,), index, (Load(local, index, old.dtype),)))
        else:
            used = {s for i in store.index for s in i.symbols}
            axes = tuple(a for a in maker.axes if a.symbol in used)
            if tail and tail[-1].axes == axes:
                tail[-1] = replace(
                    tail[-1], stores=(*tail[-1].stores, Store((b,), store.index, (value,)))
                )
            else:
                tail.append(Loops(axes, (Store((b,), store.index, (value,)),)))
        del position
    bodies = [rename_buffers(b, renamed) for b in bodies]
    if extra:
        bodies[-1] = replace(bodies[-1], stores=(*bodies[-1].stores, *extra))
    if root_is_plain and tail:
        bodies = [*bodies[:-1], *tail, bodies[-1]]
    else:
        bodies += tail
    return Kernel(g.members[-1].name, tuple(bodies), origin=origin)


def _same_space(a: Loops, b: Loops) -> bool:
    x, y = _dimensions(a), _dimensions(b)
    ea, eb = ({c.symbol: c.extent for c in n.axes} for n in (a, b))
    return len(x) == len(y) and all(
        (p is None) == (q is None) and (p is None or ea[p] == eb[q])
        for p, q in zip(x, y, strict=True)
    )


def rename_buffers(nest: Loops, names: dict[str, str]) -> Loops:
    """A nest with buffers renamed, in loads and stores."""
    if not names:
        return nest

    def leaf(e: Expr, _) -> Expr:
        if isinstance(e, Load) and e.buffer in names:
            return Load(names[e.buffer], e.index, e.dtype, e.mask, e.other)
        return e

    nest = map_leaves(nest, leaf)
    stores = tuple(
        replace(s, buffers=tuple(names.get(b, b) for b in s.buffers)) for s in nest.stores
    )
    return replace(nest, stores=stores)


def drop_unused(program: Program) -> Program:
    """Forget buffers that nothing names any more."""
    used = {*program.inputs, *(o for o in program.outputs if o)}
    for k in program.kernels:
        used.update(b for b in (*read(k), *written(k)) if b)
    for p in program.packs:
        used.update(e.buffer for e in loads(p))
        used.update(b for s in p.stores for b in s.buffers)
    stack = list(used)
    while stack:
        base = program.buffers[stack.pop()].base
        if base is not None and base not in used:
            used.add(base)
            stack.append(base)
    return replace(program, buffers={n: b for n, b in program.buffers.items() if n in used})


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


__all__ = ["Axis", "fuse", "is_contraction", "map_leaves", "merge_origins", "product_factors"]
