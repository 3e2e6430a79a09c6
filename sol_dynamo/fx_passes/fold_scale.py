"""A scale and shift behind a convolution become part of its weights.

    conv(x, w, b) * s + t  ==>  conv(x, w * s, b * s + t)

for s and t that depend on weights only and vary along the output channels. Products are taken in
float64 and rounded once, so the folded weights are as exact as the unfolded ones.
"""

from __future__ import annotations

import torch
from torch import fx

from .rewriter import Rewriter, dims

aten = torch.ops.aten
_convert = torch.ops.prims.convert_element_type.default


def fold_scale(r: Rewriter) -> None:
    for conv in r.nodes(aten.convolution.default):
        x, w, b, *rest = conv.args
        if rest[3] or not r.is_weight(w) or not r.is_weight(b):  # transposed: other weight order
            continue
        scale, last = _follower(r, conv, aten.mul.Tensor)
        shift, end = _follower(r, last or conv, aten.add.Tensor)
        if scale is None and shift is None:
            continue
        end = end or last
        if end is None or not r.spend():
            continue
        dtype, channels = w.meta["val"].dtype, w.meta["val"].shape[0]
        bias = r.call(end, _convert, b, torch.float64) if b is not None else None
        if scale is not None:
            vector = _vector(r, end, scale, channels)
            column = r.call(
                end, aten.view.default, vector, list(dims(w.meta["val"].dim(), 0, channels))
            )
            w = r.call(
                end,
                _convert,
                r.call(end, aten.mul.Tensor, r.call(end, _convert, w, torch.float64), column),
                dtype,
            )
            bias = r.call(end, aten.mul.Tensor, bias, vector) if bias is not None else None
        if shift is not None:
            vector = _vector(r, end, shift, channels)
            bias = r.call(end, aten.add.Tensor, bias, vector) if bias is not None else vector
        b = r.call(end, _convert, bias, dtype) if bias is not None else None
        new = r.call(end, aten.convolution.default, x, w, b, *rest)
        r.replace(end, new)


def _follower(r: Rewriter, n: fx.Node, target) -> tuple[fx.Node | None, fx.Node | None]:
    """(the weight-only vector, the node) where n's one user applies it along the channels."""
    if len(n.users) != 1:
        return None, None
    (user,) = n.users
    if user.target is not target or user.kwargs or user.meta["val"].dtype != n.meta["val"].dtype:
        return None, None
    other = user.args[1] if user.args[0] is n else user.args[0]
    if not isinstance(other, fx.Node) or other is n or not r.is_weight(other):
        return None, None
    value, shape = n.meta["val"], tuple(other.meta["val"].shape)
    full = (1,) * (value.dim() - len(shape)) + shape
    if tuple(user.meta["val"].shape) != tuple(value.shape):
        return None, None
    if any(s != 1 for d, s in enumerate(full) if d != 1) or full[1] not in (1, value.shape[1]):
        return None, None
    return other, user


def _vector(r: Rewriter, at: fx.Node, t: fx.Node, channels: int) -> fx.Node:
    """One float64 value for each output channel."""
    if t.meta["val"].numel() != channels:
        t = r.call(at, aten.expand.default, r.call(at, aten.view.default, t, [1]), [channels])
    t = r.call(at, aten.view.default, t, [channels])
    return r.call(at, _convert, t, torch.float64)
