"""One kernel of the loop IR as C: its nests walked as their schedules say.

A recursive walk opens one C loop per scheduled loop, binds the nest's axes to C variables, computes
attached nests for the box of points that their consumers need (`bounds`), and writes unrolled loops
out. Masks become loop bounds, peeled border iterations, or, where only a loop outside decides, a
pointer into a page of the padding value. What a point reads and writes is `memory`'s, where sums
live is `accumulators`'. Knows nothing of devices beyond C, nor why a schedule was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...affine import Index
from ...ir import Bind, Expr, Iota, Kernel, Load, Program, walk
from .accumulators import Accumulators
from .addresses import Addresses, Ahead
from .bounds import Bounds, Box
from .memory import Memory
from .scope import Scope, indented
from .values import LANE, Expressions

MAX_TAPS = 8  # reduce loops up to this long are written out to drop dead taps


@dataclass
class Code:
    """What one kernel became."""

    text: str
    units: int
    scratch: int  # bytes of per-thread memory
    tiles: dict[str, str]  # outlined functions: name -> text
    uses: set[tuple[str, str, int]]
    pages: dict[tuple[str, str], int]  # (dtype, literal) -> elements: padding pages that are read


@dataclass(frozen=True)
class Loop:
    """A serial C loop about to be written over `count` iterations of `length` points each."""

    k: int  # the nest
    position: int  # in its schedule's order
    name: str
    axis: str
    first: Index
    count: int
    step: int
    length: int
    clip: Sequence[Index] = ()  # masks over the axis that bound it
    start: str | None = None  # C variable: the row from which a ring is to be filled

    def box(self, box: Box, var: str) -> Box:
        """What one iteration covers."""
        return {**box, self.axis: (self.first + Index.of(var) * self.step, self.length)}


def emit_kernel(
    kernel: Kernel,
    program: Program,
    name: str,
    memory: dict[str, str],
    sites: dict[Bind, int],
    walk: type[Walk] | None = None,
) -> Code:
    """C for one kernel. `memory`: base buffer -> C expression of its first byte; `sites`: the
    number by which an out-of-range bind is reported; `walk`: for other vectors than GNU's."""
    if has_no_points(kernel):
        return Code(f"void {name}(const sol_call *c, long u) {{\n}}\n", 0, 0, {}, set(), {})
    return (walk or Walk)(kernel, program, memory, sites).code(name)


class Walk:
    """One kernel being written. Another kind of vectors brings its own memory and sums."""

    memory_type: type[Memory] = Memory
    sums_type: type[Accumulators] = Accumulators

    def __init__(
        self, kernel: Kernel, program: Program, memory: dict[str, str], sites: dict[Bind, int]
    ):
        self.kernel, self.sites = kernel, sites
        self.attached: dict[tuple[int, str], list[int]] = {}
        self.scope = Scope()
        self.bounds = Bounds(kernel, self.scope)
        self.addresses = Addresses(kernel, program, self.scope, self.bounds, memory)
        self.memory = self.memory_type(kernel, program, self.scope, self.bounds, self.addresses)
        self.expr: Expressions = self.memory.expr
        self.sums = self.sums_type(kernel, self.scope, self.memory)
        self.lanes, self.lane_offset = 1, 0  # of the vector being written
        for i, s in enumerate(kernel.schedules):
            if s.at is not None:
                self.attached.setdefault((self.bounds.nests[s.at[0]], s.at[1]), []).append(i)

    # -- the kernel ----------------------------------------------------------------------------

    def code(self, name: str) -> Code:
        root = len(self.kernel.body) - 1
        box: Box = {a.symbol: (Index(), a.extent) for a in self.kernel.body[root].axes}
        units, tails = self._open_parallel(root, box)
        self._parallel_body(root, tails, box)
        text = (
            f"/* {self._origin()} */\n"
            f"void {name}(const sol_call *c, long u) {{\n{indented(self.scope.lines)}\n}}\n"
        )
        scratch, pages = self.addresses.scratch_size, self.addresses.pages
        return Code(text, units, scratch, self.scope.tiles, self.expr.uses, pages)

    def _origin(self) -> str:
        """Where the kernel comes from, as text of a comment."""
        origin = self.kernel.origin
        text = f"{', '.join(origin.nodes) or self.kernel.name}: {', '.join(origin.ops)}"
        return text.replace("*/", "* /")

    def _open_parallel(self, k: int, box: Box) -> tuple[int, list[tuple[str, str, int, int]]]:
        """Decode the unit number into the leading loops; `box` becomes a unit's. Gives the number
        of units and the loops whose last unit is shorter: axis, variable, last value, its points.
        """
        scope, schedule = self.scope, self.kernel.schedules[k]
        tails, loops = [], []
        for name in schedule.order[: schedule.parallel]:
            axis, step = self.bounds.step(k, name)
            loops.append((name, axis, step, -(-box[axis][1] // step)))
        units, rest = 1, "u"
        for _, _, _, trips in loops:
            units *= trips
        inner = units
        for name, axis, step, trips in loops:
            inner //= trips
            first, extent = box[axis]
            if trips == 1:
                continue
            var = scope.fresh(name.replace(".", ""))
            value = rest if inner == 1 else f"{rest} / {inner}"
            scope.lines.append(f"const long {var} = {value};")
            if inner > 1:
                left = scope.fresh("u")
                scope.lines.append(f"const long {left} = {rest} % {inner};")
                rest = left
            scope.bind(var, 0, trips - 1)
            box[axis] = (first + Index.of(var) * step, step)
            if name == schedule.ahead:
                self.addresses.ahead = Ahead(var, dict(box))
            if extent % step:
                tails.append((axis, var, trips - 1, extent % step))
        return units, tails

    def _parallel_body(self, k: int, tails: list[tuple[str, str, int, int]], box: Box) -> None:
        """The code of a unit; a shorter last unit of a loop has code of its own."""
        if tails:
            (axis, var, full, rest), *others = tails
            for test, length, span in (
                (f"if ({var} < {full}) {{", box[axis][1], (0, full - 1)),
                ("} else {", rest, (full, full)),
            ):
                self.scope.lines.append(test)
                self.scope.ranges[var] = span
                with self.expr.block():
                    self._parallel_body(k, others, {**box, axis: (box[axis][0], length)})
            self.scope.lines.append("}")
            return
        schedule = self.kernel.schedules[k]
        shared = ("", *schedule.order[: schedule.parallel])
        for name in shared:
            self._open_rings(k, name, box)
        attached = [j for name in shared for j in self.attached.get((k, name), ())]
        self._attach(attached, k, 0, box)
        self._walk(k, schedule.parallel, box)

    # -- walking -------------------------------------------------------------------------------

    def _walk(self, k: int, position: int, box: Box) -> None:
        """The loops of nest k from `order[position]` on; `box` is what remains of each axis."""
        nest, schedule = self.bounds.nest(k)
        if nest.binds:
            box = self._bind_indirect(k, box)
        if self.sums.starts_scan(k, position):
            with self.sums.scan(k):
                self._walk(k, position, box)
        elif self.sums.starts_reduction(k, position):
            with self.sums.reduction(k, box):
                self._walk(k, position, box)
        elif position == len(schedule.order):
            self._statements(k, box)
        else:
            self._loop(k, position, box)

    def _loop(self, k: int, position: int, box: Box) -> None:
        """One scheduled loop, with what is inside it."""
        nest, schedule = self.bounds.nest(k)
        name = schedule.order[position]
        axis, step = self.bounds.step(k, name)
        first, extent = box[axis]
        reduces = nest.axis(axis).kind == "reduce"
        if extent == 0 and reduces and self.sums.is_empty(k):
            self._walk(k, position + 1, {**box, axis: (first, 1)})
            return
        clip, start = self.bounds.overreach(k, name, box)
        if schedule.vector is not None and schedule.vector[0] == name:
            self._vectors(k, position, axis, schedule.vector[1], box)
            return
        if name in schedule.unroll:
            for p in range(0, extent, step):
                self._body(k, position, {**box, axis: (first + p, min(step, extent - p))})
            return
        if reduces and step == 1 and not self._is_carried(k, position):
            if extent <= MAX_TAPS and self.bounds.has_dead_taps(k, axis, box):
                for p in range(extent):
                    with self.expr.block():
                        self._body(k, position, {**box, axis: (first + p, 1)})
                return
            clip = self.bounds.clipped(k, axis, box)
        for point, count, length in self._segments(k, name, box):
            self._serial(
                Loop(k, position, name, axis, first + point, count, step, length, clip, start), box
            )

    def _is_carried(self, k: int, position: int) -> bool:
        """Whether sums are in memory between the iterations of a loop: all of these run."""
        schedule = self.kernel.schedules[k]
        return schedule.carry is not None and position <= schedule.order.index(schedule.carry)

    def _vectors(self, k: int, position: int, axis: str, width: int, box: Box) -> None:
        """The vectors that cover what remains of an axis."""
        first, extent = box[axis]
        by_lane = any(axis in symbols for symbols in self._bind_symbols(k))
        for offset, lanes in lane_groups(extent, width):
            if by_lane:  # indirect addresses differ from lane to lane
                for p in range(lanes):
                    self._body(k, position, {**box, axis: (first + offset + p, 1)})
                continue
            outer = self.scope.ranges[LANE]
            self.scope.ranges[LANE] = (0, lanes - 1)
            self.lanes, self.lane_offset = lanes, offset
            point = first + offset + (Index.of(LANE) if lanes > 1 else 0)
            self._body(k, position, {**box, axis: (point, 1)})
            self.scope.ranges[LANE] = outer
            self.lanes = 1

    def _body(self, k: int, position: int, box: Box) -> None:
        """What is inside a loop: a function of its own, or a part of a long sum, where the schedule
        says so."""
        schedule = self.kernel.schedules[k]
        name = schedule.order[position]
        if schedule.outline == name:
            part = self.addresses.part(k, box)
            with (
                self.scope.outlined(),
                self.expr.function(),
                self.addresses.outside(),
                self.addresses.fetching(part),
            ):
                self._inside(k, position, box)
        elif schedule.partial == name:
            with self.sums.part(k):
                self._inside(k, position, box)
        else:
            self._inside(k, position, box)

    def _inside(self, k: int, position: int, box: Box) -> None:
        """Attached nests, then the rest of this nest."""
        name = self.kernel.schedules[k].order[position]
        self._open_rings(k, name, box)
        self._attach(self.attached.get((k, name), []), k, position, box)
        self._walk(k, position + 1, box)

    def _attach(self, attached: Sequence[int], k: int, position: int, box: Box) -> None:
        """Compute nests for what nest k and they themselves read of them in a box of its points."""
        if not attached:
            return
        boxes = self.bounds.boxes(k, position, box)
        for j in sorted(attached):
            self.memory.open(j, boxes[j])
            with self.expr.block():
                self._walk(j, 0, boxes[j])
                ring = self.bounds.rings.get(j)
                if ring is not None:
                    first, rows = boxes[j][ring.axis]
                    end = self.kernel.body[j].axis(ring.axis).extent
                    stop = f"SOL_MIN({self.scope.scalar(first + rows)}, {end})"
                    self.scope.lines.append(f"{ring.done} = SOL_MAX({ring.done}, {stop});")

    def _open_rings(self, k: int, name: str, box: Box) -> None:
        """At a loop where folded buffers live: nothing of them is computed yet."""
        schedule = self.kernel.schedules[k]
        order = ("", *schedule.order)
        for j, s in enumerate(self.kernel.schedules):
            if not s.fold or s.at is None or self.bounds.host(j) != k or s.store_at != name:
                continue
            moving = order[order.index(name) + 1 : order.index(s.at[1]) + 1]
            moving = moving[max(0, schedule.parallel - order.index(name)) :]
            ring = self.bounds.ring(j, moving, box)
            if ring is not None:
                self.scope.lines.append(f"long {ring.done} = 0;")
                self.bounds.rings[j] = ring

    # -- serial loops --------------------------------------------------------------------------

    def _segments(self, k: int, name: str, box: Box) -> Iterator[tuple[int, int, int]]:
        """Cut a serial loop into (first point, iterations, points of each): a shorter last tile
        apart, and border iterations apart where the schedule peels."""
        axis, step = self.bounds.step(k, name)
        full, rest = divmod(box[axis][1], step)
        low, high = 0, full
        if name in self.kernel.schedules[k].peel:
            low, high = self.bounds.interior(k, name, box, full)
        yield from ((v * step, 1, step) for v in range(low))
        if high > low:
            yield low * step, high - low, step
        yield from ((v * step, 1, step) for v in range(max(low, high), full))
        if rest:
            yield full * step, 1, rest

    def _serial(self, loop: Loop, box: Box) -> None:
        """A C loop (or one iteration of it, without the loop)."""
        scope = self.scope
        bounded = bool(loop.clip) or loop.start is not None
        if loop.count == 0:
            return
        if loop.count == 1 and not bounded:
            with self.expr.block():
                self._body(loop.k, loop.position, {**box, loop.axis: (loop.first, loop.length)})
            return
        var = scope.fresh(loop.name.replace(".", ""))
        start, stop = "0", scope.count(loop.count)
        facts = set(scope.facts)
        if bounded:
            start, stop = self._limits(loop, var)
        innermost = self._is_innermost(loop.k, loop.position)
        scope.bind(var, 0, loop.count - 1)
        inner = loop.box(box, var)
        if innermost and not self.addresses.streaming:
            with self.addresses.streams(var, start, stop), self.expr.block():
                self._body(loop.k, loop.position, inner)
        else:
            ahead = self.addresses.ahead
            if self.kernel.schedules[loop.k].ahead == loop.name:
                ahead = Ahead(var, inner)
            scope.lines.append(f"for (long {var} = {start}; {var} < {stop}; {var}++) {{")
            with self.expr.block(), self.addresses.fetching(ahead):
                self._body(loop.k, loop.position, inner)
            scope.lines.append("}")
        scope.facts = facts

    def _limits(self, loop: Loop, var: str) -> tuple[str, str]:
        """C for a loop's first and last + 1 value where masks and a ring bound it. The masks are
        facts from here on."""
        scope = self.scope
        start, stop = ["0"], [scope.count(loop.count)]
        if loop.start is not None:  # what a ring holds already is not computed again
            start.append(f"{loop.start} - {scope.scalar(loop.first)}")
        for mask in loop.clip:
            shifted = mask.subst({loop.axis: loop.first + Index.of(var)})
            c = shifted.coefficient(var)
            rest = shifted - c * Index.of(var)
            if c > 0:  # v >= ceil(-rest / c)
                start.append(ceil_text(scope.scalar(-rest), c))
            else:  # v <= floor(rest / -c)
                stop.append(f"{floor_text(scope.scalar(rest), -c)} + 1")
            scope.facts.add(shifted)
        lo, hi = scope.fresh("lo"), scope.fresh("hi")
        scope.lines.append(f"const long {lo} = {nested('SOL_MAX', start)};")
        scope.lines.append(f"const long {hi} = {nested('SOL_MIN', stop)};")
        return lo, hi

    def _is_innermost(self, k: int, position: int) -> bool:
        """Whether no C loop will stand inside a loop of nest k."""
        schedule = self.kernel.schedules[k]
        name = schedule.order[position]
        if any(self._has_loops(j, 0) for j in self.attached.get((k, name), ())):
            return False
        inside = schedule.order[position + 1 :]
        if schedule.outline in (name, *inside) or self._has_loops(k, position + 1):
            return False
        return not any((k, n) in self.attached for n in inside)

    def _has_loops(self, k: int, position: int) -> bool:
        """Whether a loop of nest k from order[position] on is neither unrolled nor the vector."""
        schedule = self.kernel.schedules[k]
        vector = schedule.vector[0] if schedule.vector else None
        return any(n not in schedule.unroll and n != vector for n in schedule.order[position:])

    # -- points --------------------------------------------------------------------------------

    def _statements(self, k: int, box: Box) -> None:
        """The stores of nest k at one point, or one vector of points."""
        nest, ranges = self.kernel.body[k], self.scope.ranges
        values = {a: first for a, (first, _) in box.items()}
        for store in nest.stores:
            index = tuple(i.subst(values).simplify(ranges) for i in store.index)
            if store.reduce is not None:
                self.sums.add(k, store, index, values, self.lanes, self.lane_offset)
                continue
            new = [self.memory.evaluate(v, values, self.lanes) for v in store.values]
            masks = [m.subst(values).simplify(ranges) for m in store.mask]
            self.memory.guarded_store(store, index, new, masks, self.lanes)

    def _bind_symbols(self, k: int) -> list[frozenset[str]]:
        """For each bind of a nest, the axes that its value depends on."""
        found: dict[str, frozenset[str]] = {}
        for b in self.kernel.body[k].binds:
            direct = expression_symbols(b.value)
            found[b.symbol] = direct.union(*(found.get(s, frozenset()) for s in direct))
        return list(found.values())

    def _bind_indirect(self, k: int, box: Box) -> Box:
        """Compute, as early as possible, the symbols whose values are data: checked, and wrapped
        where negative."""
        for b in self.kernel.body[k].binds:
            needs = expression_symbols(b.value)
            if b.symbol in box or any(s not in box or box[s][1] != 1 for s in needs):
                continue
            var = self.scope.fresh(b.symbol)
            self._bind(b, {s: box[s][0] for s in needs}, var)
            self.scope.bind(var, 0, b.bound - 1)
            box = {**box, b.symbol: (Index.of(var), 1)}
        return box

    def _bind(self, b: Bind, values: Mapping[str, Index], var: str) -> None:
        """Declare C variable `var`, the index that a bind means."""
        v = self.expr.cast(self.memory.evaluate(b.value, values, 1), "i64")
        error = self.scope.only_outside("sol_error *", "c->error")
        self.expr.write(f"long {var} = {v.text} < 0 ? {v.text} + {b.bound} : {v.text};")
        self.expr.write(
            f"if ((unsigned long){var} >= {b.bound}) "
            f"{{ sol_fail({error}, {self.sites[b]}, {v.text}); {var} = 0; }}"
        )


def expression_symbols(e: Expr) -> frozenset[str]:
    """The symbols that an expression depends on."""
    found: set[str] = set()
    for x in walk(e):
        if isinstance(x, Load):
            found.update(*(i.symbols for i in (*x.index, *x.mask)))
        elif isinstance(x, Iota):
            found |= x.index.symbols
    return frozenset(found)


def has_no_points(kernel: Kernel) -> bool:
    """Whether a kernel stores nothing: some output is empty."""
    extents = [a.extent for n in kernel.body[-1:] for a in n.axes if a.kind != "reduce"]
    return not kernel.body or 0 in extents


def lane_groups(extent: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut `extent` points into vectors: full ones, then halves, quarters ... of what is left."""
    offset = 0
    while offset < extent:
        while width > extent - offset:
            width //= 2
        yield offset, width
        offset += width


def ceil_text(numerator: str, divisor: int) -> str:
    return numerator if divisor == 1 else f"SOL_CEIL({numerator}, {divisor})"


def floor_text(numerator: str, divisor: int) -> str:
    return numerator if divisor == 1 else f"SOL_FLOOR({numerator}, {divisor})"


def nested(macro: str, terms: list[str]) -> str:
    """macro(a, macro(b, c))"""
    text = terms[-1]
    for t in reversed(terms[:-1]):
        text = f"{macro}({t}, {text})"
    return text
