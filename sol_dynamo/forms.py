"""Ops of a device's dispatcher that the compiler knows by other names, or with numbers as data.

    convolution_overrideable(x, w, ...)  ==>  convolution(x, w, ...)
    add(x, y, alpha=s)                   ==>  x + y * s      where s is a number to come

`FORMS` says what to trace for an op, `SCALED` what for one of whose numbers some are tensors
without dimensions, so that one program serves every learning rate. Nothing here knows a device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

aten = torch.ops.aten
Tensor = torch.Tensor

# Positions of arguments whose number may be data: by the functional op's name, and so for what
# stores its result, whose other arguments come in the same order.
_NUMBERS = {
    "add.Tensor": (0, 1, 2),
    "sub.Tensor": (0, 1, 2),
    "mul.Tensor": (0, 1),
    "div.Tensor": (0, 1),
    "addcmul": (3,),
    "addcdiv": (3,),
    "lerp.Scalar": (2,),
}


def _scaled_add(self: Any, other: Any, alpha: Any = 1) -> Tensor:
    other = other if alpha is None or isinstance(alpha, int) else aten.mul.Tensor(other, alpha)
    return aten.add.Tensor(self, other)


def _scaled_sub(self: Any, other: Any, alpha: Any = 1) -> Tensor:
    other = other if alpha is None or isinstance(alpha, int) else aten.mul.Tensor(other, alpha)
    return aten.sub.Tensor(self, other)


def _scaled_addcmul(self: Tensor, tensor1: Tensor, tensor2: Tensor, value: Tensor) -> Tensor:
    return self + value * tensor1 * tensor2


def _scaled_addcdiv(self: Tensor, tensor1: Tensor, tensor2: Tensor, value: Tensor) -> Tensor:
    return self + value * tensor1 / tensor2


SCALED: dict[str, Callable] = {
    "add": _scaled_add,
    "sub": _scaled_sub,
    "mul": lambda self, other: aten.mul.Tensor(self, other),
    "div": lambda self, other: aten.div.Tensor(self, other),
    "addcmul": _scaled_addcmul,
    "addcdiv": _scaled_addcdiv,
}


def lerp(weight: float) -> Callable:
    """Eager's formula, which differs for the nearer end."""

    def form(self: Tensor, end: Tensor, weight: Tensor) -> Tensor:
        if near:
            return self + weight * (end - self)
        return end - (end - self) * (1 - weight)

    near = abs(weight) < 0.5
    return form


def lifted() -> dict[str, list[int]]:
    """Positions of numbers that are data, by the full name of an op."""
    found: dict[str, list[int]] = {  # learning rates of optimizers
        "aten::_fused_adam_": [6],
        "aten::_fused_adamw_": [6],
        "aten::_fused_sgd_": [5],
        "aten::_fused_adagrad_": [4],
    }
    for name, at in _NUMBERS.items():
        packet, _, overload = name.partition(".")
        scalar = overload == "Scalar"
        for full in (
            f"aten::{packet}" + (f".{overload}" if overload else ""),
            f"aten::{packet}_" + (f".{overload}" if overload else ""),
            f"aten::{packet}." + ("Scalar_out" if scalar else "out"),
        ):
            found[full] = list(at)
    for name in _LISTS:
        _, packet, overload = name.split(".")
        of_op = _LIFTED.get(packet.removeprefix("_foreach_").removesuffix("_"), {})
        if overload in of_op:
            found[f"aten::{packet}.{overload}"] = [of_op[overload]]
    return found


# -- ops by other names --------------------------------------------------------------------------


def _copy(dst: Tensor, src: Tensor) -> None:
    dst.copy_(src)


def _convolution(*args: Any) -> Tensor:
    return aten.convolution.default(*args)


def _convolution_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, mask: Any,
) -> Any:  # fmt: skip
    sizes = [grad.shape[1]]
    geometry = (stride, padding, dilation, transposed, output_padding, groups)
    return aten.convolution_backward.default(grad, x, weight, sizes, *geometry, list(mask))


def _native_batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float,
    eps: float,
) -> Any:  # fmt: skip
    """Its schema does not say that it writes to the statistics."""
    if not training or mean is None or var is None:
        return aten.native_batch_norm.default(x, weight, bias, mean, var, training, momentum, eps)
    made = aten._native_batch_norm_legit_functional.default(
        x, weight, bias, mean, var, training, momentum, eps
    )
    mean.copy_(made[3])
    var.copy_(made[4])
    return made[:3]


def _attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Any, is_causal: bool, scale: Any
) -> Any:
    """Attention, and the logarithms of what its weights were divided by."""
    weights, top = _scores(query, key, mask, is_causal, scale)
    most = weights.amax(-1, keepdim=True)
    most = torch.where(most == -torch.inf, torch.zeros_like(most), most)  # nothing to attend to
    weights = torch.exp(weights - most)
    total = weights.sum(-1, keepdim=True)
    out = (weights @ value.to(top)) / torch.where(total == 0, torch.ones_like(total), total)
    out = out.to(query.dtype).transpose(1, 2).contiguous().transpose(1, 2)
    return out, (most + torch.log(total)).squeeze(-1)


def _attention_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor,
    mask: Any, is_causal: bool, scale: Any,
) -> Any:  # fmt: skip
    weights, top = _scores(query, key, mask, is_causal, scale)
    total = logsumexp.unsqueeze(-1)
    weights = torch.exp(weights - torch.where(total == -torch.inf, torch.zeros_like(total), total))
    grad = grad.to(top)
    of_weights = grad @ value.to(top).transpose(-1, -2)
    of_scores = weights * (of_weights - (grad * out.to(top)).sum(-1, keepdim=True))
    of_scores = of_scores * _scale(query, scale)
    made = (
        of_scores @ key.to(top),
        of_scores.transpose(-1, -2) @ query.to(top),
        weights.transpose(-1, -2) @ grad,
    )
    return tuple(g.to(query.dtype) for g in made)


def _scale(query: Tensor, scale: Any) -> float:
    return query.shape[-1] ** -0.5 if scale is None else scale


def _scores(query: Tensor, key: Tensor, mask: Any, is_causal: bool, scale: Any) -> Any:
    """Scaled and masked products of queries and keys, in float32 at least."""
    top = torch.float64 if query.dtype == torch.float64 else torch.float32
    scores = (query.to(top) @ key.to(top).transpose(-1, -2)) * _scale(query, scale)
    if is_causal:
        rows, columns = scores.shape[-2:]
        i = torch.arange(rows, device=query.device).unsqueeze(-1)
        seen = torch.arange(columns, device=query.device) <= i
        scores = torch.where(seen, scores, -torch.inf)
    if mask is not None:
        if mask.dtype == torch.bool:
            scores = torch.where(mask, scores, -torch.inf)
        else:
            scores = scores + mask.to(top)
    return scores, top


def _sum_of(*parts: Any) -> Any:
    made = None
    for part in parts:
        if part is not None:
            made = part if made is None else made + part
    return made


def _wide(*values: Any) -> Any:
    """Half precision as float32; what is computed of it is rounded once."""
    half = (torch.float16, torch.bfloat16)
    return [v.float() if v is not None and v.dtype in half else v for v in values]


def _sigmoid_grad(value: Tensor) -> Tensor:  # by its result, as below
    return value * (1 - value)


def _tanh_grad(value: Tensor) -> Tensor:
    return 1 - value * value


def _lstm_cell(x: Tensor, h: Tensor, cx: Tensor, x_bias: Any = None, h_bias: Any = None) -> Any:
    """Gates in the order input, forget, cell, output."""
    dtype = x.dtype
    x, h, cx, x_bias, h_bias = _wide(x, h, cx, x_bias, h_bias)
    gates = _sum_of(x, x_bias) + _sum_of(h, h_bias)
    i, f, c, o = gates.chunk(4, 1)
    i, f, c, o = i.sigmoid(), f.sigmoid(), c.tanh(), o.sigmoid()
    cy = f * cx + i * c
    return tuple(v.to(dtype) for v in (o * cy.tanh(), cy, torch.cat([i, f, c, o], 1)))


def _lstm_cell_backward(
    grad_hy: Any, grad_cy: Any, cx: Tensor, cy: Tensor, workspace: Tensor, has_bias: bool
) -> Any:
    if grad_hy is None and grad_cy is None:
        return None, None, None
    dtype = workspace.dtype
    grad_hy, grad_cy, cx, cy, workspace = _wide(grad_hy, grad_cy, cx, cy, workspace)
    i, f, c, o = workspace.chunk(4, 1)
    tanh_cy = cy.tanh()
    dhy = torch.zeros_like(cy) if grad_hy is None else grad_hy
    dcy = _sum_of(dhy * o * _tanh_grad(tanh_cy), grad_cy)
    parts = [
        dcy * c * _sigmoid_grad(i),
        dcy * cx * _sigmoid_grad(f),
        dcy * i * _tanh_grad(c),
        dhy * tanh_cy * _sigmoid_grad(o),
    ]
    gates = torch.cat(parts, 1)
    bias = gates.sum(0).to(dtype) if has_bias else None
    return gates.to(dtype), (dcy * f).to(dtype), bias


def _gru_cell(x: Tensor, h: Tensor, hx: Tensor, x_bias: Any = None, h_bias: Any = None) -> Any:
    """Gates in the order reset, update, new."""
    dtype = x.dtype
    x, h, hx, x_bias, h_bias = _wide(x, h, hx, x_bias, h_bias)
    xs, hs = _sum_of(x, x_bias).chunk(3, 1), _sum_of(h, h_bias).chunk(3, 1)
    reset, update = (xs[0] + hs[0]).sigmoid(), (xs[1] + hs[1]).sigmoid()
    new = (xs[2] + reset * hs[2]).tanh()
    workspace = torch.cat([reset, update, new, hx, hs[2]], 1)
    return (new + update * (hx - new)).to(dtype), workspace.to(dtype)


def _gru_cell_backward(grad: Tensor, workspace: Tensor, has_bias: bool) -> Any:
    dtype = workspace.dtype
    grad, workspace = _wide(grad, workspace)
    reset, update, new, hx, hidden = workspace.chunk(5, 1)
    d_update = grad * (hx - new) * _sigmoid_grad(update)
    d_new = grad * (1 - update) * _tanh_grad(new)
    d_reset = d_new * hidden * _sigmoid_grad(reset)
    of_x = torch.cat([d_reset, d_update, d_new], 1)
    of_h = torch.cat([d_reset, d_update, d_new * reset], 1)
    made = (of_x, of_h, grad * update)
    biases = tuple(g.sum(0) if has_bias else None for g in (of_x, of_h))
    return tuple(v if v is None else v.to(dtype) for v in (*made, *biases))


# Cells of recurrent networks: in parts, they are part of the kernels around them. torch's kernels
# without data, which tracing asks for, are missing (GRU) or want biases (LSTM): these serve.
CELLS: dict[Any, Callable] = {
    aten._thnn_fused_lstm_cell.default: _lstm_cell,
    aten._thnn_fused_lstm_cell_backward_impl.default: _lstm_cell_backward,
    aten._thnn_fused_gru_cell.default: _gru_cell,
    aten._thnn_fused_gru_cell_backward.default: _gru_cell_backward,
}


def register_fakes() -> None:
    """Tell torch what cells give, once."""
    for op, form in CELLS.items():
        torch.library.register_fake(op, form, allow_override=True)


def _nll_loss_backward(
    grad: Tensor, self: Tensor, target: Tensor, weight: Any, reduction: int, ignore_index: int,
    total_weight: Tensor,
) -> Tensor:  # fmt: skip
    """-grad * weight where a class is the target, else 0."""
    dim = 0 if self.dim() < 2 else 1
    if reduction == 1:
        grad = grad / total_weight
    target = target.unsqueeze(dim)
    counted = target != ignore_index
    shape = [1] * self.dim()
    shape[dim] = self.shape[dim]
    classes = torch.arange(self.shape[dim], device=self.device).reshape(shape)
    if grad.dim() < self.dim() and grad.dim() > 0:
        grad = grad.unsqueeze(dim)
    if weight is not None:
        grad = grad * weight.reshape(shape)
    return torch.where((classes == target) & counted, -grad, torch.zeros_like(self))


def _batch_norm_with_update(
    x: Tensor, weight: Any, bias: Any, mean: Tensor, var: Tensor, momentum: float, eps: float
) -> Any:
    made = aten._native_batch_norm_legit_functional.default(
        x, weight, bias, mean, var, True, momentum, eps
    )
    mean.copy_(made[3])
    var.copy_(made[4])
    return (*made[:3], x.new_empty(0, dtype=torch.uint8))


def _addbmm(self: Tensor, a: Tensor, b: Tensor, beta: Any = 1, alpha: Any = 1) -> Tensor:
    made = aten.bmm.default(a, b).sum(0)
    made = made if alpha == 1 else made * alpha
    if beta == 0:
        return made
    return (self if beta == 1 else self * beta) + made


def _drawn(p: Tensor) -> Tensor:
    """True with a probability for each element."""
    wide = p.dtype if p.dtype == torch.float64 else torch.float32
    return aten.rand.default(list(p.shape), dtype=wide, device=p.device) < p


def _normal(mean: Tensor, std: Tensor, generator: Any = None) -> Tensor:
    shape = torch.broadcast_shapes(mean.shape, std.shape)
    return mean + std * aten.randn.default(list(shape), dtype=mean.dtype, device=mean.device)


# -- optimizers: all parameters in one program ----------------------------------------------------


def _unscaled(grad: Tensor, scale: Any) -> Tensor:
    """A gradient without the factor of mixed precision; eager leaves it so, too."""
    return grad if scale is None else grad.copy_(grad / scale)


def _kept_if(found_inf: Any, old: Tensor, new: Tensor) -> Tensor:
    """What a parameter or a state becomes: nothing changes where a gradient overflowed."""
    old.copy_(new if found_inf is None else torch.where(found_inf == 1, old, new))
    return old


def _fused_adam(decoupled: bool) -> Callable:
    """Adam (Kingma and Ba, 2015), or with weight decay apart from the gradient (AdamW)."""

    def form(
        params: Any, grads: Any, means: Any, squares: Any, most: Any, steps: Any, lr: Any,
        beta1: float, beta2: float, weight_decay: float, eps: float, amsgrad: bool, maximize: bool,
        grad_scale: Any = None, found_inf: Any = None,
    ) -> None:  # fmt: skip
        for i, p in enumerate(params):
            g = _unscaled(grads[i], grad_scale)
            g = -g if maximize else g
            decayed = p
            if weight_decay and decoupled:
                decayed = p * (1 - lr * weight_decay)
            elif weight_decay:
                g = g + p * weight_decay
            mean = means[i] + (1 - beta1) * (g - means[i])
            square = squares[i] * beta2 + (1 - beta2) * g * g
            step = steps[i].double()  # 1 - beta ** step cancels
            correction1, correction2 = 1 - beta1**step, 1 - beta2**step
            largest = torch.maximum(most[i], square) if amsgrad else square
            root = largest.sqrt() / correction2.sqrt() + eps
            new = decayed - (lr / correction1) * (mean / root)
            _kept_if(found_inf, p, new)
            _kept_if(found_inf, means[i], mean)
            _kept_if(found_inf, squares[i], square)
            if amsgrad:
                _kept_if(found_inf, most[i], largest)

    return form


def _fused_sgd(
    params: Any, grads: Any, buffers: Any, weight_decay: float, momentum: float, lr: Any,
    dampening: float, nesterov: bool, maximize: bool, first: bool, grad_scale: Any = None,
    found_inf: Any = None,
) -> None:  # fmt: skip
    for i, p in enumerate(params):
        g = _unscaled(grads[i], grad_scale)
        g = -g if maximize else g
        g = g + p * weight_decay if weight_decay else g
        buffer = None
        if momentum:
            buffer = g if first else buffers[i] * momentum + (1 - dampening) * g
            g = g + momentum * buffer if nesterov else buffer
        _kept_if(found_inf, p, p - lr * g)  # which reads the buffer as it was
        if buffer is not None:
            _kept_if(found_inf, buffers[i], buffer)


def _fused_adagrad(
    params: Any, grads: Any, sums: Any, steps: Any, lr: Any, lr_decay: float, weight_decay: float,
    eps: float, maximize: bool, grad_scale: Any = None, found_inf: Any = None,
) -> None:  # fmt: skip
    for i, p in enumerate(params):
        g = _unscaled(grads[i], grad_scale)
        g = -g if maximize else g
        g = g + p * weight_decay if weight_decay else g
        rate = lr / (1 + (steps[i] - 1) * lr_decay)
        total = sums[i] + g * g
        _kept_if(found_inf, p, p - rate * (g / (total.sqrt() + eps)))
        _kept_if(found_inf, sums[i], total)


# -- mixed precision ------------------------------------------------------------------------------


def _unscale(grads: Any, found: Any, factor: Tensor) -> None:
    """Gradients times a factor, and for each whether it has elements that are not finite."""
    for g, flag in zip(grads, found, strict=True):
        wide = g if g.dtype == torch.float64 else g.float()
        flag.copy_(torch.logical_not(torch.isfinite(wide)).any())
        g.copy_(wide * factor.to(wide.dtype))


def _update_scale(
    scale: Tensor, tracker: Tensor, found_inf: Tensor, growth: float, backoff: float, interval: int
) -> Tensor:
    steps = tracker + 1
    grown = (scale.double() * growth).to(scale.dtype)
    due = steps == interval
    other = torch.where(due & torch.isfinite(grown), grown, scale)
    overflow = found_inf != 0
    tracker.copy_(torch.where(overflow | due, torch.zeros_like(steps), steps))
    return scale.copy_(torch.where(overflow, (scale.double() * backoff).to(scale.dtype), other))


def _random_between(self: Tensor, first: int, end: Any, generator: Any = None) -> Tensor:
    """Integers in [first, end); without an end, as far as the dtype has them."""
    if end is None:
        dtype = self.dtype
        if not dtype.is_floating_point:
            end = 2 if dtype == torch.bool else torch.iinfo(dtype).max + (first >= 0)
        else:
            end = 2 ** {2**-52: 53, 2**-23: 24, 2**-10: 11, 2**-7: 8}[torch.finfo(dtype).eps] + 1
    if end - first >= 2**63:
        raise NotImplementedError(f"random integers in {first} .. {end}")
    drawn = aten.randint.low(first, end, self.shape, dtype=torch.int64, device=self.device)
    return self.copy_(drawn)


# -- ops of lists ---------------------------------------------------------------------------------


def _alpha(add: Callable, scaled: Callable) -> Callable:
    def form(self: Tensor, other: Any, alpha: Any = 1) -> Tensor:
        if isinstance(other, Tensor) and not isinstance(alpha, Tensor):
            return add(self, other, alpha=alpha)
        return scaled(self, other, alpha) if isinstance(alpha, Tensor) else add(self, other)

    return form


def _norm(self: Tensor, ord: Any = 2, dtype: Any = None) -> Tensor:
    return torch.linalg.vector_norm(self, ord, dtype=dtype)


def _floating(op: Callable) -> Callable:
    """An op that eager refuses for integers; torch's fake kernels do not."""

    def form(self: Tensor, *arguments: Any) -> Tensor:
        if not self.dtype.is_floating_point:
            raise TypeError(f"{op} of {self.dtype}")
        return op(self, *arguments)

    return form


def _with_value(op: Callable, scaled: Callable) -> Callable:
    def form(self: Tensor, a: Tensor, b: Tensor, value: Any = 1) -> Tensor:
        return (
            scaled(self, a, b, value) if isinstance(value, Tensor) else op(self, a, b, value=value)
        )

    return form


# where their numbers stand that may be data, by overload
_LIFTED = {
    **{name: {"List": 2, "Scalar": 1, "ScalarList": 1} for name in ("add", "sub")},
    **{name: {"Scalar": 1, "ScalarList": 1} for name in ("mul", "div")},
    **{name: {"Scalar": 3, "ScalarList": 3} for name in ("addcmul", "addcdiv")},
}
_UNARY = (
    *("abs", "acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "erfc", "exp", "expm1", "floor"),
    *("frac", "lgamma", "log", "log10", "log1p", "log2", "neg", "reciprocal", "round", "rsqrt"),
    *("sigmoid", "sign", "sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
)
# what an element is for: the name of a `_foreach` op, its overloads, and what each tensor becomes
_OF_EACH: dict[str, tuple[str, Callable]] = {
    **{name: ("default", getattr(torch, name)) for name in _UNARY},
    "zero": ("default", torch.zeros_like),
    "copy": ("default", lambda self, src, non_blocking=False: torch.empty_like(self).copy_(src)),
    "clone": ("default", torch.clone),
    "add": ("List Scalar ScalarList Tensor", _alpha(torch.add, _scaled_add)),
    "sub": ("List Scalar ScalarList", _alpha(torch.sub, _scaled_sub)),
    "mul": ("List Scalar ScalarList Tensor", torch.mul),
    "div": ("List Scalar ScalarList Tensor", torch.div),
    "addcmul": ("Scalar ScalarList", _with_value(torch.addcmul, _scaled_addcmul)),
    "addcdiv": ("Scalar ScalarList", _floating(_with_value(torch.addcdiv, _scaled_addcdiv))),
    "lerp": ("List Scalar ScalarList", _floating(torch.lerp)),
    "pow": ("List Scalar ScalarList", torch.pow),
    **{
        name: ("List Scalar ScalarList", op)
        for name, op in (
            ("clamp_min", torch.clamp_min),
            ("clamp_max", torch.clamp_max),
            ("maximum", torch.clamp_min),  # as ATen's loops
            ("minimum", torch.clamp_max),
        )
    },
    "norm": ("Scalar", _norm),
}


def _power_of_number(base: float, exponent: Tensor) -> Tensor:
    return torch.pow(base, exponent).contiguous()  # as eager's lies


def _each(op: Callable, stores: bool) -> Callable:
    """An op of one tensor as one of lists of them."""

    def form(*arguments: Any) -> Any:
        length = max(len(a) for a in arguments if isinstance(a, (list, tuple)))
        made = []
        for i in range(length):
            own = [a[i] if isinstance(a, (list, tuple)) else a for a in arguments]
            value = op(*own)
            if stores and not torch.can_cast(value.dtype, own[0].dtype):
                raise TypeError(f"{value.dtype} cannot be stored in {own[0].dtype}")
            made.append(own[0].copy_(value) if stores else value)
        return None if stores else made

    return form


_LISTS: dict[str, Callable] = {
    f"aten._foreach_{name}{end}.{overload}": _each(op, bool(end))
    for name, (overloads, op) in _OF_EACH.items()
    for overload in overloads.split()
    for end in (("",) if name in ("norm", "clone") else ("", "_"))
} | {"aten._foreach_pow.ScalarAndTensor": _each(_power_of_number, False)}

FORMS: dict[str, Callable] = {
    **_LISTS,
    **{
        f"aten.{name}_.{overload}": form
        for name, form in (
            ("_fused_adam", _fused_adam(False)),
            ("_fused_adamw", _fused_adam(True)),
            ("_fused_sgd", _fused_sgd),
            ("_fused_adagrad", _fused_adagrad),
        )
        for overload in ("default", "tensor_lr")
    },
    "sol_ve.unscale_.default": _unscale,
    "aten._amp_update_scale_.default": _update_scale,
    "aten.nll_loss_backward.default": _nll_loss_backward,
    "aten.nll_loss2d_backward.default": _nll_loss_backward,
    "aten._batch_norm_with_update.default": _batch_norm_with_update,
    "aten.addbmm.default": _addbmm,
    "aten.bernoulli_.Tensor": lambda self, p, generator=None: self.copy_(_drawn(p)),
    "aten.normal.Tensor_Tensor": _normal,
    "aten.random_.default": lambda self, generator=None: _random_between(self, 0, None),
    "aten.random_.to": lambda self, end, generator=None: _random_between(self, 0, end),
    "aten.random_.from": _random_between,
    **{str(op): form for op, form in CELLS.items()},
    "sol_ve.fused_attention.default": _attention,
    "sol_ve.fused_attention_backward.default": _attention_backward,
    "sol_ve.copy_.default": _copy,
    "aten.convolution_overrideable.default": _convolution,
    "aten.convolution_backward_overrideable.default": _convolution_backward,
    "aten.native_batch_norm.default": _native_batch_norm,
}
# ops that do the same with each element of their lists; and those for which shapes do not matter
FLAT = frozenset(n for n in FORMS if "._f" in n and n.split(".")[1].endswith("_"))
BY_ELEMENT = FLAT | frozenset((*_LISTS, "sol_ve.unscale_.default"))
# arguments that an op writes to without saying so
WRITTEN: dict[str, tuple[int, ...]] = {"aten.native_batch_norm.default": (3, 4)}
