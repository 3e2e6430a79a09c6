"""Resampling to other sizes (nearest, linear, cubic), forward and backward.

A point of the output is a weighted sum of a few input points along each dimension, its taps. For
the nearest these are found by asking eager itself, whose rounding decides, and written as an index
that divides; the others compute positions and weights as eager does. Backward, an input point sums
over the output points that may have it as a tap: a gather over a range whose start is an index,
which compares each tap with the own position, so that there is no scatter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, nan
from typing import Any, NamedTuple

import numpy as np
import torch

from ..affine import Index
from ..compat import place_to_ask, plain_dispatch
from ..ir import Axis, Bind, Buffer, Const, Expr, Iota, Op, Reduce
from .graph import TORCH_DTYPE, Lowering, NotHandled, cast, constant, rule

aten = torch.ops.aten
_CUBIC = -0.75  # the coefficient of the cubic convolution


class Tap(NamedTuple):
    """An input point along one dimension of which an output point is made."""

    position: Expr  # i64
    weight: Expr


@dataclass(frozen=True)
class Resampling:
    """One dimension: `n` points become `size`. `ratio`: input points per output point, rounded as
    eager rounds it."""

    n: int
    size: int
    ratio: float
    align_corners: bool
    cubic: bool
    dtype: str

    def taps(self, o: Index) -> list[Tap]:
        """What output point o is made of."""
        if self.n == self.size and not self.cubic:
            return [Tap(Iota(o, "i64"), self._number(1.0))]
        source = self._source(o)
        first = self._least(cast(Op("floor", (source,), self.dtype), "i64"))
        away = self._op("sub", source, cast(first, self.dtype))
        t = self._op("min", self._op("max", away, self._number(0.0)), self._number(1.0))
        rest = self._op("sub", self._number(1.0), t)
        if not self.cubic:
            second = self._least(Op("add", (first, Const(1, "i64")), "i64"))
            return [Tap(first, rest), Tap(second, t)]
        one = self._number(1.0)
        weights = (
            self._far(self._op("add", t, one)),
            self._near(t),
            self._near(rest),
            self._far(self._op("add", rest, one)),
        )
        return [
            Tap(self._inside(Op("add", (first, Const(k - 1, "i64")), "i64")), w)
            for k, w in enumerate(weights)
        ]

    def _number(self, value: float) -> Const:
        return Const(value, self.dtype)

    def _op(self, name: str, a: Expr, b: Expr) -> Expr:
        return Op(name, (a, b), self.dtype)

    def _source(self, o: Index) -> Expr:
        """Where output point o lies between the input's points."""
        ratio, half = self._number(self.ratio), self._number(0.5)
        x = cast(Iota(o, "i32"), self.dtype)
        if self.align_corners:
            return self._op("mul", ratio, x)
        source = self._op("sub", self._op("mul", ratio, self._op("add", x, half)), half)
        return source if self.cubic else self._op("max", source, self._number(0.0))

    def _least(self, p: Expr) -> Expr:
        return Op("min", (p, Const(self.n - 1, "i64")), "i64")

    def _inside(self, p: Expr) -> Expr:
        return self._least(Op("max", (p, Const(0, "i64")), "i64"))

    def _near(self, x: Expr) -> Expr:
        """((A + 2) x - (A + 3)) x^2 + 1: the weight at a distance of at most 1."""
        v = self._op("mul", self._number(_CUBIC + 2), x)
        v = self._op("sub", v, self._number(_CUBIC + 3))
        v = self._op("mul", self._op("mul", v, x), x)
        return self._op("add", v, self._number(1.0))

    def _far(self, x: Expr) -> Expr:
        """((A x - 5 A) x + 8 A) x - 4 A: the weight at a distance of 1 to 2."""
        v = self._op("mul", self._number(_CUBIC), x)
        v = self._op("mul", self._op("sub", v, self._number(5 * _CUBIC)), x)
        v = self._op("mul", self._op("add", v, self._number(8 * _CUBIC)), x)
        return self._op("sub", v, self._number(4 * _CUBIC))

    def cover(self) -> Cover:
        """Where the output points are of which an input point is a tap."""
        return cover(self._touched(), self.n)

    def share(self, c: Cover, p: Index, r: Index) -> Expr:
        """The weight that input point p has in the r-th point of its cover; NaN: it has none."""
        o = c.first(p) + r
        weight: Expr = self._number(nan)
        for tap in self.taps(o):
            here = Op("eq", (tap.position, Iota(p, "i64")), "bool")
            more = self._op("add", weight, tap.weight)
            first = Op("isnan", (weight,), "bool")
            more = Op("where", (first, tap.weight, more), self.dtype)
            weight = Op("where", (here, more, weight), self.dtype)
        for m in _beyond(c, o, self.n, self.size):
            inside = Op("ge", (Iota(m), Const(0, "i64")), "bool")
            weight = Op("where", (inside, weight, self._number(nan)), self.dtype)
        return weight

    def _touched(self) -> list[tuple[int, int]]:
        """The first and the last input point that each output point may have as a tap, however its
        place is rounded."""
        ratio = Fraction(self.ratio)
        before, behind = (1, 2) if self.cubic else (0, 1)
        spans = []
        for o in range(self.size):
            x = o * ratio if self.align_corners else (o + Fraction(1, 2)) * ratio - Fraction(1, 2)
            x = x if self.cubic else max(x, Fraction(0))
            off = (abs(x) + 1) / (1 << 20)
            low, high = floor(x - off) - before, floor(x + off) + behind
            spans.append((min(max(low, 0), self.n - 1), max(min(high, self.n - 1), 0)))
        return spans


def _ratio(n: int, size: int, scale: float | None, align_corners: bool, dtype: str) -> float:
    """Input points per output point in the dtype, as eager rounds it."""

    def number(value: float) -> torch.Tensor:
        return torch.tensor(value, dtype=TORCH_DTYPE[dtype])

    if align_corners:
        return float(number(n - 1) / (size - 1)) if size > 1 else 0.0
    if scale is not None and scale > 0:
        return float(number(1.0 / scale))
    return float(number(n) / size)


@dataclass(frozen=True)
class Cover:
    """Output points that may be made of input point p: (p * step + shift) // divisor and on."""

    step: int
    divisor: int
    shift: int
    count: int

    def first(self, p: Index) -> Index:
        return (p * self.step + self.shift) // self.divisor


def cover(spans: Sequence[tuple[int, int]], n: int) -> Cover:
    """A cover of n input points, given the first and the last that each output point touches."""
    lowest: dict[int, int] = {}
    highest: dict[int, int] = {}
    for o, (first, last) in enumerate(spans):
        for p in range(first, last + 1):
            lowest.setdefault(p, o)
            highest[p] = o
    slope = Fraction(len(spans), n)
    step, divisor = slope.numerator, slope.denominator
    shift = min(o * divisor + divisor - 1 - p * step for p, o in lowest.items())
    count = max(o - (p * step + shift) // divisor + 1 for p, o in highest.items())
    return Cover(step, divisor, shift, count)


def _beyond(c: Cover, o: Index, n: int, size: int) -> list[Index]:
    """The masks that keep the points of a cover of n points inside the output."""
    last = ((n - 1) * c.step + c.shift) // c.divisor + c.count - 1
    mask = [o] if c.shift < 0 else []
    return [*mask, size - 1 - o] if last >= size else mask


def _gather(
    low: Lowering,
    out: Buffer,
    dy: Buffer,
    covers: Sequence[tuple[Cover, Sequence[Callable[[Index, Index], Index]]]],
    value: Callable[[Expr, Sequence[Index], Sequence[Index]], Expr] = lambda e, p, r: e,
) -> Buffer:
    """out[p] = sum of value(dy[o], p, r) over the r-th points o of the covers, where further masks
    of (p, o) hold."""
    axes = [Axis(f"i{d}", n) for d, n in enumerate(out.shape)]
    here = [Index.of(a.symbol) for a in axes]
    steps = [Index.of(f"r{k}") for k in range(len(covers))]
    there = here[:2]
    mask: list[Index] = []
    for (c, more), p, r, n, size in zip(
        covers, here[2:], steps, out.shape[2:], dy.shape[2:], strict=True
    ):
        there.append(c.first(p) + r)
        axes.append(Axis(next(iter(r.symbols)), c.count, "reduce"))
        mask += _beyond(c, there[-1], n, size)
        mask += [m(p, there[-1]) for m in more]
    e = value(low.load(dy, there, mask, 0.0), here[2:], steps)
    low.compute(out, axes, here, e, Reduce("sum", dy.dtype))
    return out


# -- linear and cubic ----------------------------------------------------------------------------


def _dimensions(
    n: Sequence[int],
    size: Sequence[int],
    scales: Sequence[float | None],
    align: bool,
    cubic: bool,
    dtype: str,
) -> list[Resampling]:
    scales = [*scales, *[None] * (len(n) - len(scales))]
    return [
        Resampling(a, b, _ratio(a, b, s, align, dtype), align, cubic, dtype)
        for a, b, s in zip(n, size, scales, strict=True)
    ]


@rule(
    aten.upsample_linear1d.default, aten.upsample_bilinear2d.default,
    aten.upsample_trilinear3d.default, aten.upsample_bicubic2d.default,
)  # fmt: skip
def interpolate(low, node, x, size, align_corners, *scales) -> Any:
    """y[o] = sum of weight * x[position] over the taps of o, dimension by dimension."""
    if x.dtype not in ("f32", "f64"):
        return NotHandled(f"resampling of {x.dtype}")
    cubic = node.target is aten.upsample_bicubic2d.default
    out = low.output(node)
    if 0 in out.shape:
        return out
    dims = _dimensions(x.shape[2:], out.shape[2:], scales, align_corners, cubic, x.dtype)
    axes = [Axis(f"i{d}", n) for d, n in enumerate(out.shape)]
    here = [Index.of(a.symbol) for a in axes]
    binds: list[Bind] = []
    taps: list[list[tuple[Index, Expr]]] = []
    for d, (dim, o) in enumerate(zip(dims, here[2:], strict=True)):
        taps.append([])
        for k, tap in enumerate(dim.taps(o)):
            if isinstance(tap.position, Iota):
                taps[-1].append((tap.position.index, tap.weight))
                continue
            binds.append(Bind(f"x{d}_{k}", tap.position, dim.n))
            taps[-1].append((Index.of(f"x{d}_{k}"), tap.weight))

    def value(index: list[Index]) -> Expr:
        d = len(index) - 2
        if d == len(taps):
            return low.load(x, index)
        total: Expr | None = None
        for position, weight in taps[d]:
            v = value([*index, position])
            if len(taps[d]) > 1:
                v = Op("mul", (v, weight), x.dtype)
            total = v if total is None else Op("add", (total, v), x.dtype)
        assert total is not None
        return total

    low.compute(out, axes, here, value(here[:2]), binds=binds)
    return out


@rule(
    aten.upsample_linear1d_backward.default, aten.upsample_bilinear2d_backward.default,
    aten.upsample_trilinear3d_backward.default, aten.upsample_bicubic2d_backward.default,
)  # fmt: skip
def interpolate_backward(low, node, dy, size, shape, align_corners, *scales) -> Any:
    """dx[p] = sum of weight * dy[o] over the output points o of which p is a tap."""
    if dy.dtype not in ("f32", "f64"):
        return NotHandled(f"resampling backward of {dy.dtype}")
    cubic = node.target is aten.upsample_bicubic2d_backward.default
    out = low.output(node)
    if 0 in dy.shape:
        return low.pointwise(out, lambda *i: constant(0, out.dtype))
    dims = _dimensions(out.shape[2:], dy.shape[2:], scales, align_corners, cubic, dy.dtype)

    covers = [d.cover() for d in dims]
    tables = [
        low.pointwise(
            low.buffer(f"{node.name}_weight{k}", dy.dtype, (c.count, d.n)),
            lambda r, p, d=d, c=c: d.share(c, p, r),
        )
        for k, (d, c) in enumerate(zip(dims, covers, strict=True))
    ]

    def value(e: Expr, p: Sequence[Index], r: Sequence[Index]) -> Expr:
        """dy * weights, nothing where one is none."""
        none: Expr = Const(False, "bool")
        for table, i, j in zip(tables, r, p, strict=True):
            weight = low.load(table, [i, j])
            e = Op("mul", (e, weight), dy.dtype)
            none = Op("or", (none, Op("isnan", (weight,), "bool")), "bool")
        return Op("where", (none, Const(0.0, dy.dtype), e), dy.dtype)

    return _gather(low, out, dy, [(c, []) for c in covers], value)


# -- nearest -------------------------------------------------------------------------------------

_NEAREST = (
    aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d,
)  # fmt: skip
_EXACT = (
    aten._upsample_nearest_exact1d, aten._upsample_nearest_exact2d, aten._upsample_nearest_exact3d,
)  # fmt: skip
_NEAREST_BACKWARD = (
    aten.upsample_nearest1d_backward, aten.upsample_nearest2d_backward,
    aten.upsample_nearest3d_backward,
)  # fmt: skip
_EXACT_BACKWARD = (
    aten._upsample_nearest_exact1d_backward, aten._upsample_nearest_exact2d_backward,
    aten._upsample_nearest_exact3d_backward,
)  # fmt: skip
MANY_CHANNELS = 64  # of which more change no position
LARGEST = 1 << 24  # positions that float32 holds exactly


@dataclass(frozen=True)
class Nearest:
    """One dimension: output point o is input point table[o] = (o * step + shift) // divisor."""

    n: int
    table: tuple[int, ...]
    step: int
    divisor: int
    shift: int

    def position(self, o: Index) -> Index:
        return (o * self.step + self.shift) // self.divisor

    def cover(self) -> tuple[Cover, list[Callable[[Index, Index], Index]]]:
        """Where the output points (o) are that are an input point (p), with the masks that leave
        others out."""
        c = cover([(t, t) for t in self.table], self.n)
        for p in range(self.n):
            start = (p * c.step + c.shift) // c.divisor
            if start < 0 or self.table[start : start + c.count] != (p,) * c.count:
                return c, [lambda p, o: self.position(o) - p, lambda p, o: p - self.position(o)]
        return c, []


def nearest_positions(
    exact: bool,
    n: int,
    size: int,
    scale: float | None,
    channels_last: bool,
    dtype: str,
    channels: int = 2,
    device: torch.device | None = None,
) -> tuple[int, ...]:
    """Which of n points eager takes for each of `size`: its rounding depends on the layout, on the
    device, and there on the number of channels, too."""
    op = aten._upsample_nearest_exact2d if exact else aten.upsample_nearest2d
    layout = torch.channels_last if channels_last else torch.contiguous_format
    with plain_dispatch():
        x = torch.from_numpy(np.arange(n)).to(device=device, dtype=TORCH_DTYPE[dtype])
        x = x.view(1, 1, n, 1).repeat(1, channels, 1, 1).contiguous(memory_format=layout)
        return tuple(op(x, [size, 1], scale, None)[0, 0, :, 0].long().tolist())


def nearest(n: int, table: tuple[int, ...], scale: float | None) -> Nearest | None:
    """Positions as an index that divides, or None where rounding left no line to follow."""
    slopes = [Fraction(n, len(table))]
    if scale:
        slopes += [Fraction(1 / scale).limit_denominator(d) for d in (16, 256, 4096, 1 << 20)]
    for slope in dict.fromkeys(slopes):
        step, divisor = slope.numerator, slope.denominator
        shift = max(t * divisor - o * step for o, t in enumerate(table))
        if all((o * step + shift) // divisor == t for o, t in enumerate(table)):
            return Nearest(n, table, step, divisor, shift)
    return None


def _nearest(
    exact: bool,
    n: Sequence[int],
    size: Sequence[int],
    scales: Sequence[float | None],
    channels_last: bool,
    dtype: str,
    channels: int = 2,
    device: torch.device | None = None,
) -> list[Nearest] | NotHandled:
    if max(n) >= LARGEST:
        return NotHandled("resampling of that many points")
    dims: list[Nearest] = []
    for a, b, s in zip(n, size, [*scales, *[None] * (len(n) - len(scales))], strict=True):
        table = nearest_positions(exact, a, b, s, channels_last, dtype, channels, device)
        dim = nearest(a, table, s)
        if dim is None:
            return NotHandled("resampling to positions that no division gives")
        dims.append(dim)
    return dims


def _is_channels_last(value: torch.Tensor) -> bool:
    """Whether eager takes its path for channels-last tensors."""
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(value.dim())
    return layout is not None and value.is_contiguous(memory_format=layout)


@rule(*(op.default for op in (*_NEAREST, *_EXACT)))
def take_nearest(low, node, x, size, *scales) -> Any:
    """y[o] = x[position(o)]"""
    if x.dtype not in ("f32", "f64", "f16", "bf16"):
        return NotHandled(f"resampling of {x.dtype}")
    out = low.output(node)
    if 0 in out.shape:
        return out
    exact = node.target in [op.default for op in _EXACT]
    value = node.args[0].meta["val"]
    wide = "f64" if x.dtype == "f64" else "f32"
    channels = min(max(x.shape[1], 2), MANY_CHANNELS)
    dims = _nearest(
        exact, x.shape[2:], out.shape[2:], scales, _is_channels_last(value), wide, channels,
        place_to_ask(value),
    )  # fmt: skip
    if isinstance(dims, NotHandled):
        return dims
    return low.pointwise(
        out,
        lambda *i: low.load(
            x, [*i[:2], *(d.position(o) for d, o in zip(dims, i[2:], strict=True))]
        ),
    )


@rule(*(op.default for op in (*_NEAREST_BACKWARD, *_EXACT_BACKWARD)))
def take_nearest_backward(low, node, dy, size, shape, *scales) -> Any:
    """dx[p] = sum of dy[o] over the output points o that are input point p."""
    if dy.dtype not in ("f32", "f64"):
        return NotHandled(f"resampling backward of {dy.dtype}")
    out = low.output(node)
    if 0 in dy.shape:
        return low.pointwise(out, lambda *i: constant(0, out.dtype))
    exact = node.target in [op.default for op in _EXACT_BACKWARD]
    # backward, eager takes the positions of the channels-last path for every layout
    dims = _nearest(exact, out.shape[2:], dy.shape[2:], scales, True, dy.dtype)
    if isinstance(dims, NotHandled):
        return dims
    return _gather(low, out, dy, [d.cover() for d in dims])
