"""Questions that every step asks of one loop nest, and rewritings of it.

Nothing here knows kernels' order, memory or schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from math import prod

from ..affine import FloorDiv, Index, Mod, Range
from ..ir import (
    DTYPES,
    HALVES,
    Axis,
    Expr,
    Iota,
    Load,
    Loops,
    Op,
    is_op,
    loads,
    rewrite,
    subst,
    walk,
)

Leaf = Callable[[Expr, Mapping[str, Range]], Expr]  # with the ranges of the nest's symbols


def substitute(nest: Loops, values: Mapping[str, Index | str], axes: tuple[Axis, ...]) -> Loops:
    """A nest over other axes, its symbols replaced."""
    ranges = {a.symbol: (0, max(a.extent - 1, 0)) for a in axes}

    def f(e: Expr) -> Expr:
        return subst(e, values)

    def i(x: Index) -> Index:
        return x.subst(values).simplify(ranges)

    stores = tuple(
        replace(
            s,
            index=tuple(map(i, s.index)),
            values=tuple(map(f, s.values)),
            mask=tuple(map(i, s.mask)),
            reduce=s.reduce
            and replace(s.reduce, init=s.reduce.init and tuple(map(f, s.reduce.init))),
        )
        for s in nest.stores
    )
    return Loops(axes, stores, tuple(replace(b, value=f(b.value)) for b in nest.binds))


def drop_unit_axes(nest: Loops) -> Loops:
    """Axes of extent 1 are the constant 0."""
    ones = {a.symbol: Index() for a in nest.axes if a.extent == 1}
    keep = tuple(a for a in nest.axes if a.extent != 1)
    return substitute(nest, ones, keep) if ones else nest


def map_leaves(nest: Loops, leaf: Leaf) -> Loops:
    """A nest with leaf(expr, ranges of the axes) in place of every load, constant and iota."""
    ranges = {a.symbol: (0, max(a.extent - 1, 0)) for a in nest.axes}
    ranges |= {b.symbol: (0, max(b.bound - 1, 0)) for b in nest.binds}

    def f(e: Expr) -> Expr:
        return rewrite(e, lambda x: leaf(x, ranges))

    stores = tuple(
        replace(
            s,
            values=tuple(map(f, s.values)),
            reduce=s.reduce
            and replace(s.reduce, init=s.reduce.init and tuple(map(f, s.reduce.init))),
        )
        for s in nest.stores
    )
    return replace(
        nest, stores=stores, binds=tuple(replace(b, value=f(b.value)) for b in nest.binds)
    )


def rename_buffers(nest: Loops, names: dict[str, str]) -> Loops:
    """A nest with buffers renamed, in loads and stores."""
    if not names:
        return nest

    def leaf(e: Expr, _: object) -> Expr:
        if isinstance(e, Load) and e.buffer in names:
            return Load(names[e.buffer], e.index, e.dtype, e.mask, e.other)
        return e

    nest = map_leaves(nest, leaf)
    stores = tuple(
        replace(s, buffers=tuple(names.get(b, b) for b in s.buffers)) for s in nest.stores
    )
    return replace(nest, stores=stores)


def is_plain(nest: Loops, rows: Collection[str] = ()) -> bool:
    """Whether the loads of a nest are free of windows: one axis a dimension, or axes of `rows`
    alone."""
    return all(len(i.symbols) <= 1 or i.symbols <= {*rows} for e in loads(nest) for i in e.index)


def is_contraction(nest: Loops) -> bool:
    """A sum of products of two factors of which each lacks an output axis that the other has."""
    s = nest.stores[0]
    if s.reduce is None or s.reduce.monoid != "sum" or len(nest.stores) > 1:
        return False
    factors = product_factors(s.values[0])
    if factors is None or not nest.reduce_axes:
        return False
    a, b = map(expr_symbols, factors)
    outputs = set().union(*(i.symbols for i in s.index))
    big = {x.symbol for x in nest.axes if x.extent > 1}
    shared = a & b & {x.symbol for x in nest.reduce_axes} & big
    return bool((outputs & b & big) - a) and bool(
        shared or not big & {x.symbol for x in nest.reduce_axes}
    )


def product_factors(e: Expr) -> tuple[Expr, Expr] | None:
    """a, b of a * b."""
    if isinstance(e, Op) and e.name == "mul":
        return e.args[0], e.args[1]
    return None


def unit_of(factors: tuple[Expr, Expr]) -> str:
    """What multiplies two factors in float32: "tf32", "half", or "ieee" for them as they are."""
    if all(is_op(f, "tf32") for f in factors):
        return "tf32"
    if all(is_op(f, "cast") and f.args[0].dtype in HALVES for f in factors):
        return "half"
    return "ieee"


def expr_symbols(e: Expr) -> set[str]:
    """The axes on which an expression depends, those of masks left out."""
    found: set[str] = set()
    for x in walk(e):
        if isinstance(x, Load):
            found.update(*(i.symbols for i in x.index))
        elif isinstance(x, Iota):
            found |= x.index.symbols
    return found


def split_of(atom: FloorDiv | Mod) -> str | None:
    """The axis that is divided, where it alone is."""
    terms = atom.numerator.terms
    return (
        terms[0][0] if len(terms) == 1 and terms[0][1] == 1 and atom.numerator.const == 0 else None
    )


def dimensions(nest: Loops) -> list[str | None] | None:
    """The axis of each output dimension, or None where the store is not axis by axis."""
    dims: list[str | None] = []
    for i in nest.stores[0].index:
        if i.is_const:
            dims.append(None)
        elif len(i.symbols) == 1 and i == Index.of(next(iter(i.symbols))):
            dims.append(next(iter(i.symbols)))
        else:
            return None
    return dims


def scans(nest: Loops) -> bool:
    """Whether a nest stores running values."""
    return any(a.kind == "scan" for a in nest.axes)


def points_of(e: Load, nest: Loops) -> int:
    """How many different points of a nest a load has."""
    symbols = set().union(*(i.symbols for i in e.index)) if e.index else set()
    return prod(a.extent for a in nest.axes if a.symbol in symbols)


def bytes_read(nest: Loops) -> int:
    """Bytes of memory that a nest reads, each buffer once."""
    sizes: dict[str, int] = {}
    for e in loads(nest):
        size = points_of(e, nest) * DTYPES[e.dtype][0]
        sizes[e.buffer] = max(sizes.get(e.buffer, 0), size)
    return sum(sizes.values())
