"""Contractions: convolution and matrix products as plain loop nests with reduce axes.

Nothing here says how they are tiled: scheduling classifies the axes by who uses them. Padding is a
mask on the load; the bias is where the sum starts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..affine import Index
from ..ir import Axis, Buffer, Expr, Op, Reduce
from .graph import Lowering, NotHandled, rule

aten = torch.ops.aten
_FLOAT = ("f32", "f64")


def _sum(dtype: str, init: Expr | None = None) -> Reduce:
    return Reduce("sum", dtype, None if init is None else (init,))


@rule(aten.convolution.default)
def convolution(
    low: Lowering,
    node: fx.Node,
    x: Buffer,
    w: Buffer,
    bias: Buffer | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Any:
    """y[n,o,p] = bias[o] + sum over i, k of x[n,i,p*s+k*d-pad] * w[o,i,k], in groups."""
    spatial = len(x.shape) - 2
    if transposed:
        return NotHandled("transposed convolution")
    if x.dtype not in _FLOAT or x.dtype != w.dtype:
        return NotHandled(f"convolution of {x.dtype} by {w.dtype}")
    if len(w.shape) != len(x.shape):
        return NotHandled("unbatched convolution")
    out_per_group, in_per_group = w.shape[0] // groups, w.shape[1]
    depthwise = groups > 1 and in_per_group == 1
    if groups > 1 and not depthwise:
        return NotHandled("grouped convolution")
    stride, padding, dilation = (_spread(v, spatial) for v in (stride, padding, dilation))
    out = low.output(node)
    names = ["h", "w"] if spatial == 2 else ["d", "h", "w"][3 - spatial :] if spatial < 4 else None
    if names is None:
        return NotHandled(f"{spatial} spatial dimensions")
    axes = [Axis("n", out.shape[0]), Axis("o", out.shape[1])]
    axes += [Axis(a, s) for a, s in zip(names, out.shape[2:], strict=True)]
    o = Index.of("o")
    channel = o // out_per_group if depthwise else Index.of("i")
    if not depthwise and in_per_group > 0:
        axes.append(Axis("i", in_per_group, "reduce"))
    taps, position, mask = [], [], []
    for d, a in enumerate(names):
        size = w.shape[2 + d]
        axes.append(Axis(f"k{a}", size, "reduce"))
        taps.append(Index.of(f"k{a}"))
        p = Index.of(a) * stride[d] + Index.of(f"k{a}") * dilation[d] - padding[d]
        position.append(p)
        last = (out.shape[2 + d] - 1) * stride[d] + (size - 1) * dilation[d] - padding[d]
        if padding[d]:
            mask.append(p)
        if last >= x.shape[2 + d]:
            mask.append(x.shape[2 + d] - 1 - p)
    left = low.load(x, [Index.of("n"), channel, *position], mask, 0.0)
    right = low.load(w, [o, Index() if depthwise else Index.of("i"), *taps])
    product = Op("mul", (left, right), out.dtype)
    init = low.load(bias, [o]) if bias is not None else None
    index = ["n", "o", *names]
    low.compute(out, axes, index, product, _sum(out.dtype, init))
    return out


def _spread(values: list[int], n: int) -> list[int]:
    return list(values) if len(values) == n else [values[0]] * n


def _product(low, node, a: Buffer, b: Buffer, init=None) -> Any:
    """out[..., m, n] = init + sum over k of a[..., m, k] * b[..., k, n]"""
    if a.dtype not in _FLOAT or a.dtype != b.dtype:
        return NotHandled(f"product of {a.dtype} by {b.dtype}")
    out = low.output(node)
    batch = [Axis(f"b{d}", n) for d, n in enumerate(out.shape[:-2])]
    axes = [
        *batch,
        Axis("m", out.shape[-2]),
        Axis("n", out.shape[-1]),
        Axis("k", a.shape[-1], "reduce"),
    ]
    lead = [Index.of(x.symbol) for x in batch]
    m, n, k = map(Index.of, "mnk")
    product = Op("mul", (low.load(a, [*lead, m, k]), low.load(b, [*lead, k, n])), out.dtype)
    start = init(lead, m, n) if init else None
    low.compute(out, axes, [*lead, m, n], product, _sum(out.dtype, start))
    return out


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
