"""Pointwise ATen ops: one table from op to expression, eager's type promotion around it.

Half-precision operands are computed in float32 and rounded once at the store, as eager does per op.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy as np
import torch
from torch import fx

from ..affine import Index
from ..ir import DTYPES, Buffer, Const, Expr, Op
from .graph import DTYPE, RULES, TORCH_DTYPE, Lowering, NotHandled, cast, constant

aten = torch.ops.aten


def op(name: str, *args: Expr, dtype: str | None = None) -> Expr:
    return Op(name, args, dtype or args[-1].dtype)


def like(x: Expr, value: float) -> Const:
    return constant(value, x.dtype)


def arithmetic(name: str) -> Callable[..., Expr]:
    """An op on two numbers; on booleans what eager makes of it."""
    logical = {"add": "or", "mul": "and", "max": "or", "min": "and"}
    return lambda a, b: op(logical[name] if a.dtype == "bool" else name, a, b)


def compare(name: str) -> Callable[..., Expr]:
    return lambda a, b: Op(name, (a, b), "bool")


def _alpha(name: str) -> Callable[..., Expr]:
    def f(a: Expr, b: Expr, alpha: float = 1) -> Expr:
        return arithmetic(name)(a, b if alpha == 1 else arithmetic("mul")(b, like(b, alpha)))

    return f


def _clamp(x: Expr, min: Any = None, max: Any = None) -> Expr:
    if min is not None:
        x = op("max", x, min if isinstance(min, Expr) else like(x, min))
    if max is not None:
        x = op("min", x, max if isinstance(max, Expr) else like(x, max))
    return x


def _gelu(x: Expr, approximate: str = "none") -> Expr:
    half, one = like(x, 0.5), like(x, 1.0)
    if approximate == "tanh":
        cube = op("mul", op("mul", x, x), op("mul", x, like(x, 0.044715)))
        inner = op("mul", like(x, sqrt(2 / pi)), op("add", x, cube))
        return op("mul", op("mul", half, x), op("add", one, op("tanh", inner)))
    return op(
        "mul", op("mul", x, half), op("add", one, op("erf", op("mul", x, like(x, sqrt(0.5)))))
    )


def _silu(x: Expr) -> Expr:
    return op("div", x, op("add", like(x, 1.0), op("exp", op("neg", x))))


def _hardsigmoid(x: Expr) -> Expr:
    return op("div", _clamp(op("add", x, like(x, 3.0)), 0.0, 6.0), like(x, 6.0))


def _hardswish(x: Expr) -> Expr:
    gate = _clamp(op("add", x, like(x, 3.0)), 0.0, 6.0)
    return op("div", op("mul", x, gate), like(x, 6.0))


def _elu(x: Expr, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Expr:
    negative = op("mul", op("expm1", op("mul", x, like(x, input_scale))), like(x, alpha * scale))
    return op("where", compare("gt")(x, like(x, 0.0)), op("mul", x, like(x, scale)), negative)


def _leaky(x: Expr, slope: float = 0.01) -> Expr:
    return op("where", compare("gt")(x, like(x, 0.0)), x, op("mul", x, like(x, slope)))


def _softplus(x: Expr, beta: float = 1, threshold: float = 20) -> Expr:
    scaled = op("mul", x, like(x, beta))
    soft = op("div", op("log1p", op("exp", scaled)), like(x, beta))
    return op("where", compare("gt")(scaled, like(x, threshold)), x, soft)


def _div(a: Expr, b: Expr, rounding_mode: str | None = None) -> Expr:
    if rounding_mode == "floor":
        return op("floordiv", a, b)
    q = op("div", a, b)
    return op("trunc", q) if rounding_mode == "trunc" else q


def _sign(x: Expr) -> Expr:
    zero, one = like(x, 0), like(x, 1)
    up = op("where", compare("gt")(x, zero), one, zero)
    return op("where", compare("lt")(x, zero), like(x, -1), up)


def _square(x: Expr) -> Expr:
    return op("mul", x, x)


def _pow(x: Expr, e: Any) -> Expr:
    """Exponents that eager does not raise to, it multiplies, divides or takes roots of."""
    if isinstance(e, Expr):
        return op("pow", x, e)
    square, one = op("mul", x, x), like(x, 1)
    special: dict[float, Callable[[], Expr]] = {0: lambda: one, 1: lambda: x, 2: lambda: square}
    special[3] = lambda: op("mul", square, x)
    special |= {0.5: lambda: op("sqrt", x), -0.5: lambda: op("rsqrt", x)}
    special |= {-1: lambda: op("div", one, x), -2: lambda: op("div", one, square)}
    return special[e]() if e in special else op("pow", x, like(x, e))


def _isnan(x: Expr) -> Expr:
    return Op("isnan", (x,), "bool") if DTYPES[x.dtype][1] == "f" else Const(False, "bool")


def unary(name: str) -> Callable[..., Expr]:
    return lambda x: op(name, x)


def bits(name: str) -> Callable[..., Expr]:
    return lambda a, b: op(name, a, b)


# op -> (expression over promoted arguments, kind of promotion)
# "same": the result's dtype; "float": as "same", integers computed as floats; "args": comparisons
POINTWISE: dict[Any, tuple[Callable[..., Expr], str]] = {
    aten.add.Tensor: (_alpha("add"), "same"), aten.add.Scalar: (_alpha("add"), "same"),
    aten.sub.Tensor: (_alpha("sub"), "same"), aten.sub.Scalar: (_alpha("sub"), "same"),
    aten.rsub.Scalar: (lambda a, b, alpha=1: _alpha("sub")(b, a, alpha), "same"),
    aten.mul.Tensor: (arithmetic("mul"), "same"), aten.mul.Scalar: (arithmetic("mul"), "same"),
    aten.div.Tensor: (_div, "same"), aten.div.Scalar: (_div, "same"),
    aten.div.Tensor_mode: (_div, "same"), aten.div.Scalar_mode: (_div, "same"),
    aten.neg.default: (unary("neg"), "same"), aten.abs.default: (unary("abs"), "same"),
    aten.relu.default: (lambda x: op("max", x, like(x, 0)), "same"),
    aten.clamp.default: (_clamp, "same"), aten.clamp.Tensor: (_clamp, "same"),
    aten.hardtanh.default: (lambda x, a=-1, b=1: _clamp(x, a, b), "same"),
    aten.clamp_min.default: (lambda x, a: _clamp(x, a), "same"),
    aten.clamp_max.default: (lambda x, a: _clamp(x, None, a), "same"),
    aten.maximum.default: (arithmetic("max"), "same"),
    aten.minimum.default: (arithmetic("min"), "same"),
    aten.sigmoid.default: (unary("sigmoid"), "float"), aten.tanh.default: (unary("tanh"), "float"),
    aten.exp.default: (unary("exp"), "float"), aten.expm1.default: (unary("expm1"), "float"),
    aten.log.default: (unary("log"), "float"), aten.log1p.default: (unary("log1p"), "float"),
    aten.log2.default: (unary("log2"), "float"), aten.log10.default: (unary("log10"), "float"),
    aten.sqrt.default: (unary("sqrt"), "float"), aten.rsqrt.default: (unary("rsqrt"), "float"),
    aten.sin.default: (unary("sin"), "float"), aten.cos.default: (unary("cos"), "float"),
    aten.tan.default: (unary("tan"), "float"), aten.erf.default: (unary("erf"), "float"),
    aten.reciprocal.default: (lambda x: op("div", like(x, 1.0), x), "float"),
    aten.floor.default: (unary("floor"), "same"), aten.ceil.default: (unary("ceil"), "same"),
    aten.trunc.default: (unary("trunc"), "same"), aten.round.default: (unary("round"), "same"),
    aten.sign.default: (_sign, "same"), aten.square.default: (_square, "same"),
    aten.gelu.default: (_gelu, "float"), aten.silu.default: (_silu, "float"),
    aten.hardsigmoid.default: (_hardsigmoid, "float"),
    aten.hardswish.default: (_hardswish, "float"),
    aten.elu.default: (_elu, "float"), aten.leaky_relu.default: (_leaky, "float"),
    aten.softplus.default: (_softplus, "float"),
    aten.pow.Tensor_Scalar: (_pow, "same"), aten.pow.Tensor_Tensor: (_pow, "same"),
    aten.eq.Tensor: (compare("eq"), "args"), aten.eq.Scalar: (compare("eq"), "args"),
    aten.ne.Tensor: (compare("ne"), "args"), aten.ne.Scalar: (compare("ne"), "args"),
    aten.lt.Tensor: (compare("lt"), "args"), aten.lt.Scalar: (compare("lt"), "args"),
    aten.le.Tensor: (compare("le"), "args"), aten.le.Scalar: (compare("le"), "args"),
    aten.gt.Tensor: (compare("gt"), "args"), aten.gt.Scalar: (compare("gt"), "args"),
    aten.ge.Tensor: (compare("ge"), "args"), aten.ge.Scalar: (compare("ge"), "args"),
    aten.isnan.default: (_isnan, "args"),
    aten.logical_not.default: (lambda x: op("not", cast(x, "bool")), "args"),
    aten.logical_and.default: (lambda a, b: op("and", cast(a, "bool"), cast(b, "bool")), "args"),
    aten.logical_or.default: (lambda a, b: op("or", cast(a, "bool"), cast(b, "bool")), "args"),
    aten.logical_xor.default: (lambda a, b: op("xor", cast(a, "bool"), cast(b, "bool")), "args"),
    aten.bitwise_not.default: (unary("not"), "same"),
    aten.bitwise_and.Tensor: (bits("and"), "same"), aten.bitwise_and.Scalar: (bits("and"), "same"),
    aten.bitwise_or.Tensor: (bits("or"), "same"), aten.bitwise_or.Scalar: (bits("or"), "same"),
    aten.bitwise_xor.Tensor: (bits("xor"), "same"), aten.bitwise_xor.Scalar: (bits("xor"), "same"),
}  # fmt: skip


def _promoted(args: list[Any], out: str, kind: str) -> str:
    """The dtype to which an op's arguments are converted."""
    if kind != "args":
        if kind == "float" and DTYPES[out][1] != "f":
            return "f32"
        return out
    tensors = [a for a in args if isinstance(a, Buffer)]
    probes = [
        torch.empty((1,) * min(len(a.shape), 1), dtype=TORCH_DTYPE[a.dtype], device="meta")
        for a in tensors
    ]
    scalars = [a for a in args if isinstance(a, (int, float, bool))]
    result = probes[0].dtype if len(probes) == 1 else torch.result_type(*probes)
    if scalars:
        result = torch.result_type(probes[0], scalars[0])
    return DTYPE[result]


def _widened(dtype: str) -> str:
    """The dtype in which what is held in `dtype` is computed."""
    return {"f16": "f32", "bf16": "f32"}.get(dtype, dtype)


_VALUES: dict[Any, int] = {  # how many leading arguments are values; the others are attributes
    aten.clamp.default: 1, aten.hardtanh.default: 1, aten.clamp_min.default: 1,
    aten.clamp_max.default: 1, aten.gelu.default: 1, aten.elu.default: 1,
    aten.leaky_relu.default: 1, aten.softplus.default: 1, aten.pow.Tensor_Scalar: 1,
    aten.add.Scalar: 2, aten.sub.Scalar: 2, aten.rsub.Scalar: 2,
}  # fmt: skip


def _refusal(node: fx.Node, args: tuple[Any, ...], dtype: str) -> str | None:
    """Why an op is not computed in a dtype."""
    kind, target = DTYPES[dtype][1], node.target
    if kind != "f" and target in _DIVISIONS:
        return "integer division"
    if kind != "f" and target is aten.pow.Tensor_Tensor:
        return "integer power"
    if kind != "f" and target is aten.pow.Tensor_Scalar and args[1] not in (0, 1, 2, 3):
        return "integer power"
    if target in (aten.neg.default, aten.abs.default) and kind not in "fi":
        return f"{dtype} argument"
    if kind == "b" and POINTWISE[target][1] != "args" and target not in _BOOL_OK:
        return "bool arithmetic"
    if kind in "iu":
        limits = torch.iinfo(TORCH_DTYPE[dtype])
        count: int = _VALUES.get(target, len(args))
        numbers = [a for a in args[:count] if isinstance(a, int)]
        if any(not limits.min <= a <= limits.max for a in numbers):
            return f"a number that no {dtype} is"
    return "rounding of integers" if kind in "iu" and target in _ROUNDING else None


def _lower(low: Lowering, node: Any, *args: Any, **kwargs: Any) -> Any:
    expression, kind = POINTWISE[node.target]
    dtype = _promoted(list(args), DTYPE[node.meta["val"].dtype], kind)
    refusal = _refusal(node, args, dtype)
    if refusal is not None:
        return NotHandled(refusal)
    if dtype == "bool" and node.target in _ORDERS:
        dtype = "u8"
    wider = _widened(dtype)
    # eager compares in the promoted dtype itself, but keeps the scalars of arithmetic wide
    narrow = dtype if kind == "args" else wider
    count = _VALUES.get(node.target, len(args))

    def value(*index: Index) -> Expr:
        values: list[Any] = []
        for k, a in enumerate(args):
            if isinstance(a, Buffer):
                v = low.broadcast(a, index)
                values.append(cast(cast(v, narrow), wider))
            elif k < count and isinstance(a, (int, float)):
                if narrow != wider:
                    a = torch.from_numpy(np.array(float(a))).to(TORCH_DTYPE[narrow]).item()
                values.append(constant(a, wider))
            else:
                values.append(a)
        return expression(*values, **kwargs)

    return low.pointwise(low.output(node), value)


_DIVISIONS = frozenset(
    (aten.div.Tensor, aten.div.Scalar, aten.div.Tensor_mode, aten.div.Scalar_mode)
)
_BOOL_OK = frozenset((
    aten.bitwise_not.default, aten.bitwise_and.Tensor, aten.bitwise_or.Tensor,
    aten.bitwise_xor.Tensor, aten.bitwise_and.Scalar, aten.bitwise_or.Scalar,
    aten.bitwise_xor.Scalar, aten.add.Tensor, aten.add.Scalar, aten.mul.Tensor,
    aten.mul.Scalar, aten.maximum.default, aten.minimum.default,
))  # fmt: skip
_ORDERS = frozenset(
    getattr(getattr(aten, name), overload)
    for name in ("lt", "le", "gt", "ge")
    for overload in ("Tensor", "Scalar")
)
_ROUNDING = frozenset(
    (aten.floor.default, aten.ceil.default, aten.trunc.default, aten.round.default)
)
for _target in POINTWISE:
    RULES[_target] = _lower


def _where(low: Lowering, node: fx.Node, c: Buffer, a: Any, b: Any) -> Any:
    out = low.output(node)
    dtype = _widened(out.dtype)

    def value(*index: Index) -> Expr:
        branches = [
            cast(low.broadcast(x, index), dtype) if isinstance(x, Buffer) else constant(x, dtype)
            for x in (a, b)
        ]
        return op("where", cast(low.broadcast(c, index), "bool"), *branches, dtype=dtype)

    return low.pointwise(out, value)


def _convert(low: Lowering, node: fx.Node, x: Buffer, *args: Any, **kwargs: Any) -> Any:
    """Changes of dtype; layout and device are settled elsewhere."""
    return low.pointwise(low.output(node), lambda *i: low.load(x, i))


def _fill(low: Lowering, node: Any, *args: Any, **kwargs: Any) -> Any:
    values = {aten.zeros_like.default: 0, aten.ones_like.default: 1}
    v = args[0] if node.target is aten.scalar_tensor.default else values.get(node.target)
    if v is None:
        v = args[1] if len(args) > 1 else 0
    if not isinstance(v, (int, float)):
        return NotHandled("fill value is a tensor")
    out = low.output(node)
    return low.pointwise(out, lambda *i: constant(v, out.dtype))


RULES[aten.where.self] = _where
RULES[torch.ops.prims.convert_element_type.default] = _convert
RULES[aten._to_copy.default] = _convert
for _target in (
    aten.full.default,
    aten.scalar_tensor.default,
    aten.full_like.default,
    aten.zeros_like.default,
    aten.ones_like.default,
):
    RULES[_target] = _fill
