"""How a GPU walks a kernel: which block of points each program of the grid computes.

Axes are first fused until a block has one to three dimensions: `m` (or `p`) of everything that lies
apart in memory, `x` of what lies together, `k` of what is summed in the block. A contraction whose
operands each have rows of their own becomes a product of blocks; windows (pooling, depthwise
convolutions) and scans go point by point of the window; rows and long sums have a dimension for
what they reduce. Of the constants, those of windows have been measured; POINTS, ROW and CHUNK not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

from ...affine import Index
from ...ir import Axis, Kernel, Loops, Schedule, loads
from ...schedule.nests import is_contraction, substitute
from ...schedule.plan import Plan, scan_axis, vector_axis
from .blocks import WARP, axis_of, fuse, fuse_all, fuse_beside, fuse_outer, grid, points_each, pow2
from .halo import product_of_taps
from .product import packed, product, unrounded, with_factors
from .register_tile import RegisterTile, split, windows

POINTS = 1024  # of a block of a pointwise kernel, at most
ROW = 8192  # the longest row that a block holds whole
CHUNK = 2048  # points of a row that are held at once where it is longer
AHEAD = 3  # chunks that are under way at once, where rows lie side by side
COLUMNS, SECTOR = 32, 8  # rows side by side that a block sums; the fewest that memory is read for
WINDOW = 32  # taps up to which a window is written out
RESULTS = (2, 4, 7, 8)  # of each point of windows that overlap,
MOST_TAPS = 64  # if they have no more taps
THREADS = 224  # of a multiprocessor, at least, where there are several results of a point
VECTOR = 4  # points of a thread that lie together
NEARLY = 1.4  # loads of a result, of the fewest, that few results at a time may need
MOST_LOADED = 0.75  # of a window's elements, where windows move by more than one


Choose = Callable[[Plan, list[Kernel]], Kernel]  # one of several ways to walk a kernel


def walk_kernel(plan: Plan, choose: Choose = lambda plan, kernels: kernels[0]) -> None:
    """Choose a kernel's blocks: `Target.walk`."""
    nests = plan.kernel.body
    if any(a.extent == 0 for n in nests for a in n.axes if a.kind == "parallel"):
        plan.kernel = replace(plan.kernel, body=())
        return
    sums = len(nests) > 1 and all(map(is_contraction, nests[:-1]))
    if sums and (ways := product_of_taps(plan) or product(plan)):
        plan.kernel = choose(plan, ways)
        return
    plan.kernel = replace(plan.kernel, body=tuple(map(unrounded, nests)))
    if scan_axis(nests[-1]):
        _scan(plan)
    elif len(nests) == 1:
        _points(plan)
    else:
        _rows(plan, choose)


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


def _rows(plan: Plan, choose: Choose) -> None:
    """Reductions and what goes with them, over the axes that all nests share."""
    body = plan.kernel.body
    root = body[-1]
    shared = set.intersection(*({a.symbol for a in n.axes} for n in body))
    outer = [a for a in root.axes if a.symbol in shared]
    taps = prod(a.extent for a in body[0].reduce_axes)
    alone = len(body) == 2 and len(outer) == len(root.axes)
    x = vector_axis(plan, root)
    if alone and x in shared and (taps <= WINDOW or _overlaps(body[0], shared)):
        _window(plan, outer, taps, choose)
        return
    together = _row_axis(plan, body, shared)
    longest = max(prod(a.extent for a in n.axes if a.symbol not in shared) for n in body)
    results = prod(a.extent for a in outer)
    if together:
        size = pow2(longest) if longest <= ROW else CHUNK
        columns = max(1, min(CHUNK // size, pow2(results) // 128))
    else:
        columns = min(COLUMNS, pow2(results))
        while columns > SECTOR and results // columns < plan.caps.cores:
            columns //= 2
        size = min(pow2(longest), CHUNK // columns)
    body, dims = (fuse_all if together else fuse_beside)(plan, body, outer, columns)
    root = body[-1]
    s = grid(dims)
    lead = [f"{a.symbol}.0" for a, _ in dims]
    held = _held(s, lead)
    new, schedules = [], []
    for nest in body[:-1]:
        nest, loops, tiles, block = _inner(nest, {a.symbol for a, _ in dims}, size)
        new.append(nest)
        at = (root.name, f"{dims[-1][0].symbol}.0" if dims else "")
        order = (*loops[:-1], *lead, *loops[-1:])
        stages = 0 if together else AHEAD
        schedules.append(Schedule(order, tiles, at=at, block=(*held, *block), stages=stages))
    last, loops, tiles, block = _inner(body[-1], {a.symbol for a, _ in dims}, size)
    s = replace(
        s,
        order=(*s.order[: s.parallel], *loops[:-1], *s.order[s.parallel :], *loops[-1:]),
        tile={**s.tile, **tiles},
        block=(*s.block, *block),
    )
    if longest > size:
        _spill(plan, new, {a.symbol for a, _ in dims})
    plan.kernel = replace(plan.kernel, body=(*new, last), schedules=(*schedules, s))


def _window(plan: Plan, outer: Sequence[Axis], taps: int, choose: Choose) -> None:
    """A reduction tap by tap, in registers."""
    nest, root = plan.kernel.body
    together = vector_axis(plan, root)
    axes = sorted(nest.axes, key=lambda a: a.symbol == together)  # weights lie as results do
    nest = with_factors(nest, lambda f: packed(plan, f, axes, 1))
    plan.kernel = replace(plan.kernel, body=(nest, root))
    ways = _ways(plan, together, taps)
    plan.kernel = choose(plan, [_walked(plan, outer, taps, *way) for way in ways])


def _ways(plan: Plan, together: str | None, taps: int) -> list[tuple[RegisterTile | None, int]]:
    """How many results of each point a window's kernel may make, along which axis: the best first.

    More results load less for each, but leave fewer threads. Measured on an H100 (RESULTS,
    2026-11-26 23:10): of windows that move by one, few results that load nearly as little as the
    most do; of those that move further, two where that saves enough.
    """
    nest, root = plan.kernel.body
    if taps > MOST_TAPS or nest.binds or root.binds:
        return [(None, 1)]
    total = prod(a.extent for a in root.axes)
    threads = total / VECTOR / (THREADS * plan.caps.cores)
    ways: list[tuple[RegisterTile | None, int]] = []
    for w in windows(nest):
        counts = [n for n in RESULTS if w.axis.extent % n == 0 and n <= threads]
        if w.step > 1:
            counts = [n for n in counts[:1] if w.loaded(n) <= MOST_LOADED]
        if w.axis.symbol == together or w.axis.symbol not in {a.symbol for a in root.axes}:
            continue
        best = min((w.loads(n) for n in counts), default=0)
        nearly = [n for n in counts if w.loads(n) <= NEARLY * best]
        ways += [(w, n) for n in (*nearly, *(n for n in counts if n not in nearly))]
    return [*ways, (None, 1)]


def _walked(
    plan: Plan, outer: Sequence[Axis], taps: int, w: RegisterTile | None, results: int
) -> Kernel:
    """A window's kernel, with so many results of each point."""
    body = plan.kernel.body
    written = list[str]()
    if w is not None:
        body = split(body, w.axis, results, "result")
        outer = [body[-1].axis(a.symbol) for a in outer]
        written = ["result.0"]
    total = prod(a.extent for a in outer)
    points = min(POINTS // 2, max(WARP, pow2(total // plan.caps.cores + 1) // 2))
    (nest, root), dims = fuse_outer(plan, body, outer, points)
    s = grid(dims)
    # the taps that results share innermost: fewer weights are needed at a time
    inner = sorted(
        nest.reduce_axes,
        key=lambda a: w is not None and w.tap is not None and a.symbol == w.tap.symbol,
    )
    window = [f"{a.symbol}.0" for a in inner]
    lead = [f"{a.symbol}.0" for a, _ in dims]
    unroll = frozenset((*window, *written) if taps <= WINDOW or written else ())
    at = (root.name, s.order[s.parallel - 1] if s.parallel else "")
    held = _held(s, lead)
    first = Schedule((*window, *lead, *written), unroll=unroll, at=at, block=held)
    s = replace(s, order=(*s.order, *written), unroll=frozenset(written))
    block = prod(n for _, n in dims)
    if results > 4:  # and two vectors of points for each thread
        s = replace(s, warps=max(1, block // (64 * VECTOR)), stages=3)
    elif prod(-(-a.extent // n) for a, n in dims) < plan.caps.cores // 4:
        s = replace(s, warps=max(1, min(4, block // 32)), stages=3)
    return replace(plan.kernel, body=(nest, root), schedules=(first, s))


def _held(s: Schedule, loops: Sequence[str]) -> tuple[str, ...]:
    """Loops over blocks that have several points of their axis."""
    return tuple(loop for loop in loops if axis_of(loop) in s.tile)


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
