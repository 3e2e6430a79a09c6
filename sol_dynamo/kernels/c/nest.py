"""One kernel of the loop IR as C: its nests walked as their schedules say.

A recursive walk opens one C loop per scheduled loop, binds the nest's axes to C variables, computes
attached nests for the box of points that their consumers need (bounds inference), writes unrolled
loops out, and turns local buffers whose every index is then constant into named registers. Masks
become loop bounds, peeled border iterations, or, where only a loop outside decides, a pointer
into a page of the padding value. Knows nothing of devices beyond C, nor why a schedule was chosen.
One file: the walk, its masks, its registers and its memory share one state.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ...affine import Index, Range
from ...ir import (
    DTYPES,
    MONOIDS,
    Buffer,
    Const,
    Iota,
    Kernel,
    Load,
    Op,
    Program,
    Store,
    show,
    subst,
)
from ...ir import loads as nest_loads
from ...ir import walk as walk_expr
from .values import LANE, Expressions, Value, c_type, compute_dtype, literal

Box = dict[str, tuple[Index, int]]  # axis -> first point (over C variables), number of points
ZERO = Index()
_OFFSET = re.compile(r"<(\w+):(-?\d+)>")
MAX_TAPS = 8  # reduce loops up to this long are written out to drop dead taps
MAX_PEEL = 4  # border iterations at each end that are worth code of their own


class EmitError(Exception):
    """A schedule that this emitter cannot follow: a bug in scheduling, shown with its kernel."""


@dataclass
class Pointer:
    """An address stream of the innermost loop: base + offset, moved by `step` each iteration."""

    name: str
    base: str
    outer: Index
    guard: tuple[str, ...]  # C conditions; where one fails, the page of `other` is read
    other: float | int | bool | None
    step: int
    dtype: str
    writes: bool
    buffer: str = ""
    included: Index = ZERO  # what of the address `base` includes
    low: int | None = None
    high: int = 0


@dataclass(frozen=True)
class Ahead:
    """A block of weights is in use; the next one is fetched in as many parts as tiles use this."""

    var: str  # the loop over blocks
    start: Box  # the box of the whole block's work
    part: Index = ZERO  # the number of the tile being written
    parts: int = 1


@dataclass
class Accumulator:
    """The running values of one output point (or vector of points)."""

    values: list[Value]
    declared: list[str]
    kept: tuple | None  # where to store the result; None: it stays in registers
    split: bool  # the lanes are parts of one result
    index: tuple  # of the output point


@dataclass
class Function:
    """A C function being written: the kernel's own, or an outlined tile."""

    params: dict[tuple, tuple[str, str, str]] = field(default_factory=dict)  # key: type, name, arg
    inside: set[str] = field(default_factory=set)  # C variables bound within


@dataclass
class Code:
    """What one kernel became."""

    text: str
    units: int
    scratch: int  # bytes of per-thread memory
    tiles: dict[str, str]  # outlined functions: name -> text
    uses: set[tuple[str, str, int]]
    pages: dict[tuple[str, str], int]  # (dtype, literal) -> elements: padding pages that are read


class NestEmitter:
    def __init__(self, kernel: Kernel, program: Program, name: str, memory: dict[str, str]):
        """`memory`: base buffer -> C expression of its first byte."""
        self.kernel, self.program, self.function_name, self.memory = kernel, program, name, memory
        self.nests = {n.name: i for i, n in enumerate(kernel.body)}
        self.attached: dict[tuple[int, str], list[int]] = {}
        for i, s in enumerate(kernel.schedules):
            if s.at is not None:
                self.attached.setdefault((self.nests[s.at[0]], s.at[1]), []).append(i)
        self.ranges: dict[str, Range] = {LANE: (0, 0)}
        self.counter: dict[str, int] = {}
        self.expr = Expressions(self._load, self._index_text, self._fresh)
        self.lines = self.expr.lines
        self.function = Function()
        self.facts: set[Index] = set()  # masks known to hold here
        self.registers: dict[tuple, Value] = {}
        self.partials: dict[int, dict[tuple, list]] = {}  # reduce nest -> open accumulators
        self.origin: dict[str, tuple[Index, ...]] = {}  # local buffer -> its first element's index
        self.scratch: dict[str, int] = {}
        self.scratch_size = 0
        self.tiles: dict[str, str] = {}
        self.pages: dict[tuple[str, str], int] = {}
        self.stream: list[Pointer] | None = None
        self.stream_var: str | None = None
        self.ahead: Ahead | None = None
        self.used: set[str] = set()  # C variables that the text names
        self.outlining = self.within_part = False
        self.lanes, self.lane_offset = 1, 0  # of the vector being written
        self.in_memory = {
            b: walked_serially(kernel, b)
            for b in {b for n in kernel.body for s in n.stores for b in s.buffers}
            if program.buffers[b].scope == "local"
        }

    # -- the kernel ----------------------------------------------------------------------------

    def emit(self) -> Code:
        root = len(self.kernel.body) - 1
        nest, schedule = self.kernel.body[root], self.kernel.schedules[root]
        box: Box = {a.symbol: (Index(), a.extent) for a in nest.axes}
        units, tails = self._open_parallel(root, schedule.parallel, box)
        self._parallel_body(root, tails, box)
        body = "\n".join("  " + t for t in self.lines)
        text = f"void {self.function_name}(const sol_call *c, long u) {{\n{body}\n}}\n"
        return Code(text, units, self.scratch_size, self.tiles, self.expr.uses, self.pages)

    def _open_parallel(self, k: int, count: int, box: Box) -> tuple[int, list]:
        """Decode the unit number into the leading loops; gives their last, shorter units too."""
        tails = []
        loops = []
        for name in self.kernel.schedules[k].order[:count]:
            axis, step = self._loop_step(k, name)
            trips = -(-box[axis][1] // step)
            loops.append((name, axis, step, trips))
        units, rest = 1, "u"
        for _, _, _, trips in loops:
            units *= trips
        inner = units
        for name, axis, step, trips in loops:
            inner //= trips
            first, extent = box[axis]
            if trips == 1:
                continue
            var = self._fresh(name.replace(".", ""))
            value = rest if inner == 1 else f"{rest} / {inner}"
            self.lines.append(f"const long {var} = {value};")
            if inner > 1:
                left = self._fresh("u")
                self.lines.append(f"const long {left} = {rest} % {inner};")
                rest = left
            self._bind(var, 0, trips - 1)
            box[axis] = (first + Index.of(var) * step, step)
            if name == self.kernel.schedules[k].ahead:
                self.ahead = Ahead(var, dict(box))
            if extent % step:
                tails.append((axis, var, trips - 1, extent % step))
        return units, tails

    def _parallel_body(self, k: int, tails: list, box: Box) -> None:
        """The code of a unit; a shorter last unit of a loop has code of its own."""
        if tails:
            (axis, var, full, rest), *others = tails
            for test, length, span in (
                (f"if ({var} < {full}) {{", box[axis][1], (0, full - 1)),
                ("} else {", rest, (full, full)),
            ):
                self.lines.append(test)
                self.ranges[var] = span
                self.expr.push()
                self._parallel_body(k, others, {**box, axis: (box[axis][0], length)})
                self.expr.pop()
            self.lines.append("}")
            return
        schedule = self.kernel.schedules[k]
        count = schedule.parallel
        attached = [
            j for name in ("", *schedule.order[:count]) for j in self.attached.get((k, name), ())
        ]
        if attached:
            boxes = self._boxes(k, 0, box)
            for j in sorted(attached):
                self._attach(j, boxes[j])
        self._walk(k, count, box)

    # -- walking -------------------------------------------------------------------------------

    def _loop_step(self, k: int, name: str) -> tuple[str, int]:
        axis, level = name.rsplit(".", 1)
        tile = self.kernel.schedules[k].tile.get(axis, ())
        return axis, (tile[int(level)] if int(level) < len(tile) else 1)

    def _walk(self, k: int, position: int, box: Box) -> None:
        """The loops of nest k from `order[position]` on; `box` is what remains of each axis."""
        schedule, nest = self.kernel.schedules[k], self.kernel.body[k]
        if k not in self.partials and position == self._first_reduce(k):
            self._reduction(k, position, box)
            return
        if position == len(schedule.order):
            self._statements(k, box)
            return
        name = schedule.order[position]
        axis, step = self._loop_step(k, name)
        first, extent = box[axis]
        vector = schedule.vector is not None and schedule.vector[0] == name
        if vector:
            for offset, lanes in lane_groups(extent, schedule.vector[1]):
                self._vector_point(k, position, box, axis, first, offset, lanes)
            return
        if name in schedule.unroll:
            for p in range(0, extent, step):
                inner = {**box, axis: (first + p, min(step, extent - p))}
                self._body(k, position, name, inner)
            return
        reduces = nest.axis(axis).kind != "parallel"
        if reduces and step == 1 and extent <= MAX_TAPS and self._has_dead_taps(k, axis, box):
            for p in range(extent):
                self.expr.push()
                self._body(k, position, name, {**box, axis: (first + p, 1)})
                self.expr.pop()
            return
        clip = self._clipped(k, axis, box) if reduces and step == 1 else None
        for start, count, length in self._segments(k, name, axis, step, box):
            self._serial(k, position, name, axis, first + start, count, step, length, box, clip)

    def _body(self, k: int, position: int, name: str, box: Box) -> None:
        """Attached nests, then the rest of this nest; outlined where the schedule says so."""
        if self.kernel.schedules[k].outline == name:
            self._outlined(k, position, name, box)
            return
        if self.kernel.schedules[k].partial == name:
            self._partial_sum(k, position, name, box)
            return
        self._attached_then_walk(k, position, name, box)

    def _attached_then_walk(self, k: int, position: int, name: str, box: Box) -> None:
        attached = self.attached.get((k, name), ())
        if attached:
            boxes = self._boxes(k, position, box)
            for j in attached:
                self._attach(j, boxes[j])
        self._walk(k, position + 1, box)

    def _attach(self, j: int, box: Box) -> None:
        """Compute nest j for a box of its output."""
        nest = self.kernel.body[j]
        self.expr.push()
        for s in nest.stores:
            for b in s.buffers:
                self.origin[b] = tuple(
                    i.subst({a: f for a, (f, _) in box.items()}) for i in s.index
                )
                for key in [key for key in self.registers if key[0] == b]:
                    del self.registers[key]
        self._walk(j, 0, box)
        self.expr.pop()

    def _segments(self, k, name, axis, step, box) -> Iterator[tuple[int, int, int]]:
        """Cut a serial loop into (first point, iterations, points of each): a shorter last tile
        apart, and border iterations apart where the schedule peels."""
        extent = box[axis][1]
        full, rest = divmod(extent, step)
        low, high = 0, full
        if name in self.kernel.schedules[k].peel:
            low, high = self._interior(k, name, axis, step, box, full)
        yield from ((v * step, 1, step) for v in range(low))
        if high > low:
            yield low * step, high - low, step
        yield from ((v * step, 1, step) for v in range(max(low, high), full))
        if rest:
            yield full * step, 1, rest

    def _interior(self, k, name, axis, step, box, trips) -> tuple[int, int]:
        """The iterations [low, high) in which every mask that this loop can decide holds."""
        var = self._fresh("v")
        self._bind(var, 0, trips - 1)
        position = self.kernel.schedules[k].order.index(name)
        first = box[axis][0]
        boxes = self._boxes(k, position, {**box, axis: (first + Index.of(var) * step, step)})
        low, high = 0, trips
        for j, b in boxes.items():
            for mask in self._masks(j):
                least = minimum(mask, b)
                c = least.coefficient(var)
                if c == 0 or not least.is_affine_in(var):
                    continue
                rest = least - Index.of(var) * c
                bound = rest.bounds(self.ranges)[0]  # the mask holds where c * v + bound >= 0
                if c > 0:
                    low = max(low, -(bound // c))
                else:
                    high = min(high, bound // -c + 1)
        del self.ranges[var]
        low, high = min(max(low, 0), trips), max(min(high, trips), 0)
        if low > MAX_PEEL or trips - high > MAX_PEEL:
            return 0, trips
        return low, max(low, high)

    def _serial(self, k, position, name, axis, first, count, step, length, box, clip) -> None:
        """A C loop (or one iteration of it, without the loop)."""
        if count == 0:
            return
        if count == 1 and clip is None:
            self.expr.push()
            self._body(k, position, name, {**box, axis: (first, length)})
            self.expr.pop()
            return
        var = self._fresh(name.replace(".", ""))
        start, stop = "0", self._trip_text(count)
        kept = set(self.facts)
        if clip is not None:
            start, stop, facts = self._clip_text(clip, axis, first, count, var)
            self.facts |= facts
        innermost = self._is_innermost(k, position)
        self._bind(var, 0, count - 1)
        if innermost and self.stream is None:
            self._innermost(
                k, position, name, axis, first, count, step, length, box, var, start, stop
            )
        else:
            self.lines.append(f"for (long {var} = {start}; {var} < {stop}; {var}++) {{")
            self.expr.push()
            inner = {**box, axis: (first + Index.of(var) * step, length)}
            if self.kernel.schedules[k].ahead == name:
                self.ahead = Ahead(var, inner)
            self._body(k, position, name, inner)
            if self.kernel.schedules[k].ahead == name:
                self.ahead = None
            self.expr.pop()
            self.lines.append("}")
        self.facts = kept

    def _innermost(
        self, k, position, name, axis, first, count, step, length, box, var, start, stop
    ) -> None:
        """The innermost C loop: addresses move by constant steps, one pointer per stream."""
        outer_lines, self.lines = self.lines, []
        self.expr.lines = self.lines
        self.stream, self.stream_var = [], var
        self.expr.push()
        self._body(k, position, name, {**box, axis: (first + Index.of(var) * step, length)})
        self.expr.pop()
        body, streams = self.lines, self.stream
        self.lines, self.stream = outer_lines, None
        self.expr.lines = self.lines
        self.lines.append("{")
        for p in streams:
            self.lines.append(self._pointer_text(p, var, start, count))
        for p in streams:
            body += self._fetch_ahead(p, var)
        counted = var not in self.used
        self.lines.append("#pragma GCC unroll 1")
        if counted:
            left = f"{stop} - {start}" if start != "0" else stop
            self.lines.append(f"for (long n = {left}; n > 0; n--) {{")
        else:
            self.lines.append(f"for (long {var} = {start}; {var} < {stop}; {var}++) {{")
        lows = {p.name: p.low for p in streams}
        for line in body:  # a guarded stream starts at its lowest element
            self.lines.append("  " + _OFFSET.sub(lambda m: str(int(m[2]) - lows[m[1]]), line))
        for p in streams:
            if p.step:
                moved = f"{p.name} += {p.step};" if not p.guard else f"{p.name} += {p.name}_step;"
                self.lines.append(f"  {moved} SOL_OPAQUE({p.name});")
        self.lines.append("}}")

    def _fetch_ahead(self, p: Pointer, var: str) -> list[str]:
        """Statements of a loop over weights that fetch its share of the next block into L2."""
        if self.ahead is None or not self.outlining or p.guard or p.writes or not p.step:
            return []
        block = p.included.coefficient(self.ahead.var)
        if not block or self.program.base(p.buffer).scope != "weight":
            return []
        size, parts = DTYPES[p.dtype][0], self.ahead.parts
        key = ("ahead", p.buffer, p.included)
        if key not in self.function.params:
            self.outlining = False  # the arguments' text stands at the call
            next_part = p.included + block + self.ahead.part * (block // parts)
            memory = self.memory[self.program.base(p.buffer).name]
            arg = f"(({storage(p.dtype)} *){memory}) + {self._index_text(next_part)}"
            self.outlining = True
            self.function.params[key] = ("const char *", self._fresh("f"), f"(char *)({arg})")
            for what, n in (("parts", parts), ("step", max(1, p.step * size // parts))):
                self.function.params[*key, what] = ("const long ", self._fresh("n"), str(n))
        first, parts_name, step = (
            self.function.params[k][1] for k in (key, (*key, "parts"), (*key, "step"))
        )
        f = self._fresh("f")
        offset = self._index_text(p.outer.subst({var: 0}) * size)
        self.lines.append(f"const char *{f} = {first} + {offset} / {parts_name};")
        return [f"__builtin_prefetch({f}, 0, 2); {f} += {step};"]

    def _part(self, k: int, box: Box) -> Ahead | None:
        """Which of the tiles of a block of weights this box is."""
        ahead, schedule = self.ahead, self.kernel.schedules[k]
        if ahead is None:
            return None
        part, parts = Index(), 1
        order = schedule.order
        inside = order[order.index(schedule.ahead) + 1 : order.index(schedule.outline) + 1]
        steps = dict(self._loop_step(k, name) for name in inside)  # of each axis the finest
        for axis, step in steps.items():
            first, extent = ahead.start[axis]
            trips = -(-extent // step)
            part = part * trips + (box[axis][0] - first) // step
            parts *= trips
        return replace(ahead, part=part.simplify(self.ranges), parts=parts) if parts > 1 else None

    def _pointer_text(self, p: Pointer, var: str, start: str, count: int) -> str:
        low = p.low if p.guard else 0
        ctype = c_type(storage(p.dtype))
        address = self._index_text(p.outer.subst({var: 0}) + low)
        moved = f" + ({start}) * {p.step}L" if start != "0" and p.step else ""
        const = "" if p.writes else "const "
        if not p.guard:
            return f"{const}{ctype} *{p.name} = {p.base} + {address}{moved};"
        page = self._page(p.dtype, p.other, p.high - low + 1)
        test = " && ".join(p.guard)
        return (
            f"const long {p.name}_in = {test}, {p.name}_step = {p.name}_in ? {p.step} : 0;\n  "
            f"{const}{ctype} *{p.name} = {p.name}_in ? {p.base} + {address}{moved} : {page};"
        )

    def _page(self, dtype: str, other, elements: int) -> str:
        """Memory full of one value, for loads whose mask fails."""
        text = literal(other or 0, compute_dtype(dtype))
        key = (dtype, text)
        self.pages[key] = max(self.pages.get(key, 0), elements + 64)
        return page_name(*key)

    def _vector_point(self, k, position, box, axis, first, offset, lanes) -> None:
        outer = self.ranges[LANE]
        self.ranges[LANE] = (0, lanes - 1)
        point = first + offset + (Index.of(LANE) if lanes > 1 else 0)
        name = self.kernel.schedules[k].order[position]
        self.lanes, self.lane_offset = lanes, offset
        self._body(k, position, name, {**box, axis: (point, 1)})
        self.ranges[LANE] = outer
        self.lanes = 1

    def _is_innermost(self, k: int, position: int) -> bool:
        schedule = self.kernel.schedules[k]
        if (k, schedule.order[position]) in self.attached:
            inner = [
                n
                for j in self.attached[k, schedule.order[position]]
                for n in self.kernel.schedules[j].order
                if n not in self.kernel.schedules[j].unroll
                and self.kernel.schedules[j].vector
                != (n, (self.kernel.schedules[j].vector or (0, 0))[1])
            ]
            if inner:
                return False
        if schedule.outline == schedule.order[position]:
            return False
        vector = schedule.vector[0] if schedule.vector else None
        for name in schedule.order[position + 1 :]:
            if name not in schedule.unroll and name != vector:
                return False
            if (k, name) in self.attached or schedule.outline == name:
                return False
        return True

    # -- boxes and masks -----------------------------------------------------------------------

    def _boxes(self, k: int, position: int, box: Box) -> dict[int, Box]:
        """What is needed of nest k and of the nests attached at or below order[position]."""
        boxes = {k: box}
        loops = set(self.kernel.schedules[k].order[position:])
        inside = {k}
        for j in range(k - 1, -1, -1):
            at = self.kernel.schedules[j].at
            if at is None:
                continue
            host = self.nests[at[0]]
            if (host == k and (at[1] in loops or not at[1])) or (host in inside and host != k):
                inside.add(j)
                boxes[j] = self._needed(j, boxes)
        return boxes

    def _needed(self, j: int, boxes: dict[int, Box]) -> Box:
        """The box of nest j's axes that covers every load of its buffers in `boxes`."""
        nest = self.kernel.body[j]
        outputs = {b for s in nest.stores for b in s.buffers}
        index = nest.stores[0].index
        region: list[tuple[Index, int] | None] = [None] * len(index)
        for i, box in boxes.items():
            for load in nest_loads(self.kernel.body[i]):
                if load.buffer not in outputs:
                    continue
                for d, component in enumerate(load.index):
                    region[d] = union(region[d], footprint(component, box, self.ranges))
        needed: Box = {}
        host = boxes[max(boxes)]
        for d, component in enumerate(index):
            if component.is_const:
                continue
            (symbol,) = component.symbols
            if region[d] is not None:
                needed[symbol] = region[d]
            elif symbol in host:  # it writes memory that nothing here reads: along its host's axes
                needed[symbol] = host[symbol]
        for a in nest.axes:
            needed.setdefault(a.symbol, (Index(), a.extent))
        return needed

    def _masks(self, j: int) -> list[Index]:
        masks: list[Index] = []
        for e in walk_expr(*(v for s in self.kernel.body[j].stores for v in s.values)):
            if isinstance(e, Load):
                masks += e.mask
            elif isinstance(e, Op) and e.name == "ge" and isinstance(e.args[0], Iota):
                masks.append(e.args[0].index)
        for s in self.kernel.body[j].stores:
            masks += s.mask
        return masks

    def _clipped(self, k: int, axis: str, box: Box):
        """Masks that bound a reduce loop: (coefficient, rest over C variables) each. Skipping an
        iteration is right where a failed mask makes the value the monoid's identity."""
        nest = self.kernel.body[k]
        bounds = []
        for s in nest.stores:
            if s.reduce is None or len(s.values) != 1:
                return None
            identity = MONOIDS[s.reduce.monoid].identity[0]
            for mask in {m for m in self._masks(k) if axis in m.symbols}:
                if not vanishes(s.values[0], mask, identity) or not mask.is_affine_in(axis):
                    continue
                others = [a for a in mask.symbols if a != axis]
                if any(box[a][1] > 1 for a in others):
                    continue
                point = mask.subst({a: box[a][0] for a in others})
                if LANE in point.symbols:
                    continue
                bounds.append(point)
        first, extent = box[axis]
        ranges = {**self.ranges, axis: (0, extent - 1)}
        open_bounds = [b for b in bounds if b.subst({axis: first + axis}).bounds(ranges)[0] < 0]
        return open_bounds or None

    def _has_dead_taps(self, k: int, axis: str, box: Box) -> bool:
        """Whether some mask of a reduce loop fails for some points of an unrolled axis only, and
        can be decided when the loop is written out: a padded image's border tile."""
        for mask in self._masks(k):
            if axis not in mask.symbols:
                continue
            wide = [a for a in mask.symbols if a != axis and box[a][1] > 1]
            least = minimum(mask, box)
            if wide and least.bounds(self.ranges)[0] < 0 and least.is_const:
                return True
        return False

    def _clip_text(self, clip, axis, first, count, var) -> tuple[str, str, set[Index]]:
        start, stop, facts = ["0"], [self._trip_text(count)], set()
        for mask in clip:
            shifted = mask.subst({axis: first + Index.of(var)})
            c = shifted.coefficient(var)
            rest = shifted - c * Index.of(var)
            if c > 0:  # v >= ceil(-rest / c)
                start.append(ceil_text(self._scalar_param(-rest), c))
            else:  # v <= floor(rest / -c)
                stop.append(f"{floor_text(self._scalar_param(rest), -c)} + 1")
            facts.add(shifted)
        lo, hi = self._fresh("lo"), self._fresh("hi")
        self.lines.append(f"const long {lo} = {nested('SOL_MAX', start)};")
        self.lines.append(f"const long {hi} = {nested('SOL_MIN', stop)};")
        return lo, hi, facts

    # -- statements ----------------------------------------------------------------------------

    def _statements(self, k: int, box: Box) -> None:
        nest = self.kernel.body[k]
        if nest.binds:
            raise EmitError(f"indirect loads are not emitted yet: {show(nest)}")
        values = {a: first for a, (first, _) in box.items()}
        for store in nest.stores:
            lanes = self.lanes
            new = [self._evaluate(v, values, lanes) for v in store.values]
            index = tuple(i.subst(values).simplify(self.ranges) for i in store.index)
            if store.reduce is not None:
                self._accumulate(k, store, index, new, lanes)
                continue
            guard = [self._condition(m.subst(values)) for m in store.mask]
            guard = [g for g in guard if g != "1"]
            if guard:
                self.lines.append(f"if ({' && '.join(guard)}) {{")
            for b, v in zip(store.buffers, new, strict=True):
                self._store(b, index, v, lanes)
            if guard:
                self.lines.append("}")

    def _evaluate(self, e, values, lanes) -> Value:
        return self.expr.value(self._resolve(e, values), lanes)

    def _resolve(self, e, values):
        """Substitute C variables, simplify, and decide the masks that can be decided."""
        e = subst(e, values)

        def leaf(x):
            if isinstance(x, Load):
                mask = tuple(
                    m for m in (m.simplify(self.ranges) for m in x.mask) if not self._holds(m)
                )
                if any(m.bounds(self.ranges)[1] < 0 for m in mask):
                    return Const(x.other if x.other is not None else 0, x.dtype)
                index = tuple(i.simplify(self.ranges) for i in x.index)
                return Load(x.buffer, index, x.dtype, mask, x.other)
            return x

        new: dict[int, object] = {}
        for x in walk_expr(e):
            if not isinstance(x, Op):
                new[id(x)] = leaf(x)
                continue
            args = tuple(new[id(a)] for a in x.args)
            if x.name == "ge" and isinstance(args[0], Iota) and isinstance(args[1], Const):
                condition = args[0].index - int(args[1].value)
                lo, hi = condition.bounds(self.ranges)
                if lo >= 0 or condition in self.facts or hi < 0:
                    new[id(x)] = Const(hi >= 0, "bool")
                    continue
            if (
                x.name == "mul"
                and x.dtype == "f32"
                and any(
                    isinstance(a, Const)
                    and a.value == 0
                    and isinstance(b, Load)
                    and b.buffer in self.program.buffers
                    and self.program.base(b.buffer).scope == "weight"
                    for a, b in (args, args[::-1])
                )
            ):
                new[id(x)] = Const(0.0, x.dtype)  # a padded tap: its weight does not matter
                continue
            new[id(x)] = Op(x.name, args, x.dtype) if args != x.args else x
        return new[id(e)]

    def _holds(self, mask: Index) -> bool:
        return mask in self.facts or mask.bounds(self.ranges)[0] >= 0

    def _condition(self, mask: Index) -> str:
        mask = mask.simplify(self.ranges)
        if self._holds(mask):
            return "1"
        return f"({self._scalar_param(mask)} >= 0)"

    # -- reductions ----------------------------------------------------------------------------

    def _first_reduce(self, k: int) -> int | None:
        """The position of the first reduce loop: accumulators live from there on."""
        nest, schedule = self.kernel.body[k], self.kernel.schedules[k]
        if not any(s.reduce for s in nest.stores):
            return None
        for p, name in enumerate(schedule.order):
            if nest.axis(name.rsplit(".", 1)[0]).kind == "reduce":
                return p
        return len(schedule.order)

    def _reduction(self, k: int, position: int, box: Box) -> None:
        """The loops of a reduction, between its accumulators' declarations and its results."""
        self.partials[k] = {}
        mark = len(self.lines)
        self._walk(k, position, box)
        accumulators = self.partials.pop(k)
        self.lines[mark:mark] = [line for a in accumulators.values() for line in a.declared]
        self._finish(k, accumulators)

    def _partial_sum(self, k: int, position: int, name: str, box: Box) -> None:
        """A part of a long sum on its own, then added: the error grows with the root of the parts,
        not of the terms."""
        totals, self.partials[k] = self.partials[k], {}
        mark, self.within_part = len(self.lines), True
        self._attached_then_walk(k, position, name, box)
        self.within_part = False
        parts, self.partials[k] = self.partials[k], totals
        self.lines[mark:mark] = [line for a in parts.values() for line in a.declared]
        for (store, key, slot), part in parts.items():
            total = totals.get((store, key, slot))
            if total is None:
                lanes = part.values[0].lanes
                total = self._new_accumulator(k, store, part.index, lanes, part.kept, part.split)
                totals[store, key, slot] = total
            (a,), (v,) = total.values, part.values
            self.lines.append(f"{a.text} = {self.expr.combine(store.reduce.monoid, a, v)};")

    def _accumulate(self, k, store: Store, index, new, lanes) -> None:
        """Combine one point (or one vector of points) into its accumulator."""
        nest, vector = self.kernel.body[k], self.kernel.schedules[k].vector
        key, kept = self._register_key(store.buffers[0], index, lanes)
        slot = ()
        if lanes > 1 and nest.axis(vector[0].rsplit(".", 1)[0]).kind == "reduce":
            slot = (lanes, self.lane_offset)
        acc = self.partials[k].get((store, key, slot))
        if acc is None:
            acc = self._new_accumulator(k, store, index, lanes, kept, bool(slot))
            self.partials[k][store, key, slot] = acc
        monoid = store.reduce.monoid
        if len(acc.values) > 1:
            self._combine_pair(monoid, acc.values, new, lanes)
            return
        (a,), (v,) = acc.values, new
        v = v if v.dtype == a.dtype else self.expr.cast(v, a.dtype)
        if v.text == literal(MONOIDS[monoid].identity[0], v.dtype) and v.lanes == 1:
            return
        if v.dtype == "bool" and v.lanes > 1:
            v = self.expr.mask_bits(v, a.bits)
        self.lines.append(f"{a.text} = {self.expr.combine(monoid, a, v)};")

    def _new_accumulator(self, k, store: Store, index, lanes, kept, split) -> Accumulator:
        reduce, values, declared = store.reduce, [], []
        for i, b in enumerate(store.buffers):
            dtype = compute_dtype(reduce.acc_dtype if i == 0 else self.program.buffers[b].dtype)
            ctype, name = c_type(dtype, lanes, 32), self._fresh("a")
            start = literal(MONOIDS[reduce.monoid].identity[i], dtype)
            if reduce.init is not None and not self.within_part:
                outer, stream = self.lines, self.stream
                self.lines = self.expr.lines = declared
                self.stream = None  # this stands before the loops
                self.expr.push()
                v = self._evaluate(reduce.init[i], self._output_point(k, index), lanes)
                self.expr.pop()
                self.lines = self.expr.lines = outer
                self.stream = stream
                start = v.text if v.lanes == lanes else self.expr.splat(v, lanes).text
            elif lanes > 1:
                minus = dtype == "bool" and start != "0"
                start = f"({ctype}){{0}} - 1" if minus else f"{start} - ({ctype}){{0}}"
            declared.append(f"{ctype} {name} = {start};")
            values.append(Value(name, dtype, lanes, 32))
        return Accumulator(values, declared, kept, split, index)

    def _output_point(self, k, index) -> dict[str, Index]:
        declared = self.kernel.body[k].stores[0].index
        pairs = zip(declared, index, strict=True)
        return {next(iter(d.symbols)): i for d, i in pairs if not d.is_const}

    def _combine_pair(self, monoid, acc, new, lanes) -> None:
        if monoid not in ("argmax", "argmin"):
            raise EmitError(f"monoid {monoid} is not emitted yet")
        (best, where), (v, i) = acc, new
        v, i = self.expr.splat(v, lanes), self.expr.splat(self.expr.cast(i, where.dtype), lanes)
        sign = ">" if monoid == "argmax" else "<"
        t = self._fresh("m")
        if lanes == 1:
            self.lines.append(
                f"const i32 {t} = {v.text} {sign} {best.text} || "
                f"({v.text} != {v.text} && {best.text} == {best.text});"
            )
            self.lines.append(f"{best.text} = {t} ? {v.text} : {best.text};")
            self.lines.append(f"{where.text} = {t} ? {i.text} : {where.text};")
            return
        bits = 8 * DTYPES[best.dtype][0]
        self.lines.append(
            f"const i{bits}x{lanes} {t} = ({v.text} {sign} {best.text}) | "
            f"(({v.text} != {v.text}) & ({best.text} == {best.text}));"
        )
        wide = self.expr.mask_bits(Value(t, "bool", lanes, bits), 8 * DTYPES[where.dtype][0])
        for a, n, m, b in ((best, v, t, bits), (where, i, wide.text, wide.bits)):
            ct, it = c_type(a.dtype, lanes), f"i{b}x{lanes}"
            self.lines.append(
                f"{a.text} = ({ct})((({it})({n.text}) & {m}) | (({it}){a.text} & ~{m}));"
            )

    def _finish(self, k: int, accumulators: dict) -> None:
        """Combine partial accumulators in a fixed order and name or store the results."""
        groups: dict[tuple, list[Accumulator]] = {}
        for (store, key, _), acc in accumulators.items():
            groups.setdefault((store, key), []).append(acc)
        for (store, (rel, lanes)), accs in groups.items():
            result = accs[0].values
            if accs[0].split or len(accs) > 1:
                result, lanes = self._across(store.reduce.monoid, [a.values for a in accs]), 1
            for b, v in zip(store.buffers, result, strict=True):
                v = self.expr.cast(v, compute_dtype(self.program.buffers[b].dtype))
                if accs[0].kept is None:
                    self.registers[b, rel, lanes] = v
                else:
                    self._store(b, accs[0].kept, v, v.lanes)

    def _across(self, monoid: str, values: list[list[Value]]) -> list[Value]:
        """All partial accumulators, lanes included, as one scalar each."""
        if len(values[0]) == 2:
            return self._across_pairs(monoid, values)
        total = None
        for (v,) in sorted(values, key=lambda v: -v[0].lanes):
            if v.lanes > 1:
                if v.dtype == "bool":
                    v = self.expr.stored_bool(v)
                    v = self.expr.name(
                        Value(f"__builtin_convertvector({v.text}, i32x{v.lanes})", "i32", v.lanes)
                    )
                    call = self.expr._call(
                        "hmax" if monoid == "any" else "hmin", [v], "i32", v.lanes
                    )
                    v = call._replace(lanes=1, dtype="bool")
                else:
                    v = self._horizontal(monoid, v)
            total = (
                v
                if total is None
                else self.expr.name(Value(self.expr.combine(monoid, total, v), v.dtype))
            )
        return [total]

    def _horizontal(self, monoid: str, v: Value) -> Value:
        self.expr.uses.add((f"h{monoid}", v.dtype, v.lanes))
        return self.expr.name(Value(f"sol_h{monoid}_{v.dtype}x{v.lanes}({v.text})", v.dtype))

    def _across_pairs(self, monoid: str, values) -> list[Value]:
        best = [Value(self._fresh("b"), v.dtype) for v in values[0]]
        seen = False
        for pair in values:
            for lane in range(pair[0].lanes):
                parts = [v if v.lanes == 1 else Value(f"{v.text}[{lane}]", v.dtype) for v in pair]
                if not seen:
                    for b, p in zip(best, parts, strict=True):
                        self.lines.append(f"{c_type(b.dtype)} {b.text} = {p.text};")
                    seen = True
                    continue
                v, i = (p.text for p in parts)
                b, j = (x.text for x in best)
                sign = ">" if monoid == "argmax" else "<"
                self.lines.append(
                    f"if ({b} == {b} ? {v} {sign} {b} || {v} != {v} || ({v} == {b} && {i} < {j})"
                    f" : {v} != {v} && {i} < {j}) {{ {b} = {v}; {j} = {i}; }}"
                )
        return best

    # -- memory --------------------------------------------------------------------------------

    def _register_key(self, buffer: str, index, lanes) -> tuple[tuple, tuple | None]:
        """((relative index), lanes), and the index itself where the buffer is memory."""
        if self.program.buffers[buffer].scope != "local":
            return (index, lanes), index
        rel = tuple(
            (i - o).simplify(self.ranges) for i, o in zip(index, self.origin[buffer], strict=True)
        )
        plain = tuple(r - Index.of(LANE) * r.coefficient(LANE) for r in rel)
        if all(p.is_const for p in plain):
            lane_dim = any(r.coefficient(LANE) for r in rel)
            return (tuple(p.const for p in plain), lanes if lane_dim else 1), None
        return (rel, lanes), index

    def _store(self, name: str, index, v: Value, lanes: int) -> None:
        buffer = self.program.buffers[name]
        if buffer.scope == "local" and not self.in_memory[name]:
            (rel, n), _ = self._register_key(name, index, lanes)
            self.registers[name, rel, n] = self.expr.name(v, "r")
            return
        v = self.expr.stored_bool(v) if buffer.dtype == "bool" else v
        dtype = storage(buffer.dtype)
        if v.dtype not in (dtype, buffer.dtype) and buffer.dtype != "bool":
            v = self.expr.cast(v, compute_dtype(buffer.dtype))
        address = self._address(buffer, index)
        step = address.coefficient(LANE)
        if lanes == 1 or LANE not in address.symbols:
            place = self._place(buffer, address, dtype, True)
            self.lines.append(f"*{place} = {v.text};")
        elif step == 1 and address.is_affine_in(LANE):
            v = self.expr.splat(v, lanes)
            place = self._place(buffer, address.subst({LANE: 0}), dtype, True)
            self.lines.append(f"*({dtype}x{lanes}u *){place} = {v.text};")
        else:
            v = self.expr.splat(v, lanes)
            for n in range(lanes):
                place = self._place(buffer, address.subst({LANE: n}), dtype, True)
                self.lines.append(f"*{place} = {v.text}[{n}];")

    def _address(self, buffer: Buffer, index) -> Index:
        if buffer.scope == "local":
            origin = self.origin[buffer.name]
            index = tuple(i - o for i, o in zip(index, origin, strict=True))
        return buffer.address(index).simplify(self.ranges)

    def _load(self, load: Load, lanes: int) -> Value:
        buffer = self.program.buffers[load.buffer]
        if buffer.scope == "local" and not self.in_memory[load.buffer]:
            (rel, n), _ = self._register_key(load.buffer, load.index, lanes)
            found = self.registers.get((load.buffer, rel, n))
            if found is None:
                raise EmitError(
                    f"{load.buffer}{list(rel)} x{n} is read before it is computed\n"
                    f"{show(self.kernel)}"
                )
            return found
        dtype = storage(buffer.dtype)
        address = self._address(buffer, load.index)
        if LANE not in address.symbols and not any(LANE in m.symbols for m in load.mask):
            guard = self._guards(load.mask)
            place = self._place(buffer, address, dtype, False, guard, load.other)
            return self._loaded(f"*{place}", buffer.dtype, 1)
        masked = any(LANE in m.symbols for m in load.mask)
        if address.coefficient(LANE) == 1 and address.is_affine_in(LANE) and not masked:
            guard = self._guards(load.mask)
            place = self._place(buffer, address.subst({LANE: 0}), dtype, False, guard, load.other)
            return self._loaded(f"*(const {dtype}x{lanes}u *){place}", buffer.dtype, lanes)
        each = []
        for n in range(lanes):
            at = {LANE: n}
            masks = tuple(m.subst(at).simplify(self.ranges) for m in load.mask)
            masks = tuple(m for m in masks if not self._holds(m))
            if any(m.bounds(self.ranges)[1] < 0 for m in masks):
                each.append(literal(load.other or 0, compute_dtype(buffer.dtype)))
                continue
            guard = self._guards(masks)
            place = self._place(
                buffer, address.subst(at).simplify(self.ranges), dtype, False, guard, load.other
            )
            each.append(f"*{place}")
        vector = f"({dtype}x{lanes}){{{', '.join(each)}}}"
        return self._loaded(vector, buffer.dtype, lanes)

    def _loaded(self, text: str, dtype: str, lanes: int) -> Value:
        if dtype == "bool":
            if lanes == 1:
                return self.expr.name(Value(text, "bool"))
            byte = self.expr.name(Value(text, "u8", lanes))
            return self.expr.name(Value(f"({byte.text} != 0)", "bool", lanes, 8))
        held = compute_dtype(dtype)
        if held != dtype:
            raise EmitError(f"loads of {dtype} are not emitted yet")
        return self.expr.name(Value(text, held, lanes), "x")

    def _guards(self, masks) -> tuple[str, ...]:
        return tuple(f"{self._scalar_param(m)} >= 0" for m in masks if not self._holds(m))

    def _place(self, buffer, address: Index, dtype, writes, guard=(), other=None) -> str:
        """C text of a pointer to an element."""
        base, included, inner = self._base_pointer(buffer, address)
        if self.stream is not None:
            var = self.stream_var
            step = inner.coefficient(var)
            moving = inner.is_affine_in(var) and not any(var in g for g in guard)
            if moving:
                start = Index(inner.terms)
                for p in self.stream:
                    if (p.base, p.outer, p.guard, p.writes) == (base, start, guard, writes) and (
                        not guard or p.other == other
                    ):
                        break
                else:
                    p = Pointer(
                        self._fresh("q"), base, start, guard, other, step, buffer.dtype, writes,
                        buffer.name, included,
                    )  # fmt: skip
                    self.stream.append(p)
                p.low = inner.const if p.low is None else min(p.low, inner.const)
                p.high = max(p.high, inner.const + 64)
                offset = f"<{p.name}:{inner.const}>" if guard else str(inner.const)
                return f"({p.name} + {offset})"
        text = f"({base} + {self._index_text(inner)})" if inner != Index() else base
        if guard:
            page = self._page(buffer.dtype, other, 64)
            return f"({' && '.join(guard)} ? {text} : {page})"
        return text

    def _base_pointer(self, buffer: Buffer, address: Index) -> tuple[str, Index, Index]:
        """The C pointer, what of the address it includes, and what is left."""
        memory = self.program.base(buffer.name)
        if memory.scope == "local":
            if memory.name not in self.scratch:
                size = DTYPES[memory.dtype][0]
                shape = (self._rows(memory), *memory.shape[1:])
                span = 1 + sum((n - 1) * s for n, s in zip(shape, memory.strides, strict=False))
                self.scratch[memory.name] = self.scratch_size
                self.scratch_size += (span * size + 127) // 64 * 64
            text = f"SOL_SCRATCH({storage(memory.dtype)}, {self.scratch[memory.name]})"
        else:
            text = self.memory[memory.name]
        ctype = storage(memory.dtype)
        outer = Index(
            tuple(
                (a, c)
                for a, c in address.terms
                if not (Index({a: 1}).symbols & self.function.inside)
            )
        )
        inner = address - outer
        if not self.outlining:
            return f"(({ctype} *){text})", Index(), address
        key = ("pointer", buffer.name, outer)
        outer = outer + buffer.offset
        inner = inner - buffer.offset
        if key not in self.function.params:
            name = self._fresh("p")
            self.outlining = False  # the argument's text stands at the call
            arg = f"(({ctype} *){text}) + {self._index_text(outer)}"
            self.outlining = True
            self.function.params[key] = (f"{ctype} *", name, arg)
        return self.function.params[key][1], outer, inner

    _outlining = False

    def _rows(self, local: Buffer) -> int:
        """How much of a local buffer's first dimension is held at a time."""
        for s in self.kernel.schedules:
            if local.name in s.fold:
                return s.fold[local.name]
        return local.shape[0] if local.shape else 1

    def _scalar_param(self, index: Index) -> str:
        """C text of an integer; within an outlined tile, what lies outside is an argument."""
        if not self.outlining:
            return self._index_text(index)
        outer = Index(
            tuple(
                (a, c) for a, c in index.terms if not (Index({a: 1}).symbols & self.function.inside)
            ),
            index.const,
        )
        inner = index - outer
        if outer.is_const:
            return self._index_text(index)
        name = self._argument(outer)
        return name if inner == Index() else f"({name} + {self._index_text(inner)})"

    def _argument(self, outer: Index) -> str:
        """An integer known outside the tile that is being written, as its parameter."""
        key = ("long", outer)
        if key not in self.function.params:
            self.outlining = False  # the argument's text stands at the call
            text = self._index_text(outer)
            self.outlining = True
            self.function.params[key] = ("const long ", self._fresh("n"), text)
        return self.function.params[key][1]

    def _trip_text(self, count: int) -> str:
        if not self.outlining:
            return str(count)
        key = ("trips", count)
        if key not in self.function.params:
            name = self._fresh("n")
            self.function.params[key] = ("const long ", name, str(count))
        return self.function.params[key][1]

    def _outlined(self, k, position, name, box) -> None:
        """The loop's body as a function of its own, named by its text: equal tiles share code."""
        saved = (
            self.lines,
            self.function,
            self.counter,
            self.expr.memo,
            self.stream,
            self.stream_var,
        )
        self.lines, self.function, self.counter = [], Function(inside={LANE}), {}
        self.expr.lines, self.expr.memo = self.lines, [{}]
        self.stream = self.stream_var = None
        self.outlining = True
        whole, self.ahead = self.ahead, self._part(k, box)
        self._attached_then_walk(k, position, name, box)
        self.outlining, self.ahead = False, whole
        body = "\n".join("  " + t for t in self.lines)
        params = list(self.function.params.values())
        self.lines, self.function, self.counter, self.expr.memo, self.stream, self.stream_var = (
            saved
        )
        self.expr.lines = self.lines
        signature = ", ".join(t + n for t, n, _ in params)
        text = f"({signature}) {{\n{body}\n}}\n"
        tile = "tile_" + hashlib.sha256(text.encode()).hexdigest()[:16]
        self.tiles[tile] = f"void {tile}{text}"
        self.lines.append(f"{tile}({', '.join(a for _, _, a in params)});")

    # -- names and numbers ---------------------------------------------------------------------

    def _fresh(self, prefix: str) -> str:
        prefix = identifier(prefix)
        n = self.counter.get(prefix, 0)
        self.counter[prefix] = n + 1
        return f"{prefix}{n}" if not prefix[-1].isdigit() else f"{prefix}_{n}"

    def _bind(self, var: str, low: int, high: int) -> None:
        self.ranges[var] = (low, high)
        self.function.inside.add(var)

    def _index_text(self, index: Index) -> str:
        index = index.simplify(self.ranges)
        parts = []
        for atom, c in index.terms:
            if isinstance(atom, str):
                text = atom
                self.used.add(atom)
                if self.outlining and atom not in self.function.inside:
                    text = self._argument(Index.of(atom))
            else:
                op = "/" if type(atom).__name__ == "FloorDiv" else "%"
                if atom.numerator.bounds(self.ranges)[0] < 0:
                    raise EmitError(f"division of what may be negative: {atom}")
                text = f"({self._index_text(atom.numerator)}) {op} {atom.divisor}"
                text = f"({text})"
            parts.append(text if c == 1 else f"{text} * {c}")
        if index.const or not parts:
            parts.append(str(index.const))
        text = " + ".join(parts).replace("+ -", "- ")
        return text if len(parts) == 1 and "*" not in text and "-" not in text else f"({text})"


def storage(dtype: str) -> str:
    """The C type in memory."""
    return {"bool": "u8", "f16": "u16", "bf16": "u16"}.get(dtype, dtype)


def identifier(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text)


def page_name(dtype: str, text: str) -> str:
    digest = hashlib.sha256(f"{dtype} {text}".encode()).hexdigest()[:8]
    return f"sol_page_{digest}"


def lane_groups(extent: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut `extent` points into vectors: full ones, then halves, quarters ... of what is left."""
    offset = 0
    while offset < extent:
        while width > extent - offset:
            width //= 2
        yield offset, width
        offset += width


def minimum(index: Index, box: Box) -> Index:
    """The least value over a box, as an index over the box's corner."""
    least = index.subst({a: first for a, (first, _) in box.items()})
    for symbol in index.symbols:
        c = index.coefficient(symbol)
        if c < 0 and symbol in box:
            least = least + c * (box[symbol][1] - 1)
    return least


def footprint(index: Index, box: Box, ranges) -> tuple[Index, int]:
    """First point and number of points that an index takes over a box."""
    inner = {a: (0, n - 1) for a, (_, n) in box.items() if n > 1}
    if any(
        not isinstance(a, str) and not Index({a: 1}).symbols.isdisjoint(inner)
        for a, _ in index.terms
    ):
        lo, hi = index.bounds({**ranges, **{a: (0, n - 1) for a, (_, n) in box.items()}})
        return Index.of(lo), hi - lo + 1
    first, span = minimum(index, box), 1
    for symbol in index.symbols:
        if symbol in box:
            span += abs(index.coefficient(symbol)) * (box[symbol][1] - 1)
    return first, span


def union(a: tuple[Index, int] | None, b: tuple[Index, int]) -> tuple[Index, int]:
    if a is None or a == b:
        return b
    gap = b[0] - a[0]
    if not gap.is_const:
        raise EmitError(f"regions {a} and {b} have no constant distance")
    low, high = min(0, gap.const), max(a[1], gap.const + b[1])
    return a[0] + low, high - low


def vanishes(value, mask: Index, identity: float) -> bool:
    """Whether a value is the monoid's identity wherever `mask` fails."""
    if isinstance(value, Load):
        return mask in value.mask and value.other == identity
    if isinstance(value, Op):
        if value.name == "mul" and identity == 0:
            return any(vanishes(a, mask, 0) for a in value.args)
        if value.name == "cast":
            return vanishes(value.args[0], mask, identity)
        if value.name == "where" and identity == getattr(value.args[2], "value", None):
            return any(
                isinstance(e, Op) and e.name == "ge" and e.args[0].index == mask
                for e in walk_expr(value.args[0])
                if isinstance(e, Op) and isinstance(e.args[0], Iota)
            )
    return False


def walked_serially(kernel: Kernel, name: str) -> bool:
    """Whether a serial loop inside the place where a local buffer lives moves over its elements."""
    names = [n.name for n in kernel.body]
    for k, nest in enumerate(kernel.body):
        schedule = kernel.schedules[k]
        stores = [s for s in nest.stores if name in s.buffers]
        reads = [e for e in nest_loads(nest) if e.buffer == name]
        if not stores and not reads:
            continue
        symbols = set().union(*(i.symbols for x in (*stores, *reads) for i in x.index))
        inside = loops_inside(kernel, k, name, names)
        vector = schedule.vector[0] if schedule.vector else None
        for loop in inside:
            axis = loop.rsplit(".", 1)[0]
            if axis in symbols and loop not in schedule.unroll and loop != vector:
                return True
    return False


def loops_inside(kernel: Kernel, k: int, name: str, names: list[str]) -> tuple[str, ...]:
    """The loops of nest k within the loop at which buffer `name` is stored."""
    producer = next(i for i, n in enumerate(kernel.body) for s in n.stores if name in s.buffers)
    schedule = kernel.schedules[producer]
    host, loop = names.index(schedule.at[0]), schedule.store_at or schedule.at[1]
    order = kernel.schedules[k].order
    if k == host:
        return order[order.index(loop) + 1 :] if loop else order
    return order


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
