"""Kernels with vectors of the vector engine: sums in registers, and the walk over loops.

Loops, boxes and schedules are kernels/c's; expressions are `values`', elements of buffers
`memory`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..affine import Index
from ..ir import Bind, Store
from ..kernels.c import reduce
from ..kernels.c.accumulators import Accumulators
from ..kernels.c.bounds import Box
from ..kernels.c.nest import Walk
from ..kernels.c.values import LANE, EmitError, Expressions, Value
from .memory import FrugalMemory, PlainMemory, VectorMemory
from .values import VectorExpressions, is_float

VECTORS = Path(__file__).with_name("vectors.h").read_text()


class WideAccumulators(Accumulators):
    """Sums of floats are kept in double: lanes are as many, and long sums lose nothing."""

    def _dtypes(self, store: Store) -> list[str]:
        found = super()._dtypes(store)
        wide = store.reduce is not None and store.reduce.monoid == "sum"
        return ["f64" if wide and d == "f32" else d for d in found]


class VectorAccumulators(WideAccumulators):
    """Sums in vector registers."""

    def _across(self, monoid: str, parts: list[list[Value]]) -> list[Value]:
        expr = self.expr
        by_lanes: dict[int, list[list[Value]]] = {}
        for p in parts:
            by_lanes.setdefault(p[0].lanes, []).append(p)
        results: list[list[Value]] = []
        for lanes in sorted(by_lanes, reverse=True):
            total, *rest = by_lanes[lanes]
            for p in rest:
                total = self._merged(monoid, total, p, lanes)
            results += [total] if lanes == 1 else self._halved(monoid, total, lanes)
        total, *rest = results
        for p in rest:
            total = reduce.merged(expr, monoid, total, p)
        return total

    def _merged(self, monoid: str, a: list[Value], b: list[Value], lanes: int) -> list[Value]:
        if len(a) > 1:
            return reduce.combined(self.expr, monoid, a, b, lanes)
        (x,), (y,) = a, b
        return [self.expr.name(Value(self.expr.combine(monoid, x, y), x.dtype, lanes))]

    def _halved(self, monoid: str, values: list[Value], lanes: int) -> list[list[Value]]:
        """The lanes as one scalar tuple, or a few: where a number of lanes was odd, the last one
        is left over."""
        expr = self.expr
        v = values[0]
        if monoid in ("any", "all"):
            count = f"_vel_pcvm_sml({v.text}, {lanes})"
            test = f"({count} != 0)" if monoid == "any" else f"({count} == {lanes})"
            return [[expr.name(Value(test, "bool"))]]
        if monoid == "sum" and is_float(v.dtype):  # in double, whose order of summing is no matter
            wide = expr.cast(v, "f64")
            total = expr.name(Value(f"_vel_vfsumd_vvl({wide.text}, {lanes})", "f64", lanes))
            return [[expr.cast(_element(expr, total, 0), v.dtype)]]
        if any(x.dtype == "bool" for x in values):
            raise EmitError(f"{monoid} of masks")
        left = []
        while lanes > 1:
            half = lanes // 2
            if lanes % 2:
                left.append([_element(expr, x, lanes - 1) for x in values])
            if half == 1:
                low, high = ([_element(expr, x, n) for x in values] for n in (0, 1))
                values = reduce.merged(expr, monoid, low, high)
                break
            low = [x._replace(lanes=half) for x in values]
            moved = [f"_vel_vmv_vsvl({half}, {x.text}, {half})" for x in values]
            high = [expr.name(Value(t, x.dtype, half)) for t, x in zip(moved, values, strict=True)]
            values = self._merged(monoid, low, high, half)
            lanes = half
        return [values, *left]


def _element(expr: Expressions, v: Value, n: int) -> Value:
    """One lane of a register."""
    op = {"f32": "lvss", "f64": "lvsd"}.get(v.dtype, "lvsl")
    return expr.name(Value(f"({v.dtype})_vel_{op}_svs({v.text}, {n})", v.dtype))


class ScalarWalk(Walk):
    """A kernel written without vectors."""

    memory_type = PlainMemory
    sums_type = WideAccumulators


class VectorWalk(Walk):
    """A kernel written with vector registers."""

    memory_type = VectorMemory
    sums_type = VectorAccumulators
    memory: VectorMemory
    expr: VectorExpressions

    def _vectors(self, k: int, position: int, axis: str, width: int, box: Box) -> None:
        first, extent = box[axis]
        for offset in range(0, extent, width):
            lanes = min(width, extent - offset)
            outer = self.scope.ranges[LANE]
            self.scope.ranges[LANE] = (0, lanes - 1)
            self.lanes, self.lane_offset = lanes, offset
            point = first + offset + (Index.of(LANE) if lanes > 1 else 0)
            with self.expr.block():
                self._body(k, position, {**box, axis: (point, 1)})
            self.scope.ranges[LANE] = outer
            self.lanes = 1

    def _bind(self, b: Bind, values: Mapping[str, Index], var: str) -> None:
        v = self.memory.evaluate(b.value, values, self.lanes)
        if v.lanes == 1:
            super()._bind(b, values, var)
            return
        n, expr = v.lanes, self.expr
        v = expr.cast(v, "i64")
        bound = Value(str(b.bound), "i64")
        negative = expr.compare("lt", [v, Value("0", "i64")], n)
        wrapped = expr.where(negative, expr.arithmetic("add", [v, bound], "i64", n), v, "i64", n)
        bad = expr.logic(
            "or",
            [
                expr.compare("lt", [wrapped, Value("0", "i64")], n),
                expr.compare("ge", [wrapped, bound], n),
            ],
            n,
        )
        error = self.scope.only_outside("sol_error *", "c->error")
        first = f"_vel_lvsl_svs({v.text}, _vel_lzvm_sml({bad.text}, {n}))"
        expr.write(
            f"if (_vel_pcvm_sml({bad.text}, {n})) sol_fail({error}, {self.sites[b]}, {first});"
        )
        expr.vectors[var] = expr.where(bad, Value("0", "i64"), wrapped, "i64", n)


class FrugalWalk(VectorWalk):
    """A kernel written with few vector registers, of a schedule of one vector at a time."""

    memory_type = FrugalMemory
