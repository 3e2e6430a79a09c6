"""How a kernel is walked on the vector engine: which axis is the vector, and what is inside it.

Any axis can be the vector: lanes may lie any distance apart, and be gathered. What it costs
decides, by a rough model of a core's cycles for 256 elements (KERNELS.md). Several nests (norms,
softmax, sums) are walked across, one of the axes that all of them have being the vector; or along
rows, where each nest has the reduced axis as its vector and a sum ends with its lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from ..affine import Index
from ..ir import DTYPES, Axis, Kernel, Load, Loops, Op, Schedule, expressions, loads, walk
from ..kernels.c.nest import expression_symbols
from ..schedule.plan import Plan, scan_axis
from .dense import schedule_dense
from .program import VL
from .scalar import without_vectors

UNITS = 64  # of a kernel at most: enough to balance the cores
POINTS = 1 << 14  # of a unit at least
# cycles for a vector of 256 elements: of an operation, of an access by how its lanes lie
OPERATION = 10.0
SIDE_BY_SIDE, APART, ANYHOW, SMALL = 16.0, 131.0, 400.0, 450.0
LANES_JOINED = 250.0  # cycles in which the lanes of a sum become one
START = 24.0  # cycles of an instruction, however few its lanes
UNROLLED = 4  # vectors of a light kernel that are under way together
LIGHT = 8  # operations
SHARED_ROWS = 8  # results of a sum of products that share what they read


def walk_kernel(plan: Plan) -> None:
    """The schedules of a kernel: a dense one's, with vectors, or none where lanes cannot be had."""
    if any(a.extent == 0 for n in plan.kernel.body for a in n.axes if a.kind == "parallel"):
        plan.kernel = replace(plan.kernel, body=())
        return
    if schedule_dense(plan):
        return
    body = plan.kernel.body
    schedules = _alone(plan, body[0]) if len(body) == 1 else _together(plan)
    if schedules is None:
        plan.kernel = without_vectors(plan.kernel)
    else:
        plan.kernel = replace(plan.kernel, schedules=schedules)


# -- what an axis costs --------------------------------------------------------------------------


def _cost(plan: Plan, nest: Loops, v: Axis) -> float:
    """Cycles for each point of a nest with an axis as the vector."""
    per = 0.0
    for e in walk(*expressions(nest)):
        if isinstance(e, Op):
            per += OPERATION
        elif isinstance(e, Load):
            per += _access(plan, e.buffer, e.index, e.mask, nest, v.symbol)
    for s in nest.stores:
        if not s.reduce or v.kind != "reduce":
            for b in s.buffers:
                per += _access(plan, b, s.index, s.mask, nest, v.symbol)
    per += sum(ANYHOW for b in nest.binds if v.symbol in expression_symbols(b.value))
    per = max(per, START) * -(-v.extent // VL)
    if v.kind == "reduce":
        per += LANES_JOINED
    return per / v.extent


def _access(
    plan: Plan, buffer: str, index: Sequence[Index], mask: Sequence[Index], nest: Loops, v: str
) -> float:
    b = plan.buffers[buffer]
    address = plan.address(buffer, tuple(index))
    bound = {x.symbol for x in nest.binds if v in expression_symbols(x.value)}
    if bound & address.symbols or any(v in m.symbols for m in mask):
        return ANYHOW
    if v not in address.symbols:
        return 1.0
    if b.scope == "local" and b.base is None:
        return SIDE_BY_SIDE
    if not address.is_affine_in(v):
        return ANYHOW
    if DTYPES[b.dtype][0] < 4:
        return SMALL if abs(address.coefficient(v)) == 1 else ANYHOW
    return SIDE_BY_SIDE if abs(address.coefficient(v)) == 1 else APART


# -- one nest ------------------------------------------------------------------------------------


def _alone(plan: Plan, nest: Loops) -> tuple[Schedule, ...] | None:
    """Points, or scans side by side."""
    scan = scan_axis(nest)
    axes = [a for a in nest.axes if a.kind == "parallel" and a.extent > 1]
    if not axes:
        return None
    v = min(axes, key=lambda a: (_cost(plan, nest, a), -a.extent))
    outer = [a for a in nest.axes if a.kind == "parallel" and a is not v]
    inside: list[str] = []
    if scan is not None:
        inside = [f"{scan.symbol}.0", *(f"{a.symbol}.0" for a in nest.reduce_axes)]
    width = min(VL, v.extent)
    if scan is None and _operations(nest) <= LIGHT:
        width *= min(UNROLLED, -(-v.extent // VL))
    order, tiles, parallel = _outer(outer, v, width, nest)
    point = f"{v.symbol}.{len(tiles[v.symbol])}"
    order = [*order, *inside, point]
    return (Schedule(tuple(order), tiles, parallel, frozenset((point,)), (point, VL)),)


def _operations(nest: Loops) -> int:
    return sum(isinstance(e, Op) for e in walk(*expressions(nest)))


def _outer(
    axes: Sequence[Axis], v: Axis, width: int, nest: Loops
) -> tuple[list[str], dict[str, tuple[int, ...]], int]:
    """Loops outside the vector, those first that are shared among cores: whole axes, or blocks of
    the vector's where it is long and the others are few."""
    inner = prod(a.extent for a in nest.axes if a.kind != "parallel")
    total = prod(a.extent for a in axes) * v.extent * max(inner, 1)
    units = max(1, min(UNITS, total // POINTS))
    tiles: dict[str, tuple[int, ...]] = {}
    order: list[str] = []
    parallel, done = 0, 1
    others = prod(a.extent for a in axes)
    if others < units and v.extent > 2 * width:
        blocks = -(-units // max(others, 1))
        block = -(-v.extent // (blocks * width)) * width
        if block < v.extent:
            tiles[v.symbol] = (block, width)
            order = [*(f"{a.symbol}.0" for a in axes), f"{v.symbol}.0", f"{v.symbol}.1"]
            return order, tiles, len(axes) + 1
    for a in axes:
        order.append(f"{a.symbol}.0")
        if done < units and parallel == len(order) - 1:
            if done * a.extent > 2 * UNITS:
                step = -(-a.extent // -(-units // done))
                if step > 1:
                    tiles[a.symbol] = (step,)
                    order.append(f"{a.symbol}.1")
                    parallel, done = parallel + 1, units
                    continue
            parallel, done = parallel + 1, done * a.extent
    tiles[v.symbol] = (width,)
    return [*order, f"{v.symbol}.0"], tiles, parallel


# -- several nests -------------------------------------------------------------------------------


def _together(plan: Plan) -> tuple[Schedule, ...] | None:
    """The cheaper of: across (a common axis is the vector), and along rows."""
    body, root = plan.kernel.body, plan.kernel.body[-1]
    if any(a.kind == "scan" for n in body for a in n.axes):
        return None
    names = set.intersection(*({a.symbol for a in n.axes} for n in body))
    common = [a for a in root.axes if a.symbol in names and a.kind == "parallel"]
    ways: list[tuple[float, str, Axis | None]] = []
    for a in common:
        if a.extent > 1:
            cost = sum(_cost(plan, n, n.axis(a.symbol)) * _points(n) for n in body)
            ways.append((cost, "across", a))
    rows = [_row_axis(plan, n, names) for n in body]
    if any(r is not None for r in rows):
        cost = sum(
            _points(n) * (_cost(plan, n, r) if r else START * (1 + _operations(n)))
            for n, r in zip(body, rows, strict=True)
        )
        ways.append((cost, "along", None))
    if not ways:
        return None
    _, way, v = min(ways, key=lambda w: w[0])
    if way == "along":
        return _along(plan.kernel, common, rows)
    assert v is not None
    return _across(plan, common, v)


def _points(nest: Loops) -> int:
    return prod(a.extent for a in nest.axes)


def _row_axis(plan: Plan, nest: Loops, common: set[str]) -> Axis | None:
    """The axis of a nest's own along which it is best computed."""
    own = [a for a in nest.axes if a.symbol not in common and a.extent > 1]
    if any(s.reduce and s.reduce.monoid == "welford" for s in nest.stores):
        return None
    return min(own, key=lambda a: _cost(plan, nest, a)) if own else None


def _frame(common: Sequence[Axis], body: Sequence[Loops]) -> Iterator[tuple[Axis, bool]]:
    """The common axes, and whether each is shared among cores."""
    total = max(_points(n) for n in body)
    units, done = max(1, min(UNITS, total // POINTS)), 1
    open = True
    for a in common:
        shared = open and done < units
        open = shared
        done *= a.extent
        yield a, shared


def _along(
    kernel: Kernel, common: Sequence[Axis], rows: Sequence[Axis | None]
) -> tuple[Schedule, ...]:
    """One row at a time: for each nest its own points, then what it sums; vectors innermost."""
    body, root = kernel.body, kernel.body[-1]
    frame = list(_frame(common, body))
    order = [f"{a.symbol}.0" for a, _ in frame]
    parallel = sum(shared for _, shared in frame)
    host = order[-1] if order else ""
    names = {a.symbol for a in common}
    schedules = []
    for nest, v in zip(body, rows, strict=True):
        own = [a for a in nest.axes if a.symbol not in names]
        own = sorted(own, key=lambda a: (a is v, a.kind == "reduce"))
        if v is not None and v.kind == "parallel":  # sums innermost: the vector's points are theirs
            own = sorted(own, key=lambda a: (a.kind == "reduce", a is v))
        loops = [f"{a.symbol}.0" for a in own if a is not v]
        tiles: dict[str, tuple[int, ...]] = {}
        vector: tuple[str, int] | None = None
        unroll = frozenset[str]()
        if v is not None:
            many = v.kind == "reduce" or not nest.reduce_axes
            width = min(VL, v.extent)
            if many and _operations(nest) <= LIGHT:
                width *= min(UNROLLED, -(-v.extent // VL))
            point = f"{v.symbol}.1"
            tiles[v.symbol] = (width,)
            before = [f"{a.symbol}.0" for a in own if a is not v and a.kind == "parallel"]
            after = [f"{a.symbol}.0" for a in own if a is not v and a.kind != "parallel"]
            loops = (
                [*before, f"{v.symbol}.0", *after, point]
                if v.kind == "parallel"
                else ([*before, *after, f"{v.symbol}.0", point])
            )
            vector, unroll = (point, VL), frozenset((point,))
        if nest is root:
            schedules.append(Schedule((*order, *loops), tiles, parallel, unroll, vector))
        else:
            schedules.append(Schedule(tuple(loops), tiles, 0, unroll, vector, at=(root.name, host)))
    return tuple(schedules)


def _across(plan: Plan, common: Sequence[Axis], v: Axis) -> tuple[Schedule, ...]:
    """A vector of rows at a time; of sums of products, several that share what they read."""
    body, root = plan.kernel.body, plan.kernel.body[-1]
    names = {a.symbol for a in common}
    width = min(VL, v.extent)
    frame = list(_frame([a for a in common if a is not v], body))
    if not frame or not any(shared for _, shared in frame):
        frame = [(a, False) for a, _ in frame]
    several = _several(plan, body, frame, v)
    tiles: dict[str, tuple[int, ...]] = {v.symbol: (width,)}
    order = [f"{a.symbol}.0" for a, _ in frame]
    parallel = sum(shared for _, shared in frame)
    if several is not None:
        axis, count = several
        tiles[axis.symbol] = (count,)
    host = f"{v.symbol}.0"
    others = prod(a.extent for a, _ in frame)
    order.append(host)
    if parallel == len(frame) and others < UNITS:
        parallel += 1
    tail = f"{v.symbol}.1"
    unroll = {tail}
    inner_root = [f"{a.symbol}.0" for a in root.axes if a.symbol not in names]
    within = [f"{several[0].symbol}.1"] if several is not None else []
    unroll.update(within)
    schedules = []
    for nest in body:
        own = [a for a in nest.axes if a.symbol not in names]
        if nest is root:
            full = (*order, *within, *inner_root, tail)
            schedules.append(Schedule(full, tiles, parallel, frozenset(unroll), (tail, VL)))
            continue
        loops = [f"{a.symbol}.0" for kind in ("parallel", "reduce") for a in own if a.kind == kind]
        points = [f"{several[0].symbol}.0"] if several is not None else []
        vector = f"{v.symbol}.0"
        schedules.append(
            Schedule(
                (*loops, *points, vector),
                unroll=frozenset((*points, vector)),
                vector=(vector, VL),
                at=(root.name, host),
            )
        )
    return tuple(schedules)


def _several(
    plan: Plan, body: Sequence[Loops], frame: Sequence[tuple[Axis, bool]], v: Axis
) -> tuple[Axis, int] | None:
    """An axis of which several points are computed at once: a load along the vector does not
    depend on it, so that it is read once for all of them."""
    if len(body) != 2 or not body[0].reduce_axes:
        return None
    nest = body[0]
    vectors = [e for e in loads(nest) if any(v.symbol in i.symbols for i in (*e.index, *e.mask))]
    for a, _ in reversed(frame):
        if a.extent > 1 and any(
            all(a.symbol not in i.symbols for i in (*e.index, *e.mask)) for e in vectors
        ):
            count = next((d for d in range(SHARED_ROWS, 1, -1) if a.extent % d == 0), None)
            if count is not None:
                return a, count
    return None
