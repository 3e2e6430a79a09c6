"""Running values of reductions and scans: how a monoid's tuples are declared, combined, and
brought together where lanes or unrolled points each hold a part.

A tuple (argmax, welford, softmax, attention) is combined by C statements that hold for scalars and
for vectors alike; `interp.COMBINE` is their definition. Lanes are halved until one is left, so that
the association depends on shapes only. Knows values and monoids, nothing of loops or buffers.
"""

from __future__ import annotations

from math import inf

from ...ir import DTYPES, MONOIDS, Store
from .values import EmitError, Expressions, Value, c_type, compute_dtype, literal

POSITIONS = ("argmax", "argmin")


def dtypes(store: Store) -> list[str]:
    """The dtypes in which the values of a reduction are kept."""
    reduce = store.reduce
    assert reduce is not None
    position = reduce.monoid in POSITIONS
    return [
        compute_dtype(v.dtype if position and k else reduce.acc_dtype)
        for k, v in enumerate(store.values)
    ]


def identity(monoid: str, k: int, dtype: str, empty: bool) -> str:
    """C for what a tuple's k-th value starts from. A position starts beyond all, so that any first
    point wins against it; over no points it is the IR's identity."""
    if monoid in POSITIONS and k == 1 and not empty:
        return literal(inf, dtype)
    return literal(MONOIDS[monoid].identity[k], dtype)


def accumulate(expr: Expressions, monoid: str, acc: list[Value], new: list[Value]) -> None:
    """acc = acc combined with new, in C."""
    lanes = acc[0].lanes
    new = [
        v if v.dtype == a.dtype else expr.cast(v, a.dtype) for a, v in zip(acc, new, strict=True)
    ]
    if len(acc) == 1:
        (a,), (v,) = acc, new
        if v.text == literal(MONOIDS[monoid].identity[0], v.dtype) and v.lanes == 1:
            return
        if v.dtype == "bool" and v.lanes > 1:
            v = expr.mask_bits(v, a.bits)
        expr.write(f"{a.text} = {expr.combine(monoid, a, v)};")
        return
    for a, v in zip(acc, combined(expr, monoid, acc, new, lanes), strict=True):
        expr.write(f"{a.text} = {v.text};")


def combined(expr: Expressions, monoid: str, a, b, lanes: int) -> list[Value]:
    """A tuple monoid's a * b."""
    a, b = ([expr.splat(v, lanes) for v in x] for x in (a, b))
    if monoid in POSITIONS:
        return _arg(expr, monoid, a, b, lanes)
    if monoid == "welford":
        return _welford(expr, a, b, lanes)
    if monoid in ("softmax", "attention"):
        return _online(expr, a, b, lanes)
    raise EmitError(f"monoid {monoid} is not emitted")


def merged(expr: Expressions, monoid: str, a: list[Value], b: list[Value]) -> list[Value]:
    """Two scalar tuples as one."""
    if len(a) > 1:
        return combined(expr, monoid, a, b, 1)
    (x,), (y,) = a, b
    return [expr.name(Value(expr.combine(monoid, x, y), x.dtype))]


def _arg(expr: Expressions, monoid: str, a, b, lanes: int) -> list[Value]:
    """NaN wins over numbers; the lowest position wins a tie, also among NaN."""
    (x, i), (y, j) = a, b
    test = lambda name, *args: expr.compare(name, list(args), lanes)  # noqa: E731
    logic = lambda name, *args: expr.logic(name, list(args), lanes)  # noqa: E731
    better = test("gt" if monoid == "argmax" else "lt", y, x)
    first, same = test("lt", j, i), test("eq", x, y)
    if DTYPES[x.dtype][1] == "f":
        nan = test("ne", y, y)
        better = logic("or", better, logic("and", nan, test("eq", x, x)))
        same = logic("or", same, logic("and", nan, test("ne", x, x)))
    take = logic("or", better, logic("and", first, same))
    return [expr.where(take, n, o, o.dtype, lanes) for n, o in ((y, x), (j, i))]


def _welford(expr: Expressions, a, b, lanes: int) -> list[Value]:
    (m, mean_a, m2_a), (n, mean_b, m2_b) = a, b
    t = m.dtype
    op = lambda name, *args: expr.arithmetic(name, list(args), t, lanes)  # noqa: E731
    zero = expr.splat(Value(literal(0.0, t), t), lanes)
    count, delta = op("add", m, n), op("sub", mean_b, mean_a)
    empty = expr.compare("eq", [count, zero], lanes)
    part = expr.where(empty, zero, op("div", n, count), t, lanes)
    spread = op("mul", op("mul", op("mul", delta, delta), m), part)
    return [
        count,
        op("add", mean_a, op("mul", delta, part)),
        op("add", op("add", m2_a, m2_b), spread),
    ]


def _online(expr: Expressions, a, b, lanes: int) -> list[Value]:
    """(m, l, ...): what was relative to -inf is empty."""
    t = a[0].dtype
    op = lambda name, *args: expr.arithmetic(name, list(args), t, lanes)  # noqa: E731
    least = expr.splat(Value(literal(-inf, t), t), lanes)
    zero = expr.splat(Value(literal(0.0, t), t), lanes)
    top = op("max", a[0], b[0])
    scales = []
    for x in (a[0], b[0]):
        empty = expr.compare("eq", [x, least], lanes)
        scales.append(expr.where(empty, zero, op("exp", op("sub", x, top)), t, lanes))
    rest = zip(a[1:], b[1:], strict=True)
    return [top, *(op("add", op("mul", x, scales[0]), op("mul", y, scales[1])) for x, y in rest)]


def across(expr: Expressions, monoid: str, parts: list[list[Value]]) -> list[Value]:
    """All partial accumulators, lanes included, as one scalar each."""
    if len(parts[0]) == 1:
        return [_across_single(expr, monoid, [v for (v,) in parts])]
    total: list[Value] | None = None
    lanes = max(p[0].lanes for p in parts)
    while True:
        for p in (p for p in parts if p[0].lanes == lanes):
            total = p if total is None else combined(expr, monoid, total, p, lanes)
        if lanes == 1:
            assert total is not None
            return total
        lanes //= 2
        if total is not None:
            low, high = ([_half(expr, v, h) for v in total] for h in (0, 1))
            total = combined(expr, monoid, low, high, lanes)


def _half(expr: Expressions, v: Value, which: int) -> Value:
    if v.lanes == 2:
        return Value(f"{v.text}[{which}]", v.dtype)
    half = c_type(v.dtype, v.lanes // 2)
    return expr.name(Value(f"((const {half}u *)&{v.text})[{which}]", v.dtype, v.lanes // 2))


def _across_single(expr: Expressions, monoid: str, parts: list[Value]) -> Value:
    total: Value | None = None
    for v in sorted(parts, key=lambda v: -v.lanes):
        if v.lanes > 1:
            v = _any_lane(expr, monoid, v) if v.dtype == "bool" else _horizontal(expr, monoid, v)
        if total is not None:
            v = expr.name(Value(expr.combine(monoid, total, v), v.dtype))
        total = v
    assert total is not None
    return total


def _any_lane(expr: Expressions, monoid: str, v: Value) -> Value:
    """The lanes of a bool vector as one bool."""
    v = expr.stored_bool(v)
    v = expr.name(Value(f"__builtin_convertvector({v.text}, i32x{v.lanes})", "i32", v.lanes))
    return _horizontal(expr, "max" if monoid == "any" else "min", v)._replace(dtype="bool")


def _horizontal(expr: Expressions, monoid: str, v: Value) -> Value:
    expr.uses.add((f"h{monoid}", v.dtype, v.lanes))
    return expr.name(Value(f"sol_h{monoid}_{v.dtype}x{v.lanes}({v.text})", v.dtype))
