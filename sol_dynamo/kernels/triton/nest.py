"""One kernel of the loop IR as one Triton function: programs of the grid each compute a block.

The last nest's schedule says what a program takes: its first loops, over blocks, are the grid; the
loops in `Schedule.block` are the dimensions of the block. Nests before it are computed for the same
block; what they make stays in registers. Reduce loops are loops over chunks, of which a block's own
dimension holds the points, or loops one point at a time. A sum of products of a block (m, k) and a
block (k, n) is a `tl.dot`. It is one file, since every method writes to one function's text.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import prod

from ...affine import Index
from ...ir import (
    DTYPES,
    HALVES,
    MONOIDS,
    Axis,
    Expr,
    Iota,
    Kernel,
    Load,
    Loops,
    Op,
    Program,
    Reduce,
    Schedule,
    Store,
    is_op,
    loads,
    read,
    walk,
    written,
)
from ...schedule.memory import nbytes
from .blocks import axis_of, in_one_chunk, pow2
from .halo import Neighbours, neighbours
from .launch import BEHIND, COUNTERS, PARTS, SCRATCH, Launch
from .product import Matrix, adds_products, matrix
from .register_tile import RegisterTile, common, register_tile
from .values import TRITON, EmitError, Held, Space, Values, cast, constant, quotient, remainder

WIDE = 2**31  # elements from which 32-bit addresses do not do
POSITIONS = ("argmax", "argmin")
KNOWN = ("sum", "prod", "max", "min", "any", "all", *POSITIONS)


@dataclass
class KernelText:
    """The text of one kernel, and how it is launched."""

    program: Program
    kernel: Kernel
    rounded: frozenset[str] = frozenset()  # memory that holds TF32 values
    names: dict[str, str] = field(default_factory=dict)  # memory -> parameter
    held: dict[str, tuple[Held, tuple[Index, ...]]] = field(default_factory=dict)
    extents: dict[str, tuple[int, bool]] = field(default_factory=dict)  # axis -> extent, exact?
    depends: dict[str, frozenset[str]] = field(default_factory=dict)  # bound symbol -> axes
    checks: bool = False
    parts: int = 0
    counters: int = 0
    tile: RegisterTile | None = None  # of results of each point, with what is held for each
    of_each: list[dict[str, tuple[Held, tuple[Index, ...]]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = Values(self.load)
        self.root, self.schedule = self.kernel.body[-1], self.kernel.schedules[-1]
        self.grid = set(map(axis_of, self.schedule.order[: self.schedule.parallel]))
        self.sizes: dict[str, int] = {}  # of the blocks, by axis
        self.split = max(s.split for s in self.kernel.schedules)
        self.rest = ExitStack()  # blocks that are open to the function's end
        self.opaque = False  # whether a compiler is not to know how often a loop runs
        nests = tuple(zip(self.kernel.body, self.kernel.schedules, strict=True))
        for _, s in nests:
            self.sizes |= {a: tile[0] for a, tile in s.tile.items()}
        for nest, s in nests:
            for a in map(axis_of, s.block):
                self.sizes.setdefault(a, pow2(nest.axis(a).extent))

    def emit(self, warps: int, stages: int) -> tuple[str, Launch]:
        """The function's text, and its launch. What is compiled to equal code has an equal name: a
        text may be of several dtypes."""
        grid = self.programs() * self.split
        self.ahead()
        for nest, s in zip(self.kernel.body[:-1], self.kernel.schedules[:-1], strict=True):
            self.nest(nest, s)
        self.last()
        self.rest.close()
        head = f"({', '.join((*self.names.values(), f'{BEHIND}: tl.constexpr'))}):\n"
        body = head + self.values.text(f"sol.wait({BEHIND})", f"sol.release({BEHIND})") + "\n"
        ops = re.findall(r"\.(\w+)\.", " ".join(self.kernel.origin.ops))
        words = "_".join(dict.fromkeys(ops))[:40].strip("_")
        dtypes = [SCRATCH.get(b) or self.program.buffers[b].dtype for b in self.names]
        same = hashlib.sha256(f"{body}{dtypes}{warps}{stages}".encode()).hexdigest()[:12]
        name = f"k_{words or 'copy'}_{same}"
        text = f"@triton.jit\ndef {name}{body}"
        launch = Launch(
            name, grid, tuple(self.names), warps, stages, self.checks, self.parts, self.counters
        )
        return text, launch

    def ahead(self) -> None:
        """What a product's last step adds is loaded before its loop, which hides the time: blocks,
        not rows of them, which are in a cache, and would take as many registers."""
        if self.split > 1 or matrix(self.kernel.body[0], self.kernel.schedules[0]) is None:
            return
        made = set(written(self.kernel))
        space = tuple(map(axis_of, self.schedule.block))
        for e in loads(self.root):
            if e.buffer not in made and self.axes_of(e) >= {*space}:
                self.values.value(e, space)

    # -- the grid ------------------------------------------------------------------------------

    def programs(self) -> int:
        """The block that a program computes; gives the number of programs."""
        v, s = self.values, self.schedule
        touched = {*read(self.kernel), *written(self.kernel)}
        self.far = any(self._elements(b) >= WIDE for b in touched)
        v.write("pid = tl.program_id(0)" + (".to(tl.int64)" if self.far else ""))
        if self.split > 1:
            v.write(f"part = pid % {self.split}")
            v.write(f"pid = pid // {self.split}")
        loops = list(map(axis_of, s.order[: s.parallel]))
        own = {a: s.tile.get(a, (1,))[0] - sum(s.halo.get(a, ())) for a in loops}
        counts = {a: -(-self.root.axis(a).extent // own[a]) for a in loops}
        rest = prod(counts.values())
        total = rest
        first = {}
        for a in loops:
            above = rest
            rest //= counts[a]
            text = "pid" if rest == 1 else f"pid // {rest}"
            if above != total:
                text = f"({text}) % {counts[a]}" if rest > 1 else f"pid % {counts[a]}"
            first[a] = text if counts[a] > 1 else "0"
        for axis in self.root.axes:
            start = first.get(axis.symbol)
            if start is not None and axis.symbol in s.tile:
                size, halo = s.tile[axis.symbol][0], s.halo.get(axis.symbol, (0, 0))
                self._block(axis, size, "" if start == "0" else start, *halo)
            elif start is not None:
                name = v.name(start, f"{axis.symbol}_")
                v.define(axis.symbol, name, False, (0, axis.extent - 1))
                self.extents[axis.symbol] = axis.extent, True
        self.blocks = total
        return total

    def _block(self, a: Axis, size: int, start: str = "", before: int = 0, behind: int = 0) -> None:
        """An axis's points in this block: those from `start` blocks on, of which so many are the
        blocks' `before` and `behind`."""
        points = f"tl.arange(0, {size})" + (".to(tl.int64)" if self.far else "")
        own = size - before - behind
        text = f"({start}) * {own} + {points}" if start else points
        text = f"{text} - {before}" if before else text
        reach = -before, -(-a.extent // own) * own - 1 + behind
        name = self.values.name(text, f"{a.symbol}_")
        self.values.define(a.symbol, name, True, reach)
        self.extents[a.symbol] = a.extent, a.extent % own == 0 and own == size

    def _elements(self, name: str) -> int:
        """Of the memory that a buffer lies in."""
        base = self.program.base(name)
        return nbytes(base) // DTYPES[base.dtype][0]

    # -- nests ---------------------------------------------------------------------------------

    def nest(self, nest: Loops, s: Schedule) -> None:
        """A nest before the last: its results stay in registers, or in memory for a later one."""
        reduces = [x for x in nest.stores if x.reduce]
        if reduces and len(reduces) < len(nest.stores):
            raise EmitError(f"{nest.name} both reduces and stores")
        if not reduces:
            with ExitStack() as stack:
                space = self.enter(nest, s, stack)
                for x in nest.stores:
                    self.put(x, space)
            return
        self.reduce(nest, s)

    def enter(self, nest: Loops, s: Schedule, stack: ExitStack) -> Space:
        """Open a nest's own loops; gives its space."""
        serial: list[tuple[Axis, int | None]] = []  # with the points of a chunk
        for loop in s.order:
            symbol = axis_of(loop)
            a = nest.axis(symbol)
            size = s.tile[symbol][0] if symbol in s.tile else None
            if symbol in self.grid or (self.tile and symbol == self.tile.axis.symbol):
                continue
            if loop in s.block:
                if size is None:
                    self._block(a, self.sizes[symbol])
            elif size is not None and a.extent <= size:
                self._block(a, size)
            elif loop in s.unroll:
                self._open(serial, stack)
                name = self.values.fresh(symbol)
                head = f"for {name} in tl.static_range({a.extent}):"
                stack.enter_context(self.values.block(head))
                self.values.define(symbol, name, False, (0, a.extent - 1))
                self.values.literal.add(symbol)
                self.extents[symbol] = a.extent, True
            else:
                serial.append((a, size))
        self._open(serial, stack, s.split, 0 if self.opaque else s.stages)
        space = tuple(map(axis_of, s.block))
        self.bind(nest, space)
        return space

    def _open(
        self,
        serial: list[tuple[Axis, int | None]],
        stack: ExitStack,
        split: int = 1,
        stages: int = 0,
    ) -> None:
        """Neighbouring loops are one loop, which a compiler can pipeline; or a part of one. Without
        `stages` it does so for products only."""
        v = self.values
        if not serial:
            if split > 1:  # all terms at once: the first program's
                stack.enter_context(v.block("for _ in range(part, 1):"))
            return
        trips = [-(-a.extent // (size or 1)) for a, size in serial]
        trips_all = rest = prod(trips)
        name = v.fresh("t" if len(serial) > 1 else serial[0][0].symbol)
        # ptxas 12.9 loses the products of a loop that rounds operands and that it unrolls whole
        trips_text = (
            f"tl.num_programs(0) - {self.blocks - rest}"
            if self.opaque and self.split == 1
            else f"{rest}"
        )
        if split > 1:
            each = -(-rest // split)
            trips_text = f"part * {each}, tl.minimum(part * {each} + {each}, {rest})"
        iterations = f"tl.range({trips_text}, num_stages={stages})"
        iterations = iterations if stages else f"range({trips_text})"
        stack.enter_context(v.block(f"for {name} in {iterations}:"))
        if self.far:
            name = v.name(f"tl.full((), 0, tl.int64) + {name}", "t")
        for n, (a, size) in enumerate(serial):
            rest //= trips[n]
            text = quotient(name, trips_all - 1, rest) if rest > 1 else name
            if n:
                text = remainder(text, trips_all // rest - 1, trips[n])
            if size is not None:
                self._block(a, size, text)
                continue
            text = text if text == name else v.name(text, f"{a.symbol}_")
            v.define(a.symbol, text, False, (0, a.extent - 1))
            self.extents[a.symbol] = a.extent, True
        serial.clear()

    def bind(self, nest: Loops, space: Space) -> None:
        """Indirect indices, wrapped and checked as eager does."""
        v = self.values
        for b in nest.binds:
            axes = self.axes_of(b.value)
            self.depends[b.symbol] = axes
            text = v.name(v.value(b.value, space))
            inside = self.inside(axes, space)
            good = f"({text} >= {-b.bound}) & ({text} < {b.bound})"
            if inside:
                good = f"({good}) | ~({inside})"
            message = (b.error or f"index out of bounds for dimension with size {b.bound}")[:120]
            v.write(f"tl.device_assert({good}, {message!r})")
            self.checks = True
            text = v.name(f"tl.where({text} < 0, {text} + {b.bound}, {text})", f"{b.symbol}_")
            if inside:  # beyond the block's end, some valid place
                text = v.name(f"tl.where({inside}, {text}, 0)", f"{b.symbol}_")
            v.define(b.symbol, text, False, (0, b.bound - 1))
            v.known(b.symbol, text, space)

    def last(self) -> None:
        """The last nest: its stores, or running values of a scan."""
        nest, s = self.root, self.schedule
        if any(x.reduce for x in nest.stores):
            self.scan(nest, s)
            return
        with ExitStack() as stack:
            space = self.enter(nest, s, stack)
            if self.tile is None:
                for x in nest.stores:
                    self.put(x, space)
                return
            for each, held in zip(self.tile.each(nest), self.of_each, strict=True):
                self.held = held
                for x in each.stores:
                    self.put(x, space)

    def put(self, x: Store, space: Space) -> None:
        """A store's values: to memory, or kept as they are."""
        for name, value in zip(x.buffers, x.values, strict=True):
            text = self.values.value(value, space)
            if self.program.buffers[name].scope == "local":
                if x.mask or self.values.in_loop:
                    raise EmitError(f"{name} in registers, of some points only")
                self.held[name] = Held(self.full(text, value, space), space), x.index
            else:
                self.store(name, x, text, space)

    def store(self, name: str, x: Store, text: str, space: Space) -> None:
        b = self.program.buffers[name]
        address = b.address(x.index)
        symbols = {s for i in (address, *x.mask) for s in i.symbols} | set(space)
        tests = [self.values.mask(x.mask, space), self.inside(symbols, space), self.own(space)]
        mask = " & ".join(t for t in tests if t)
        place = f"{self.pointer(name)} + ({self.values.index(address, space)})"
        shape = ", ".join(str(self.sizes[d]) for d in space)
        if space and not set(space) <= self._axes(address.symbols):
            place = f"tl.broadcast_to({place}, [{shape}])"
        tail = f", mask={mask}" if mask else ""
        self.values.write(f"tl.store({place}, {text}{tail})")
        if self.program.buffers[name].scope == "arena" and self._read_here(name):
            self.values.write("tl.debug_barrier()")
            self.values.forget()

    def _read_here(self, name: str) -> bool:
        base = self.program.base(name).name
        return any(self.program.base(b).name == base for b in read(self.kernel))

    # -- reductions ----------------------------------------------------------------------------

    def reduce(self, nest: Loops, s: Schedule) -> None:
        v = self.values
        if tile := register_tile(nest, s):
            self.several(nest, s, tile)
            return
        if moved := self.neighbours(nest):
            self.sum_neighbours(moved, nest, s)
            return
        m = matrix(nest, s)
        with_chunks = any(
            loop not in s.block
            and axis_of(loop) not in self.grid
            and not in_one_chunk(nest, s, loop)
            for loop in s.order
        )
        outer = tuple(axis_of(x) for x in s.block if nest.axis(axis_of(x)).kind != "reduce")
        space = tuple(map(axis_of, s.block))
        before = None if m is None else self.goes_on(nest, outer)
        held = m is None and with_chunks
        totals: list[list[str]] = []
        if before is not None:
            totals.append([v.name(before, "acc")])
        elif with_chunks or m is not None:
            for x in nest.stores:
                assert x.reduce is not None
                shape = outer if m is not None else space
                totals.append(
                    [
                        v.name(self.filled(text, dtype, shape), "acc")
                        for text, dtype in self.identities(x)
                    ]
                )
        self.opaque = m is not None and any(map(self._rounds, (m.a, m.b)))
        with ExitStack() as stack:
            space = self.enter(nest, s, stack)
            for n, x in enumerate(nest.stores):
                if m is not None:
                    self.dot(totals[n][0], x, m, space)
                    continue
                if held and adds_products(x):
                    self.add_product(totals[n][0], x, nest, space)
                    continue
                new = [self.masked(e, x, k, nest, space) for k, e in enumerate(x.values)]
                if held:
                    self.combine(x.reduce, totals[n], new)
                else:
                    totals.append(new)
        if s.split > 1:
            if m is None or len(totals) != 1:
                raise EmitError(f"{nest.name} in parts, which is no product of blocks")
            if before is None and nest is not self.kernel.body[0]:
                raise EmitError(f"{nest.name} in parts, which does not go on with the sum before")
            if nest is self.kernel.body[-2]:  # else a sum that the next one goes on with
                totals = [[self.added(totals[0][0], outer, s.split)]]
        for x, found in zip(nest.stores, totals, strict=True):
            start = None if before is not None or x.reduce is None else x.reduce.init
            self.hold(x, found, space, outer, m, start)

    def neighbours(self, nest: Loops) -> Neighbours | None:
        """What a nest sums of other rows of a block that an earlier one made, if it does that."""
        for e in loads(nest):
            if e.buffer in self.held:
                held, index = self.held[e.buffer]
                if e.index != index and len(held.space) == 2:
                    made = (n for n in self.kernel.body for x in n.stores if e.buffer in x.buffers)
                    rows, columns = map(next(made).axis, held.space)
                    return neighbours(nest, rows, columns, index)
        return None

    def sum_neighbours(self, x: Neighbours, nest: Loops, s: Schedule) -> None:
        """The taps of all columns side by side, moved to their rows, then summed."""
        v, (held, _) = self.values, self.held[x.part]
        space = held.space
        rows, columns = (self.sizes[a] for a in space)
        at = v.name(f"tl.arange(0, {rows})[:, None] + ({v.index(x.rows, space)})", "at")
        at = v.name(f"tl.minimum(tl.maximum({at}, 0), {rows - 1}).to(tl.int32)", "at")
        moved = v.name(f"tl.gather({held.text}, {at}, 0)", "moved")
        tests = " & ".join(t for t in (v.mask(x.mask, space), self.inside(space[1:], space)) if t)
        moved = v.name(f"tl.where({tests}, {moved}, 0.0)", "moved") if tests else moved
        each = x.output.extent
        total = v.name(f"tl.sum(tl.reshape({moved}, [{rows}, {columns // each}, {each}]), axis=1)")
        outer, (store,) = tuple(map(axis_of, s.block)), nest.stores
        assert store.reduce is not None
        self.hold(store, [total], outer, outer, None, store.reduce.init)

    def goes_on(self, nest: Loops, outer: Space) -> str | None:
        """The sum in registers from which one of products starts, if it does: that is then a part
        of it, as of programs that share a block."""
        (x, *_) = nest.stores
        start = x.reduce.init if x.reduce else None
        if start is None or not isinstance(start[0], Load) or start[0].buffer not in self.held:
            return None
        held, index = self.held[start[0].buffer]
        same = index == start[0].index == x.index and held.space == outer
        return held.text if same else None

    def several(self, nest: Loops, s: Schedule, tile: RegisterTile) -> None:
        """Several results of each point: what is loaded for one is there for the others."""
        v, sums = self.values, tile.sums(nest)
        space = tuple(map(axis_of, s.block))
        outer = tuple(a for a in space if nest.axis(a).kind != "reduce")
        totals = [
            [
                [v.name(self.filled(*i, space), "acc") for i in self.identities(x)]
                for x in each.stores
            ]
            for each in sums
        ]
        order = tuple(loop for loop in s.order if axis_of(loop) != tile.axis.symbol)
        with ExitStack() as stack:
            self.enter(sums[0], replace(s, order=order), stack)
            for e in common(sums):
                text = v.value(e, space)
                v.known(e, text if text.isidentifier() else v.name(text), space)
            for n, each in enumerate(sums):
                self.add_terms(each, totals[n], tile, n, space)
        self.tile = tile
        for each, found in zip(sums, totals, strict=True):
            for x, total in zip(each.stores, found, strict=True):
                start = x.reduce.init if x.reduce else None
                self.hold(x, total, space, outer, None, start)
            self.of_each.append(dict(self.held))

    def add_terms(
        self, nest: Loops, totals: list[list[str]], tile: RegisterTile, n: int, space: Space
    ) -> None:
        """The n-th result's terms, if this tap is one of its own."""
        v = self.values
        with ExitStack() as stack:
            if taps := tile.taps(n):
                assert tile.tap is not None
                tap = v.symbol(tile.tap.symbol, space)
                stack.enter_context(v.block(f"if ({tap} >= {taps[0]}) & ({tap} <= {taps[1]}):"))
            for x, total in zip(nest.stores, totals, strict=True):
                if adds_products(x):
                    self.add_product(total[0], x, nest, space)
                    continue
                new = [self.masked(e, x, k, nest, space) for k, e in enumerate(x.values)]
                self.combine(x.reduce, total, new)

    def added(self, part: str, space: Space, split: int) -> str:
        """The sum of a block's parts, in their order, in the program that arrives last: what
        follows is for it alone."""
        v, size = self.values, prod(self.sizes[d] for d in space)
        rows, columns = (self.sizes[d] for d in space)
        self.parts, self.counters = self.blocks * split * size, self.blocks
        at = v.name(
            f"tl.arange(0, {rows})[:, None] * {columns} + tl.arange(0, {columns})[None, :]", "at"
        )
        parts = v.name(f"{self.pointer(PARTS)} + pid * {split * size} + {at}", "parts")
        counter = v.name(f"{self.pointer(COUNTERS)} + pid", "counter")
        v.write(f"tl.store({parts} + part * {size}, {part})")
        v.write("tl.debug_barrier()")
        arrived = v.name(f'tl.atomic_add({counter}, 1, sem="acq_rel")', "arrived")
        self.rest.enter_context(v.block(f"if {arrived} == {split - 1}:"))
        v.write(f"tl.store({counter}, 0)")
        total = v.name(f'tl.load({parts}, cache_modifier=".cg")', "acc")
        with v.block(f"for other in tl.static_range(1, {split}):"):
            v.write(f'{total} += tl.load({parts} + other * {size}, cache_modifier=".cg")')
        return total

    def hold(
        self,
        x: Store,
        found: list[str],
        space: Space,
        outer: Space,
        m: Matrix | None,
        start: tuple[Expr, ...] | None,
    ) -> None:
        """A reduction's results, in registers: over the block's points, from where it starts."""
        v, r = self.values, x.reduce
        assert r is not None
        if m is None:
            for axis in range(len(space) - 1, -1, -1):
                if space[axis] not in outer:
                    found = self.across(r.monoid, found, axis)
        if start is not None:
            first = [self.full(v.value(e, outer), e, outer) for e in start]
            if len(first) != 1:
                raise EmitError(f"{r.monoid} with where it starts")
            found = [v.name(_step(r.monoid, first[0], found[0]))]
        for name, text in zip(x.buffers, found, strict=True):
            if self.program.buffers[name].scope != "local":
                raise EmitError(f"reduction into memory {name}")
            dtype = self.program.buffers[name].dtype
            if dtype in HALVES:
                text = v.name(cast(text, "f32", dtype))
            self.held[name] = Held(text, outer), x.index

    def identities(self, x: Store) -> list[tuple[str, str]]:
        """(text, dtype) of the values that change nothing."""
        assert x.reduce is not None
        found = []
        for k, (value, identity) in enumerate(
            zip(x.values, MONOIDS[x.reduce.monoid].identity, strict=True)
        ):
            dtype = x.reduce.acc_dtype if k == 0 else value.dtype
            dtype = "f32" if dtype in HALVES else dtype
            if k == 1 and x.reduce.monoid in POSITIONS:  # beyond all positions
                identity = float("inf")
            found.append((constant(identity, dtype), dtype))
        return found

    def masked(self, e: Expr, x: Store, k: int, nest: Loops, space: Space) -> str:
        """A value of a reduction, the identity beyond the axes' ends."""
        text = self.wide(e, space)
        tests = self.counted(x, nest, space)
        if tests:
            identity, _ = self.identities(x)[k]
            text = self.values.name(f"tl.where({tests}, {text}, {identity})")
        return text

    def counted(self, x: Store, nest: Loops, space: Space) -> str:
        """Which points of a block a reduction is over; "" where all are."""
        inside = self.inside({a.symbol for a in nest.reduce_axes}, space)
        return " & ".join(t for t in (inside, self.values.mask(x.mask, space)) if t)

    def add_product(self, acc: str, x: Store, nest: Loops, space: Space) -> None:
        """acc += a * b, rounded once; what is not said to be so, a compiler does not do so."""
        v, (e,) = self.values, x.values
        assert isinstance(e, Op)
        a, b = (self.full(v.value(f, space), f, space) for f in e.args)
        tests = self.counted(x, nest, space)
        terms = {a.symbol for a in nest.reduce_axes} & set(space)
        if not x.mask and all(
            isinstance(f, Load) and all(self._zero_outside(f, k) for k in terms) for f in e.args
        ):
            tests = ""  # zeros beyond the ends are added
        text = f"tl.fma({a}, {b}, {acc})"
        v.write(f"{acc} = tl.where({tests}, {text}, {acc})" if tests else f"{acc} = {text}")

    def wide(self, e: Expr, space: Space) -> str:
        """A value to be combined with others: of all points, 16-bit floats as float32."""
        text = self.values.value(e, space)
        return self.full(cast(text, e.dtype, "f32") if e.dtype in HALVES else text, e, space)

    def combine(self, r: Reduce | None, acc: list[str], new: list[str]) -> None:
        assert r is not None
        if len(acc) == 1:
            self.values.write(f"{acc[0]} = {_step(r.monoid, acc[0], new[0])}")
            return
        self._known(r.monoid)
        args = ", ".join((*acc, *new))
        self.values.write(f"{', '.join(acc)} = sol.combine_{r.monoid}({args})")

    def across(self, monoid: str, found: list[str], axis: int) -> list[str]:
        """Reduce a dimension of a block."""
        v = self.values
        if monoid == "sum":
            return [v.name(f"tl.sum({found[0]}, axis={axis})")]
        self._known(monoid)
        names = [v.fresh("v") for _ in found]
        args = found[0] if len(found) == 1 else f"({', '.join(found)})"
        v.write(f"{', '.join(names)} = tl.reduce({args}, {axis}, sol.combine_{monoid})")
        return names

    def _known(self, monoid: str) -> None:
        if monoid not in KNOWN:
            raise EmitError(f"no Triton for the monoid {monoid}")

    def dot(self, acc: str, x: Store, m: Matrix, space: Space) -> None:
        """acc += a (m, k) @ b (k, n)."""
        v = self.values
        rows, columns, deep = m.m, m.n, m.k
        texts = []
        factors = [m.a, m.b]
        precision = "tf32" if all(is_op(e, "tf32") for e in factors) else "ieee"
        narrow = [e.args[0] for e in factors if is_op(e, "cast") and e.args[0].dtype in HALVES]
        if len(narrow) == 2:  # their products are exact
            factors = narrow
        for e, own in zip(factors, ((rows, deep), (deep, columns)), strict=True):
            read = e.args[0] if is_op(e, "tf32") or is_op(e, "cast") else e
            if is_op(e, "tf32") and not self._rounds(e):
                e = read
            text = self.full(v.value(e, own), e, own)
            inside = self.inside({deep}, own)
            if inside and not (isinstance(read, Load) and self._zero_outside(read, deep)):
                text = v.name(f"tl.where({inside}, {text}, {constant(0, e.dtype)})")
            texts.append(text)
        out = TRITON[x.reduce.acc_dtype] if x.reduce else "tl.float32"
        v.write(
            f"{acc} = tl.dot({texts[0]}, {texts[1]}, {acc},"
            f' input_precision="{precision}", out_dtype={out})'
        )

    def _rounds(self, factor: Expr) -> bool:
        """Whether an operand is rounded for its product, and not where it was made."""
        if not is_op(factor, "tf32"):
            return False
        e = factor.args[0]
        return not (isinstance(e, Load) and self.program.base(e.buffer).name in self.rounded)

    def _zero_outside(self, e: Load, axis: str) -> bool:
        """Whether a load gives 0 beyond an axis's end: it is masked there."""
        symbols = {s for i in (*e.index, *e.mask) for s in i.symbols}
        return axis in symbols and (not e.mask or e.other == 0)

    def scan(self, nest: Loops, s: Schedule) -> None:
        """Running values: positions in order, one store each."""
        if len(nest.stores) != 1 or nest.reduce_axes:
            raise EmitError(f"a scan that reduces at each position, in {nest.name}")
        (x,) = nest.stores
        space = tuple(map(axis_of, s.block))
        acc = [
            self.values.name(self.filled(text, dtype, space), "acc")
            for text, dtype in self.identities(x)
        ]
        assert x.reduce is not None
        if x.reduce.init is not None:
            self.combine(x.reduce, acc, [self.wide(e, space) for e in x.reduce.init])
        with ExitStack() as stack:
            space = self.enter(nest, s, stack)
            new = [self.wide(e, space) for e in x.values]
            self.combine(x.reduce, acc, new)
            for name, text, (_, dtype) in zip(x.buffers, acc, self.identities(x), strict=True):
                b = self.program.buffers[name]
                if b.scope == "local":
                    raise EmitError(f"a scan into registers {name}")
                self.store(name, x, cast(text, dtype, b.dtype), space)

    # -- blocks --------------------------------------------------------------------------------

    def filled(self, text: str, dtype: str, space: Space) -> str:
        """A block of one value."""
        shape = ", ".join(str(self.sizes[d]) for d in space)
        return f"tl.zeros([{shape}], {TRITON[dtype]}) + {text}" if space else text

    def full(self, text: str, e: Expr, space: Space) -> str:
        """A value with all of its block's points."""
        if not space or set(space) <= self.axes_of(e):
            return text
        shape = ", ".join(str(self.sizes[d]) for d in space)
        return self.values.name(f"tl.broadcast_to({text}, [{shape}])")

    def axes_of(self, e: Expr) -> frozenset[str]:
        """The block's axes on which a value depends."""
        found: set[str] = set()
        for x in walk(e):
            if isinstance(x, Load):
                if x.buffer in self.held:
                    found.update(self.held[x.buffer][0].space)
                    continue
                for i in (*x.index, *x.mask):
                    found |= self._axes(i.symbols)
            elif isinstance(x, Iota):
                found |= self._axes(x.index.symbols)
        return frozenset(found)

    def _axes(self, symbols) -> set[str]:
        found: set[str] = set()
        for s in symbols:
            found |= self.depends.get(s, frozenset((s,)))
        return found

    def inside(self, symbols, space: Space) -> str:
        """Where the block's points lie within those axes' extents; "" where all do."""
        v, tests = self.values, []
        for a in space:
            if a in self._axes(symbols) and not self.extents[a][1]:
                tests.append(v.mask((Index.of(a),), space) if v.ranges[a][0] < 0 else "")
                tests.append(v.below(a, self.extents[a][0], space))
        return " & ".join(t for t in tests if t)

    def own(self, space: Space) -> str:
        """Where a block's points are not its neighbours' results; "" where none are."""
        tests = []
        for a, (before, behind) in self.schedule.halo.items():
            size, at = self.sizes[a], ", ".join(":" if d == a else "None" for d in space)
            place = f"tl.arange(0, {size})[{at}]"
            tests.append(f"({place} >= {before}) & ({place} < {size - behind})")
        return " & ".join(tests)

    # -- memory --------------------------------------------------------------------------------

    def pointer(self, name: str) -> str:
        base = name if name in SCRATCH else self.program.base(name).name
        return self.names.setdefault(base, f"p{len(self.names)}")

    def load(self, e: Load, space: Space) -> str:
        """Text of a load: of memory, or of what an earlier nest holds."""
        b = self.program.buffers[e.buffer]
        if b.scope == "local":
            return self._held(e, space)
        address = b.address(e.index).simplify(self.values.ranges)
        symbols = {s for i in (address, *e.mask) for s in i.symbols}
        tests = [self.values.mask(e.mask, space), self.inside(symbols, space)]
        mask = " & ".join(t for t in tests if t)
        place = f"{self.pointer(e.buffer)} + ({self.values.index(address, space)})"
        if (
            mask
            and not self._axes(address.symbols) & set(space)
            and self._axes(symbols) & set(space)
        ):
            shape = ", ".join(
                str(self.sizes[d]) if d in self._axes(symbols) else "1" for d in space
            )
            place = f"tl.broadcast_to({place}, [{shape}])"
        other = constant(e.other if e.mask and e.other is not None else 0, e.dtype)
        return f"tl.load({place}, mask={mask}, other={other})" if mask else f"tl.load({place})"

    def _held(self, e: Load, space: Space) -> str:
        if e.buffer not in self.held:
            raise EmitError(f"{e.buffer} is read before it is made")
        held, index = self.held[e.buffer]
        if e.index != index or e.mask or not set(held.space) <= set(space):
            raise EmitError(f"{e.buffer}{list(e.index)} is held as {list(index)}")
        if held.space == space or not held.space:
            return held.text
        return f"{held.text}[{', '.join(':' if d in held.space else 'None' for d in space)}]"


def _step(monoid: str, a: str, b: str) -> str:
    if monoid == "sum":
        return f"{a} + {b}"
    return f"sol.combine_{monoid}({a}, {b})"
