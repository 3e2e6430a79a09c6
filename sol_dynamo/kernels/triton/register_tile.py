"""Register tiles: a program makes several results of each of its points along an axis that is
written out, and what they share it loads once.

Rows of a product share its columns' weights. Windows that overlap share what they overlap in:

    acc[p] += a[s * p + r] * b[r]  for each r  ==>  x = a[t]; acc[p] += x * b[t - s * p]  for each t
    and p with 0 <= t - s * p < taps

Each result's terms are added in the order in which they were. Nothing here writes text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...affine import Index
from ...ir import Axis, Const, Expr, Loops, Schedule, children, loads, walk
from ...schedule.nests import substitute
from .blocks import axis_of


@dataclass(frozen=True)
class RegisterTile:
    """Results along `axis`; those of windows lie `step` taps apart along `tap`."""

    axis: Axis
    tap: Axis | None = None
    step: int = 0

    def loads(self, results: int) -> float:
        """Elements and weights along `tap` that are loaded for each of so many results."""
        assert self.tap is not None
        return ((results - 1) * self.step + 2 * self.tap.extent) / results

    def loaded(self, results: int) -> float:
        """Elements of so many results' windows, of what each would load for itself."""
        assert self.tap is not None
        return ((results - 1) * self.step + self.tap.extent) / (results * self.tap.extent)

    def taps(self, n: int) -> tuple[int, int] | None:
        """First and last of all taps that the n-th result has; None: there are no others."""
        if self.tap is None:
            return None
        return n * self.step, n * self.step + self.tap.extent - 1

    def sums(self, nest: Loops) -> list[Loops]:
        """The reduction for each result, over the taps of all."""
        axes = self._left(nest)
        if self.tap is None:
            return self.each(nest)
        t, last = self.tap.symbol, self.step * (self.axis.extent - 1)
        axes = tuple(replace(a, extent=a.extent + last) if a.symbol == t else a for a in axes)
        return [
            substitute(nest, {self.axis.symbol: Index.of(n), t: Index.of(t) - n * self.step}, axes)
            for n in range(self.axis.extent)
        ]

    def each(self, nest: Loops) -> list[Loops]:
        """What a nest computes for each result."""
        axes = self._left(nest)
        return [
            substitute(nest, {self.axis.symbol: Index.of(n)}, axes) for n in range(self.axis.extent)
        ]

    def _left(self, nest: Loops) -> tuple[Axis, ...]:
        return tuple(a for a in nest.axes if a.symbol != self.axis.symbol)


def register_tile(nest: Loops, s: Schedule) -> RegisterTile | None:
    """What a schedule writes out of a reduction's results, if anything."""
    out = {axis_of(loop) for loop in s.unroll}
    axis = next((a for a in nest.axes if a.kind == "parallel" and a.symbol in out), None)
    if axis is None:
        return None
    found = (w for w in windows(nest) if w.axis == axis and w.tap and w.tap.symbol in out)
    return next(found, RegisterTile(axis))


def windows(nest: Loops) -> list[RegisterTile]:
    """Axes along which neighbouring results read the same elements, each with the taps that do."""
    found: dict[tuple[str, str], RegisterTile] = {}
    for e in loads(nest):
        for i in e.index:
            for a in nest.axes:
                for r in nest.reduce_axes:
                    if a.kind != "parallel" or not {a.symbol, r.symbol} <= i.symbols:
                        continue
                    if not (i.is_affine_in(a.symbol) and i.is_affine_in(r.symbol)):
                        continue
                    if any(r.symbol in j.symbols for j in e.index if j is not i):
                        continue  # what a tap reads is its own
                    step, rest = divmod(i.coefficient(a.symbol), i.coefficient(r.symbol))
                    if not rest and 0 < step < r.extent:
                        found.setdefault((a.symbol, r.symbol), RegisterTile(a, r, step))
    return list(found.values())


def common(nests: Sequence[Loops]) -> list[Expr]:
    """The largest expressions that all nests have, constants left out."""
    of_all = [set(walk(*(e for s in n.stores for e in s.values))) for n in nests]
    shared = set.intersection(*of_all)
    inner = {a for e in shared for a in children(e)}
    own = {a for e in of_all[0] - shared for a in children(e)}
    top = [e for e in walk(*(e for s in nests[0].stores for e in s.values)) if e in shared]
    return [e for e in top if not isinstance(e, Const) and (e in own or e not in inner)]


def split(body: Sequence[Loops], axis: Axis, results: int, name: str) -> tuple[Loops, ...]:
    """x[a]  ==>  x[results * a + r] in all nests; `results` divides the axis."""
    outer, inner = replace(axis, extent=axis.extent // results), Axis(name, results)
    value = Index.of(axis.symbol) * results + Index.of(name)
    made = []
    for nest in body:
        axes: list[Axis] = []
        for a in nest.axes:
            axes += [outer, inner] if a.symbol == axis.symbol else [a]
        made.append(substitute(nest, {axis.symbol: value}, tuple(axes)))
    return tuple(made)
