"""Indirect addresses whose data are formulas of indices become addresses.

  x = index i64(2 * i + 1) < n;  out[i] = a[x]   ==>   out[i] = a[2 * i + 1]

where the formula lies in the range. What was a gather is then an index map that readers take in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..affine import Index, Range
from ..ir import DTYPES, Const, Expr, Iota, Loops, Op
from .nests import substitute


def direct(nest: Loops) -> Loops:
    """The nest without the binds that are formulas of its axes."""
    ranges = _ranges(nest)
    for b in nest.binds:
        index = as_index(b.value, ranges)
        if index is None or not index.symbols <= ranges.keys():
            continue
        low, high = index.bounds(ranges)
        if not -b.bound <= low or high >= b.bound or low < 0 <= high:
            continue
        rest = replace(nest, binds=tuple(x for x in nest.binds if x.symbol != b.symbol))
        nest = substitute(rest, {b.symbol: index + b.bound if high < 0 else index}, nest.axes)
    return nest


def formula(value: Expr, nest: Loops) -> Expr:
    """Integer arithmetic on a nest's indices as one index, which costs nothing where it is read."""
    index = as_index(value, _ranges(nest)) if isinstance(value, Op) else None
    return value if index is None else Iota(index, value.dtype)


def _ranges(nest: Loops) -> dict[str, Range]:
    return {
        a.symbol: (0, a.extent - 1) for a in nest.axes if isinstance(a.extent, int) and a.extent
    }


def as_index(e: Expr, ranges: Mapping[str, Range]) -> Index | None:
    """An integer expression as an index over axes, if it is one and does not wrap."""
    if isinstance(e, Iota):
        index: Index | None = e.index
    elif isinstance(e, Const):
        index = Index.of(int(e.value)) if DTYPES[e.dtype][1] in "iu" else None
    elif isinstance(e, Op):
        index = _op(e, ranges)
    else:
        return None
    if index is None or not index.symbols <= ranges.keys() or DTYPES[e.dtype][1] not in "iu":
        return None
    size, kind = DTYPES[e.dtype]
    low, high = index.bounds(ranges)
    least, most = (
        (0, 2 ** (8 * size)) if kind == "u" else (-(2 ** (8 * size - 1)), 2 ** (8 * size - 1))
    )
    return index.simplify(ranges) if least <= low and high < most else None


def _op(e: Op, ranges: Mapping[str, Range]) -> Index | None:
    if e.name == "where":
        holds = _holds(e.args[0], ranges)
        return None if holds is None else as_index(e.args[1 if holds else 2], ranges)
    if e.name == "cast":
        return as_index(e.args[0], ranges)
    if e.name not in ("add", "sub", "mul", "floordiv", "mod"):
        return None
    a, b = (as_index(x, ranges) for x in e.args)
    if a is None or b is None:
        return None
    if e.name == "add":
        return a + b
    if e.name == "sub":
        return a - b
    if e.name == "mul":
        if b.is_const:
            return a * b.const
        return b * a.const if a.is_const else None
    if not b.is_const or b.const <= 0:
        return None
    return a // b.const if e.name == "floordiv" else a % b.const


def _holds(e: Expr, ranges: Mapping[str, Range]) -> bool | None:
    """Whether a comparison of indices holds at every point, or at none; None: at some."""
    if not isinstance(e, Op) or e.name not in ("lt", "ge"):
        return None
    a, b = (as_index(x, ranges) for x in e.args)
    if a is None or b is None:
        return None
    low, high = (a - b).bounds(ranges)
    if high < 0:
        return e.name == "lt"
    return e.name == "ge" if low >= 0 else None
