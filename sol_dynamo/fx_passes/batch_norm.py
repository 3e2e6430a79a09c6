"""Batch norm of inference as scale and shift.

    bn(x, gamma, beta, mean, var)  ==>  x * scale + shift
        scale = gamma / sqrt(var + eps),  shift = beta - mean * scale    (float64, rounded once)

A half-precision x is normalized in float32 and rounded at the end, as eager does.

Scale and shift depend on weights alone: they are computed once per weight set, and the next pass
folds them into the convolution before.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from .rewriter import Rewriter, dims

aten = torch.ops.aten


def batch_norm(r: Rewriter) -> None:
    for n in r.nodes(
        aten._native_batch_norm_legit_no_training.default,
        aten.native_batch_norm.default,
        aten.cudnn_batch_norm.default,
    ):
        parts = _inference(n)
        if parts is None:
            continue
        x, gamma, beta, mean, var, eps = parts
        used = {u.args[1] for u in n.users if u.target is operator.getitem}
        if used - {0} or not all(map(r.is_weight, (gamma, beta, mean, var))) or not r.spend():
            continue
        value = x.meta["val"]
        wide = torch.float32 if value.dtype in (torch.float16, torch.bfloat16) else value.dtype
        inverse = r.call(n, aten.add.Tensor, _wide(r, n, var), eps)
        scale = r.call(n, aten.reciprocal.default, r.call(n, aten.sqrt.default, inverse))
        if gamma is not None:
            scale = r.call(n, aten.mul.Tensor, _wide(r, n, gamma), scale)
        shift = r.call(n, aten.neg.default, r.call(n, aten.mul.Tensor, _wide(r, n, mean), scale))
        if beta is not None:
            shift = r.call(n, aten.add.Tensor, _wide(r, n, beta), shift)
        shape = list(dims(value.dim(), 1, value.shape[1]))
        narrow = [
            r.call(
                n,
                torch.ops.prims.convert_element_type.default,
                r.call(n, aten.view.default, t, shape),
                wide,
            )
            for t in (scale, shift)
        ]
        convert = torch.ops.prims.convert_element_type.default
        if wide != value.dtype:
            x = r.call(n, convert, x, wide)
        new = r.call(n, aten.add.Tensor, r.call(n, aten.mul.Tensor, x, narrow[0]), narrow[1])
        if wide != value.dtype:
            new = r.call(n, convert, new, value.dtype)
        for u in list(n.users):
            r.replace(u, new)


def _wide(r: Rewriter, at: fx.Node, t: fx.Node) -> fx.Node:
    return r.call(at, torch.ops.prims.convert_element_type.default, t, torch.float64)


def _inference(n: fx.Node):
    """(x, gamma, beta, mean, var, eps) of a batch norm that uses running statistics."""
    a = n.args
    if n.target is aten._native_batch_norm_legit_no_training.default:
        return *a[:5], a[6]
    if len(a) < 8 or a[5] is not False or a[3] is None:
        return None
    return *a[:5], a[7]
