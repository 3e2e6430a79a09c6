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
    Axis,
    Bind,
    Buffer,
    Const,
    Expr,
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
from . import half, reduce
from .reduce import Accumulator
from .values import LANE, EmitError, Expressions, Value, c_type, compute_dtype, literal

Box = dict[str, tuple[Index, int]]  # axis -> first point (over C variables), number of points
ZERO = Index()
_OFFSET = re.compile(r"<(\w+):(-?\d+)>")
MAX_TAPS = 8  # reduce loops up to this long are written out to drop dead taps
MAX_PEEL = 4  # border iterations at each end that are worth code of their own


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
class Function:
    """A C function being written: the kernel's own, or an outlined tile."""

    params: dict[tuple, tuple[str, str, str]] = field(default_factory=dict)  # key: type, name, arg
    inside: set[str] = field(default_factory=set)  # C variables bound within
    taken: frozenset[str] = frozenset()  # names of the function around it


@dataclass
class Ring:
    """A buffer of which some rows are kept from one iteration of its host's loop to the next."""

    axis: str  # of its nest: the rows
    dim: int  # of the buffer
    rows: int
    done: str  # C variable: rows below this one are computed


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
    def __init__(
        self,
        kernel: Kernel,
        program: Program,
        name: str,
        memory: dict[str, str],
        sites: dict[Bind, int] | None = None,
    ):
        """`memory`: base buffer -> C expression of its first byte; `sites`: the number by which an
        out-of-range bind is reported."""
        self.sites = sites or {}
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
        self.partials: dict[int, dict[tuple, Accumulator]] = {}  # reduce nest -> open accumulators
        self.running: dict[int, dict[tuple, Accumulator]] = {}  # scan nest -> running values
        self.empty: set[int] = set()  # reduce nests without points
        self.parts: set[int] = set()  # nests within a part of a long sum
        self.rings: dict[int, Ring] = {}
        self.bound: list[str] = []  # C variables in the order of their birth
        self.origin: dict[str, tuple[Index, ...]] = {}  # local buffer -> its first element's index
        self.scratch: dict[str, int] = {}
        self.scratch_size = 0
        self.tiles: dict[str, str] = {}
        self.pages: dict[tuple[str, str], int] = {}
        self.stream: list[Pointer] | None = None
        self.stream_var: str | None = None
        self.ahead: Ahead | None = None
        self.stream_mark = 0  # variables bound from here on are born within the loop
        self.used: set[str] = set()  # C variables that the text names
        self.outlining = False
        self.lanes, self.lane_offset = 1, 0  # of the vector being written
        self.in_memory = {
            b: walked_serially(kernel, b)
            for b in {b for n in kernel.body for s in n.stores for b in s.buffers}
            if program.buffers[b].scope == "local"
        }

    # -- the kernel ----------------------------------------------------------------------------

    def emit(self) -> Code:
        if has_no_points(self.kernel):
            text = f"void {self.function_name}(const sol_call *c, long u) {{\n}}\n"
            return Code(text, 0, 0, {}, set(), {})
        root = len(self.kernel.body) - 1
        nest, schedule = self.kernel.body[root], self.kernel.schedules[root]
        box: Box = {a.symbol: (Index(), a.extent) for a in nest.axes}
        units, tails = self._open_parallel(root, schedule.parallel, box)
        self._parallel_body(root, tails, box)
        body = "\n".join("  " + t for t in self.lines)
        text = f"void {self.function_name}(const sol_call *c, long u) {{\n{body}\n}}\n"
        text = f"/* {self._origin()} */\n{text}"
        return Code(text, units, self.scratch_size, self.tiles, self.expr.uses, self.pages)

    def _origin(self) -> str:
        """Where the kernel comes from, as text of a comment."""
        origin = self.kernel.origin
        text = f"{', '.join(origin.nodes) or self.kernel.name}: {', '.join(origin.ops)}"
        return text.replace("*/", "* /")

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
        for name in ("", *schedule.order[:count]):
            self._open_rings(k, name, box)
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
        if nest.binds:
            box = self._bind_indirect(k, box)
        if k not in self.running and position == self._first(k, "scan"):
            self._scan(k, position, box)
            return
        if k not in self.partials and position == self._first_reduce(k):
            self._reduction(k, position, box)
            return
        if position == len(schedule.order):
            self._statements(k, box)
            return
        name = schedule.order[position]
        axis, step = self._loop_step(k, name)
        first, extent = box[axis]
        kind = nest.axis(axis).kind
        if extent == 0 and k in self.empty and kind == "reduce":
            self._walk(k, position + 1, {**box, axis: (first, 1)})
            return
        clip, start_row = self._overreach(k, name, axis, step, box)
        vector = schedule.vector is not None and schedule.vector[0] == name
        if vector:
            for offset, lanes in lane_groups(extent, schedule.vector[1]):
                if any(axis in symbols for symbols in self._bind_symbols(k)):
                    for p in range(lanes):  # indirect addresses differ from lane to lane
                        self._body(k, position, name, {**box, axis: (first + offset + p, 1)})
                    continue
                self._vector_point(k, position, box, axis, first, offset, lanes)
            return
        if name in schedule.unroll:
            for p in range(0, extent, step):
                inner = {**box, axis: (first + p, min(step, extent - p))}
                self._body(k, position, name, inner)
            return
        reduces = kind == "reduce"
        if reduces and step == 1 and extent <= MAX_TAPS and self._has_dead_taps(k, axis, box):
            for p in range(extent):
                self.expr.push()
                self._body(k, position, name, {**box, axis: (first + p, 1)})
                self.expr.pop()
            return
        if reduces and step == 1:
            clip = self._clipped(k, axis, box)
        for start, count, length in self._segments(k, name, axis, step, box):
            point = first + start
            self._serial(k, position, name, axis, point, count, step, length, box, clip, start_row)

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
        self._open_rings(k, name, box)
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
                if j in self.rings:
                    dim = self.rings[j].dim
                    self.origin[b] = (*self.origin[b][:dim], Index(), *self.origin[b][dim + 1 :])
                for key in [key for key in self.registers if key[0] == b]:
                    del self.registers[key]
        self._walk(j, 0, box)
        if j in self.rings:
            ring = self.rings[j]
            first, rows = box[ring.axis]
            stop = f"SOL_MIN({self._scalar_param(first + rows)}, {nest.axis(ring.axis).extent})"
            self.lines.append(f"{ring.done} = SOL_MAX({ring.done}, {stop});")
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

    def _serial(
        self, k, position, name, axis, first, count, step, length, box, clip, start_row=None
    ) -> None:
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
            start, stop, facts = self._clip_text(clip, axis, first, count, var, start_row)
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
        self.stream, self.stream_var, self.stream_mark = [], var, len(self.bound)
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
        text = stored_literal(0 if other is None else other, dtype)
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
            whole = {b.symbol: (Index(), b.bound) for b in self.kernel.body[i].binds}
            box = {**whole, **box}
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
            for symbol in component.symbols:
                if nest.axis(symbol).kind == "scan":
                    continue  # from its first point on
                if region[d] is not None:  # then the component is an axis by itself
                    needed[symbol] = self._within(nest.axis(symbol), *region[d])
                elif symbol in host:  # nothing here reads what it writes: along its host's axes
                    needed[symbol] = host[symbol]
        for a in nest.axes:
            needed.setdefault(a.symbol, (Index(), a.extent))
        return needed

    def _within(self, axis: Axis, first: Index, count: int) -> tuple[Index, int]:
        """What of a region lies on an axis, where that is known: masks keep the rest unread."""
        if not first.is_const:
            return first, min(count, axis.extent) if first.bounds(self.ranges)[0] >= 0 else count
        low, high = max(first.const, 0), min(first.const + count, axis.extent)
        return (Index.of(low), high - low) if high > low else (Index(), 1)

    def _overreach(self, k, name, axis, step, box) -> tuple[list[Index] | None, str | None]:
        """Bounds that keep an attached nest on its axis where its box may lie across an end, and
        the row from which a ring is to be filled."""
        schedule, nest = self.kernel.schedules[k], self.kernel.body[k]
        first, extent = box[axis]
        if schedule.at is None or nest.axis(axis).kind != "parallel":
            return None, None
        ring = self.rings.get(k)
        sliding = ring is not None and ring.axis == axis
        low, high = first.bounds({LANE: (0, 0), **self.ranges})
        last = nest.axis(axis).extent - 1
        clip = [Index.of(axis)] if low < 0 else []
        if high + extent - 1 > last:
            clip.append(last - Index.of(axis))
        if not clip and not sliding:
            return None, None
        vector = schedule.vector is not None and schedule.vector[0] == name
        inner = [x for x in schedule.order if x.rpartition(".")[0] == axis]
        if vector or name in schedule.unroll or step != 1 or len(inner) > 1:
            raise EmitError(
                f"{nest.name} is needed beyond its axis {axis} (or in a ring of rows), whose loop "
                f"is no plain one\n{show(self.kernel)}"
            )
        return clip, ring.done if sliding else None

    def _open_rings(self, k: int, name: str, box: Box) -> None:
        """At a loop where folded buffers live: nothing of them is computed yet."""
        order = ("", *self.kernel.schedules[k].order)
        for j, s in enumerate(self.kernel.schedules):
            if not s.fold or s.at is None or self.nests[s.at[0]] != k or s.store_at != name:
                continue
            moving = order[order.index(name) + 1 : order.index(s.at[1]) + 1]
            moving = moving[max(0, self.kernel.schedules[k].parallel - order.index(name)) :]
            ring = self._ring(j, k, moving, box)
            if ring is not None:
                self.lines.append(f"long {ring.done} = 0;")
                self.rings[j] = ring

    def _ring(self, j: int, k: int, moving: tuple[str, ...], box: Box) -> Ring | None:
        """Which rows of nest j's buffer move while its host's loops `moving` run."""
        if not moving:
            return None
        nest, schedule = self.kernel.body[j], self.kernel.schedules[j]
        ((buffer, rows),) = schedule.fold.items()
        inner = dict(box)
        variables = set()
        for loop in moving:
            axis, step = self._loop_step(k, loop)
            var = self._fresh("v")
            first, extent = inner[axis]
            self.ranges[var] = (0, max(-(-extent // step) - 1, 0))
            inner[axis] = (first + Index.of(var) * step, step)
            variables.add(var)
        position = self.kernel.schedules[k].order.index(moving[-1])
        needed = self._boxes(k, position, inner)[j]
        rolling = [a for a, (first, _) in needed.items() if first.symbols & variables]
        steps = [needed[a][0].coefficient(v) for a in rolling for v in variables]
        index = next(s.index for s in nest.stores if buffer in s.buffers)
        for v in variables:
            del self.ranges[v]
        if (
            len(rolling) != 1
            or sum(c != 0 for c in steps) != 1
            or max(steps) <= 0
            or not all(needed[rolling[0]][0].is_affine_in(v) for v in variables)
            or needed[rolling[0]][1] > rows
            or Index.of(rolling[0]) not in index
        ):
            raise EmitError(f"no ring of {rows} rows holds {buffer}\n{show(self.kernel)}")
        return Ring(rolling[0], index.index(Index.of(rolling[0])), rows, self._fresh("done"))

    # -- indirect addresses --------------------------------------------------------------------

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
            values = {s: box[s][0] for s in needs}
            v = self.expr.cast(self._evaluate(b.value, values, 1), "i64")
            var = self._fresh(b.symbol)
            error = self._argument_of("sol_error *", "c->error")
            self.lines.append(f"long {var} = {v.text} < 0 ? {v.text} + {b.bound} : {v.text};")
            self.lines.append(
                f"if ((unsigned long){var} >= {b.bound}) "
                f"{{ sol_fail({error}, {self.sites[b]}, {v.text}); {var} = 0; }}"
            )
            self._bind(var, 0, b.bound - 1)
            box = {**box, b.symbol: (Index.of(var), 1)}
        return box

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
            for mask in dict.fromkeys(m for m in self._masks(k) if axis in m.symbols):
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

    def _clip_text(
        self, clip, axis, first, count, var, start_row=None
    ) -> tuple[str, str, set[Index]]:
        start, stop, facts = ["0"], [self._trip_text(count)], set()
        if start_row is not None:  # what a ring holds already is not computed again
            start.append(f"{start_row} - {self._scalar_param(first)}")
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
        values = {a: first for a, (first, _) in box.items()}
        scan = {a.symbol: Index() for a in nest.axes if a.kind == "scan"}
        for store in nest.stores:
            lanes = self.lanes
            index = tuple(i.subst(values).simplify(self.ranges) for i in store.index)
            if store.reduce is not None:
                point = {a.symbol: values[a.symbol] for a in nest.axes if a.kind == "parallel"}
                if k in self.empty:
                    self._accumulate(k, store, index, point, None, lanes)
                    continue
                new = [self._evaluate(v, values, lanes) for v in store.values]
                if scan and not nest.reduce_axes:
                    new = self._scan_point(k, store, {**values, **scan}, point, new, lanes)
                    for b, v in zip(store.buffers, new, strict=True):
                        self._store(b, index, v, lanes)
                    continue
                self._accumulate(k, store, index, point, new, lanes)
                continue
            new = [self._evaluate(v, values, lanes) for v in store.values]
            masks = [m.subst(values).simplify(self.ranges) for m in store.mask]
            self._guarded_store(store, index, new, masks, lanes)

    def _guarded_store(self, store: Store, index, new, masks, lanes) -> None:
        """Store values where all masks hold; lane by lane where the lanes differ in that."""
        masks = [m for m in masks if not self._holds(m)]
        if lanes > 1 and any(LANE in m.symbols for m in masks):
            new = [self.expr.splat(v, lanes, "f32") for v in new]
            for n in range(lanes):
                at = {LANE: n}
                each = [lane_of(v, n) for v in new]
                place = tuple(i.subst(at).simplify(self.ranges) for i in index)
                here = [m.subst(at).simplify(self.ranges) for m in masks]
                self._guarded_store(store, place, each, here, 1)
            return
        guard = [self._condition(m) for m in masks]
        local = any(
            self.program.buffers[b].scope == "local" and not self.in_memory[b]
            for b in store.buffers
        )
        if guard and local:
            raise EmitError(f"a masked store to registers: {show(store)}\n{show(self.kernel)}")
        if guard:
            self.lines.append(f"if ({' && '.join(guard)}) {{")
            self.expr.push()
        for b, v in zip(store.buffers, new, strict=True):
            self._store(b, index, v, lanes)
        if guard:
            self.expr.pop()
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

    def _first(self, k: int, kind: str) -> int | None:
        """The position of the first loop over axes of a kind."""
        nest, schedule = self.kernel.body[k], self.kernel.schedules[k]
        for p, name in enumerate(schedule.order):
            if nest.axis(name.rsplit(".", 1)[0]).kind == kind:
                return p
        return None

    def _first_reduce(self, k: int) -> int | None:
        """The position of the first reduce loop: accumulators live from there on."""
        nest = self.kernel.body[k]
        if not any(s.reduce for s in nest.stores):
            return None
        p = self._first(k, "reduce")
        if p is None and any(a.kind == "scan" for a in nest.axes):
            return None
        return len(self.kernel.schedules[k].order) if p is None else p

    def _scan(self, k: int, position: int, box: Box) -> None:
        """The loops of a scan, with the running values declared before them."""
        self.running[k] = {}
        mark, born = len(self.lines), len(self.bound)
        self._walk(k, position, box)
        accumulators = self.running.pop(k)
        self._check_points(k, accumulators, born)
        self.lines[mark:mark] = [line for a in accumulators.values() for line in a.declared]

    def _scan_point(self, k, store: Store, values, point, new, lanes) -> list[Value]:
        """Add a position to its running values; `values` has the scan axis at 0."""
        key = (store, tuple(i.subst(values).simplify(self.ranges) for i in store.index), lanes)
        acc = self.running[k].get(key)
        if acc is None:
            acc = self._new_accumulator(k, store, point, lanes, None, False)
            self.running[k][key] = acc
        reduce.accumulate(self.expr, store.reduce.monoid, acc.values, new)
        return [self.expr.name(v, "s") for v in acc.values]

    def _check_points(self, k: int, accumulators: dict, born: int) -> None:
        """Accumulators are named points: none may move with a loop inside the reduction."""
        inside = set(self.bound[born:])
        for acc in accumulators.values():
            moving = set().union(*(i.symbols for i in acc.point.values())) & inside
            if moving:
                text = f"a serial loop over output points ({min(moving)}) within a reduction of "
                raise EmitError(f"{text}{self.kernel.body[k].name}\n{show(self.kernel)}")

    def _reduction(self, k: int, position: int, box: Box) -> None:
        """The loops of a reduction, between its accumulators' declarations and its results."""
        self.partials[k] = {}
        mark, born = len(self.lines), len(self.bound)
        if any(box[a.symbol][1] == 0 for a in self.kernel.body[k].reduce_axes):
            self.empty.add(k)
        self._walk(k, position, box)
        self.empty.discard(k)
        accumulators = self.partials.pop(k)
        self._check_points(k, accumulators, born)
        self.lines[mark:mark] = [line for a in accumulators.values() for line in a.declared]
        self._finish(k, accumulators, box)

    def _partial_sum(self, k: int, position: int, name: str, box: Box) -> None:
        """A part of a long sum on its own, then added: the error grows with the root of the parts,
        not of the terms."""
        totals, self.partials[k] = self.partials[k], {}
        mark = len(self.lines)
        self.parts.add(k)
        self._attached_then_walk(k, position, name, box)
        self.parts.discard(k)
        parts, self.partials[k] = self.partials[k], totals
        self.lines[mark:mark] = [line for a in parts.values() for line in a.declared]
        for (store, key, slot), part in parts.items():
            total = totals.get((store, key, slot))
            if total is None:
                lanes = part.values[0].lanes
                total = self._new_accumulator(k, store, part.point, lanes, part.kept, part.split)
                totals[store, key, slot] = total
            reduce.accumulate(self.expr, store.reduce.monoid, total.values, part.values)

    def _accumulate(self, k, store: Store, index, point, new, lanes) -> None:
        """Combine one point (or one vector of points) into its accumulator; new: None for none."""
        nest, vector = self.kernel.body[k], self.kernel.schedules[k].vector
        key, kept = self._register_key(store.buffers[0], index, lanes)
        split = vector is not None and nest.axis(vector[0].rsplit(".", 1)[0]).kind == "reduce"
        slot = (lanes, self.lane_offset) if split and lanes > 1 else ()
        acc = self.partials[k].get((store, key, slot))
        if acc is None:
            acc = self._new_accumulator(k, store, point, lanes, kept, split)
            self.partials[k][store, key, slot] = acc
        if new is not None:
            reduce.accumulate(self.expr, store.reduce.monoid, acc.values, new)

    def _new_accumulator(self, k, store: Store, point, lanes, kept, split) -> Accumulator:
        values, declared = [], []
        start = self._start(k, store, point, lanes, split, declared)
        for n, dtype in enumerate(reduce.dtypes(store)):
            name = self._fresh("a")
            if start is not None:
                text = start[n].text
            else:
                text = reduce.identity(store.reduce.monoid, n, dtype, k in self.empty)
                text = reduce.splat_text(text, dtype, lanes)
            declared.append(f"{c_type(dtype, lanes, 32)} {name} = {text};")
            values.append(Value(name, dtype, lanes, 32))
        return Accumulator(values, declared, kept, split, point)

    def _start(self, k, store: Store, point, lanes, split, declared) -> list[Value] | None:
        """The values that a reduction starts from, where this accumulator is the one to have them;
        what computes them stands before the loops."""
        if store.reduce.init is None or k in self.parts or split:
            return None
        outer, stream = self.lines, self.stream
        self.lines = self.expr.lines = declared
        self.stream = None
        self.expr.push()
        start = [
            self.expr.cast(self._evaluate(e, point, lanes), dtype)
            for e, dtype in zip(store.reduce.init, reduce.dtypes(store), strict=True)
        ]
        start = [
            self.expr.mask_bits(v, 32) if v.dtype == "bool" and v.lanes > 1 else v for v in start
        ]
        start = [v if v.lanes == lanes else self.expr.splat(v, lanes) for v in start]
        self.expr.pop()
        self.lines = self.expr.lines = outer
        self.stream = stream
        return start

    def _finish(self, k: int, accumulators: dict, box: Box) -> None:
        """Combine partial accumulators in a fixed order and name or store the results."""
        groups: dict[tuple, list[Accumulator]] = {}
        for (store, key, _), acc in accumulators.items():
            groups.setdefault((store, key), []).append(acc)
        for (store, (rel, lanes)), accs in groups.items():
            result, point, monoid = accs[0].values, accs[0].point, store.reduce.monoid
            if accs[0].split or len(accs) > 1:
                result, lanes = reduce.across(self.expr, monoid, [a.values for a in accs]), 1
                start = self._start(k, store, point, 1, False, self.lines)
                if start is not None:
                    result = reduce.merged(self.expr, monoid, start, result)
            if k in self.running:
                scan = {a.symbol: Index() for a in self.kernel.body[k].axes if a.kind == "scan"}
                result = self._scan_point(k, store, {**point, **scan}, point, result, lanes)
            if accs[0].kept is None and not store.mask:
                for b, v in zip(store.buffers, result, strict=True):
                    dtype = self.program.buffers[b].dtype
                    v = self.expr.cast(v, compute_dtype(dtype))
                    v = self.expr.rounded(v, dtype) if dtype in half.HALVES else v
                    self.registers[b, rel, lanes] = v
                continue
            index = accs[0].kept
            if index is None:
                raise EmitError(f"a masked reduction to registers\n{show(self.kernel)}")
            masks = [m.subst(point).simplify(self.ranges) for m in store.mask]
            self._guarded_store(store, index, result, masks, lanes)

    # -- memory --------------------------------------------------------------------------------

    def _register_key(self, buffer: str, index, lanes) -> tuple[tuple, tuple | None]:
        """((relative index), lanes), and the index itself where the buffer is memory."""
        if self.program.buffers[buffer].scope != "local" or self.in_memory[buffer]:
            return (index, lanes if any(LANE in i.symbols for i in index) else 1), index
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
            (rel, n), kept = self._register_key(name, index, lanes)
            if kept is not None:
                raise EmitError(f"{name}{list(index)} is no register\n{show(self.kernel)}")
            v = self.expr.rounded(v, buffer.dtype) if buffer.dtype in half.HALVES else v
            self.registers[name, rel, n] = self.expr.name(v, "r")
            return
        v = self.expr.stored_bool(v) if buffer.dtype == "bool" else v
        dtype = storage(buffer.dtype)
        if buffer.dtype in half.HALVES:
            v = self.expr.narrow(v, buffer.dtype)
        elif v.dtype not in (dtype, buffer.dtype) and buffer.dtype != "bool":
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
            index = self._folded(buffer.name, index)
        return buffer.address(index).simplify(self.ranges)

    def _folded(self, name: str, index: tuple[Index, ...]) -> tuple[Index, ...]:
        """The place in a ring: row r is kept in row r % rows (a row that a mask keeps out may be
        negative, and then has any place)."""
        for j, ring in self.rings.items():
            if name in self.kernel.schedules[j].fold:
                row = index[ring.dim].simplify(self.ranges)
                low = row.bounds({LANE: (0, 0), **self.ranges})[0]
                row = (row + max(0, -(low // ring.rows)) * ring.rows) % ring.rows
                return (*index[: ring.dim], row, *index[ring.dim + 1 :])
        return index

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
            if load.mask:
                raise EmitError(f"a masked load of registers: {show(load)}\n{show(self.kernel)}")
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
                each.append(stored_literal(0 if load.other is None else load.other, buffer.dtype))
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
        if dtype in half.HALVES:
            return self.expr.widen(Value(text, "u16", lanes), dtype)
        return self.expr.name(Value(text, dtype, lanes), "x")

    def _guards(self, masks) -> tuple[str, ...]:
        return tuple(f"{self._scalar_param(m)} >= 0" for m in masks if not self._holds(m))

    def _place(self, buffer, address: Index, dtype, writes, guard=(), other=None) -> str:
        """C text of a pointer to an element."""
        base, included, inner = self._base_pointer(buffer, address)
        if self.stream is not None:
            var = self.stream_var
            step = inner.coefficient(var)
            born = self.bound[self.stream_mark :]  # an indirect index is not known outside
            moving = inner.is_affine_in(var) and not any(var in g for g in guard)
            moving = moving and inner.symbols.isdisjoint(born)
            moving = moving and not any(b in g for b in born for g in guard)
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
                shape = self._held(memory)
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

    def _held(self, local: Buffer) -> tuple[int, ...]:
        """How much of a local buffer is held at a time: all, or `fold` rows of a dimension."""
        shape = list(local.shape)
        for j, s in enumerate(self.kernel.schedules):
            if local.name in s.fold:
                shape[self.rings[j].dim if j in self.rings else 0] = s.fold[local.name]
        return tuple(shape)

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

    def _argument_of(self, ctype: str, text: str) -> str:
        """C text that only the kernel's own function can use, as a parameter of a tile."""
        if not self.outlining:
            return text
        key = ("text", text)
        if key not in self.function.params:
            self.function.params[key] = (ctype, self._fresh("e"), text)
        return self.function.params[key][1]

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
        taken = frozenset(self.function.inside)
        self.lines, self.function = [], Function(inside={LANE}, taken=taken)
        self.counter = {}
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
        while True:
            n = self.counter.get(prefix, 0)
            self.counter[prefix] = n + 1
            name = f"{prefix}{n}" if not prefix[-1].isdigit() else f"{prefix}_{n}"
            if name not in self.function.taken:
                return name

    def _bind(self, var: str, low: int, high: int) -> None:
        self.ranges[var] = (low, high)
        self.bound.append(var)
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


def stored_literal(value: float | int | bool, dtype: str) -> str:
    """A C constant as it is in memory."""
    return str(half.bits(value, dtype)) if dtype in half.HALVES else literal(value, dtype)


def lane_of(v: Value, n: int) -> Value:
    """One lane of a vector."""
    if v.lanes == 1:
        return v
    text = f"{v.text}[{n}]"
    return Value(f"({text} & 1)" if v.dtype == "bool" else text, v.dtype)


def expression_symbols(e: Expr) -> frozenset[str]:
    """The symbols that an expression depends on."""
    found: set[str] = set()
    for x in walk_expr(e):
        if isinstance(x, Load):
            found.update(*(i.symbols for i in (*x.index, *x.mask)))
        elif isinstance(x, Iota):
            found |= x.index.symbols
    return frozenset(found)


def has_no_points(kernel: Kernel) -> bool:
    """Whether a kernel stores nothing: some output is empty."""
    extents = [a.extent for n in kernel.body[-1:] for a in n.axes if a.kind != "reduce"]
    return not kernel.body or 0 in extents


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
