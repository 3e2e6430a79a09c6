"""Ops whose addresses are data, and scans.

An index tensor's value is bound to a symbol, with eager's rules for its range; where the result is
made by reading, that is all. Scatters write where data says: unless a rule says otherwise, ATen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ..affine import Index
from ..ir import DTYPES, Axis, Bind, Buffer, Const, Expr, Iota, Op, Reduce
from .graph import Lowering, NotHandled, cast, rule
from .reduction import accumulator

aten = torch.ops.aten
_RANGE = "index out of range in self"


def _from_zero(i: Expr) -> Expr:
    """A position where eager takes no negative one: those are moved out of every range."""
    i = cast(i, "i64")
    negative = Op("lt", (i, Const(0, "i64")), "bool")
    return Op("where", (negative, Op("sub", (i, Const(2**62, "i64")), "i64"), i), "i64")


@rule(aten.index.Tensor, aten._unsafe_index.Tensor)
def index(low: Lowering, node: fx.Node, x: Buffer, indices: Sequence[Buffer | None]) -> Any:
    """x[i, :, j]: positions from index tensors that are broadcast together; their dimensions stand
    where the first of them stood, or in front if they were not side by side."""
    given = [d for d, i in enumerate(indices) if i is not None]
    tensors: list[Buffer] = [i for i in indices if i is not None]
    if any(t.dtype not in ("i64", "i32") for t in tensors):
        return NotHandled("an index that is a mask")
    if any(x.shape[d] == 0 for d in given):
        return NotHandled("an index into nothing")
    out = low.output(node)
    rank = max((len(t.shape) for t in tensors), default=0)
    beside = given == list(range(given[0], given[0] + len(given)))
    first = given[0] if beside else 0
    axes = [Axis(f"i{d}", n) for d, n in enumerate(out.shape)]
    where = [Index.of(a.symbol) for a in axes]
    together, rest = where[first : first + rank], where[:first] + where[first + rank :]
    binds, position = [], []
    for d in range(len(x.shape)):
        t = indices[d] if d < len(indices) else None
        if t is None:
            position.append(rest.pop(0))
            continue
        at = together[rank - len(t.shape) :]
        binds.append(Bind(f"x{d}", cast(low.broadcast(t, at), "i64"), x.shape[d]))
        position.append(Index.of(f"x{d}"))
    low.compute(out, axes, where, low.load(x, position), binds=binds)
    return out


@rule(aten.embedding.default)
def embedding(low: Lowering, node: fx.Node, table: Buffer, i: Buffer, *_: Any) -> Any:
    """Row i of a table, for each i."""
    if table.shape[0] == 0:
        return NotHandled("an index into nothing")
    out = low.output(node)
    axes = [Axis(f"i{d}", n) for d, n in enumerate(out.shape)]
    where = [Index.of(a.symbol) for a in axes]
    row = Bind("row", _from_zero(low.load(i, where[:-1])), table.shape[0], _RANGE)
    low.compute(out, axes, where, low.load(table, ["row", where[-1]]), binds=[row])
    return out


@rule(aten.index_select.default)
def index_select(low: Lowering, node: fx.Node, x: Buffer, dim: int, i: Buffer) -> Any:
    """The positions i of one dimension."""
    if not x.shape or not i.shape or x.shape[dim] == 0:
        return NotHandled("an index into a scalar or into nothing")
    return _along(low, node, x, dim % len(x.shape), lambda at, d: low.load(i, [at[d]]))


@rule(aten.gather.default)
def gather(
    low: Lowering, node: fx.Node, x: Buffer, dim: int, i: Buffer, *, sparse_grad: bool = False
) -> Any:
    """out[a, b, c] = x[a, i[a, b, c], c] for dim 1."""
    if not x.shape or not i.shape or x.shape[dim] == 0:
        return NotHandled("an index into a scalar or into nothing")
    return _along(low, node, x, dim % len(x.shape), lambda at, d: low.load(i, at))


def _along(low: Lowering, node: fx.Node, x: Buffer, dim: int, value: Any) -> Buffer:
    """x with its position along one dimension from data; eager takes no negative one here."""
    out = low.output(node)
    axes = [Axis(f"i{d}", n) for d, n in enumerate(out.shape)]
    where = [Index.of(a.symbol) for a in axes]
    bind = Bind("x", _from_zero(value(where, dim)), x.shape[dim], _RANGE)
    position = [Index.of("x") if d == dim else i for d, i in enumerate(where)]
    low.compute(out, axes, where, low.load(x, position), binds=[bind])
    return out


@rule(aten.slice_scatter.default)
def slice_scatter(
    low: Lowering,
    node: fx.Node,
    x: Buffer,
    src: Buffer,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:
    """src at the positions of a slice, x elsewhere."""
    dim %= len(x.shape)
    n = x.shape[dim]
    first = min(max((start or 0) + (n if (start or 0) < 0 else 0), 0), n)
    count = src.shape[dim]
    out = low.output(node)
    if count == 0:
        return low.copy(x, out)

    def value(*i: Index) -> Expr:
        from_first = i[dim] - first
        mask = []
        if first > 0:
            mask.append(from_first)
        if first + count * step < n:
            mask.append(count * step - 1 - from_first)
        place = [*i[:dim], from_first // step, *i[dim + 1 :]]
        new = cast(low.load(src, place, mask, 0), x.dtype)
        conditions = [Op("ge", (Iota(m), Const(0, "i64")), "bool") for m in mask]
        if step > 1:
            conditions.append(Op("eq", (Iota(from_first % step), Const(0, "i64")), "bool"))
        if not conditions:
            return new
        inside = conditions[0]
        for c in conditions[1:]:
            inside = Op("and", (inside, c), "bool")
        return Op("where", (inside, new, low.load(x, i)), x.dtype)

    return low.pointwise(out, value)


@rule(aten.cumsum.default, aten.cumprod.default)
def cumulative(low: Lowering, node: fx.Node, x: Buffer, dim: int, *, dtype: Any = None) -> Any:
    """Running sums or products along a dimension, accumulated wide, rounded at each position."""
    out = low.output(node)
    if not x.shape:
        return low.copy(x, out)
    dim %= len(x.shape)
    wide = "f64" if DTYPES[out.dtype][1] == "f" else accumulator(out.dtype, x.shape[dim])
    axes = [Axis(f"i{d}", n, "scan" if d == dim else "parallel") for d, n in enumerate(x.shape)]
    where = [Index.of(a.symbol) for a in axes]
    monoid = "sum" if node.target is aten.cumsum.default else "prod"
    value = cast(cast(low.load(x, where), out.dtype), wide)
    if 0 in x.shape:
        return out
    low.compute(out, axes, where, value, Reduce(monoid, wide))
    return out
