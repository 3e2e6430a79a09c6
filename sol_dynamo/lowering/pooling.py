"""Pooling, forward and backward, as reductions over windows.

A dimension of a pooling is a `Window`: which positions belong to a point, as an index over the
point's axis and a reduce axis, and under which masks. Forward, a point of the output reduces over
its window of the input. Backward, a point of the input reduces over the output points whose windows
hold it: a gather in eager's order of addition, which needs no scatter. Adaptive windows are the
same either way, with the sizes exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, inf, prod
from typing import Any, NamedTuple

import torch
from torch import fx

from ..affine import Index
from ..ir import HALVES, Axis, Buffer, Const, Expr, Iota, Load, Op, Reduce
from .graph import Lowering, NotHandled, cast, constant, rule
from .reduction import accumulator

aten = torch.ops.aten


class Window(NamedTuple):
    """Positions along one dimension that belong to a point: `position` for each r < `taps` under
    which every mask is >= 0."""

    taps: int
    position: Index
    mask: tuple[Index, ...]


@dataclass(frozen=True)
class Sliding:
    """Windows of one dimension that slide over it: window o has the positions
    o * stride + r * dilation - padding, r < size."""

    n: int  # input points
    windows: int
    size: int
    stride: int
    padding: int
    dilation: int = 1

    def window(self, o: Index, r: Index) -> Window:
        """The input points of window o."""
        p = o * self.stride + r * self.dilation - self.padding
        last = (self.windows - 1) * self.stride + (self.size - 1) * self.dilation - self.padding
        mask = [p] if self.padding else []
        mask += [self.n - 1 - p] if last >= self.n else []
        return Window(self.size, p, tuple(mask))

    def holders(self, p: Index, r: Index) -> Window:
        """The windows that reach over input point p, in ascending order (where they are dilated,
        not all of them hold it)."""
        reach = (self.size - 1) * self.dilation
        taps = reach // self.stride + 1
        o = (p + self.padding) // self.stride - (taps - 1) + r
        mask = [o] if self.padding // self.stride < taps - 1 else []
        mask += (
            [self.windows - 1 - o]
            if (self.n - 1 + self.padding) // self.stride >= self.windows
            else []
        )
        if (reach + 1) % self.stride:  # the farthest one may end before p
            mask.append(reach - (p + self.padding) % self.stride - self.stride * (taps - 1 - r))
        return Window(taps, o, tuple(mask))

    def count(self, o: Index, padded: bool) -> Expr | int:
        """How many points window o has, those of the padding among them or not."""
        low, high = (-self.padding, self.n + self.padding) if padded else (0, self.n)
        start = o * self.stride - self.padding
        first, last = -self.padding, (self.windows - 1) * self.stride - self.padding
        inside = first >= low and last + self.size <= high
        if inside:
            return self.size
        ends = Op("min", (_i32(start + self.size), Const(high, "i32")), "i32")
        starts = Op("max", (_i32(start), Const(low, "i32")), "i32")
        return Op("sub", (ends, starts), "i32")


@dataclass(frozen=True)
class Adaptive:
    """Windows of one dimension that cover it: window o has the positions from
    floor(o * n / windows) to ceil((o + 1) * n / windows)."""

    n: int
    windows: int

    def _ends(self, o: Index) -> tuple[Index, Index]:
        """First and last position of window o."""
        g = gcd(self.n, self.windows)
        n, windows = self.n // g, self.windows // g
        return (o * n) // windows, (o * n + (n - 1)) // windows

    def _sizes(self) -> list[int]:
        ends = (self._ends(Index.of(o)) for o in range(self.windows))
        return [last.const - first.const + 1 for first, last in ends]

    def window(self, o: Index, r: Index) -> Window:
        """The input points of window o."""
        first, last = self._ends(o)
        sizes = self._sizes()
        p = first + r
        return Window(max(sizes), p, (last - p,) if min(sizes) < max(sizes) else ())

    def holders(self, p: Index, r: Index) -> Window:
        """The windows that hold input point p: from floor(p * windows / n) to
        ceil((p + 1) * windows / n)."""
        return Adaptive(self.windows, self.n).window(p, r)

    def count(self, o: Index, padded: bool = False) -> Expr | int:
        """How many points window o has."""
        sizes = self._sizes()
        if min(sizes) == max(sizes):
            return sizes[0]
        first, last = self._ends(o)
        return _i32(last - first + 1)


Pool = Sequence[Sliding | Adaptive]  # the trailing dimensions


def _i32(x: Index) -> Expr:
    return Iota(x, "i32")


def _each(v: Any, n: int, default: Any = None) -> list[int]:
    """A number for each dimension, of one for all."""
    v = list(v) if isinstance(v, (list, tuple)) else [v]
    if not v:
        return list(default)
    return v * n if len(v) == 1 else v


def _sliding(
    n: Sequence[int], windows: Sequence[int], kernel: Any, stride: Any, padding: Any, dilation: Any
) -> list[Sliding | Adaptive]:
    """The dimensions of a pooling of n points to so many windows, as its arguments say."""
    kernel = _each(kernel, len(n))
    stride = _each(stride, len(n), kernel)
    rest = _each(padding, len(n)), _each(dilation, len(n))
    return [Sliding(*d) for d in zip(n, windows, kernel, stride, *rest, strict=True)]


def _adaptive(n: Sequence[int], windows: Sequence[int]) -> list[Sliding | Adaptive]:
    return [Adaptive(*d) for d in zip(n, windows, strict=True)]


class Reach(NamedTuple):
    """A nest in which each point reduces over its windows."""

    axes: list[Axis]
    here: list[Index]  # the point
    there: list[Index]  # the positions in its windows
    mask: tuple[Index, ...]


def _reach(shape: Sequence[int], pool: Pool, back: bool = False) -> Reach:
    """From the points of a shape to their windows, or `back` to the windows that hold them."""
    here = [Index.of(f"i{d}") for d in range(len(shape))]
    axes = [Axis(f"i{d}", n) for d, n in enumerate(shape)]
    there = here[: len(shape) - len(pool)]
    mask: list[Index] = []
    for k, (dim, point) in enumerate(zip(pool, here[len(shape) - len(pool) :], strict=True)):
        w = (dim.holders if back else dim.window)(point, Index.of(f"r{k}"))
        axes.append(Axis(f"r{k}", w.taps, "reduce"))
        there.append(w.position)
        mask += w.mask
    return Reach(axes, here, there, tuple(mask))


def _flat(index: Sequence[Index], shape: Sequence[int]) -> Index:
    """The position in a plane, in row-major order."""
    flat = Index()
    for i, n in zip(index, shape, strict=True):
        flat = flat * n + i
    return flat


# -- the greatest --------------------------------------------------------------------------------


def _max(low: Lowering, node: fx.Node, x: Buffer, pool: Pool) -> Any:
    """Each window's maximum and, where somebody asks, its position in the input plane."""
    if x.dtype not in ("f32", "f64", *HALVES):
        return NotHandled(f"max pooling of {x.dtype}")
    wide = accumulator(x.dtype, 1)
    out = low.output(node, 0)
    if 0 in out.shape:
        return out, low.output(node, 1)
    reach = _reach(out.shape, pool)
    v = cast(low.load(x, reach.there, reach.mask, -inf), wide)
    if not any(u.args[1] == 1 for u in node.users):
        low.compute(out, reach.axes, reach.here, v, Reduce("max", wide))
        return out, None
    second = low.output(node, 1)
    # Eager keeps the first of equal numbers but the last NaN: NaN at p is said to be at -1 - p.
    # What the mask keeps out is -inf at the greatest position, and so loses every tie.
    plane = x.shape[-len(pool) :]
    position = Iota(_flat(reach.there[-len(pool) :], plane), "i64")
    mirrored = Op("sub", (Const(-1, "i64"), position), "i64")
    place: Expr = Op("where", (Op("isnan", (v,), "bool"), mirrored, position), "i64")
    for m in reach.mask:
        inside = Op("ge", (Iota(m), Const(0, "i64")), "bool")
        place = Op("where", (inside, place, Const(2**63 - 1, "i64")), "i64")
    found = low.buffer(f"{node.name}_place", "i64", second.shape, second.strides)
    low.compute((out, found), reach.axes, reach.here, (v, place), Reduce("argmax", wide))

    def decoded(*i: Index) -> Expr:
        p = low.load(found, i)
        mirror = Op("sub", (Const(-1, "i64"), p), "i64")
        return Op("where", (Op("lt", (p, Const(0, "i64")), "bool"), mirror, p), "i64")

    return out, low.pointwise(second, decoded)


def _max_backward(
    low: Lowering, node: fx.Node, dy: Buffer, x: Buffer, indices: Buffer, pool: Pool
) -> Any:
    """dx[p] = sum of dy[o] over the windows o whose maximum is at p."""
    if dy.dtype not in ("f32", "f64") or x.dtype != dy.dtype:
        return NotHandled(f"max pooling backward of {dy.dtype}")
    out = low.output(node)
    if 0 in dy.shape:
        return low.pointwise(out, lambda *i: constant(0, out.dtype))
    reach = _reach(out.shape, pool, back=True)
    own = Iota(_flat(reach.here[-len(pool) :], out.shape[-len(pool) :]), "i64")
    chosen = Op("eq", (low.load(indices, reach.there, reach.mask, -1), own), "bool")
    part = low.load(dy, reach.there, reach.mask, 0.0)
    value = Op("where", (chosen, part, Const(0.0, dy.dtype)), dy.dtype)
    low.compute(out, reach.axes, reach.here, value, Reduce("sum", dy.dtype))
    return out


@rule(aten.max_pool2d_with_indices.default, aten.max_pool3d_with_indices.default)
def max_pool(low, node, x, kernel, stride=(), padding=(0,), dilation=(1,), ceil_mode=False) -> Any:
    """y[o] = max of x[o * stride + r * dilation - padding] over r, and where it is."""
    n = 2 if node.target is aten.max_pool2d_with_indices.default else 3
    windows = node.meta["val"][0].shape[-n:]
    return _max(low, node, x, _sliding(x.shape[-n:], windows, kernel, stride, padding, dilation))


@rule(aten.max_pool2d_with_indices_backward.default, aten.max_pool3d_with_indices_backward.default)
def max_pool_backward(low, node, dy, x, kernel, stride, padding, dilation, ceil_mode, at) -> Any:
    """dx[p] = sum of dy[o] over the windows o whose maximum is at p."""
    n = 2 if node.target is aten.max_pool2d_with_indices_backward.default else 3
    pool = _sliding(x.shape[-n:], dy.shape[-n:], kernel, stride, padding, dilation)
    return _max_backward(low, node, dy, x, at, pool)


@rule(aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
def adaptive_max_pool(low, node, x, size) -> Any:
    """y[o] = max of x from floor(o * n / size) to ceil((o + 1) * n / size), and where it is."""
    n = 2 if node.target is aten.adaptive_max_pool2d.default else 3
    return _max(low, node, x, _adaptive(x.shape[-n:], node.meta["val"][0].shape[-n:]))


@rule(aten.adaptive_max_pool2d_backward.default, aten.adaptive_max_pool3d_backward.default)
def adaptive_max_pool_backward(low, node, dy, x, at) -> Any:
    """dx[p] = sum of dy[o] over the windows o whose maximum is at p."""
    n = 2 if node.target is aten.adaptive_max_pool2d_backward.default else 3
    return _max_backward(low, node, dy, x, at, _adaptive(x.shape[-n:], dy.shape[-n:]))


# -- the average ---------------------------------------------------------------------------------


def _divided(v: Expr, counts: Sequence[Expr | int], dtype: str) -> Expr:
    """v / product of counts"""
    fixed = prod(c for c in counts if isinstance(c, int))
    size: Expr | None = None
    for c in counts:
        if isinstance(c, Expr):
            c = cast(c, dtype)
            size = c if size is None else Op("mul", (size, c), dtype)
    if size is None:
        size = Const(float(fixed), dtype)
    elif fixed != 1:
        size = Op("mul", (size, Const(float(fixed), dtype)), dtype)
    return Op("div", (v, size), dtype)


def _counts(pool: Pool, o: Sequence[Index], padded: bool, divisor: int | None) -> list[Expr | int]:
    """What the sum of a window is divided by, as factors."""
    if divisor is not None:
        return [divisor]
    return [d.count(i, padded) for d, i in zip(pool, o[-len(pool) :], strict=True)]


def _average(
    low: Lowering, node: fx.Node, x: Buffer, pool: Pool, padded=False, divisor: int | None = None
) -> Any:
    """Each window's sum divided by its size (or the divisor given)."""
    if x.dtype not in ("f32", "f64"):
        return NotHandled(f"average pooling of {x.dtype}")
    out = low.output(node)
    if 0 in out.shape:
        return out
    reach = _reach(out.shape, pool)
    acc = accumulator(x.dtype, prod(a.extent for a in reach.axes if a.kind == "reduce"))
    total = low.buffer(f"{node.name}_sum", acc, out.shape, out.strides)
    value = cast(low.load(x, reach.there, reach.mask, 0.0), acc)
    low.compute(total, reach.axes, reach.here, value, Reduce("sum", acc))
    return low.pointwise(
        out, lambda *i: _divided(low.load(total, i), _counts(pool, i, padded, divisor), acc)
    )


def _average_backward(
    low: Lowering, node: fx.Node, dy: Buffer, pool: Pool, padded=False, divisor: int | None = None
) -> Any:
    """dx[p] = sum of dy[o] / size[o] over the windows o that hold p."""
    if dy.dtype not in ("f32", "f64"):
        return NotHandled(f"average pooling backward of {dy.dtype}")
    out = low.output(node)
    if 0 in dy.shape:
        return low.pointwise(out, lambda *i: constant(0, out.dtype))
    strides = _like(dy, out)
    share = low.buffer(f"{node.name}_share", dy.dtype, dy.shape, strides)
    low.pointwise(
        share, lambda *i: _divided(low.load(dy, i), _counts(pool, i, padded, divisor), dy.dtype)
    )
    reach = _reach(out.shape, pool, back=True)
    acc = accumulator(dy.dtype, prod(a.extent for a in reach.axes if a.kind == "reduce"))
    value: Load = low.load(share, reach.there, reach.mask, 0.0)
    low.compute(out, reach.axes, reach.here, cast(value, acc), Reduce("sum", acc))
    return out


def _like(b: Buffer, other: Buffer) -> tuple[int, ...]:
    """Strides of b's shape in which its dimensions have the order of another buffer's."""
    order = sorted(range(len(b.shape)), key=lambda d: (-other.strides[d], d))
    strides, step = [0] * len(b.shape), 1
    for d in reversed(order):
        strides[d] = step
        step *= max(b.shape[d], 1)
    return tuple(strides)


@rule(aten.avg_pool2d.default, aten.avg_pool3d.default)
def avg_pool(
    low,
    node,
    x,
    kernel,
    stride=(),
    padding=(0,),
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
) -> Any:
    """y[o] = sum of x[o * stride + r - padding] over r, / size; windows that reach beyond the end
    of the padding are smaller, and so are those that reach beyond the input if padding does not
    count."""
    n = 2 if node.target is aten.avg_pool2d.default else 3
    windows = node.meta["val"].shape[-n:]
    pool = _sliding(x.shape[-n:], windows, kernel, stride, padding, 1)
    return _average(low, node, x, pool, count_include_pad, divisor_override)


@rule(aten.avg_pool2d_backward.default, aten.avg_pool3d_backward.default)
def avg_pool_backward(
    low, node, dy, x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override
) -> Any:
    """dx[p] = sum of dy[o] / size[o] over the windows o that hold p."""
    n = 2 if node.target is aten.avg_pool2d_backward.default else 3
    pool = _sliding(x.shape[-n:], dy.shape[-n:], kernel, stride, padding, 1)
    return _average_backward(low, node, dy, pool, count_include_pad, divisor_override)


@rule(aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default)
def adaptive_avg_pool(low, node, x, size) -> Any:
    """y[o] = average of x from floor(o * n / size) to ceil((o + 1) * n / size)."""
    n = 2 if node.target is aten._adaptive_avg_pool2d.default else 3
    return _average(low, node, x, _adaptive(x.shape[-n:], node.meta["val"].shape[-n:]))


@rule(aten._adaptive_avg_pool2d_backward.default, aten._adaptive_avg_pool3d_backward.default)
def adaptive_avg_pool_backward(low, node, dy, x) -> Any:
    """dx[p] = sum of dy[o] / size[o] over the windows o that hold p."""
    n = 2 if node.target is aten._adaptive_avg_pool2d_backward.default else 3
    return _average_backward(low, node, dy, _adaptive(x.shape[-n:], dy.shape[-n:]))
