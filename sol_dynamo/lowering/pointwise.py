"""Pointwise ATen ops: one table from op to expression, eager's type promotion around it.

Half-precision operands are computed in float32 and rounded once at the store, as eager does per op.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, pi, sqrt
from typing import Any

import numpy as np
import torch
from torch import fx

from ..affine import Index
from ..ir import DTYPES, Buffer, Const, Expr, Op
from .graph import DTYPE, FUSED, RULES, TORCH_DTYPE, Lowering, NotHandled, cast, constant

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
    if rounding_mode == "trunc" and DTYPES[a.dtype][1] != "f":
        down = op("floordiv", a, b)
        return op("where", _rounds_up(a, b), op("add", down, like(a, 1)), down)
    q = op("div", a, b)
    return op("trunc", q) if rounding_mode == "trunc" else q


def _rounds_up(a: Expr, b: Expr) -> Expr:
    """Where an integer quotient that is rounded towards zero is greater than rounded down."""
    rest, zero = op("mod", a, b), like(a, 0)
    signs = compare("ne")(compare("lt")(a, zero), compare("lt")(b, zero))
    return op("and", compare("ne")(rest, zero), signs)


def _fmod(a: Expr, b: Expr) -> Expr:
    """The remainder that has the dividend's sign."""
    if DTYPES[a.dtype][1] == "f":
        return op("fmod", a, b)
    rest = op("mod", a, b)
    return op("where", _rounds_up(a, b), op("sub", rest, b), rest)


def _shift(name: str) -> Callable[..., Expr]:
    """A shift by less than nothing or by all bits and more gives zero, or the sign in each bit."""

    def f(a: Expr, b: Expr) -> Expr:
        size, kind = DTYPES[a.dtype]
        last = 8 * size - 1
        inside = op("and", compare("ge")(b, like(b, 0)), compare("le")(b, like(b, last)))
        beyond = op("shr", a, like(a, last)) if name == "shr" and kind == "i" else like(a, 0)
        return op("where", inside, op(name, a, op("and", b, like(b, last))), beyond)

    return f


def _number(name: str) -> Callable[..., Expr]:
    """The greater or lesser of two values, the number if one is NaN."""

    def f(a: Expr, b: Expr) -> Expr:
        either = arithmetic(name)(a, b)
        if DTYPES[a.dtype][1] != "f":
            return either
        return op("where", _isnan(a), b, op("where", _isnan(b), a, either))

    return f


def _signbit(x: Expr) -> Expr:
    kind = DTYPES[x.dtype][1]
    if kind == "f":
        return Op("signbit", (x,), "bool")
    return compare("lt")(x, like(x, 0)) if kind == "i" else Const(False, "bool")


def _copysign(x: Expr, sign: Expr) -> Expr:
    size = op("abs", x)
    return op("where", _signbit(sign), op("neg", size), size)


def _isinf(x: Expr) -> Expr:
    if DTYPES[x.dtype][1] != "f":
        return Const(False, "bool")
    return compare("eq")(op("abs", x), like(x, inf))


def _angle(x: Expr) -> Expr:
    side = op("where", compare("lt")(x, like(x, 0.0)), like(x, pi), like(x, 0.0))
    return op("where", _isnan(x), x, side)


def _round(x: Expr, decimals: int = 0) -> Expr:
    ten = like(x, 10.0 ** abs(decimals))
    up, down = ("mul", "div") if decimals > 0 else ("div", "mul")
    return op(down, op("round", op(up, x, ten)), ten)


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


def call(name: str) -> Callable[..., Expr]:
    return lambda *args: op(name, *args)


# op -> (expression over promoted arguments, kind of promotion)
# "same": the result's dtype; "float": as "same", integers computed as floats; "args": comparisons
POINTWISE: dict[Any, tuple[Callable[..., Expr], str]] = {
    aten.add.Tensor: (_alpha("add"), "same"), aten.add.Scalar: (_alpha("add"), "same"),
    aten.sub.Tensor: (_alpha("sub"), "same"), aten.sub.Scalar: (_alpha("sub"), "same"),
    aten.rsub.Scalar: (lambda a, b, alpha=1: _alpha("sub")(b, a, alpha), "same"),
    aten.mul.Tensor: (arithmetic("mul"), "same"), aten.mul.Scalar: (arithmetic("mul"), "same"),
    aten.div.Tensor: (_div, "same"), aten.div.Scalar: (_div, "same"),
    aten.div.Tensor_mode: (_div, "same"), aten.div.Scalar_mode: (_div, "same"),
    aten.neg.default: (call("neg"), "same"), aten.abs.default: (call("abs"), "same"),
    aten.relu.default: (lambda x: op("max", x, like(x, 0)), "same"),
    aten.clamp.default: (_clamp, "same"), aten.clamp.Tensor: (_clamp, "same"),
    aten.hardtanh.default: (lambda x, a=-1, b=1: _clamp(x, a, b), "same"),
    aten.clamp_min.default: (lambda x, a: _clamp(x, a), "same"),
    aten.clamp_max.default: (lambda x, a: _clamp(x, None, a), "same"),
    aten.maximum.default: (arithmetic("max"), "same"),
    aten.minimum.default: (arithmetic("min"), "same"),
    aten.sigmoid.default: (call("sigmoid"), "float"), aten.tanh.default: (call("tanh"), "float"),
    aten.exp.default: (call("exp"), "float"), aten.expm1.default: (call("expm1"), "float"),
    aten.log.default: (call("log"), "float"), aten.log1p.default: (call("log1p"), "float"),
    aten.log2.default: (call("log2"), "float"), aten.log10.default: (call("log10"), "float"),
    aten.sqrt.default: (call("sqrt"), "float"), aten.rsqrt.default: (call("rsqrt"), "float"),
    aten.sin.default: (call("sin"), "float"), aten.cos.default: (call("cos"), "float"),
    aten.tan.default: (call("tan"), "float"), aten.erf.default: (call("erf"), "float"),
    aten.reciprocal.default: (lambda x: op("div", like(x, 1.0), x), "float"),
    aten.floor.default: (call("floor"), "same"), aten.ceil.default: (call("ceil"), "same"),
    aten.trunc.default: (call("trunc"), "same"), aten.round.default: (call("round"), "same"),
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
    aten.isnan.default: (_isnan, "args"), aten.isinf.default: (_isinf, "args"),
    aten.signbit.default: (_signbit, "args"),
    aten.asin.default: (call("asin"), "float"), aten.acos.default: (call("acos"), "float"),
    aten.atan.default: (call("atan"), "float"), aten.sinh.default: (call("sinh"), "float"),
    aten.cosh.default: (call("cosh"), "float"), aten.asinh.default: (call("asinh"), "float"),
    aten.acosh.default: (call("acosh"), "float"), aten.atanh.default: (call("atanh"), "float"),
    aten.erfc.default: (call("erfc"), "float"), aten.exp2.default: (call("exp2"), "float"),
    aten.lgamma.default: (call("lgamma"), "float"), aten.angle.default: (_angle, "float"),
    aten.atan2.default: (call("atan2"), "float"), aten.hypot.default: (call("hypot"), "same"),
    aten.copysign.Tensor: (_copysign, "float"), aten.copysign.Scalar: (_copysign, "float"),
    aten.fmod.Tensor: (_fmod, "same"), aten.fmod.Scalar: (_fmod, "same"),
    aten.remainder.Tensor: (call("mod"), "same"), aten.remainder.Scalar: (call("mod"), "same"),
    aten.remainder.Scalar_Tensor: (call("mod"), "same"),
    aten.fmax.default: (_number("max"), "same"), aten.fmin.default: (_number("min"), "same"),
    aten.round.decimals: (_round, "same"), aten.pow.Scalar: (call("pow"), "same"),
    aten.bitwise_left_shift.Tensor: (_shift("shl"), "same"),
    aten.bitwise_left_shift.Tensor_Scalar: (_shift("shl"), "same"),
    aten.bitwise_right_shift.Tensor: (_shift("shr"), "same"),
    aten.bitwise_right_shift.Tensor_Scalar: (_shift("shr"), "same"),
    aten.__lshift__.Tensor: (_shift("shl"), "same"),
    aten.__lshift__.Scalar: (_shift("shl"), "same"),
    aten.__rshift__.Tensor: (_shift("shr"), "same"),
    aten.__rshift__.Scalar: (_shift("shr"), "same"),
    aten.logical_not.default: (lambda x: op("not", cast(x, "bool")), "args"),
    aten.logical_and.default: (lambda a, b: op("and", cast(a, "bool"), cast(b, "bool")), "args"),
    aten.logical_or.default: (lambda a, b: op("or", cast(a, "bool"), cast(b, "bool")), "args"),
    aten.logical_xor.default: (lambda a, b: op("xor", cast(a, "bool"), cast(b, "bool")), "args"),
    aten.bitwise_not.default: (call("not"), "same"),
    aten.bitwise_and.Tensor: (call("and"), "same"), aten.bitwise_and.Scalar: (call("and"), "same"),
    aten.bitwise_or.Tensor: (call("or"), "same"), aten.bitwise_or.Scalar: (call("or"), "same"),
    aten.bitwise_xor.Tensor: (call("xor"), "same"), aten.bitwise_xor.Scalar: (call("xor"), "same"),
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
    aten.add.Scalar: 2, aten.sub.Scalar: 2, aten.rsub.Scalar: 2, aten.round.decimals: 1,
}  # fmt: skip


def _refusal(node: fx.Node, args: tuple[Any, ...], dtype: str) -> str | None:
    """Why an op is not computed in a dtype."""
    kind, target = DTYPES[dtype][1], node.target
    if kind != "f" and target in _DIVISIONS and not (isinstance(args[1], int) and args[1] != 0):
        return "integer division by what may be zero"
    if kind != "f" and target in (aten.pow.Tensor_Tensor, aten.pow.Scalar):
        return "integer power"
    if kind not in "iu" and target in _SHIFTS:
        return f"a shift of {dtype}"
    if target is aten.round.decimals and dtype not in ("f32", "f64"):
        return f"decimals of {dtype}"
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
    narrow = dtype if kind == "args" or node.target in _NARROW else wider
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


_DIVISIONS = frozenset((
    aten.div.Tensor, aten.div.Scalar, aten.div.Tensor_mode, aten.div.Scalar_mode,
    aten.fmod.Tensor, aten.fmod.Scalar, aten.remainder.Tensor, aten.remainder.Scalar,
    aten.remainder.Scalar_Tensor,
))  # fmt: skip
_NARROW = frozenset((  # whose scalars eager converts to the tensors' dtype
    aten.fmod.Tensor, aten.fmod.Scalar, aten.remainder.Tensor, aten.remainder.Scalar,
    aten.remainder.Scalar_Tensor, aten.copysign.Tensor, aten.copysign.Scalar, aten.pow.Scalar,
    aten.atan2.default, aten.hypot.default,
))  # fmt: skip
_SHIFTS = frozenset((
    aten.bitwise_left_shift.Tensor, aten.bitwise_left_shift.Tensor_Scalar,
    aten.bitwise_right_shift.Tensor, aten.bitwise_right_shift.Tensor_Scalar,
    aten.__lshift__.Tensor, aten.__lshift__.Scalar, aten.__rshift__.Tensor,
    aten.__rshift__.Scalar,
))  # fmt: skip
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
FUSED.update(POINTWISE)


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
