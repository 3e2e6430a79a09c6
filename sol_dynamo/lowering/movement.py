"""Ops that move no values: views as buffer views, the rest as index maps and slices of one buffer.

A view op is first tried on the buffer's real strides (a meta tensor knows whether it can be one);
where it cannot, it becomes a nest that only copies, which scheduling folds into its readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import fx

from ..affine import Index
from ..ir import Buffer, Const, Expr, Iota, Op
from .graph import TORCH_DTYPE, Lowering, NotHandled, cast, rule
from .strides import dense

aten = torch.ops.aten


def strided_view(low: Lowering, node: Any, x: Buffer, *args: Any, **kwargs: Any) -> Buffer | None:
    """The op's result as a view of x's memory, or None where strides can't say it."""
    meta = torch.empty_strided(x.shape, x.strides, dtype=TORCH_DTYPE[x.dtype], device="meta")
    try:
        with torch.no_grad():
            v = node.target(meta, *args, **kwargs)
    except (RuntimeError, ValueError):
        return None
    if v.untyped_storage()._cdata != meta.untyped_storage()._cdata:
        return None
    start = v.storage_offset()
    return low.view(x, v.shape, v.stride(), start, node.name)


@rule(
    aten.permute.default, aten.transpose.int, aten.t.default, aten.expand.default,
    aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default,
    aten.slice.Tensor, aten.select.int, aten.alias.default, aten.detach.default,
    aten.diagonal.default, aten.unfold.default,
)  # fmt: skip
def view_op(low: Lowering, node: fx.Node, x: Buffer, *args: Any, **kwargs: Any) -> Any:
    v = strided_view(low, node, x, *args, **kwargs)
    return v if v is not None else NotHandled("a view that strides cannot say")


@rule(aten.view.default, aten.reshape.default, aten._unsafe_view.default)
def reshape(low: Lowering, node: fx.Node, x: Buffer, size: Sequence[int]) -> Any:
    """A view if possible, else out[i] = x[unflatten(flatten(i))]."""
    shape = tuple(node.meta["val"].shape)
    meta = torch.empty_strided(x.shape, x.strides, dtype=torch.int8, device="meta")
    try:
        v = meta.view(shape)
        return low.view(x, v.shape, v.stride(), 0, node.name)
    except (RuntimeError, ValueError):
        pass
    out = low.output(node)

    def value(*index: Index) -> Expr:
        flat = Index()
        for i, n in zip(index, shape, strict=True):
            flat = flat * n + i
        ranges = {f"i{d}": (0, n - 1) for d, n in enumerate(shape)}
        return low.load(x, unflatten(flat, x.shape, ranges))

    return low.pointwise(out, value)


def unflatten(flat: Index, shape: Sequence[int], ranges) -> list[Index]:
    """The multi-dimensional index of a position in row-major order."""
    index, step = [], prod(shape)
    for n in shape:
        step //= max(n, 1)
        index.append(((flat // step) % n).simplify(ranges) if n > 1 else Index())
    return index


@rule(aten.as_strided.default)
def as_strided(
    low: Lowering,
    node: Any,
    x: Buffer,
    size: Sequence[int],
    stride: Sequence[int],
    offset: int | None = None,
) -> Any:
    """y[i] = the element that stands at offset + i * stride in memory, where x lies as traced."""
    traced = node.args[0].meta["val"]
    lies = tuple(traced.stride())
    reach = 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if lies != dense(traced) or traced.storage_offset() or 0 in traced.shape:
        return NotHandled("as_strided of a tensor with gaps")
    if 0 in size or (offset or 0) + reach > prod(x.shape):
        return NotHandled("as_strided beyond its tensor")
    order = sorted(range(len(lies)), key=lambda d: (-lies[d], d))

    def value(*i: Index) -> Expr:
        flat = Index.of(offset or 0)
        for symbol, s in zip(i, stride, strict=True):
            flat = flat + symbol * s
        ranges = {f"i{d}": (0, n - 1) for d, n in enumerate(size)}
        found = unflatten(flat, [x.shape[d] for d in order], ranges)
        return low.load(x, [found[order.index(d)] for d in range(len(order))])

    return low.pointwise(low.output(node), value)


@rule(aten.clone.default)
def clone(low: Lowering, node: fx.Node, x: Buffer, *, memory_format: Any = None) -> Any:
    return low.copy(x, low.output(node))


@rule(aten.cat.default)
def cat(low: Lowering, node: fx.Node, tensors: Sequence[Buffer], dim: int = 0) -> Any:
    """Each input copied into its slice; scheduling lets producers write there themselves."""
    out = low.output(node)
    dim %= len(out.shape)
    start = 0
    for x in tensors:
        if x.shape == (0,) and len(out.shape) != 1:  # the legacy empty tensor
            continue
        if x.dtype != out.dtype:
            return NotHandled("cat of several dtypes")
        if x.shape[dim] == 0:
            continue
        part = low.view(
            out, x.shape, out.strides, start * out.strides[dim], f"{out.name}_at{start}"
        )
        low.copy(x, part)
        start += x.shape[dim]
    return out


@rule(aten.split.Tensor, aten.split_with_sizes.default)
def split(low: Lowering, node: fx.Node, x: Buffer, size: Any, dim: int = 0) -> Any:
    dim %= len(x.shape)
    parts: list[Buffer] = []
    start = 0
    for value in node.meta["val"]:
        n = value.shape[dim]
        shape = (*x.shape[:dim], n, *x.shape[dim + 1 :])
        parts.append(
            low.view(x, shape, x.strides, start * x.strides[dim], f"{node.name}_{len(parts)}")
        )
        start += n
    return tuple(parts)


@rule(aten.constant_pad_nd.default)
def pad(low: Lowering, node: fx.Node, x: Buffer, pads: Sequence[int], value: Any = 0) -> Any:
    """A guarded load; negative pads crop."""
    out = low.output(node)
    rank = len(x.shape)
    before = [0] * rank
    for k in range(len(pads) // 2):
        before[rank - 1 - k] = pads[2 * k]

    def expression(*index: Index) -> Expr:
        inner = [i - b for i, b in zip(index, before, strict=True)]
        mask = []
        for d, i in enumerate(inner):
            if before[d] > 0:
                mask.append(i)
            if out.shape[d] - before[d] > x.shape[d]:
                mask.append(x.shape[d] - 1 - i)
        return low.load(x, inner, mask, value)

    return low.pointwise(out, expression)


@rule(aten.select_scatter.default)
def select_scatter(
    low: Lowering, node: fx.Node, x: Buffer, src: Buffer, dim: int, index: Any
) -> Any:
    """src at one position of a dimension, x elsewhere."""
    dim %= len(x.shape)
    if not isinstance(index, int):
        return NotHandled("a position that is data")
    at = index % max(x.shape[dim], 1)
    out = low.output(node)

    def value(*i: Index) -> Expr:
        chosen = Op("eq", (Iota(i[dim]), Const(at, "i64")), "bool")
        new = cast(low.load(src, (*i[:dim], *i[dim + 1 :])), x.dtype)
        return Op("where", (chosen, new, low.load(x, i)), x.dtype)

    return low.pointwise(out, value)


@rule(aten.repeat.default)
def repeat(low: Lowering, node: fx.Node, x: Buffer, times: Sequence[int]) -> Any:
    """y[i] = x[i mod n]; dimensions that only the result has stand in front."""
    out = low.output(node)
    first = len(out.shape) - len(x.shape)

    def value(*i: Index) -> Expr:
        tail = zip(i[first:], x.shape, out.shape[first:], strict=True)
        return low.load(x, [k if n == m else k % n if n > 1 else Index() for k, n, m in tail])

    return low.pointwise(out, value)


@rule(aten.flip.default)
def flip(low: Lowering, node: fx.Node, x: Buffer, dims: Sequence[int]) -> Any:
    dims = [d % len(x.shape) for d in dims]
    out = low.output(node)
    return low.pointwise(
        out,
        lambda *i: low.load(x, [x.shape[d] - 1 - k if d in dims else k for d, k in enumerate(i)]),
    )


@rule(aten.roll.default)
def roll(
    low: Lowering, node: fx.Node, x: Buffer, shifts: Sequence[int], dims: Sequence[int] = ()
) -> Any:
    """y[..., i] = x[..., (i - shift) mod n]; without dimensions, of all elements in a row."""
    if not dims:
        if len(x.shape) != 1:
            return NotHandled("roll of all dimensions as one")
        dims = [0]
    back = [0] * len(x.shape)
    for s, d in zip(shifts, dims, strict=True):
        back[d] -= s
    return low.pointwise(
        low.output(node),
        lambda *i: low.load(
            x,
            [
                (k + b % n) % n if n and b % n else k
                for k, b, n in zip(i, back, x.shape, strict=True)
            ],
        ),
    )


@rule(aten.copy.default)
def copy(
    low: Lowering, node: fx.Node, over: Buffer, source: Buffer, non_blocking: bool = False
) -> Any:
    """What is written over a tensor, in its shape and dtype."""
    return low.pointwise(low.output(node), lambda *i: low.broadcast(source, i))


@rule(aten.lift_fresh_copy.default)
def lift(low: Lowering, node: fx.Node, x: Buffer) -> Any:
    return low.copy(x, low.output(node))


__all__ = ["strided_view", "unflatten"]
