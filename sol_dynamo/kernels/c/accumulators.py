"""The running values of a kernel's reductions and scans, as named C variables.

The loops of a reduction are written first; the accumulators that they turned out to need are then
declared before them and their results named or stored after them. `reduce` says how the values of
a monoid combine; here is which values there are, where they start and where they end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from ...affine import Index
from ...ir import Kernel, Load, Store, show
from . import reduce
from .bounds import Box
from .memory import Memory, Point
from .scope import Scope
from .values import EmitError, Value


class Slot(NamedTuple):
    """Which accumulator: of a store, at a register or an element, for some lanes of it."""

    store: Store
    place: Point
    lanes: int
    part: tuple[int, int] | None = None  # lanes that are parts of one result: how many, from where


@dataclass
class Accumulator:
    """The running values of one output point (or vector of points)."""

    values: list[Value]
    declared: list[str]
    index: Point | None  # where to store the result; None: it stays in registers
    split: bool  # the lanes are parts of one result
    point: dict[str, Index]  # the output's axes


class Accumulators:
    """The open reductions and scans of one kernel, by the number of their nest."""

    def __init__(self, kernel: Kernel, scope: Scope, memory: Memory):
        self.kernel, self.scope, self.memory, self.expr = kernel, scope, memory, memory.expr
        self._sums: dict[int, dict[Slot, Accumulator]] = {}
        self._scans: dict[int, dict[Slot, Accumulator]] = {}
        self._empty: set[int] = set()  # reduce nests without points
        self._parts: set[int] = set()  # nests within a part of a long sum
        self._carried: dict[int, Index] = {}  # by nest: 0 where its sums in memory begin

    def is_empty(self, k: int) -> bool:
        """Whether the open reduction of nest k is over no points."""
        return k in self._empty

    # -- where they live -----------------------------------------------------------------------

    def starts_reduction(self, k: int, position: int) -> bool:
        """Whether the accumulators of nest k live from order[position] on."""
        nest = self.kernel.body[k]
        if k in self._sums or not any(s.reduce for s in nest.stores):
            return False
        first = self._first(k, "reduce")
        if first is None and any(a.kind == "scan" for a in nest.axes):
            return False
        return position == (len(self.kernel.schedules[k].order) if first is None else first)

    def starts_scan(self, k: int, position: int) -> bool:
        """Whether the running values of nest k live from order[position] on."""
        return k not in self._scans and position == self._first(k, "scan")

    def _first(self, k: int, kind: str) -> int | None:
        """The position of the first loop over axes of a kind, behind those that are carried."""
        nest, schedule = self.kernel.body[k], self.kernel.schedules[k]
        start = schedule.order.index(schedule.carry) + 1 if schedule.carry else 0
        kinds = (nest.axis(loop.rsplit(".", 1)[0]).kind for loop in schedule.order[start:])
        return next((p for p, found in enumerate(kinds, start) if found == kind), None)

    @contextmanager
    def reduction(self, k: int, box: Box) -> Iterator[None]:
        """The loops of a reduction, between its accumulators' declarations and its results."""
        self._sums[k] = {}
        mark, born = len(self.scope.lines), len(self.scope.bound)
        reduces = self.kernel.body[k].reduce_axes
        if any(box[a.symbol][1] == 0 for a in reduces):
            self._empty.add(k)
        if self.kernel.schedules[k].carry:
            self._carried[k] = sum((box[a.symbol][0] for a in reduces), Index())
        yield
        self._empty.discard(k)
        accumulators = self._sums.pop(k)
        self._check_points(k, accumulators.values(), born)
        self._declare(mark, accumulators.values())
        self._finish(k, accumulators)

    @contextmanager
    def scan(self, k: int) -> Iterator[None]:
        """The loops of a scan, with the running values declared before them."""
        self._scans[k] = {}
        mark, born = len(self.scope.lines), len(self.scope.bound)
        yield
        accumulators = self._scans.pop(k)
        self._check_points(k, accumulators.values(), born)
        self._declare(mark, accumulators.values())

    @contextmanager
    def part(self, k: int) -> Iterator[None]:
        """A part of a long sum on its own, then added: the error grows with the root of the parts,
        not of the terms."""
        totals, self._sums[k] = self._sums[k], {}
        mark = len(self.scope.lines)
        self._parts.add(k)
        yield
        self._parts.discard(k)
        parts, self._sums[k] = self._sums[k], totals
        self._declare(mark, parts.values())
        for slot, part in parts.items():
            total = totals.get(slot)
            if total is None:
                lanes = part.values[0].lanes
                total = self._new(k, slot.store, part.point, lanes, part.index, part.split)
                totals[slot] = total
            reduce.accumulate(self.expr, _monoid(slot.store), total.values, part.values)

    def _declare(self, mark: int, accumulators: Iterable[Accumulator]) -> None:
        """Declarations go before what was written since `mark`."""
        self.scope.lines[mark:mark] = [line for a in accumulators for line in a.declared]

    def _check_points(self, k: int, accumulators: Iterable[Accumulator], born: int) -> None:
        """Accumulators are named points: none may move with a loop inside the reduction."""
        inside = set(self.scope.bound[born:])
        for acc in accumulators:
            moving = {symbol for i in acc.point.values() for symbol in i.symbols} & inside
            if moving:
                text = f"a serial loop over output points ({min(moving)}) within a reduction of "
                raise EmitError(f"{text}{self.kernel.body[k].name}\n{show(self.kernel)}")

    # -- points --------------------------------------------------------------------------------

    def add(
        self, k: int, store: Store, index: Point, values: Mapping[str, Index], lanes: int, at: int
    ) -> None:
        """Combine one point (or one vector of points, the vector's offset being `at`) into its
        accumulator; `values` gives the nest's axes over C variables."""
        nest = self.kernel.body[k]
        point = {a.symbol: values[a.symbol] for a in nest.axes if a.kind == "parallel"}
        if k in self._empty:  # the result is where it starts
            self._accumulator(k, store, index, point, lanes, at)
            return
        new = [self.memory.evaluate(v, values, lanes) for v in store.values]
        if not nest.reduce_axes and any(a.kind == "scan" for a in nest.axes):
            for b, v in zip(store.buffers, self._scanned(k, store, point, new, lanes), strict=True):
                self.memory.store(b, index, v, lanes)
            return
        acc = self._accumulator(k, store, index, point, lanes, at)
        reduce.accumulate(self.expr, _monoid(store), acc.values, new)

    def _accumulator(
        self, k: int, store: Store, index: Point, point: dict[str, Index], lanes: int, at: int
    ) -> Accumulator:
        nest, vector = self.kernel.body[k], self.kernel.schedules[k].vector
        split = vector is not None and nest.axis(vector[0].rsplit(".", 1)[0]).kind == "reduce"
        place, width, kept = self.memory.register(store.buffers[0], index, lanes)
        slot = Slot(store, place, width, (lanes, at) if split and lanes > 1 else None)
        if slot not in self._sums[k]:
            self._sums[k][slot] = self._new(k, store, point, lanes, kept, split)
        return self._sums[k][slot]

    def _scanned(
        self, k: int, store: Store, point: dict[str, Index], new: list[Value], lanes: int
    ) -> list[Value]:
        """Add a position to its running values, and name them as they are there."""
        start = {a.symbol: Index() for a in self.kernel.body[k].axes if a.kind == "scan"}
        first = tuple(i.subst({**point, **start}).simplify(self.scope.ranges) for i in store.index)
        slot = Slot(store, first, lanes)
        acc = self._scans[k].get(slot)
        if acc is None:
            acc = self._scans[k][slot] = self._new(k, store, point, lanes, None, False)
        reduce.accumulate(self.expr, _monoid(store), acc.values, new)
        return [self.expr.name(v, "s") for v in acc.values]

    def _new(
        self,
        k: int,
        store: Store,
        point: dict[str, Index],
        lanes: int,
        index: Point | None,
        split: bool,
    ) -> Accumulator:
        values: list[Value] = []
        declared: list[str] = []
        start = None
        if k not in self._parts and k not in self._carried and not split:
            # what computes the start stands before the loops, too
            with self.scope.writing_to(declared), self.memory.addresses.outside():
                start = self._start(store, point, lanes)
        for n, dtype in enumerate(self._dtypes(store)):
            name = self.scope.fresh("a")
            if start is not None:
                text = start[n].text
            else:
                text = reduce.identity(_monoid(store), n, dtype, k in self._empty)
                text = self.expr.splat_text(text, dtype, lanes)
            declared.append(f"{self.expr.type_of(dtype, lanes, 32)} {name} = {text};")
            values.append(Value(name, dtype, lanes, 32))
        return Accumulator(values, declared, index, split, point)

    def _dtypes(self, store: Store) -> list[str]:
        """The dtypes in which the values of a reduction are kept."""
        return reduce.dtypes(store)

    def _start(self, store: Store, point: dict[str, Index], lanes: int) -> list[Value] | None:
        """The values that a reduction starts from, where they are not the monoid's identity."""
        if store.reduce is None or store.reduce.init is None:
            return None
        start, expr = [], self.expr
        with expr.block():
            for e, dtype in zip(store.reduce.init, self._dtypes(store), strict=True):
                v = expr.cast(self.memory.evaluate(e, point, lanes), dtype)
                v = expr.mask_bits(v, 32) if v.dtype == "bool" and v.lanes > 1 else v
                start.append(v if v.lanes == lanes else expr.splat(v, lanes))
        return start

    # -- results -------------------------------------------------------------------------------

    def _finish(self, k: int, accumulators: dict[Slot, Accumulator]) -> None:
        """Combine partial accumulators in a fixed order and name or store the results."""
        groups: dict[tuple[Store, Point, int], list[Accumulator]] = {}
        for slot, acc in accumulators.items():
            groups.setdefault((slot.store, slot.place, slot.lanes), []).append(acc)
        for (store, place, lanes), accs in groups.items():
            result, point, index = accs[0].values, accs[0].point, accs[0].index
            if accs[0].split or len(accs) > 1:
                lanes = 1
                result = self._across(_monoid(store), [a.values for a in accs])
                start = self._start(store, point, 1) if k not in self._parts else None
                if start is not None:
                    result = reduce.merged(self.expr, _monoid(store), start, result)
            if k in self._carried:
                result = self._carry(k, store, index, point, result, lanes)
            if k in self._scans:
                result = self._scanned(k, store, point, result, lanes)
            if index is None and not store.mask:
                for b, v in zip(store.buffers, result, strict=True):
                    self.memory.keep(b, place, lanes, v)
                continue
            if index is None:
                raise EmitError(f"a masked reduction to registers\n{show(self.kernel)}")
            masks = [m.subst(point).simplify(self.scope.ranges) for m in store.mask]
            self.memory.guarded_store(store, index, result, masks, lanes)

    def _across(self, monoid: str, parts: list[list[Value]]) -> list[Value]:
        """Partial accumulators, lanes included, as one scalar for each value of the monoid."""
        return reduce.across(self.expr, monoid, parts)

    def _carry(
        self,
        k: int,
        store: Store,
        index: Point | None,
        point: dict[str, Index],
        part: list[Value],
        lanes: int,
    ) -> list[Value]:
        """A part of a sum added to what memory holds of it; the first part, to where it starts."""
        if index is None:
            raise EmitError(f"sums carried in registers\n{show(self.kernel)}")
        (name,), (dtype,) = store.buffers, self._dtypes(store)
        zero = self.expr.splat_text(reduce.identity(_monoid(store), 0, dtype, False), dtype, lanes)
        start = self._start(store, point, lanes) or [Value(zero, dtype, lanes)]
        so_far = self.memory.evaluate(Load(name, index, dtype), {}, lanes)
        chosen = f"{self.scope.integer(self._carried[k])} == 0 ? {start[0].text} : {so_far.text}"
        total = self.expr.name(Value(chosen, dtype, lanes), "s")
        return [Value(self.expr.combine(_monoid(store), total, part[0]), dtype, lanes)]


def _monoid(store: Store) -> str:
    assert store.reduce is not None
    return store.reduce.monoid
