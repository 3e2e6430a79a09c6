"""Elements of buffers as values: registers, loads, stores, and the rows that a ring keeps.

A local buffer whose every index is constant within the place where it lives is a set of named C
values; any other is memory. A store whose mask differs from lane to lane is done lane by lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...affine import Index
from ...ir import (
    DTYPES,
    HALVES,
    Buffer,
    Const,
    Expr,
    Kernel,
    Load,
    Op,
    Program,
    Store,
    loads,
    show,
    subst,
    walk,
)
from .addresses import Addresses, storage, stored_literal
from .bounds import Bounds, Box, tested
from .scope import Scope
from .values import LANE, EmitError, Expressions, Value, compute_dtype

Point = tuple[Index, ...]  # the index of an element


class Memory:
    """The elements of one kernel's buffers, by index over C variables."""

    expressions_type: type[Expressions] = Expressions

    def __init__(
        self, kernel: Kernel, program: Program, scope: Scope, bounds: Bounds, addresses: Addresses
    ):
        self.kernel, self.program, self.scope = kernel, program, scope
        self.bounds, self.addresses = bounds, addresses
        self.expr = self.expressions_type(scope, self._load)
        self._registers: dict[tuple[str, Point, int], Value] = {}
        self._origin: dict[str, Point] = {}  # local buffer -> its first element's index
        self._in_memory = {
            b: walked_serially(kernel, b)
            for b in {b for n in kernel.body for s in n.stores for b in s.buffers}
            if program.buffers[b].scope == "local"
        }
        self._operands = tile_operands(kernel)

    def open(self, j: int, box: Box) -> None:
        """Nest j is about to compute a box of its points: its local buffers hold these now."""
        corner = {a: first for a, (first, _) in box.items()}
        ring = self.bounds.rings.get(j)
        for s in self.kernel.body[j].stores:
            origin = tuple(i.subst(corner) for i in s.index)
            if ring is not None:
                origin = (*origin[: ring.dim], Index(), *origin[ring.dim + 1 :])
            for b in s.buffers:
                self._origin[b] = origin
        outputs = {b for s in self.kernel.body[j].stores for b in s.buffers}
        for key in [key for key in self._registers if key[0] in outputs]:
            del self._registers[key]

    # -- values --------------------------------------------------------------------------------

    def evaluate(self, e: Expr, values: Mapping[str, Index], lanes: int) -> Value:
        """C for an expression at a point: `values` gives the nest's axes over C variables."""
        return self.expr.value(self._resolved(e, values), lanes)

    def _resolved(self, e: Expr, values: Mapping[str, Index]) -> Expr:
        """Substitute C variables, simplify, and decide the masks that can be decided."""
        scope, root = self.scope, subst(e, values)
        new: dict[Expr, Expr] = {}
        for x in walk(root):
            if isinstance(x, Load):
                new[x] = self._resolved_load(x)
            elif (mask := tested(x)) is not None and (scope.holds(mask) or scope.fails(mask)):
                new[x] = Const(scope.holds(mask), "bool")
            elif isinstance(x, Op):
                args = tuple(new[a] for a in x.args)
                dead = x.name == "mul" and x.dtype == "f32" and self._times_padding(args)
                new[x] = Const(0.0, x.dtype) if dead else Op(x.name, args, x.dtype)
            else:
                new[x] = x
        return new[root]

    def _resolved_load(self, x: Load) -> Expr:
        mask = self.scope.open_masks(x.mask)
        if any(self.scope.fails(m) for m in mask):
            return Const(x.other if x.other is not None else 0, x.dtype)
        index = tuple(i.simplify(self.scope.ranges) for i in x.index)
        return Load(x.buffer, index, x.dtype, mask, x.other)

    def _times_padding(self, args: tuple[Expr, ...]) -> bool:
        """Whether a product is of a padded tap, a constant 0, and a weight, which then does not
        matter."""
        return any(
            isinstance(a, Const)
            and a.value == 0
            and isinstance(b, Load)
            and self.program.base(b.buffer).scope == "weight"
            for a, b in (args, args[::-1])
        )

    def condition(self, mask: Index) -> str:
        """C for whether a mask holds."""
        mask = mask.simplify(self.scope.ranges)
        return "1" if self.scope.holds(mask) else f"({self.scope.scalar(mask)} >= 0)"

    # -- registers -----------------------------------------------------------------------------

    def is_register(self, name: str) -> bool:
        """Whether a local buffer is a set of named values."""
        return self.program.buffers[name].scope == "local" and not self._in_memory[name]

    def register(self, name: str, index: Point, lanes: int) -> tuple[Point, int, Point | None]:
        """Which register an element is, by its place relative to the box and its lanes; and its
        index where it is memory after all."""
        if not self.is_register(name):
            return index, lanes if any(LANE in i.symbols for i in index) else 1, index
        place = tuple(
            (i - o).simplify(self.scope.ranges)
            for i, o in zip(index, self._origin[name], strict=True)
        )
        plain = tuple(r - Index.of(LANE) * r.coefficient(LANE) for r in place)
        if all(p.is_const for p in plain):
            along = any(r.coefficient(LANE) for r in place)
            return tuple(Index.of(p.const) for p in plain), lanes if along else 1, None
        return place, lanes, index

    def keep(self, name: str, place: Point, lanes: int, v: Value) -> None:
        """A register's value, rounded as its dtype has it."""
        dtype = self.program.buffers[name].dtype
        v = self.expr.cast(v, compute_dtype(dtype))
        self._registers[name, place, lanes] = self.expr.rounded(v, dtype) if dtype in HALVES else v

    # -- stores --------------------------------------------------------------------------------

    def guarded_store(
        self, store: Store, index: Point, new: Sequence[Value], masks: Sequence[Index], lanes: int
    ) -> None:
        """Store values where all masks hold; lane by lane where the lanes differ in that."""
        masks = [m for m in masks if not self.scope.holds(m)]
        if lanes > 1 and any(LANE in m.symbols for m in masks):
            new = [self.expr.splat(v, lanes, "f32") for v in new]
            for n in range(lanes):
                place = tuple(i.subst({LANE: n}).simplify(self.scope.ranges) for i in index)
                here = [m.subst({LANE: n}).simplify(self.scope.ranges) for m in masks]
                self.guarded_store(store, place, [lane_of(v, n) for v in new], here, 1)
            return
        if not masks:
            self._stores(store, index, new, lanes)
            return
        if any(self.is_register(b) for b in store.buffers):
            raise EmitError(f"a masked store to registers: {show(store)}\n{show(self.kernel)}")
        self.expr.write(f"if ({' && '.join(self.condition(m) for m in masks)}) {{")
        with self.expr.block():
            self._stores(store, index, new, lanes)
        self.expr.write("}")

    def _stores(self, store: Store, index: Point, new: Sequence[Value], lanes: int) -> None:
        for b, v in zip(store.buffers, new, strict=True):
            self.store(b, index, v, lanes)

    def store(self, name: str, index: Point, v: Value, lanes: int) -> None:
        """One element, or the elements of one vector."""
        buffer, expr = self.program.buffers[name], self.expr
        if self.is_register(name):
            place, n, memory = self.register(name, index, lanes)
            if memory is not None:
                raise EmitError(f"{name}{list(index)} is no register\n{show(self.kernel)}")
            v = expr.rounded(v, buffer.dtype) if buffer.dtype in HALVES else v
            self._registers[name, place, n] = expr.name(v, "r")
            return
        dtype = storage(buffer.dtype)
        if buffer.dtype == "bool":
            v = expr.stored_bool(v)
        elif buffer.dtype in HALVES:
            v = expr.narrow(v, buffer.dtype)
        else:
            v = expr.cast(v, buffer.dtype)
        address = self._address(buffer, index)
        if lanes == 1 or LANE not in address.symbols:
            expr.write(f"*{self.addresses.pointer(buffer, address, True)} = {v.text};")
            return
        v = expr.splat(v, lanes)
        if contiguous_lanes(address):
            first = self.addresses.pointer(buffer, address.subst({LANE: 0}), True)
            expr.write(f"*({dtype}x{lanes}u *){first} = {v.text};")
            return
        for n in range(lanes):
            at = self.addresses.pointer(buffer, address.subst({LANE: n}), True)
            expr.write(f"*{at} = {v.text}[{n}];")

    # -- loads ---------------------------------------------------------------------------------

    def _load(self, load: Load, lanes: int) -> Value:
        buffer = self.program.buffers[load.buffer]
        if self.is_register(load.buffer):
            return self._register_load(load, lanes)
        address = self._address(buffer, load.index)
        by_lane = any(LANE in m.symbols for m in load.mask)
        if LANE not in address.symbols and not by_lane:
            return self._loaded(f"*{self._guarded(buffer, address, load)}", buffer.dtype, 1)
        dtype = storage(buffer.dtype)
        if contiguous_lanes(address) and not by_lane:
            first = self._guarded(buffer, address.subst({LANE: 0}), load)
            text = f"*(const {dtype}x{lanes}u *){first}"
            if self.addresses.streaming and load.buffer in self._operands:
                return self._in_a_register(Value(text, buffer.dtype, lanes))
            return self._loaded(text, buffer.dtype, lanes)
        return self._gathered(buffer, address, load, lanes)

    def _gathered(self, buffer: Buffer, address: Index, load: Load, lanes: int) -> Value:
        """A load whose lanes lie apart or differ in their masks; a mask that they share is tested
        once (in the innermost loop it is a stream's)."""
        dtype, each_load = storage(buffer.dtype), load
        shared: tuple[str, ...] = ()
        if not self.addresses.streaming:
            shared = self.scope.tests(m for m in load.mask if LANE not in m.symbols)
            rest = tuple(m for m in load.mask if LANE in m.symbols)
            each_load = Load(load.buffer, load.index, load.dtype, rest, load.other)
        each = [self._lane(buffer, address, each_load, n) for n in range(lanes)]
        vector = f"({dtype}x{lanes}){{{', '.join(each)}}}"
        if shared:
            other = stored_literal(0 if load.other is None else load.other, buffer.dtype)
            others = ", ".join([other] * lanes)
            vector = f"{' && '.join(shared)} ? {vector} : ({dtype}x{lanes}){{{others}}}"
        return self._loaded(vector, buffer.dtype, lanes)

    def _in_a_register(self, v: Value) -> Value:
        """A vector that the compiler is not to read from memory again for each of its uses."""
        size = DTYPES[v.dtype][0] * v.lanes
        if v.dtype not in ("f32", "f64") or size not in (16, 32, 64):
            return self._loaded(v.text, v.dtype, v.lanes)
        kept = self.expr.name(v, "x", "")
        self.expr.write(f"SOL_KEEP({size}, {kept.text});")
        return kept

    def _register_load(self, load: Load, lanes: int) -> Value:
        place, n, _ = self.register(load.buffer, load.index, lanes)
        found = self._registers.get((load.buffer, place, n))
        if found is None:
            text = f"{load.buffer}{list(place)} x{n} is read before it is computed"
            raise EmitError(f"{text}\n{show(self.kernel)}")
        if load.mask:
            raise EmitError(f"a masked load of registers: {show(load)}\n{show(self.kernel)}")
        return found

    def _guarded(self, buffer: Buffer, address: Index, load: Load) -> str:
        """The pointer of a load all of whose lanes are read or none."""
        return self.addresses.pointer(
            buffer, address, guard=self.scope.tests(load.mask), other=load.other
        )

    def _lane(self, buffer: Buffer, address: Index, load: Load, n: int) -> str:
        """One lane of a load whose lanes lie apart or differ in their masks."""
        ranges = self.scope.ranges
        masks = self.scope.open_masks(m.subst({LANE: n}) for m in load.mask)
        if any(self.scope.fails(m) for m in masks):
            return stored_literal(0 if load.other is None else load.other, buffer.dtype)
        at = address.subst({LANE: n}).simplify(ranges)
        guard = self.scope.tests(masks)
        return f"*{self.addresses.pointer(buffer, at, guard=guard, other=load.other)}"

    def _loaded(self, text: str, dtype: str, lanes: int) -> Value:
        """The value of what was read from memory."""
        if dtype == "bool":
            if lanes == 1:
                return self.expr.name(Value(text, "bool"))
            byte = self.expr.name(Value(text, "u8", lanes))
            return self.expr.name(Value(f"({byte.text} != 0)", "bool", lanes, 8))
        if dtype in HALVES:
            return self.expr.widen(Value(text, "u16", lanes), dtype)
        return self.expr.name(Value(text, dtype, lanes), "x")

    # -- addresses -----------------------------------------------------------------------------

    def _address(self, buffer: Buffer, index: Point) -> Index:
        if buffer.scope == "local":
            origin = self._origin[buffer.name]
            index = tuple(i - o for i, o in zip(index, origin, strict=True))
            index = self._folded(buffer.name, index)
        return buffer.address(index).simplify(self.scope.ranges)

    def _folded(self, name: str, index: Point) -> Point:
        """The place in a ring: row r is kept in row r % rows (a row that a mask keeps out may be
        negative, and then has any place)."""
        for j, ring in self.bounds.rings.items():
            if name in self.kernel.schedules[j].fold:
                row = index[ring.dim].simplify(self.scope.ranges)
                low = row.bounds({LANE: (0, 0), **self.scope.ranges})[0]
                row = (row + max(0, -(low // ring.rows)) * ring.rows) % ring.rows
                return (*index[: ring.dim], row, *index[ring.dim + 1 :])
        return index


def contiguous_lanes(address: Index) -> bool:
    """Whether the lanes of a vector lie side by side."""
    return address.coefficient(LANE) == 1 and address.is_affine_in(LANE)


def lane_of(v: Value, n: int) -> Value:
    """One lane of a vector."""
    if v.lanes == 1:
        return v
    text = f"{v.text}[{n}]"
    return Value(f"({text} & 1)" if v.dtype == "bool" else text, v.dtype)


def tile_operands(kernel: Kernel) -> frozenset[str]:
    """The buffers whose vectors a register tile uses at several points: those of a sum's loads that
    move along the vector's axis and not along another axis that is written out."""
    found: set[str] = set()
    for nest, s in zip(kernel.body, kernel.schedules, strict=True):
        axes = {loop.rsplit(".", 1)[0] for loop in s.unroll}
        if s.vector is None or any(nest.axis(a).kind != "parallel" for a in axes):
            continue
        vector = s.vector[0].rsplit(".", 1)[0]
        for e in loads(nest) if nest.reduce_axes else ():
            symbols = {symbol for i in e.index for symbol in i.symbols}
            if vector in symbols and not axes <= symbols:
                found.add(e.buffer)
    return frozenset(found)


def walked_serially(kernel: Kernel, name: str) -> bool:
    """Whether a serial loop inside the place where a local buffer lives moves over its elements."""
    for k, nest in enumerate(kernel.body):
        schedule = kernel.schedules[k]
        stores = [s for s in nest.stores if name in s.buffers]
        reads = [e for e in loads(nest) if e.buffer == name]
        points: list[Point] = [*(s.index for s in stores), *(e.index for e in reads)]
        symbols = {symbol for point in points for i in point for symbol in i.symbols}
        vector = schedule.vector[0] if schedule.vector else None
        for loop in _loops_inside(kernel, k, name) if points else ():
            axis = loop.rsplit(".", 1)[0]
            if axis in symbols and loop not in schedule.unroll and loop != vector:
                return True
    return False


def _loops_inside(kernel: Kernel, k: int, name: str) -> tuple[str, ...]:
    """The loops of nest k within the loop at which buffer `name` is stored."""
    names = [n.name for n in kernel.body]
    producer = next(i for i, n in enumerate(kernel.body) for s in n.stores if name in s.buffers)
    schedule = kernel.schedules[producer]
    assert schedule.at is not None, f"{name} is local to no loop"
    host, loop = names.index(schedule.at[0]), schedule.store_at or schedule.at[1]
    order = kernel.schedules[k].order
    return order[order.index(loop) + 1 :] if k == host and loop else order
