"""Which nests share a kernel: a reduction with what follows point by point, and chains over rows.

  reduction; pointwise of its result ==> one kernel, the result in registers; where the one's shape
      is a view of the other's, too (`reshape`)
  nests over equal rows (softmax, norms) ==> one kernel, row by row
One sweep in program order; what is computed is unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..affine import Index
from ..ir import (
    Buffer,
    Extern,
    Kernel,
    Load,
    Loops,
    Program,
    Store,
    contiguous,
    loads,
    read,
    subst,
    written,
)
from .inline import merge_origins
from .nests import dimensions, is_contraction, is_plain, rename_buffers, scans
from .reshape import in_shape_of


@dataclass
class Group:
    """Nests of one kernel to be; `rows` are the dimensions that all of them walk in step."""

    members: list[Kernel]
    made: set[str]  # buffers that they write
    rows: frozenset[int]
    shape: tuple[int, ...]
    contraction: bool
    plain: bool  # no member has windows: one axis for each dimension that it loads
    across: bool  # its first reduction runs across memory: a row of it is not contiguous
    closed: bool = False  # nothing may be added

    def add(self, k: Kernel) -> None:
        self.members.append(k)
        self.made.update(written(k))
        self.contraction = self.contraction or is_contraction(k.body[0])
        dims = dimensions(k.body[0]) or []
        rows = {a for d in self.rows if d < len(dims) and (a := dims[d])}
        self.plain = self.plain and is_plain(k.body[0], rows)


def group(program: Program) -> Program:
    """Put reductions, what follows point by point, and chains over equal rows into one kernel."""
    buffers = dict(program.buffers)
    program = replace(program, buffers=buffers)  # to which views are added
    groups: list[Group | Extern] = []
    home: dict[str, int] = {}  # buffer -> group that writes it
    first_reader: dict[str, int] = {}
    for k in program.kernels:
        place = _last_source(program, k, groups, home, first_reader)
        if place is not None and isinstance(k, Kernel):
            g = groups[place]
            assert isinstance(g, Group)
            k, place = _joining(program, buffers, k, g, place)
        if place is None or isinstance(k, Extern):
            place = len(groups)
            groups.append(k if isinstance(k, Extern) else _new_group(program, k))
        else:
            g = groups[place]
            assert isinstance(g, Group)
            g.add(k)
        for b in read(k):
            if home.get(b) != place:
                first_reader.setdefault(b, place)
        for b in written(k):
            home[b] = place
            base = program.base(b).name
            if base != b:
                # its slices may be written in any order of groups: the base is there with the last
                home[base] = max(home.get(base, place), place)
                first_reader.pop(base, None)
    readers: dict[str, set[int]] = {}
    for n, one in enumerate(groups):
        for k in [one] if isinstance(one, Extern) else one.members:
            for b in read(k):
                readers.setdefault(program.base(b).name, set()).add(n)
    kernels = tuple(
        one if isinstance(one, Extern) else _kernel(program, buffers, one, n, readers)
        for n, one in enumerate(groups)
    )
    return replace(program, buffers=buffers, kernels=kernels)


def _new_group(program: Program, k: Kernel) -> Group:
    nest = k.body[0]
    store = nest.stores[0]
    simple = dimensions(nest) is not None and not nest.binds and _stores_alike(nest)
    simple = simple and not scans(nest)  # each position is stored: nothing may follow in step
    rows = frozenset(d for d, i in enumerate(store.index) if not i.is_const) if simple else ()
    extents = {a.symbol: a.extent for a in nest.axes}
    shape = tuple(1 if i.is_const else extents.get(next(iter(i.symbols)), 1) for i in store.index)
    return Group(
        [k],
        set(written(k)),
        frozenset(rows),
        shape,
        is_contraction(nest),
        is_plain(nest, {s for i in store.index for s in i.symbols} if store.reduce else ()),
        _across(program, nest),
        closed=not simple or not store.reduce,
    )


def _stores_alike(nest: Loops) -> bool:
    """Whether all results of a nest are of the same points, and all sums or none."""
    return len({(s.index, s.mask, s.reduce is None) for s in nest.stores}) == 1


def _last_source(
    program: Program,
    k: Kernel | Extern,
    groups: list[Group | Extern],
    home: dict[str, int],
    first_reader: dict[str, int],
) -> int | None:
    """The only group that a kernel may become part of: the last of those whose results it reads."""
    if isinstance(k, Extern):
        return None
    nest = k.body[0]
    if nest.binds or scans(nest) or not _stores_alike(nest):
        return None
    sources = {home[x] for b in read(k) for x in (b, program.base(b).name) if x in home}
    if not sources:
        return None
    place = max(sources)
    g = groups[place]
    if isinstance(g, Extern) or g.closed:
        return None
    # the group will run where k stands now: nobody may have read its results before
    if any(first_reader.get(b, place) != place for b in g.made):
        return None
    return place


def _joining(
    program: Program, buffers: dict[str, Buffer], k: Kernel, g: Group, place: int
) -> tuple[Kernel, int | None]:
    """The kernel as it becomes part of a group, and the group's place, or None for that; views that
    it needs are added to the program's `buffers`."""
    nest = k.body[0]
    if _aligned(program, nest, g):
        return k, place
    if g.contraction and len(g.members) == len(nest.stores) == 1 and not nest.stores[0].reduce:
        other = in_shape_of(g.made, g.shape, nest, buffers)
        if other is not None and _aligned(program, other, g):
            return replace(k, body=(other,)), place
    return k, None


def _aligned(program: Program, nest: Loops, g: Group) -> bool:
    """Whether a nest walks the group's rows point by point and reads its results along them."""
    dims = dimensions(nest)
    if dims is None:
        return False
    extents = {a.symbol: a.extent for a in nest.axes}
    reduces = nest.stores[0].reduce is not None
    contraction = g.contraction or is_contraction(nest)
    if len(dims) != len(g.shape) or (reduces and contraction):
        return False
    names = {d: dims[d] for d in g.rows}
    if any(a is None or extents[a] != g.shape[d] for d, a in names.items()):
        return False
    own = {a.symbol for a in nest.axes if a.extent != 1} - set(names.values())
    if reduces and any(a.symbol in own and a.kind != "reduce" for a in nest.axes):
        return False  # several sums of one row: its points are all that one nest walks
    identity = True
    memory = {program.base(b).name for b in g.made}
    for e in loads(nest):
        if e.buffer not in g.made:
            if program.base(e.buffer).name in memory:
                return False
            continue
        if e.mask or len(e.index) != len(g.shape):
            return False
        for d, i in enumerate(e.index):
            along = names.get(d) or (None if i.is_const else next(iter(i.symbols)))
            if along is not None and i != Index.of(along):
                return False
        row = {s for i in e.index for s in i.symbols} - set(names.values())
        if row and row != own:
            return False  # a row's points, each of them for several of its own
        identity = identity and e.index == nest.stores[0].index
    if len(g.members) == 1 and not reduces and identity:
        return True
    # rows: every nest must have them first, beside dimensions of one point, and no windows
    if contraction or g.across:
        return False
    if not g.rows:
        return True
    first = all(names.get(d) or dims[d] is None for d in range(max(g.rows)))
    return first and g.plain and is_plain(nest, {a for a in names.values() if a})


def _across(program: Program, nest: Loops) -> bool:
    """Whether a reduction reads memory that is contiguous along its results."""
    reduces = {a.symbol for a in nest.reduce_axes if a.extent > 1}
    beside = {
        a.symbol
        for e in loads(nest)
        for a in nest.axes
        if a.extent > 1 and program.buffers[e.buffer].address(e.index).coefficient(a.symbol) == 1
    }
    return bool(reduces and beside) and not beside & reduces


def _kernel(
    program: Program, buffers: dict[str, Buffer], g: Group, n: int, readers: dict[str, set[int]]
) -> Kernel:
    """One kernel from a group: intermediates become local, the last nest is its root."""
    last = g.members[-1].body[0]
    if scans(last):
        return g.members[-1]
    outs = {program.base(o).name for o in program.outputs if o is not None}
    fused = last.stores[0].reduce is None  # the last nest is pointwise
    copies: list[tuple[Loops, Store]] = []  # of local results that others need too
    renamed: dict[str, str] = {}
    for m in g.members[:-1] if fused else g.members:
        nest = m.body[0]
        for b, index in ((b, s.index) for s in nest.stores for b in s.buffers):
            old = buffers[b]
            kept = (
                b in outs or old.base is not None or readers.get(program.base(b).name, set()) - {n}
            )
            local = f"{b}_acc" if kept else b
            strides = contiguous(old.shape)
            buffers[local] = replace(
                old, name=local, base=None, offset=0, scope="local", strides=strides
            )
            if kept:
                renamed[b] = local
                copies.append((nest, Store((b,), index, (Load(local, index, old.dtype),))))
    bodies = [rename_buffers(m.body[0], renamed) for m in g.members]
    bodies[len(bodies) - fused :] = _with_copies(copies, bodies[-1] if fused else None)
    origin = merge_origins(*(m.origin for m in g.members))
    return Kernel(g.members[-1].name, tuple(bodies), origin=origin)


def _with_copies(copies: list[tuple[Loops, Store]], root: Loops | None) -> list[Loops]:
    """What follows reductions: copies to memory, in the root where it has their points."""
    found: list[Loops] = []
    for maker, store in copies:
        names = None if root is None else same_points(maker, root)
        if root is not None and names is not None:
            index = tuple(i.subst(names) for i in store.index)
            value = subst(store.values[0], names)
            store = Store(store.buffers, index, (value,))
            root = replace(root, stores=(*root.stores, store))
            continue
        used = {s for i in store.index for s in i.symbols}
        axes = tuple(a for a in maker.axes if a.symbol in used)
        if found and found[-1].axes == axes:
            found[-1] = replace(found[-1], stores=(*found[-1].stores, store))
        else:
            found.append(Loops(axes, (store,)))
    return found if root is None else [*found, root]


def same_points(a: Loops, b: Loops) -> dict[str, str] | None:
    """The axes of a as those of b, where both store the same points."""
    x, y = dimensions(a), dimensions(b)
    if x is None or y is None or len(x) != len(y):
        return None
    ea, eb = ({c.symbol: c.extent for c in n.axes} for n in (a, b))
    names: dict[str, str] = {}
    for p, q in zip(x, y, strict=True):
        if (p is None) != (q is None):
            return None
        if p is not None and q is not None:
            if ea[p] != eb[q]:
                return None
            names[p] = q
    return names
