"""Reductions, softmax and norms: nests with reduce axes, several nests where one needs
another's result. Scheduling puts such nests into one kernel.

Sums longer than `WIDE` accumulate in float64, as eager's cascade would keep them accurate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, prod
from typing import Any

import torch
from torch import fx

from ..affine import Index
from ..ir import Axis, Buffer, Const, Expr, Iota, Op, Reduce
from .graph import Lowering, NotHandled, cast, rule

aten = torch.ops.aten
WIDE = 1024
_FLOAT = ("f32", "f64", "f16", "bf16")


def accumulator(dtype: str, length: int) -> str:
    """The dtype in which a sum of `length` terms is kept."""
    if dtype == "f32":
        return "f64" if length > WIDE else "f32"
    return {"f16": "f32", "bf16": "f32"}.get(dtype, dtype)


def _dims(dim: Any, rank: int) -> list[int]:
    if dim is None or dim == []:
        return list(range(rank))
    dims = [dim] if isinstance(dim, int) else list(dim)
    return sorted(d % rank for d in dims) if rank else []


def reduce_into(
    low: Lowering,
    outs: Buffer | Sequence[Buffer],
    x: Buffer,
    dims: list[int],
    keepdim: bool,
    monoid: str,
    values: Callable[[Expr, Index], Expr | Sequence[Expr]],
    acc: str,
) -> None:
    """outs[rest] = monoid over dims of values(x[...], the position along dims[0])."""
    axes, index, where = [], [], []
    for d, n in enumerate(x.shape):
        if d in dims:
            axes.append(Axis(f"r{d}", n, "reduce"))
            if keepdim:
                where.append(Index())
        else:
            axes.append(Axis(f"i{d}", n))
            where.append(Index.of(f"i{d}"))
        index.append(Index.of(axes[-1].symbol))
    axes.sort(key=lambda a: a.kind == "reduce")
    position = sum((index[d] * prod(x.shape[e] for e in dims if e > d) for d in dims), Index())
    low.compute(outs, axes, where, values(low.load(x, index), position), Reduce(monoid, acc))


def _scratch(
    low: Lowering, node: fx.Node, x: Buffer, dims: list[int], dtype: str, name: str
) -> Buffer:
    """A buffer of x's shape with the reduced dimensions kept at 1."""
    shape = [1 if d in dims else n for d, n in enumerate(x.shape)]
    return low.buffer(f"{node.name}_{name}", dtype, shape)


def _length(x: Buffer, dims: list[int]) -> int:
    return prod(x.shape[d] for d in dims)


@rule(aten.sum.default, aten.sum.dim_IntList)
def sum_(low, node, x, dim=None, keepdim=False, *, dtype=None) -> Any:
    dims = _dims(dim, len(x.shape))
    out = low.output(node)
    acc = accumulator(out.dtype, _length(x, dims))
    monoid = "any" if acc == "bool" else "sum"
    reduce_into(low, out, x, dims, keepdim, monoid, lambda v, _: cast(v, acc), acc)
    return out


@rule(aten.mean.default, aten.mean.dim)
def mean(low, node, x, dim=None, keepdim=False, *, dtype=None) -> Any:
    """The sum, then one division."""
    if x.dtype not in _FLOAT:
        return NotHandled(f"mean of {x.dtype}")
    dims = _dims(dim, len(x.shape))
    out = low.output(node)
    length = _length(x, dims)
    acc = accumulator(out.dtype, length)
    total = low.buffer(f"{node.name}_sum", acc, out.shape, out.strides)
    reduce_into(low, total, x, dims, keepdim, "sum", lambda v, _: cast(v, acc), acc)
    return low.pointwise(
        out, lambda *i: Op("div", (low.load(total, i), Const(float(length), acc)), acc)
    )


def _greatest(greatest: bool, dtype: str) -> str:
    """The monoid of the greatest or least value."""
    return ("any" if greatest else "all") if dtype == "bool" else ("max" if greatest else "min")


@rule(aten.amax.default, aten.amin.default)
def extremum(low, node, x, dim=(), keepdim=False) -> Any:
    name = _greatest(node.target is aten.amax.default, x.dtype)
    out = low.output(node)
    reduce_into(
        low, out, x, _dims(list(dim), len(x.shape)), keepdim, name, lambda v, _: v, out.dtype
    )
    return out


@rule(aten.max.default, aten.min.default)
def extremum_of_all(low, node, x) -> Any:
    name = _greatest(node.target is aten.max.default, x.dtype)
    out = low.output(node)
    reduce_into(low, out, x, _dims(None, len(x.shape)), False, name, lambda v, _: v, out.dtype)
    return out


@rule(aten.max.dim, aten.min.dim)
def extremum_with_index(low, node, x, dim, keepdim=False) -> Any:
    name = "argmax" if node.target is aten.max.dim else "argmin"
    if not x.shape or x.dtype not in ("f32", "f64", "i64", "i32"):
        return NotHandled(f"{name} of {x.dtype}{list(x.shape)}")
    outs = (low.output(node, 0), low.output(node, 1))
    pair = lambda v, p: (v, Iota(p, "i64"))  # noqa: E731
    reduce_into(low, outs, x, _dims(dim, len(x.shape)), keepdim, name, pair, x.dtype)
    return outs


@rule(aten.argmax.default, aten.argmin.default)
def arg(low, node, x, dim=None, keepdim=False) -> Any:
    name = "argmax" if node.target is aten.argmax.default else "argmin"
    if not x.shape or x.dtype not in ("f32", "f64", "i64", "i32"):
        return NotHandled(f"{name} of {x.dtype}{list(x.shape)}")
    out = low.output(node)
    best = low.buffer(f"{node.name}_value", x.dtype, out.shape)
    pair = lambda v, p: (v, Iota(p, "i64"))  # noqa: E731
    reduce_into(low, (best, out), x, _dims(dim, len(x.shape)), keepdim, name, pair, x.dtype)
    return out


@rule(aten.prod.default, aten.prod.dim_int)
def product(low, node, x, dim=None, keepdim=False, *, dtype=None) -> Any:
    out = low.output(node)
    acc = accumulator(out.dtype, 1)
    if acc == "bool":
        return NotHandled("product of bool")
    dims = _dims(dim, len(x.shape))
    reduce_into(low, out, x, dims, keepdim, "prod", lambda v, _: cast(v, acc), acc)
    return out


@rule(aten.linalg_vector_norm.default)
def vector_norm(low, node, x, ord=2, dim=None, keepdim=False, *, dtype=None) -> Any:
    """(sum of |x|^p)^(1/p); the greatest or least |x| for p = +-inf, the number of x != 0 for 0."""
    out = low.output(node)
    dims = _dims(dim, len(x.shape))
    length = _length(x, dims)
    if x.dtype not in _FLOAT or out.dtype not in _FLOAT or (not length and (ord < 1 or ord == inf)):
        return NotHandled(f"norm {ord} of {x.dtype}{list(x.shape)}")
    acc = accumulator(out.dtype, length)
    total = low.buffer(f"{node.name}_sum", acc, out.shape, out.strides)

    def term(v: Expr, _: Index) -> Expr:
        v = cast(v, acc)
        if ord == 0:
            return cast(Op("ne", (v, Const(0.0, acc)), "bool"), acc)
        if ord == 2:
            return Op("mul", (v, v), acc)
        size = Op("abs", (v,), acc)
        return size if ord in (1, inf, -inf) else Op("pow", (size, Const(float(ord), acc)), acc)

    monoid = "max" if ord == inf else "min" if ord == -inf else "sum"
    reduce_into(low, total, x, dims, keepdim, monoid, term, acc)

    def root(*i: Index) -> Expr:
        v = low.load(total, i)
        if ord in (0, 1, inf, -inf):
            return v
        if ord == 2:
            return Op("sqrt", (v,), acc)
        return Op("pow", (v, Const(1 / ord, acc)), acc)

    return low.pointwise(out, root)


@rule(aten.any.default, aten.any.dim, aten.all.default, aten.all.dim)
def any_all(low, node, x, dim=None, keepdim=False) -> Any:
    name = "any" if node.target in (aten.any.default, aten.any.dim) else "all"
    out = low.output(node)
    if out.dtype != "bool":
        return NotHandled(f"{name} giving {out.dtype}")
    dims = _dims(dim, len(x.shape))
    reduce_into(low, out, x, dims, keepdim, name, lambda v, _: cast(v, "bool"), "bool")
    return out


def _moments(
    low, node, x: Buffer, dims: list[int], divisor: float, acc: str
) -> tuple[Buffer, Buffer]:
    """Mean and sum of squared deviations / divisor, in two passes: exact where one pass is not."""
    length = _length(x, dims)
    total = _scratch(low, node, x, dims, acc, "sum")
    average = _scratch(low, node, x, dims, acc, "mean")
    squares = _scratch(low, node, x, dims, acc, "squares")
    variance = _scratch(low, node, x, dims, acc, "var")
    reduce_into(low, total, x, dims, True, "sum", lambda v, _: cast(v, acc), acc)
    low.pointwise(
        average, lambda *i: Op("div", (low.load(total, i), Const(float(length), acc)), acc)
    )
    full = [Index.of(f"{'r' if d in dims else 'i'}{d}") for d in range(len(x.shape))]

    def square(v: Expr, _: Index) -> Expr:
        centered = Op("sub", (cast(v, acc), low.broadcast(average, full)), acc)
        return Op("mul", (centered, centered), acc)

    reduce_into(low, squares, x, dims, True, "sum", square, acc)
    low.pointwise(variance, lambda *i: Op("div", (low.load(squares, i), Const(divisor, acc)), acc))
    return average, variance


def _squeezed(low: Lowering, node: fx.Node, b: Buffer, out: Buffer, dims: list[int], keepdim: bool):
    """out = b with the reduced dimensions dropped, if they are."""
    if keepdim:
        return low.copy(b, out)

    def value(*index: Index) -> Expr:
        rest = iter(index)
        return low.load(b, [Index() if d in dims else next(rest) for d in range(len(b.shape))])

    return low.pointwise(out, value)


@rule(aten.var.correction)
def var(low, node, x, dim=None, *, correction=None, keepdim=False) -> Any:
    if x.dtype not in ("f32", "f64"):
        return NotHandled(f"variance of {x.dtype}")
    dims = _dims(dim, len(x.shape))
    divisor = max(_length(x, dims) - (1 if correction is None else correction), 0)
    _, variance = _moments(low, node, x, dims, float(divisor), "f64")  # as eager
    return _squeezed(low, node, variance, low.output(node), dims, keepdim)


@rule(aten.var_mean.correction)
def var_mean(low, node, x, dim=None, *, correction=None, keepdim=False) -> Any:
    if x.dtype not in ("f32", "f64"):
        return NotHandled(f"variance of {x.dtype}")
    dims = _dims(dim, len(x.shape))
    divisor = max(_length(x, dims) - (1 if correction is None else correction), 0)
    average, variance = _moments(low, node, x, dims, float(divisor), "f64")
    return (
        _squeezed(low, node, variance, low.output(node, 0), dims, keepdim),
        _squeezed(low, node, average, low.output(node, 1), dims, keepdim),
    )


@rule(aten.native_layer_norm.default)
def layer_norm(low, node, x, shape, weight, bias, eps) -> Any:
    """(x - mean) / sqrt(var + eps) * weight + bias over the trailing dimensions."""
    if x.dtype not in ("f32", "f64"):
        return NotHandled(f"layer norm of {x.dtype}")
    rank = len(x.shape)
    dims = list(range(rank - len(shape), rank))
    length = _length(x, dims)
    acc = accumulator(x.dtype, length)
    average, variance = _moments(low, node, x, dims, float(length), acc)
    scale = _scratch(low, node, x, dims, acc, "rstd")

    def inverse(*i: Index) -> Expr:
        shifted = Op("add", (low.load(variance, i), Const(eps, acc)), acc)
        return Op("div", (Const(1.0, acc), Op("sqrt", (shifted,), acc)), acc)

    low.pointwise(scale, inverse)

    def value(*i: Index) -> Expr:
        centered = Op("sub", (cast(low.load(x, i), acc), low.broadcast(average, i)), acc)
        v = Op("mul", (centered, low.broadcast(scale, i)), acc)
        tail = i[rank - len(shape) :]
        if weight is not None:
            v = Op("mul", (v, cast(low.load(weight, tail), acc)), acc)
        if bias is not None:
            v = Op("add", (v, cast(low.load(bias, tail), acc)), acc)
        return v

    out = low.pointwise(low.output(node, 0), value)
    rest = [None, None]
    for k, b in ((1, average), (2, scale)):
        if any(u.args[1] == k for u in node.users):
            rest[k - 1] = low.copy(b, low.output(node, k))
    return (out, *rest)


def _channel_sums(
    low: Lowering, node: fx.Node, x: Buffer, **values: Callable[[Sequence[Index]], Expr]
) -> list[Buffer]:
    """For each channel (dimension 1 of x) the sums of some values at all its points, in float64."""
    axes = [Axis(f"i{d}", n, "parallel" if d == 1 else "reduce") for d, n in enumerate(x.shape)]
    axes.sort(key=lambda a: a.kind == "reduce")
    index = [Index.of(f"i{d}") for d in range(len(x.shape))]
    sums = []
    for name, value in values.items():
        out = low.buffer(f"{node.name}_{name}", "f64", (x.shape[1],))
        low.compute(out, axes, [index[1]], cast(value(index), "f64"), Reduce("sum", "f64"))
        sums.append(out)
    return sums


def _f64(name: str, *args: Expr) -> Expr:
    return Op(name, tuple(cast(a, "f64") for a in args), "f64")


def _per_channel(
    low: Lowering, node: fx.Node, name: str, dtype: str, channels: int, value: Callable
) -> Buffer:
    return low.pointwise(low.buffer(f"{node.name}_{name}", dtype, (channels,)), value)


def _normalized(
    low: Lowering,
    node: fx.Node,
    x: Buffer,
    weight: Buffer | None,
    bias: Buffer | None,
    mean: Buffer,
    rstd: Buffer,
) -> Buffer:
    """The node's first result: x * scale + shift, which are computed in float64, once a channel,
    and rounded; halves are scaled in float32."""
    wide = x.dtype if x.dtype == "f64" else "f32"
    channels = x.shape[1]

    def factor(c: Index) -> Expr:
        v = low.load(rstd, [c])
        return v if weight is None else _f64("mul", v, low.load(weight, [c]))

    scale = _per_channel(low, node, "scale", wide, channels, lambda c: cast(factor(c), wide))

    def offset(c: Index) -> Expr:
        start = Const(0.0, "f64") if bias is None else low.load(bias, [c])
        moved = _f64("mul", low.load(mean, [c]), low.load(scale, [c]))
        return cast(_f64("sub", start, moved), wide)

    shift = _per_channel(low, node, "shift", wide, channels, offset)

    def normalized(*i: Index) -> Expr:
        scaled = Op("mul", (cast(low.load(x, i), wide), low.load(scale, [i[1]])), wide)
        return cast(Op("add", (scaled, low.load(shift, [i[1]])), wide), x.dtype)

    return low.pointwise(low.output(node, 0), normalized)


@rule(aten._native_batch_norm_legit_no_training.default)
def batch_norm_of_evaluation(low, node, x, weight, bias, mean, var, momentum, eps) -> Any:
    """x * scale + shift by statistics that are given, for those of other inputs than weights (of
    weights, a pass has made both already). The further results are the statistics; a CPU's have no
    elements."""
    if x.dtype not in _FLOAT or 0 in x.shape:
        return NotHandled(f"batch norm of {x.dtype}")

    def inverse(c: Index) -> Expr:
        root = _f64("sqrt", _f64("add", low.load(var, [c]), Const(eps, "f64")))
        return _f64("div", Const(1.0, "f64"), root)

    rstd = _per_channel(low, node, "rstd", "f64", x.shape[1], inverse)
    results = [_normalized(low, node, x, weight, bias, mean, rstd)]
    results += [low.copy(b, low.output(node, k)) for k, b in ((1, mean), (2, rstd))]
    return tuple(results)


@rule(aten._native_batch_norm_legit_functional.default, aten._native_batch_norm_legit.no_stats)
def batch_norm(low, node, x, weight, bias, *args) -> Any:
    """x * scale + shift by the statistics of x over all but dimension 1, which are results too, as
    are the running statistics moved towards them; everything but the result in float64.

    Sums are of distances from each channel's first point, so that a mean far from zero costs none
    of the variance's digits.
    """
    *running, training, momentum, eps = args
    if x.dtype not in _FLOAT or 0 in x.shape:
        return NotHandled(f"batch norm of {x.dtype}")
    if not training:
        if not running:
            return NotHandled("batch norm of evaluation without statistics")
        made = batch_norm_of_evaluation(low, node, x, weight, bias, *running, momentum, eps)
        return *made, *(low.copy(b, low.output(node, 3 + k)) for k, b in enumerate(running))
    length = float(_length(x, [d for d in range(len(x.shape)) if d != 1]))
    zero = [Index()] * len(x.shape)

    def first(c: Index) -> Expr:
        return cast(low.load(x, [zero[0], c, *zero[2:]]), "f64")

    def distance(i: Sequence[Index]) -> Expr:
        return _f64("sub", low.load(x, i), first(i[1]))

    total, squares = _channel_sums(
        low, node, x, sum=distance, squares=lambda i: _f64("mul", distance(i), distance(i))
    )

    def channel(name: str, value: Callable[[Index], Expr]) -> Buffer:
        return _per_channel(low, node, name, "f64", x.shape[1], value)

    def off(c: Index) -> Expr:
        return _f64("div", low.load(total, [c]), Const(length, "f64"))

    mean = channel("mean", lambda c: _f64("add", first(c), off(c)))

    def spread(c: Index) -> Expr:
        mean_square = _f64("div", low.load(squares, [c]), Const(length, "f64"))
        return _f64("max", _f64("sub", mean_square, _f64("mul", off(c), off(c))), Const(0.0, "f64"))

    variance = channel("var", spread)

    def inverse(c: Index) -> Expr:
        root = _f64("sqrt", _f64("add", low.load(variance, [c]), Const(eps, "f64")))
        return _f64("div", Const(1.0, "f64"), root)

    rstd = channel("rstd", inverse)

    results = [_normalized(low, node, x, weight, bias, mean, rstd)]
    results += [low.copy(b, low.output(node, k)) for k, b in ((1, mean), (2, rstd))]
    unbiased = length / max(length - 1, 1)
    for k, (old, new, by) in enumerate(
        zip(running, (mean, variance), (1.0, unbiased), strict=False)
    ):

        def moved(c: Index, old=old, new=new, by=by) -> Expr:
            fresh = _f64("mul", low.load(new, [c]), Const(momentum * by, "f64"))
            return _f64("add", fresh, _f64("mul", low.load(old, [c]), Const(1 - momentum, "f64")))

        results.append(low.pointwise(low.output(node, 3 + k), moved))
    return tuple(results)


@rule(aten.native_batch_norm_backward.default)
def batch_norm_backward(
    low, node, dy, x, weight, running_mean, running_var, save_mean, save_rstd, train, eps, wanted
) -> Any:
    """dx = scale * ((dy - mean(dy)) - (x - m) * rstd^2 * mean(dy * (x - m))), with the sums for the
    weight and the bias; what is one number a channel is computed in float64.

    The mean is subtracted first: of gradients that hardly differ, what is left is exact then.
    In evaluation, m and rstd are the running statistics, which depend on nothing.
    """
    if x.dtype not in _FLOAT or dy.dtype != x.dtype or 0 in x.shape:
        return NotHandled(f"batch norm backward of {dy.dtype} by {x.dtype}")
    wide = x.dtype if x.dtype == "f64" else "f32"
    if (save_mean if train else running_mean) is None:
        return NotHandled("batch norm backward without statistics")
    length = Const(float(_length(x, [d for d in range(len(x.shape)) if d != 1])), "f64")

    def mean(c: Index) -> Expr:
        return low.load(save_mean if train else running_mean, [c])

    def rstd(c: Index) -> Expr:
        if train:
            return low.load(save_rstd, [c])
        root = _f64("sqrt", _f64("add", low.load(running_var, [c]), Const(eps, "f64")))
        return _f64("div", Const(1.0, "f64"), root)

    def distance(i: Sequence[Index], dtype: str) -> Expr:
        return Op("sub", (cast(low.load(x, i), dtype), cast(mean(i[1]), dtype)), dtype)

    total, product = _channel_sums(
        low,
        node,
        x,
        sum=lambda i: low.load(dy, i),
        product=lambda i: _f64("mul", low.load(dy, i), distance(i, "f64")),
    )

    def channel(name: str, value: Callable[[Index], Expr]) -> Buffer:
        return _per_channel(low, node, name, wide, x.shape[1], lambda c: cast(value(c), wide))

    def factor(c: Index) -> Expr:
        return rstd(c) if weight is None else _f64("mul", rstd(c), low.load(weight, [c]))

    def slope(c: Index) -> Expr:
        of_mean = _f64("div", low.load(product, [c]), length)
        return _f64("mul", _f64("mul", rstd(c), rstd(c)), of_mean)

    def level(c: Index) -> Expr:
        return _f64("div", low.load(total, [c]), length)

    results: list[Buffer | None] = [None, None, None]
    if wanted[0]:
        scale = channel("scale", factor)
        slopes, levels = (
            (channel("slope", slope), channel("level", level)) if train else (None,) * 2
        )

        def gradient(*i: Index) -> Expr:
            v = cast(low.load(dy, i), wide)
            if slopes is not None and levels is not None:
                v = Op("sub", (v, low.load(levels, [i[1]])), wide)
                part = Op("mul", (distance(i, wide), low.load(slopes, [i[1]])), wide)
                v = Op("sub", (v, part), wide)
            return cast(Op("mul", (v, low.load(scale, [i[1]])), wide), x.dtype)

        results[0] = low.pointwise(low.output(node, 0), gradient)
    if wanted[1]:
        of_weight = lambda c: _f64("mul", low.load(product, [c]), rstd(c))  # noqa: E731
        results[1] = low.pointwise(low.output(node, 1), of_weight)
    if wanted[2]:
        results[2] = low.copy(total, low.output(node, 2))
    return tuple(results)


@rule(aten._softmax.default, aten._log_softmax.default)
def softmax(low, node, x, dim, half_to_float) -> Any:
    """exp(x - max) / sum, or x - max - log(sum)."""
    if x.dtype not in ("f32", "f64") or not x.shape:
        return NotHandled(f"softmax of {x.dtype}{list(x.shape)}")
    dims = _dims(dim, len(x.shape))
    acc = accumulator(x.dtype, _length(x, dims))
    top = _scratch(low, node, x, dims, x.dtype, "max")
    total = _scratch(low, node, x, dims, acc, "sum")
    reduce_into(low, top, x, dims, True, "max", lambda v, _: v, x.dtype)
    full = [Index.of(f"{'r' if d in dims else 'i'}{d}") for d in range(len(x.shape))]

    def shifted(v: Expr, index: Sequence[Index]) -> Expr:
        return Op("sub", (v, low.broadcast(top, index)), x.dtype)

    if node.target is aten._log_softmax.default:
        each = lambda v, _: cast(Op("exp", (shifted(v, full),), x.dtype), acc)  # noqa: E731
        reduce_into(low, total, x, dims, True, "sum", each, acc)

        def value(*i: Index) -> Expr:
            log = cast(Op("log", (low.broadcast(total, i),), acc), x.dtype)
            return Op("sub", (shifted(low.load(x, i), i), log), x.dtype)

        return low.pointwise(low.output(node), value)
    out = low.output(node)
    powers = low.buffer(f"{node.name}_exp", x.dtype, x.shape, out.strides)
    low.pointwise(powers, lambda *i: Op("exp", (shifted(low.load(x, i), i),), x.dtype))
    reduce_into(low, total, powers, dims, True, "sum", lambda v, _: cast(v, acc), acc)
    return low.pointwise(
        out,
        lambda *i: Op(
            "div", (low.load(powers, i), cast(low.broadcast(total, i), x.dtype)), x.dtype
        ),
    )


__all__ = ["accumulator", "reduce_into"]
