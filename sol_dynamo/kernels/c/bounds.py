"""Bounds inference: which points of each nest a piece of code needs, and what is known there.

From the points that a consumer computes follows the box that its attached nests must fill; from
the masks of a nest follows where loops may be clipped, taps dropped and borders peeled; from a
`fold` which rows a ring buffer keeps. All of it is arithmetic on indices: nothing is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...affine import Index, Range
from ...ir import (
    MONOIDS,
    Axis,
    Const,
    Expr,
    Iota,
    Kernel,
    Load,
    Loops,
    Op,
    Schedule,
    loads,
    show,
    walk,
)
from .scope import Scope
from .values import LANE, EmitError

Region = tuple[Index, int]  # first point (over C variables), number of points
Box = dict[str, Region]  # by axis
MAX_PEEL = 4  # border iterations at each end that are worth code of their own


@dataclass
class Ring:
    """A buffer of which some rows are kept from one iteration of its host's loop to the next."""

    axis: str  # of its nest: the rows
    dim: int  # of the buffer
    rows: int
    done: str  # C variable: rows below this one are computed


class Bounds:
    """Boxes and masks of one kernel's nests, which go by their number in its body."""

    def __init__(self, kernel: Kernel, scope: Scope):
        self.kernel, self.scope = kernel, scope
        self.nests = {n.name: i for i, n in enumerate(kernel.body)}
        self.rings: dict[int, Ring] = {}  # by the nest that fills them

    def nest(self, k: int) -> tuple[Loops, Schedule]:
        return self.kernel.body[k], self.kernel.schedules[k]

    def host(self, k: int) -> int | None:
        """The nest that nest k is computed within."""
        at = self.kernel.schedules[k].at
        return None if at is None else self.nests[at[0]]

    def step(self, k: int, loop: str) -> tuple[str, int]:
        """The axis of a loop, and how many points one iteration covers."""
        axis, level = loop.rsplit(".", 1)
        tile = self.kernel.schedules[k].tile.get(axis, ())
        return axis, (tile[int(level)] if int(level) < len(tile) else 1)

    # -- boxes ---------------------------------------------------------------------------------

    def boxes(self, k: int, position: int, box: Box) -> dict[int, Box]:
        """What is needed of nest k and of the nests attached at or below order[position]."""
        boxes = {k: box}
        order = set(self.kernel.schedules[k].order[position:])
        for j in range(k - 1, -1, -1):
            at, host = self.kernel.schedules[j].at, self.host(j)
            if at is None or host is None:
                continue
            if (host == k and (at[1] in order or not at[1])) or (host in boxes and host != k):
                boxes[j] = self._needed(j, boxes)
        return boxes

    def _needed(self, j: int, boxes: dict[int, Box]) -> Box:
        """The box of nest j's axes that covers every load of its buffers in `boxes`."""
        nest = self.kernel.body[j]
        outputs = {b for s in nest.stores for b in s.buffers}
        index = nest.stores[0].index
        region: list[Region | None] = [None] * len(index)
        for i, box in boxes.items():
            whole = {b.symbol: (Index(), b.bound) for b in self.kernel.body[i].binds}
            box = {**whole, **box}
            for load in loads(self.kernel.body[i]):
                if load.buffer not in outputs:
                    continue
                for d, component in enumerate(load.index):
                    region[d] = union(region[d], footprint(component, box, self.scope.ranges))
        needed: Box = {}
        host = boxes[max(boxes)]
        for component, needs in zip(index, region, strict=True):
            for symbol in component.symbols:
                if nest.axis(symbol).kind == "scan":
                    continue  # from its first point on
                if needs is not None:  # then the component is an axis by itself
                    needed[symbol] = self._within(nest.axis(symbol), *needs)
                elif symbol in host:  # nothing here reads what it writes: along its host's axes
                    needed[symbol] = host[symbol]
        for a in nest.axes:
            needed.setdefault(a.symbol, (Index(), a.extent))
        return needed

    def _within(self, axis: Axis, first: Index, count: int) -> Region:
        """What of a region lies on an axis, where that is known: masks keep the rest unread."""
        if not first.is_const:
            inside = first.bounds(self.scope.ranges)[0] >= 0
            return first, min(count, axis.extent) if inside else count
        low, high = max(first.const, 0), min(first.const + count, axis.extent)
        return (Index.of(low), high - low) if high > low else (Index(), 1)

    def overreach(self, k: int, loop: str, box: Box) -> tuple[list[Index], str | None]:
        """Masks that keep an attached nest on its axis where its box may lie across an end, and
        the row from which a ring is to be filled."""
        nest, schedule = self.nest(k)
        axis, step = self.step(k, loop)
        if schedule.at is None or nest.axis(axis).kind != "parallel":
            return [], None
        first, extent = box[axis]
        ring = self.rings.get(k)
        sliding = ring is not None and ring.axis == axis
        low, high = first.bounds({LANE: (0, 0), **self.scope.ranges})
        last = nest.axis(axis).extent - 1
        clip = [Index.of(axis)] if low < 0 else []
        if high + extent - 1 > last:
            clip.append(last - Index.of(axis))
        if not clip and not sliding:
            return [], None
        vector = schedule.vector is not None and schedule.vector[0] == loop
        inner = [x for x in schedule.order if x.rpartition(".")[0] == axis]
        if vector or loop in schedule.unroll or step != 1 or len(inner) > 1:
            raise EmitError(
                f"{nest.name} is needed beyond its axis {axis} (or in a ring of rows), whose loop "
                f"is no plain one\n{show(self.kernel)}"
            )
        return clip, ring.done if ring is not None and sliding else None

    def ring(self, j: int, moving: tuple[str, ...], box: Box) -> Ring | None:
        """Which rows of nest j's buffer move while its host's loops `moving` run."""
        host = self.host(j)
        if not moving or host is None:
            return None
        nest, schedule = self.nest(j)
        ((buffer, rows),) = schedule.fold.items()
        inner = dict(box)
        variables = set()
        for loop in moving:
            axis, step = self.step(host, loop)
            var = self.scope.fresh("v")
            first, extent = inner[axis]
            self.scope.ranges[var] = (0, max(-(-extent // step) - 1, 0))
            inner[axis] = (first + Index.of(var) * step, step)
            variables.add(var)
        position = self.kernel.schedules[host].order.index(moving[-1])
        needed = self.boxes(host, position, inner)[j]
        rolling = [a for a, (first, _) in needed.items() if first.symbols & variables]
        steps = [needed[a][0].coefficient(v) for a in rolling for v in variables]
        index = next(s.index for s in nest.stores if buffer in s.buffers)
        for v in variables:
            del self.scope.ranges[v]
        if (
            len(rolling) != 1
            or sum(c != 0 for c in steps) != 1
            or max(steps) <= 0
            or not all(needed[rolling[0]][0].is_affine_in(v) for v in variables)
            or needed[rolling[0]][1] > rows
            or Index.of(rolling[0]) not in index
        ):
            raise EmitError(f"no ring of {rows} rows holds {buffer}\n{show(self.kernel)}")
        axis = rolling[0]
        return Ring(axis, index.index(Index.of(axis)), rows, self.scope.fresh("done"))

    # -- masks ---------------------------------------------------------------------------------

    def masks(self, k: int) -> list[Index]:
        """All that must be >= 0 for a load or store of nest k to happen, or a `where` to choose."""
        nest = self.kernel.body[k]
        found: list[Index] = []
        for e in walk(*(v for s in nest.stores for v in s.values)):
            if isinstance(e, Load):
                found += e.mask
            else:
                found += filter(None, (tested(e),))
        for s in nest.stores:
            found += s.mask
        return found

    def interior(self, k: int, loop: str, box: Box, trips: int) -> tuple[int, int]:
        """The iterations [low, high) in which every mask that this loop can decide holds."""
        scope = self.scope
        axis, step = self.step(k, loop)
        var = scope.fresh("v")
        scope.bind(var, 0, trips - 1)
        position = self.kernel.schedules[k].order.index(loop)
        first = box[axis][0]
        boxes = self.boxes(k, position, {**box, axis: (first + Index.of(var) * step, step)})
        low, high = 0, trips
        for j, b in boxes.items():
            for mask in self.masks(j):
                least = minimum(mask, b)
                c = least.coefficient(var)
                if c == 0 or not least.is_affine_in(var):
                    continue
                rest = least - Index.of(var) * c
                bound = rest.bounds(scope.ranges)[0]  # the mask holds where c * v + bound >= 0
                if c > 0:
                    low = max(low, -(bound // c))
                else:
                    high = min(high, bound // -c + 1)
        del scope.ranges[var]
        low, high = min(max(low, 0), trips), max(min(high, trips), 0)
        if low > MAX_PEEL or trips - high > MAX_PEEL:
            return 0, trips
        return low, max(low, high)

    def clipped(self, k: int, axis: str, box: Box) -> list[Index]:
        """Masks that bound a reduce loop, over its axis and C variables. Skipping an iteration is
        right where a failed mask makes the value the monoid's identity."""
        nest, ranges = self.kernel.body[k], self.scope.ranges
        bounds = []
        for s in nest.stores:
            if s.reduce is None or len(s.values) != 1:
                return []
            identity = MONOIDS[s.reduce.monoid].identity[0]
            for mask in dict.fromkeys(m for m in self.masks(k) if axis in m.symbols):
                if not vanishes(s.values[0], mask, identity) or not mask.is_affine_in(axis):
                    continue
                others = [a for a in mask.symbols if a != axis]
                if any(box[a][1] > 1 for a in others):
                    continue
                point = mask.subst({a: box[a][0] for a in others})
                if LANE not in point.symbols:
                    bounds.append(point)
        first, extent = box[axis]
        inside = {**ranges, axis: (0, extent - 1)}
        return [b for b in bounds if b.subst({axis: first + axis}).bounds(inside)[0] < 0]

    def has_dead_taps(self, k: int, axis: str, box: Box) -> bool:
        """Whether some mask of a reduce loop fails for some points of an unrolled axis only, and
        can be decided when the loop is written out: a padded image's border tile."""
        for mask in self.masks(k):
            if axis not in mask.symbols:
                continue
            wide = [a for a in mask.symbols if a != axis and box[a][1] > 1]
            least = minimum(mask, box)
            if wide and least.bounds(self.scope.ranges)[0] < 0 and least.is_const:
                return True
        return False


def minimum(index: Index, box: Box) -> Index:
    """The least value over a box, as an index over the box's corner."""
    least = index.subst({a: first for a, (first, _) in box.items()})
    for symbol in index.symbols:
        c = index.coefficient(symbol)
        if c < 0 and symbol in box:
            least = least + c * (box[symbol][1] - 1)
    return least


def footprint(index: Index, box: Box, ranges: Mapping[str, Range]) -> Region:
    """First point and number of points that an index takes over a box."""
    inner = {a for a, (_, n) in box.items() if n > 1}
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


def union(a: Region | None, b: Region) -> Region:
    """The least region that covers both."""
    if a is None or a == b:
        return b
    gap = b[0] - a[0]
    if not gap.is_const:
        raise EmitError(f"regions {a} and {b} have no constant distance")
    low, high = min(0, gap.const), max(a[1], gap.const + b[1])
    return a[0] + low, high - low


def vanishes(value: Expr, mask: Index, identity: float) -> bool:
    """Whether a value is the monoid's identity wherever `mask` fails."""
    if isinstance(value, Load):
        return mask in value.mask and value.other == identity
    if not isinstance(value, Op):
        return False
    if value.name == "mul" and identity == 0:
        return any(vanishes(a, mask, 0) for a in value.args)
    if value.name == "cast":
        return vanishes(value.args[0], mask, identity)
    if value.name == "where" and identity == getattr(value.args[2], "value", None):
        return implies(value.args[0], mask)
    return False


def implies(condition: Expr, mask: Index) -> bool:
    """Whether a condition can only hold where `mask` does."""
    if isinstance(condition, Op) and condition.name == "and":
        return any(implies(a, mask) for a in condition.args)
    return tested(condition) == mask


def tested(e: Expr) -> Index | None:
    """The mask that an expression is the value of: `index >= constant`."""
    if not isinstance(e, Op) or e.name != "ge":
        return None
    index, least = e.args
    if not isinstance(index, Iota) or not isinstance(least, Const):
        return None
    return index.index - int(least.value)
