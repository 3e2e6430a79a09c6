"""Strides of every intermediate: `meta["sol_strides"]`, one tuple per tensor.

    activations around convolutions and pools  ==>  channels innermost (where the target wants it)
    everything else, and attention's arguments ==>  dense, in eager's order

Layout is strides, not a copy: a reader takes whatever it finds, and the outputs that the user sees
keep eager's strides (`meta["sol_output_strides"]` of the output node, noted before the first pass;
lowering stores them so).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..compat import reads_rows
from .rewriter import Rewriter

aten = torch.ops.aten
_ANCHORS = frozenset((
    aten.convolution.default, aten.max_pool2d_with_indices.default, aten.avg_pool2d.default,
    aten._adaptive_avg_pool2d.default, aten.adaptive_max_pool2d.default,
    aten.max_pool3d_with_indices.default, aten.avg_pool3d.default,
    aten._adaptive_avg_pool3d.default, aten.adaptive_max_pool3d.default,
    aten.convolution_backward.default, aten.max_pool2d_with_indices_backward.default,
    aten.max_pool3d_with_indices_backward.default, aten.avg_pool2d_backward.default,
    aten.avg_pool3d_backward.default, aten._adaptive_avg_pool2d_backward.default,
    aten._adaptive_avg_pool3d_backward.default, aten.adaptive_max_pool2d_backward.default,
    aten.adaptive_max_pool3d_backward.default,
))  # fmt: skip


def layout(r: Rewriter) -> None:
    wanted: dict[fx.Node, bool] = {}
    rows = {
        a for n in r.graph.nodes if n.op == "call_function" and reads_rows(n.target)
        for a in n.all_input_nodes
    }  # fmt: skip
    if r.caps.channels_last:
        for n in r.graph.nodes:  # forward: an op over channels-last values gives one
            if n.op == "call_function":
                wanted[n] = n.target in _ANCHORS or (
                    n not in rows and any(wanted.get(a) for a in n.all_input_nodes)
                )
            elif n.op == "placeholder":  # as what a forward graph saves for backward
                wanted[n] = _is_channels_last(n.meta.get("val"))
    for n in r.graph.nodes:
        if n.op == "call_function":
            n.meta["sol_strides"] = _strides(n.meta.get("val"), wanted.get(n, False))


def _is_channels_last(value: Any) -> bool:
    """Whether a tensor's channels are innermost in memory, and nothing else could be said so."""
    wanted = _strides(value, True)
    if wanted is None or value.layout != torch.strided:
        return False
    return tuple(value.stride()) == wanted and not value.is_contiguous()


def _strides(value, channels_last: bool):
    if isinstance(value, (tuple, list)):
        return tuple(_strides(v, channels_last) for v in value)
    if not isinstance(value, torch.Tensor) or not channels_last or value.dim() not in (4, 5):
        return None
    if not all(isinstance(n, int) for n in value.shape):
        return None
    order = [0, *range(2, value.dim()), 1]
    strides, step = [0] * value.dim(), 1
    for d in reversed(order):
        strides[d] = step
        step *= max(value.shape[d], 1)
    return tuple(strides)
