"""Matrix products as plain loop nests with a reduce axis.

Nothing here says how they are tiled: scheduling classifies the axes by who uses them.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import fx

from ..affine import Index
from ..ir import Axis, Buffer, Expr, Extern, Op, Reduce, Ref
from .graph import Lowering, NotHandled, cast, origin, rule

aten = torch.ops.aten


def _sum(dtype: str, init: Expr | None = None) -> Reduce:
    return Reduce("sum", dtype, None if init is None else (cast(init, dtype),))


def _product(low, node, a: Buffer, b: Buffer, init=None) -> Any:
    """out[..., m, n] = init + sum over k of a[..., m, k] * b[..., k, n]"""
    if not low.summable(a.dtype, b.dtype):
        return NotHandled(f"product of {a.dtype} by {b.dtype}")
    out = low.output(node)
    rows, columns = out.shape[-2:]
    sizes = prod(out.shape[:-2]), rows, columns, a.shape[-1]
    if reason := low.elsewhere("matmul", a.dtype, sizes):
        if init is None or a.dtype != "f32":
            return NotHandled(reason)
        if low.followed(node) or low.elsewhere("sum inside", a.dtype, sizes):
            return _product_and_sum(low, node, a, b, init, reason)
        return NotHandled(reason)
    batch = [Axis(f"b{d}", n) for d, n in enumerate(out.shape[:-2])]
    axes = [
        *batch,
        Axis("m", out.shape[-2]),
        Axis("n", out.shape[-1]),
        Axis("k", a.shape[-1], "reduce"),
    ]
    lead = [Index.of(x.symbol) for x in batch]
    m, n, k = map(Index.of, "mnk")
    left, right = low.factors("matmul", low.load(a, [*lead, m, k]), low.load(b, [*lead, k, n]))
    product = Op("mul", (left, right), left.dtype)
    start = init(lead, m, n) if init else None
    low.compute(out, axes, [*lead, m, n], product, _sum(left.dtype, start))
    return out


def _product_and_sum(low, node, a: Buffer, b: Buffer, init, reason: str) -> Buffer:
    """ATen's product, and a sum that is part of what follows or a kernel: of cuBLAS's products of
    float32 those with a sum inside are slower by up to a half. (Of halves, the sum would be rounded
    twice.)"""
    out = low.output(node)
    made = low.buffer(f"{node.name}_product", out.dtype, out.shape, scope="extern")
    op = aten.mm.default if len(out.shape) == 2 else aten.bmm.default
    args = (Ref(a.name), Ref(b.name))
    low.steps.append(
        Extern(node.name, op, args, (), (made.name,), origin=origin(node), reason=reason)
    )

    def total(*index: Index) -> Expr:
        *lead, m, n = index
        return Op("add", (low.load(made, index), init(lead, m, n)), out.dtype)

    return low.pointwise(out, total)


@rule(aten.mm.default, aten.bmm.default)
def mm(low: Lowering, node: fx.Node, a: Buffer, b: Buffer) -> Any:
    return _product(low, node, a, b)


@rule(aten.addmm.default, aten.baddbmm.default)
def addmm(
    low: Lowering,
    node: fx.Node,
    c: Buffer,
    a: Buffer,
    b: Buffer,
    *,
    beta: float = 1,
    alpha: float = 1,
) -> Any:
    if beta != 1 or alpha != 1:
        return NotHandled(f"beta {beta}, alpha {alpha}")

    def init(lead: list[Index], m: Index, n: Index) -> Expr:
        return low.broadcast(c, [*lead, m, n])

    return _product(low, node, a, b, init)
