"""How a GPU walks a kernel: which block of points each program of the grid computes.

Axes are first fused until a block has one to three dimensions: `m` (or `p`) of everything that lies
apart in memory, `x` of what lies together, `k` of what is summed in the block. A contraction whose
operands each have rows of their own becomes a product of blocks; windows (pooling, depthwise
convolutions) and scans go point by point of the window; rows and long sums have a dimension for
what they reduce. No constant here has been measured yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

from ...affine import Index
from ...ir import Axis, Kernel, Loops, Schedule, loads
from ...schedule.nests import is_contraction, substitute
from ...schedule.plan import Plan, scan_axis, vector_axis
from .blocks import fuse, fuse_all, fuse_outer, grid, points_each, pow2
from .product import packed, product, unrounded, with_factors

POINTS = 1024  # of a block of a pointwise kernel, at most
ROW = 8192  # the longest row that a block holds whole
CHUNK = 2048  # points of a row that are held at once where it is longer
WINDOW = 32  # taps up to which a window is written out


Choose = Callable[[Plan, list[Kernel]], Kernel]  # one of several ways to walk a kernel


def walk_kernel(plan: Plan, choose: Choose = lambda plan, kernels: kernels[0]) -> None:
    """Choose a kernel's blocks: `Target.walk`."""
    nests = plan.kernel.body
    if any(a.extent == 0 for n in nests for a in n.axes if a.kind == "parallel"):
        plan.kernel = replace(plan.kernel, body=())
        return
    if len(nests) == 2 and is_contraction(nests[0]) and (ways := product(plan)):
        plan.kernel = choose(plan, ways)
        return
    plan.kernel = replace(plan.kernel, body=tuple(map(unrounded, nests)))
    if scan_axis(nests[-1]):
        _scan(plan)
    elif len(nests) == 1:
        _points(plan)
    else:
        _rows(plan)


# -- kinds -----------------------------------------------------------------------------------


def _points(plan: Plan) -> None:
    (nest,) = plan.kernel.body
    (nest,), dims = fuse_outer(plan, (nest,), nest.axes, points_each(plan, nest.axes, POINTS))
    plan.kernel = replace(plan.kernel, body=(nest,), schedules=(grid(dims),))


def _scan(plan: Plan) -> None:
    """Independent scans side by side, positions in order."""
    (nest,) = plan.kernel.body
    scan = scan_axis(nest)
    assert scan is not None
    rest = [a for a in nest.axes if a.kind == "parallel"]
    (nest,), dims = fuse_outer(plan, (nest,), rest, points_each(plan, rest, POINTS // 8))
    s = grid(dims)
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
    body, dims = fuse_all(plan, body, outer, columns)
    root = body[-1]
    new, schedules = [], []
    for nest in body[:-1]:
        nest, loops, tiles, block = _inner(nest, {a.symbol for a, _ in dims}, size)
        lead = [f"{a.symbol}.0" for a, _ in dims]
        new.append(nest)
        at = (root.name, f"{dims[-1][0].symbol}.0" if dims else "")
        order = (*loops[:-1], *lead, *loops[-1:])
        schedules.append(Schedule(order, tiles, at=at, block=(*lead, *block)))
    last, loops, tiles, block = _inner(body[-1], {a.symbol for a, _ in dims}, size)
    s = grid(dims)
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
    points = points_each(plan, outer, POINTS // 2)
    nest, root = plan.kernel.body
    together = vector_axis(plan, root)
    axes = sorted(nest.axes, key=lambda a: a.symbol == together)  # weights lie as results do
    nest = with_factors(nest, lambda f: packed(plan, f, axes, 1))
    (nest, root), dims = fuse_outer(plan, (nest, root), outer, points)
    s = grid(dims)
    window = [f"{a.symbol}.0" for a in nest.reduce_axes]
    lead = [f"{a.symbol}.0" for a, _ in dims]
    unroll = frozenset(window if taps <= WINDOW else ())
    at = (root.name, s.order[s.parallel - 1] if s.parallel else "")
    first = Schedule((*window, *lead), unroll=unroll, at=at, block=tuple(lead))
    plan.kernel = replace(plan.kernel, body=(nest, root), schedules=(first, s))


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
        (nest,), _ = fuse((nest,), own, name)
    return nest, [f"{name}.0", f"{name}.1"], {name: (min(size, pow2(total)),)}, [f"{name}.1"]


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
