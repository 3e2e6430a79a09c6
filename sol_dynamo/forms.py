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
    found: dict[str, list[int]] = {}
    for name, at in _NUMBERS.items():
        packet, _, overload = name.partition(".")
        scalar = overload == "Scalar"
        for full in (
            f"aten::{packet}" + (f".{overload}" if overload else ""),
            f"aten::{packet}_" + (f".{overload}" if overload else ""),
            f"aten::{packet}." + ("Scalar_out" if scalar else "out"),
        ):
            found[full] = list(at)
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


FORMS: dict[str, Callable] = {
    "sol_ve.copy_.default": _copy,
    "aten.convolution_overrideable.default": _convolution,
    "aten.convolution_backward_overrideable.default": _convolution_backward,
    "aten.native_batch_norm.default": _native_batch_norm,
}
# arguments that an op writes to without saying so
WRITTEN: dict[str, tuple[int, ...]] = {"aten.native_batch_norm.default": (3, 4)}
