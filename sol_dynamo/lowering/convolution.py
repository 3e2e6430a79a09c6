"""Convolutions as plain loop nests with reduce axes.

Nothing here says how they are tiled: scheduling classifies the axes by who uses them. Padding is a
mask on the load; the bias is where the sum starts; groups are an axis that everything has. A
transposed convolution (and so the gradient of a convolution's input) is one dense convolution for
each residue of the output's position by the stride: no tap is multiplied by zeros between inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod
from typing import Any, NamedTuple

import torch
from torch import fx

from ..affine import Index
from ..ir import Axis, Buffer, Expr, Extern, Op, Reduce, Ref, Work, contiguous
from .graph import FUSED, VIEWS, Lowering, NotHandled, cast, origin, rule

aten = torch.ops.aten
SPATIAL = ("d", "h", "w")
CONTRACTIONS = {
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default,
    aten.convolution.default,
}  # fmt: skip
FEW = 16  # channels below which, as without taps, ATen's weight gradient is the faster one


@dataclass(frozen=True)
class Geometry:
    """Of one convolution, for each spatial dimension; weights are (out, in / groups, taps...), of
    transposed ones (in, out / groups, taps...)."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def names(self) -> tuple[str, ...]:
        return SPATIAL[3 - len(self.stride) :]

    def input(self, d: int, points: int, taps: int, size: int) -> tuple[Index, list[Index]]:
        """Where in a dimension of the input an output point's tap lies, and what must be >= 0."""
        a, stride, dilation, padding = (
            self.names[d],
            self.stride[d],
            self.dilation[d],
            self.padding[d],
        )
        p = Index.of(a) * stride + Index.of(f"k{a}") * dilation - padding
        last = (points - 1) * stride + (taps - 1) * dilation - padding
        return p, [*([p] if padding else []), *([size - 1 - p] if last >= size else [])]


@rule(aten.convolution.default)
def convolution(
    low: Lowering,
    node: fx.Node,
    x: Buffer,
    w: Buffer,
    bias: Buffer | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> Any:
    """y[n,o,p] = bias[o] + sum over i, k of x[n,i,p*s+k*d-pad] * w[o,i,k], in groups; transposed:
    y[n,o,p] = bias[o] + sum over i, q, k with q*s+k*d-pad = p of x[n,i,q] * w[i,o,k]."""
    spatial = len(x.shape) - 2
    if not low.summable(x.dtype, w.dtype):
        return NotHandled(f"convolution of {x.dtype} by {w.dtype}")
    if len(w.shape) != len(x.shape) or not 1 <= spatial <= len(SPATIAL):
        return NotHandled(f"convolution of {list(x.shape)} by {list(w.shape)}")
    g = geometry(spatial, stride, padding, dilation, groups)
    out = low.output(node)
    walked = x if transposed else out
    points = prod((walked.shape[0], *walked.shape[2:]))
    sizes = groups, points, out.shape[1] // groups, x.shape[1] // groups
    tail = None if transposed else _tail(low, node, out, x, w)
    if reason := _elsewhere(low, x.dtype, sizes, w, tail):
        if tail is not None:
            return _with_tail(low, node, Operands(out, x, w, bias, g), tail, reason)
        plain = not transposed and groups == 1 and not any(g.padding) and prod(w.shape[2:]) == 1
        if plain and low.unit("matmul", x.dtype) == low.unit("convolution", x.dtype):
            return _product(low, node, Operands(out, x, w, bias, g), reason)
        return NotHandled(reason)
    if transposed:
        _transposed(low, out, x, w, bias, g)
    else:
        _convolution(low, out, x, w, bias, g)
    return out


@rule(aten.convolution_backward.default)
def weight_gradient(
    low: Lowering,
    node: fx.Node,
    dy: Buffer,
    x: Buffer,
    w: Buffer,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    wanted: list[bool],
) -> Any:
    """dw[o,i,k] = sum over n, p of dy[n,o,p] * x[n,i,p*s+k*d-pad], in groups; the other gradients
    are ops of their own (`fx_passes.convolution_backward`). Of a transposed convolution dy and x
    change places."""
    spatial = len(x.shape) - 2
    if list(wanted) != [False, True, False]:
        return NotHandled("gradients of a convolution together")
    if not low.summable(x.dtype, dy.dtype, w.dtype):
        return NotHandled(f"weight gradient of {dy.dtype} by {x.dtype}")
    if len(w.shape) != len(x.shape) or not 1 <= spatial <= len(SPATIAL) or 0 in w.shape:
        return NotHandled(f"weight gradient of {list(x.shape)} by {list(w.shape)}")
    helped = not low.products.alone
    if helped and groups > 1 and (w.shape[1] == 1 or w.shape[0] == groups):
        return NotHandled("weight gradient of a depthwise convolution")
    if helped and (prod(w.shape[2:]) == 1 or w.shape[1] < FEW):
        return NotHandled("weight gradient that takes each element up few times")
    g = geometry(spatial, stride, padding, dilation, groups)
    if transposed:
        dy, x = x, dy
    sizes = groups, w.shape[0] // groups, w.shape[1], prod((dy.shape[0], *dy.shape[2:]))
    if reason := low.elsewhere("weight gradient", x.dtype, sizes, taps=prod(w.shape[2:])):
        return NotHandled(reason)
    out = low.output(node, 1)
    axes, index = [Axis("o", w.shape[0] // groups), Axis("i", w.shape[1])], ["o", "i"]
    into, of_dy, of_x = out, ["n", "o"], ["n", "i"]
    if groups > 1:
        into, dy, x = (
            _by_group(low, out, 0, groups),
            *(_by_group(low, b, 1, groups) for b in (dy, x)),
        )
        axes.insert(0, Axis("g", groups))
        index, of_dy, of_x = ["g", *index], ["n", "g", "o"], ["n", "g", "i"]
    where, position, mask = [], [], []
    for d, a in enumerate(g.names):
        taps, points, size = w.shape[2 + d], dy.shape[d - spatial], x.shape[d - spatial]
        axes.append(Axis(f"k{a}", taps))
        index.append(f"k{a}")
        where.append(Axis(a, points, "reduce"))
        p, guards = g.input(d, points, taps, size)
        position.append(p)
        mask += guards
    axes += [Axis("n", dy.shape[0], "reduce"), *where]
    left, right = low.factors(
        "convolution",
        low.load(dy, [*of_dy, *(point.symbol for point in where)]),
        low.load(x, [*map(Index.of, of_x), *position], mask, 0.0),
    )
    product = Op("mul", (left, right), left.dtype)
    low.compute(into, axes, index, product, Reduce("sum", left.dtype))
    return None, out, None


class Operands(NamedTuple):
    """Of a convolution that is a call of ATen; `out` is not made yet."""

    out: Buffer
    x: Buffer
    w: Buffer
    bias: Buffer | None
    g: Geometry


def _product(low: Lowering, node: fx.Node, given: Operands, reason: str) -> Buffer:
    """A convolution of one tap as ATen's product of matrices: (points, in) by (in, out)."""
    out, x, w, bias, g = given
    n, outs, *spatial = out.shape
    ins, points = x.shape[1], n * prod(spatial)
    rows = low.buffer(f"{node.name}_rows", x.dtype, (n, *spatial, ins))
    if all(s == 1 for s in g.stride) and _lies_as(x, x.shape, _channels_last(x.shape)):
        left = low.view(x, (points, ins), (ins, 1))
        del low.buffers[rows.name]
    else:

        def point(i: Index, *rest: Index) -> Expr:
            *where, c = rest
            return low.load(x, [i, c, *(p * s for p, s in zip(where, g.stride, strict=True))])

        left = low.view(low.pointwise(rows, point), (points, ins), (ins, 1))
    right = low.view(w, (ins, outs), (w.strides[1], w.strides[0]))
    made = low.buffer(f"{node.name}_product", out.dtype, (points, outs), scope="extern")
    op, first = (aten.mm.default, ()) if bias is None else (aten.addmm.default, (Ref(bias.name),))
    args = (*first, Ref(left.name), Ref(right.name))
    low.steps.append(
        Extern(node.name, op, args, (), (made.name,), origin=origin(node), reason=reason)
    )
    del low.buffers[out.name]
    return low.view(made, out.shape, _channels_last(out.shape))


def _lies_as(x: Buffer, shape: Sequence[int], strides: Sequence[int]) -> bool:
    return all(n == 1 or a == b for n, a, b in zip(shape, x.strides, strides, strict=True))


class Tail(NamedTuple):
    """What follows a convolution and is part of a call of ATen: perhaps a sum, and a ReLU."""

    nodes: tuple[fx.Node, ...]
    added: Buffer | None
    beside: Work | None = None  # what is added, if it is a sum of products for this alone


def _tail(low: Lowering, node: fx.Node, out: Buffer, x: Buffer, w: Buffer) -> Tail | None:
    """What alone reads a convolution, where ATen has a fast one with that inside."""
    fast = low.products.rectified and low.unit("convolution", x.dtype) in ("tf32", "half")
    if not fast or len(w.shape) == 3 or w.scope != "weight" or _prepared(node.args[0]):
        return None
    (user, *others), added, beside = node.users, None, None
    if others:
        return None
    if user.target is aten.add.Tensor and not user.kwargs and len(user.users) == 1:
        (other,) = [n for n in user.args if n is not node] or [None]
        added = low.env.get(other) if isinstance(other, fx.Node) else None
        if not isinstance(added, Buffer) or (added.dtype, added.shape) != (out.dtype, out.shape):
            return None
        if not _lies_as(added, added.shape, _channels_last(added.shape)):
            return None
        if isinstance(other, fx.Node) and len(other.users) == 1:
            beside = low.sums.get(other)
    relu = user if added is None else next(iter(user.users))
    if relu.target is not aten.relu.default:
        return None
    return Tail((relu,) if added is None else (user, relu), added, beside)


def _channels_last(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of memory with a point's channels together, point behind point."""
    inner = contiguous((shape[0], *shape[2:], shape[1]))
    return inner[0], 1, *inner[1:-1]


def _prepared(x: Any) -> bool:
    """Whether a value is computed point by point from what is there, which is part of a kernel of
    ours that reads it, and from no product, whose kernel it is part of."""
    return x.target in FUSED and not of_product(x)


def of_product(x: fx.Node) -> bool:
    """Whether a value is computed point by point from a product: then its kernel makes it."""
    seen, left = {x}, [x]
    while left:
        for n in left.pop().all_input_nodes:
            if n.target in CONTRACTIONS:
                return True
            if n.target in FUSED | VIEWS and n not in seen:
                seen.add(n)
                left.append(n)
    return False


def _with_tail(low: Lowering, node: fx.Node, given: Operands, tail: Tail, reason: str) -> Buffer:
    """A convolution by constant weights and what follows it as one call of ATen."""
    out, x, w, bias, g = given
    del low.buffers[out.name]
    strides = _channels_last(out.shape)
    made = low.buffer(tail.nodes[-1].name, out.dtype, out.shape, strides, scope="extern")
    weight = low.laid_out(w, _channels_last(w.shape))
    shift = None if bias is None else Ref(bias.name)
    how = (shift, list(g.stride), list(g.padding), list(g.dilation), g.groups)
    args: tuple[Any, ...] = (Ref(x.name), Ref(weight.name))
    op = aten.cudnn_convolution_relu.default
    if tail.added is not None:
        op, args = aten.cudnn_convolution_add_relu.default, (*args, Ref(tail.added.name), 1.0)
    low.steps.append(
        Extern(node.name, op, (*args, *how), (), (made.name,), origin=origin(node), reason=reason)
    )
    low.done |= dict.fromkeys(tail.nodes, made)
    return made


def _elsewhere(
    low: Lowering, dtype: str, sizes: tuple[int, int, int, int], w: Buffer, tail: Tail | None
) -> str:
    """Why ATen is to convolve, or ""; a depthwise convolution is none of sums over channels."""
    if 0 in sizes or sizes[-1] == 1:
        return ""
    taps, constant = prod(w.shape[2:]), w.scope == "weight"
    return low.elsewhere(
        "convolution",
        dtype,
        sizes,
        taps=taps,
        constant=constant,
        rectified=tail is not None,
        added=tail is not None and tail.added is not None,
        beside=None if tail is None else tail.beside,
    )


def geometry(
    spatial: int, stride: list[int], padding: list[int], dilation: list[int], groups: int
) -> Geometry:
    """One number stands for all dimensions."""

    def spread(values: list[int]) -> tuple[int, ...]:
        return tuple(values) if len(values) == spatial else (values[0],) * spatial

    return Geometry(spread(stride), spread(padding), spread(dilation), groups)


def _convolution(
    low: Lowering, out: Buffer, x: Buffer, w: Buffer, bias: Buffer | None, g: Geometry
) -> None:
    position, mask, taps = [], [], []
    for d, a in enumerate(g.names):
        size = w.shape[2 + d]
        taps.append(Axis(f"k{a}", size, "reduce"))
        p, guards = g.input(d, out.shape[2 + d], size, x.shape[2 + d])
        position.append(p)
        mask += guards
    weight = [Index.of(a.symbol) for a in taps]
    _contract(low, out, (x, position, mask), (w, weight), bias, taps, g)


def _transposed(
    low: Lowering, out: Buffer, x: Buffer, w: Buffer, bias: Buffer | None, g: Geometry
) -> None:
    """Outputs at p = s*t + r read the taps k with r + pad - k*d = 0 mod s, at q = t + (r + pad -
    k*d) / s: for each r of every dimension, a convolution of stride 1 to every s-th output.

    With c = gcd(d, s) these are k = first + j*(s/c), so that q = t + shift - j*(d/c).
    """
    phases = product(*(range(min(s, n)) for s, n in zip(g.stride, out.shape[2:], strict=True)))
    for phase in phases:
        shape, offset = list(out.shape), 0
        position, mask, taps, weight = [], [], [], []
        for d, (a, r) in enumerate(zip(g.names, phase, strict=True)):
            s, step, size = g.stride[d], out.strides[2 + d], w.shape[2 + d]
            shape[2 + d] = -(-(out.shape[2 + d] - r) // s)
            offset += r * step
            c = gcd(g.dilation[d], s)
            first = next(
                (k for k in range(size) if (r + g.padding[d] - k * g.dilation[d]) % s == 0), size
            )
            count = -(-(size - first) // (s // c))
            tap = Index.of(f"k{a}")
            taps.append(Axis(f"k{a}", count, "reduce"))
            weight.append(tap * (s // c) + first)
            shift, back = (r + g.padding[d] - first * g.dilation[d]) // s, g.dilation[d] // c
            q = Index.of(a) + shift - tap * back
            position.append(q)
            if shift - (count - 1) * back < 0:
                mask.append(q)
            if shape[2 + d] - 1 + shift >= x.shape[2 + d]:
                mask.append(x.shape[2 + d] - 1 - q)
        part = out
        if any(n > 1 for n in g.stride):
            strides = [
                *out.strides[:2],
                *(n * s for n, s in zip(out.strides[2:], g.stride, strict=True)),
            ]
            part = low.view(out, shape, strides, offset)
        _contract(low, part, (x, position, mask), (w, weight), bias, taps, g, transposed=True)


def _contract(
    low: Lowering,
    out: Buffer,
    left: tuple[Buffer, Sequence[Index], Sequence[Index]],
    right: tuple[Buffer, Sequence[Index]],
    bias: Buffer | None,
    taps: Sequence[Axis],
    g: Geometry,
    transposed: bool = False,
) -> None:
    """out[n,o,p] = bias[o] + sum over i, k of x[n,i,position] * w[o,i,weight], in groups.

    A depthwise convolution has no sum over channels, and its groups are its channels. With several
    channels a group, the channels of all three are two dimensions: the group, and those in it.
    """
    (x, position, mask), (w, weight) = left, right
    groups, outs, ins = g.groups, out.shape[1] // g.groups, x.shape[1] // g.groups
    n, group, o, i = map(Index.of, ("n", "g", "o", "i"))
    channels, reduces = [Axis("o", out.shape[1])], [*taps]
    of_x, of_w, of_out = [i], [i, o] if transposed else [o, i], [o]
    if groups > 1 and ins == 1:
        of_x = [o // outs]
        of_w = [o // outs, o % outs] if transposed else [o, Index()]
    else:
        reduces.insert(0, Axis("i", ins, "reduce"))
    if groups > 1 and ins != 1:
        channels = [Axis("g", groups), Axis("o", outs)]
        of_x, of_w, of_out = [group, *of_x], [group, *of_w], [group, *of_out]
        out, x = _by_group(low, out, 1, groups), _by_group(low, x, 1, groups)
        w = _by_group(low, w, 0, groups)
        bias = None if bias is None else _by_group(low, bias, 0, groups)
    spatial = [Axis(a, s) for a, s in zip(g.names, out.shape[-len(g.names) :], strict=True)]
    a, b = low.factors(
        "convolution",
        low.load(x, [n, *of_x, *position], mask, 0.0),
        low.load(w, [*of_w, *weight]),
    )
    start = None if bias is None else (cast(low.load(bias, of_out), a.dtype),)
    low.compute(
        out,
        [Axis("n", out.shape[0]), *channels, *spatial, *reduces],
        [n, *of_out, *(Index.of(a.symbol) for a in spatial)],
        Op("mul", (a, b), a.dtype),
        Reduce("sum", a.dtype, start),
    )


def _by_group(low: Lowering, b: Buffer, dim: int, groups: int) -> Buffer:
    """A view whose dimension `dim` is two: the group, and the position in it."""
    inner, step = b.shape[dim] // groups, b.strides[dim]
    shape = (*b.shape[:dim], groups, inner, *b.shape[dim + 1 :])
    strides = (*b.strides[:dim], inner * step, step, *b.strides[dim + 1 :])
    return low.view(b, shape, strides, name=f"{b.name}_groups")
