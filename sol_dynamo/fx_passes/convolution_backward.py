"""The gradients of a convolution as ops of their own.

    convolution_backward(dy, x, w, ...)[0]  ==>  convolution(dy, w, ..., transposed=not transposed)
    convolution_backward(dy, x, w, ...)[2]  ==>  sum(dy, all but the channels)

The gradient of the input is the transposed convolution with the same weights (of a transposed one,
the plain convolution), so that one rule compiles both; that of the weights stays. Half-precision
convolutions stay whole where ATen can run those.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from .rewriter import Rewriter

aten = torch.ops.aten
_COMPILED = (torch.float32, torch.float64)
_HALVES = (torch.float16, torch.bfloat16)


def convolution_backward(r: Rewriter) -> None:
    for n in r.nodes(aten.convolution_backward.default):
        if not _fits(n, r.caps.alone):
            continue
        of_input = _users(n, 0)
        if of_input and r.spend():
            new = r.call(n, aten.convolution.default, *_transposed(n))
            for u in of_input:
                r.replace(u, new)
        of_bias = _users(n, 2)
        if of_bias and r.spend():
            dy = n.args[0]
            dims = [d for d in range(dy.meta["val"].dim()) if d != 1]
            new = r.call(n, aten.sum.dim_IntList, dy, dims)
            for u in of_bias:
                r.replace(u, new)
        wanted = [bool(_users(n, k)) for k in range(3)]
        mask: Any = n.args[10]
        if wanted != list(mask) and any(wanted):
            r.replace(n, r.call(n, n.target, *n.args[:10], wanted))


def _users(n: fx.Node, k: int) -> list[fx.Node]:
    """The nodes that pick the k-th result, where somebody reads them."""
    return [u for u in n.users if u.target is operator.getitem and u.args[1] == k and u.users]


def _fits(n: fx.Node, halves: bool) -> bool:
    """Whether a transposed convolution says the same: batched, not empty, of a compiled dtype."""
    dy, x = n.args[0].meta["val"], n.args[1].meta["val"]
    batched = dy.dim() == x.dim() == n.args[2].meta["val"].dim()
    compiled = (*_COMPILED, *_HALVES) if halves else _COMPILED
    return batched and dy.dtype in compiled and 0 not in (*dy.shape, *x.shape)


def _transposed(n: fx.Node) -> tuple:
    """The arguments of the convolution that gives the gradient of the input."""
    args: Any = n.args
    dy, x, w, _, stride, padding, dilation, transposed, _, groups = args[:10]
    spatial = x.meta["val"].dim() - 2
    stride, padding, dilation = (
        list(v) if len(v) == spatial else list(v) * spatial for v in (stride, padding, dilation)
    )
    left = [0] * spatial
    if not transposed:  # what the stride left over at the end of the input
        for d in range(spatial):
            i, o = x.meta["val"].shape[2 + d], dy.meta["val"].shape[2 + d]
            reach = dilation[d] * (w.meta["val"].shape[2 + d] - 1) + 1
            left[d] = i - ((o - 1) * stride[d] - 2 * padding[d] + reach)
    return dy, w, None, stride, padding, dilation, not transposed, left, groups
