"""What AOTAutograd traces ops as: ATen's core decompositions, less the ops that have a rule, and
normalizations of half-precision data by float32 weights, as autocast makes them.

    norm(x: bf16, w: f32)  ==>  out, mean, rstd = norm(x.to(f32), w); out.to(bf16), mean, rstd

That is what ATen's kernels compute: statistics are float32. Their fake kernels say bf16, so that
graphs traced with them read the statistics for what they are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import compat
from .lowering import RULES

aten = torch.ops.aten
HALF = (torch.bfloat16, torch.float16)
# ops that stay: in parts, attention is several times slower than ATen's kernel, and lies otherwise
KEPT = (
    aten._native_batch_norm_legit_no_training.default,
    aten.native_batch_norm.default,
    aten.cudnn_batch_norm.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
)
# where the weights, and running statistics, stand among the arguments of a normalization
NORMS = {
    aten.native_layer_norm.default: slice(2, 4),
    aten.native_group_norm.default: slice(1, 3),
    aten._native_batch_norm_legit_functional.default: slice(1, 5),
    aten._batch_norm_with_update_functional.default: slice(1, 5),
}


def decompositions(fallback_random: bool = False) -> dict[Any, Callable]:
    """The table that graphs are traced with; without random ops where these are to be eager's."""
    kept = {*RULES, *KEPT}
    found = {
        op: f
        for op, f in compat.core_decompositions().items()
        if op not in kept and not (fallback_random and compat.is_random(op))
    }
    return found | {op: _in_float32(op, weights) for op, weights in NORMS.items()}


def _in_float32(op: Callable, weights: slice) -> Callable:
    def decomposition(x: torch.Tensor, *args: Any) -> Any:
        given = [w for w in (x, *args)[weights] if w is not None]
        if x.dtype not in HALF or all(w.dtype == x.dtype for w in given):
            return NotImplemented
        out, *rest = op(x.float(), *args)
        return (out.to(x.dtype), *rest)

    return decomposition
