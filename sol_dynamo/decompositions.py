"""What AOTAutograd traces ops as: ATen's core decompositions, less the ops that have a rule;
normalizations of half-precision data; standard deviations; and the encoder layer that
`nn.TransformerEncoderLayer` calls where it needs no gradients.

    norm(x: bf16, w: f32)  ==>  out, mean, rstd = norm(x.to(f32), w); out.to(bf16), mean, rstd

That is what ATen's kernels compute: statistics are float32. Where autocast leaves weights float32,
their fake kernels say bf16, so that graphs traced with them read the statistics for what they are
not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import compat
from .forms import CELLS
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
# those that a rule computes; on a CPU, statistics have the dtype of weights
ROWS = (aten.native_layer_norm.default,)


def decompositions(fallback_random: bool = False, composite: bool = False) -> dict[Any, Callable]:
    """The table that graphs are traced with; without random ops where these are to be eager's, and
    with `composite` ops for who traces them without AOTAutograd."""
    kept = {*RULES, *KEPT}
    found = {
        op: f
        for op, f in compat.core_decompositions(composite).items()
        if op not in kept and not (fallback_random and compat.is_random(op))
    }
    found |= {op: _in_float32(op, weights) for op, weights in NORMS.items()}
    found |= {**CELLS, aten.std.correction: _std, aten.std_mean.correction: _std_mean}
    found[aten.native_group_norm.default] = _group_norm
    return found | {aten._transformer_encoder_layer_fwd.default: _encoder_layer}


def _in_float32(op: Callable, weights: slice) -> Callable:
    def decomposition(x: torch.Tensor, *args: Any) -> Any:
        every = [x, *args]
        given = [w for w in every[weights] if w is not None]
        alike = all(w.dtype == x.dtype for w in given)
        if x.dtype not in HALF or (alike and op not in ROWS):
            return NotImplemented
        every[weights] = [w if w is None else w.float() for w in every[weights]]
        out, *rest = op(x.float(), *every[1:])
        if alike and x.device.type == "cpu":
            rest = [r.to(x.dtype) for r in rest]
        return (out.to(x.dtype), *rest)

    return decomposition


def _group_norm(x: torch.Tensor, *args: Any) -> Any:
    """On a CPU, ATen's: its sweeps of a group take two thirds of the time of ours (RESULTS,
    2026-11-29 11:00)."""
    if x.device.type == "cpu" or not x.is_floating_point() or x.numel() == 0:
        op = aten.native_group_norm.default
        return _in_float32(op, NORMS[op])(x, *args)
    weight, bias, _, _, _, groups, eps = args
    return group_norm(x, weight, bias, groups, eps)


def group_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    groups: int,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `native_group_norm` gives of (batch, channels, ...), computed in float32 at least: the
    result, which lies as the tensor does, and means and reciprocal deviations (batch, groups) in
    the dtype of the weights."""
    channels = x.shape[1]
    affine = [w for w in (weight, bias) if w is not None]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    parts = wide.unflatten(1, (groups, channels // groups))
    over = list(range(2, parts.dim()))
    var, mean = aten.var_mean.correction(parts, over, correction=0, keepdim=True)
    rstd = (var + eps).rsqrt()
    out = ((parts - mean) * rstd).flatten(1, 2)
    beside = (1,) * (x.dim() - 2)
    if weight is not None:
        out = out * weight.view(channels, *beside)
    if bias is not None:
        out = out + bias.view(channels, *beside)
    mean, rstd = mean.squeeze(over), rstd.squeeze(over)
    kept = next((w.dtype for w in affine), x.dtype)
    return out.to(x.dtype), mean.to(kept), rstd.to(kept)


def _std(x: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    """The root of a variance that may be out of the dtype's range."""
    if not x.is_floating_point():
        return NotImplemented
    var = aten.var.correction(x.double(), dim, correction=correction, keepdim=keepdim)
    return var.sqrt().to(x.dtype)


def _std_mean(
    x: torch.Tensor, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> Any:
    if not x.is_floating_point():
        return NotImplemented
    var, mean = aten.var_mean.correction(x.double(), dim, correction=correction, keepdim=keepdim)
    return var.sqrt().to(x.dtype), mean.to(x.dtype)


def _encoder_layer(
    x: torch.Tensor,
    width: int,
    heads: int,
    qkv_weight: torch.Tensor,
    qkv_bias: torch.Tensor,
    proj_weight: torch.Tensor,
    proj_bias: torch.Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    *weights: torch.Tensor,
    mask: torch.Tensor | None = None,
    mask_type: int | None = None,
) -> Any:
    """What `nn.TransformerEncoderLayer` calls where it needs no gradients: attention, two products,
    two norms. In parts, what lies between the products is one kernel; with a mask it stays whole.
    On a GPU the activation is part of a product of ATen's, and an approximation if it is a GELU."""
    norm_weight_1, norm_bias_1, norm_weight_2, norm_bias_2, w1, b1, w2, b2, *masks = weights
    plain = x.dim() == 3 and x.layout == torch.strided
    if any(m is not None for m in (*masks, mask)) or not plain:
        return NotImplemented

    def norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return aten.native_layer_norm.default(x, [width], weight, bias, eps)[0]

    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        made = aten.addmm.default(bias, x.reshape(-1, x.shape[-1]), weight.t())
        return made.view(*x.shape[:-1], -1)

    batch, length, _ = x.shape
    into = norm(x, norm_weight_1, norm_bias_1) if norm_first else x
    qkv = linear(into, qkv_weight, qkv_bias).view(batch, length, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
    attended = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    x = linear(attended.reshape(batch, length, width), proj_weight, proj_bias) + x
    if not norm_first:
        x = norm(x, norm_weight_1, norm_bias_1)
    into = norm(x, norm_weight_2, norm_bias_2) if norm_first else x
    if x.device.type == "cpu":
        act = torch.nn.functional.gelu if use_gelu else torch.relu
        wide = act(linear(into, w1, b1))
    else:
        rows = into.reshape(-1, width)
        wide = aten._addmm_activation.default(b1, rows, w1.t(), use_gelu=use_gelu)
        wide = wide.view(batch, length, -1)
    x = linear(wide, w2, b2) + x
    return x if norm_first else norm(x, norm_weight_2, norm_bias_2)
