"""One row of sample inputs per ATen op that lowering has a rule for.

A row says which op, how its results are compared (`exact`: bit by bit with eager; `equal`: the same
but for the sign of zeros; `each`: every element within a few ulp; `rms`: the contract of
accuracy.py; `random`: as samples of one distribution; `shape`: not at all) and on what: odd sizes,
strides, zero-size, 0-d, broadcasting, special values, ties, every dtype that the rule claims. `T`
describes an input; `T.make` draws it from a seed. Nothing here knows how samples are run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import inf, nan
from typing import Any

import torch

aten, prims = torch.ops.aten, torch.ops.prims

f64, f32, f16, bf16 = torch.float64, torch.float32, torch.float16, torch.bfloat16
i64, i32, i16, i8, u8, b8 = (
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool
)  # fmt: skip


@dataclass(frozen=True)
class T:
    """A tensor to draw. `values`: normal, positive, wide (exp overflows), unit, ties (few distinct
    values), special (NaN, infinities, zeros of both signs, subnormals, the largest numbers),
    nonfinite (the same without the largest: sums of them depend on the order), nan, low
    (-inf among numbers, whole rows of it), small (integers that fit any dtype). `layout`: dense,
    transposed (last two dimensions), strided (every second element, not at the start), expanded
    (stride 0 along dimension 0), channels_last, gaps (rows of a wider tensor)."""

    shape: tuple[int, ...]
    dtype: torch.dtype = f32
    values: str = "normal"
    layout: str = "dense"

    def make(self, g: torch.Generator) -> torch.Tensor:
        shape = list(self.shape)
        if self.layout == "transposed":
            return self._draw([*shape[:-2], shape[-1], shape[-2]], g).transpose(-1, -2)
        if self.layout == "strided":
            return self._draw([*shape[:-1], 2 * shape[-1] + 3], g)[..., 3::2][..., : shape[-1]]
        if self.layout == "gaps":
            return self._draw([*shape[:-1], shape[-1] + 2], g)[..., 1:-1]
        if self.layout == "expanded":
            return self._draw([1, *shape[1:]], g).expand(shape)
        if self.layout == "channels_last":
            order = [0, *range(2, len(shape)), 1]
            back = [order.index(d) for d in range(len(shape))]
            return self._draw([shape[d] for d in order], g).permute(back)
        return self._draw(shape, g)

    def _draw(self, shape: list[int], g: torch.Generator) -> torch.Tensor:
        if self.dtype is b8:
            return torch.rand(shape, generator=g) < 0.5
        if not self.dtype.is_floating_point:
            low, high = {"ties": (0, 3), "positive": (1, 6), "small": (0, 5)}.get(
                self.values, (0 if self.dtype is u8 else -9, 10)
            )
            x = torch.randint(low, high, shape, generator=g).to(self.dtype)
            limits = torch.iinfo(self.dtype)
            return self._mixed(x, [limits.max, limits.min, 0], g)
        x = torch.randn(shape, generator=g, dtype=f64)
        if self.values in ("positive", "unit"):
            x = torch.rand(shape, generator=g, dtype=f64) * (4 if self.values == "positive" else 1)
            x = x + 0.01
        elif self.values == "wide":
            x = x * 60
        elif self.values == "ties":
            x = torch.randint(-1, 2, shape, generator=g).to(f64)
        elif self.values == "small":
            x = torch.randint(-4, 5, shape, generator=g) / 2
        elif self.values == "low":
            x = torch.where(torch.rand(shape, generator=g) < 0.5, x, -inf)
            if x.dim() and len(x) > 1:
                x[0] = -inf
        t = torch.finfo(self.dtype)
        special = [nan, inf, -inf, 0.0, -0.0, t.tiny / 4, -t.tiny / 4, 0.5, -1.5, 2.5]
        special = {"special": [*special, t.max, t.min], "nan": [nan, -0.0]}.get(
            self.values, special
        )
        return self._mixed(x.to(self.dtype), special, g)

    def _mixed(self, x: torch.Tensor, special: list[Any], g: torch.Generator) -> torch.Tensor:
        """Special values at random places."""
        if self.values in ("special", "nonfinite", "nan") and x.numel():
            places = torch.randperm(x.numel(), generator=g)[: max(len(special), x.numel() // 5)]
            drawn = (special * len(places))[: len(places)]
            x.view(-1)[places] = torch.tensor(drawn, dtype=x.dtype)
        return x


@dataclass(frozen=True)
class Made(T):
    """A result of an op, for what is called with other ops' results only: the k-th of
    op(x, *args)."""

    op: Any = None
    x: T = T(())
    args: tuple[Any, ...] = ()
    k: int = 0

    def make(self, g: torch.Generator) -> torch.Tensor:
        return self.op(self.x.make(g), *self.args)[self.k]


@dataclass(frozen=True)
class S:
    """One call. `outs`: which of several results are used (None: all). `xfail`: why the compiled
    program fails today, though the interpreter runs the lowered one rightly."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    outs: tuple[int, ...] | None = None
    xfail: str = ""

    def __str__(self) -> str:
        named = [f"{k}={v}" for k, v in self.kwargs.items()]
        return ", ".join([*map(str, self.args), *named]).replace("torch.", "")


@dataclass(frozen=True)
class Row:
    """`view`: results share memory with the input, so the op is also run on a computed value."""

    samples: tuple[S, ...]
    check: str = "rms"
    view: bool = False


ROWS: dict[Any, Row] = {}


def t(*shape: int, dtype: torch.dtype = f32, v: str = "normal", at: str = "dense") -> T:
    return T(shape, dtype, v, at)


def s(*args: Any, outs: tuple[int, ...] | None = None, xfail: str = "", **kwargs: Any) -> S:
    return S(args, kwargs, outs, xfail)


def row(*ops: Any, samples: Iterable[S], check: str = "rms", view: bool = False) -> None:
    for op in ops:
        assert op not in ROWS, op
        ROWS[op] = Row(tuple(samples), check, view)


# -- pointwise -----------------------------------------------------------------------------------


def unary(values: str = "normal", *dtypes: torch.dtype, **kwargs: Any) -> list[S]:
    """Shapes, layouts and dtypes of one argument."""
    return [
        s(t(3, 5, 7, v=values), **kwargs),
        s(t(3, 37, v="special"), **kwargs),
        s(t(13, 6, v=values, at="transposed"), **kwargs),
        s(t(4, 9, v=values, at="strided"), **kwargs),
        s(t(3, 5, v=values, at="expanded"), **kwargs),
        s(t(v=values), **kwargs),
        s(t(0, 4), **kwargs),
        s(t(29, dtype=f64, v="special"), **kwargs),
        *(s(t(3, 11, dtype=d, v=values), **kwargs) for d in dtypes),
        *(s(t(2, 19, dtype=d, v=values), **kwargs) for d in (f16, bf16)),
    ]


for _name in ("exp", "expm1"):
    row(getattr(aten, _name).default, check="each", samples=unary("wide", i64, b8, u8))
for _name in ("log", "log2", "log10", "log1p", "sqrt", "rsqrt"):
    row(getattr(aten, _name).default, check="each", samples=unary("positive", i64, i32, b8))
for _name in ("sin", "cos", "tan", "tanh", "erf", "sigmoid", "reciprocal"):
    row(getattr(aten, _name).default, check="each", samples=unary("normal", i64, i16, b8))
for _name in ("asin", "acos", "atanh"):
    row(getattr(aten, _name).default, check="each", samples=unary("unit", i64, b8))
for _name in ("atan", "sinh", "cosh", "asinh", "erfc", "exp2"):
    row(getattr(aten, _name).default, check="each", samples=unary("normal", i64, i16, b8))
row(aten.acosh.default, check="each", samples=[*unary("positive", i64), s(t(3, 7, v="wide"))])
row(aten.lgamma.default, samples=unary("positive", i64, i32))
row(aten.angle.default, check="each", samples=unary("normal", i64, i32, b8))
row(aten.isinf.default, check="exact", samples=unary("special", i64, b8))
row(aten.signbit.default, check="exact", samples=unary("ties", i64, i32, u8, b8))
row(
    aten.round.decimals,
    check="each",
    samples=[
        s(t(3, 37, dtype=d, v=v), decimals=n)
        for d in (f32, f64)
        for v in ("wide", "special")
        for n in (0, 2, -1)
    ]
    + [s(t(3, 5, dtype=bf16), decimals=1), s(t(5, 6, at="transposed"), decimals=3)],
)
for _name in ("floor", "ceil", "trunc", "round"):
    row(getattr(aten, _name).default, check="exact", samples=unary("small", i64, i32, u8))
row(aten.neg.default, check="exact", samples=unary("normal", i64, i32, i8, u8))
row(aten.abs.default, check="exact", samples=unary("normal", i64, i16, u8))
row(aten.sign.default, check="exact", samples=unary("ties", i64, i32, u8, b8))
row(aten.square.default, check="each", samples=unary("normal", i64, i32, u8))
row(aten.relu.default, check="equal", samples=unary("normal", i64, i32, i8, u8))
row(aten.isnan.default, check="exact", samples=unary("special", i64, b8))
row(aten.logical_not.default, check="exact", samples=unary("ties", i64, i32, b8, u8))

row(aten.gelu.default, samples=[*unary("normal"), *unary("normal", approximate="tanh")])
row(aten.silu.default, aten.hardswish.default, aten.hardsigmoid.default, samples=unary("wide"))
row(
    aten.elu.default,
    samples=[*unary("wide"), s(t(5, 7), 0.5, 1.25, 2.0), s(t(21, v="special"), 2)],
)
row(aten.leaky_relu.default, check="each", samples=[*unary(), s(t(5, 7), 0.2), s(t(9), -1)])
row(aten.softplus.default, samples=[*unary("wide"), s(t(5, 7), 2.0, 1.0), s(t(9), 3, 5)])


def binary(
    values: str = "normal", *dtypes: torch.dtype, ints: bool = True, bools: bool = True
) -> list[S]:
    """Two tensors: broadcasting, layouts, promotion."""
    found = [
        s(t(3, 5, 7, v=values), t(3, 5, 7, v=values)),
        s(t(3, 1, 7, v=values), t(5, 1, v=values)),
        s(t(4, 31, v="special"), t(4, 31, v="special")),
        s(t(6, 13, v=values, at="transposed"), t(6, 13, v=values)),
        s(t(3, 5, v=values, at="expanded"), t(3, 5, v=values, at="strided")),
        s(t(v=values), t(7, v=values)),
        s(t(v=values), t(v=values)),
        s(t(0, 4), t(4)),
        s(t(2, 17, dtype=f64, v=values), t(17, v=values)),
        s(t(17, v=values), t(dtype=f64, v=values)),
        *(s(t(3, 11, dtype=d, v=values), t(11, dtype=d, v=values)) for d in dtypes),
        *(s(t(2, 19, dtype=d, v=values), t(19, dtype=d, v=values)) for d in (f16, bf16)),
        s(t(2, 9, dtype=f16, v=values), t(9, v=values)),
        s(t(2, 9, dtype=bf16, v=values), t(dtype=f64, v=values)),
    ]
    if ints:
        found += [
            s(t(5, 7, dtype=i64, v=values), t(7, v=values)),
            s(t(5, 7, dtype=i32, v=values), t(7, dtype=i64, v=values)),
            s(t(5, 7, dtype=u8, v=values), t(7, dtype=i8, v=values)),
            s(t(5, 7, dtype=i32, v=values), t(dtype=i64, v=values)),
            s(t(5, dtype=i64, v=values), t(v=values)),
            s(t(5, 7, dtype=i64, v=values), t(dtype=f64, v=values)),
        ]
    if ints and bools:
        found += [s(t(5, 7, dtype=b8), t(7, dtype=d, v=values)) for d in (i32, f32)]
    return found


def scalar(
    numbers: Iterable[Any] = (2, -1.5), values: str = "normal", ints=True, bools=True
) -> list[S]:
    """A tensor and a Python number."""
    found = []
    for n in numbers:
        found += [
            s(t(3, 5, 7, v=values), n),
            s(t(2, 31, v="special"), n),
            s(t(6, 5, v=values, at="transposed"), n),
            s(t(v=values), n),
            s(t(5, dtype=f64, v=values), n),
            *(s(t(2, 9, dtype=d, v=values), n) for d in (f16, bf16)),
        ]
        if ints:
            found += [s(t(13, dtype=d, v=values), n) for d in (i64, i32)]
        if ints and bools:
            found += [s(t(13, dtype=b8), n)]
    return found


_alphas = [
    s(t(3, 17), t(17), alpha=2),
    s(t(3, 17), t(17), alpha=-0.3),
    s(t(3, 17, dtype=i64), t(17, dtype=i64), alpha=3),
    s(t(3, 17, dtype=i64), t(17), alpha=2.5),
]
_bools = [s(t(3, 17, dtype=b8), t(17, dtype=b8)), s(t(dtype=b8), t(5, dtype=b8))]
row(aten.add.Tensor, samples=[*binary("normal", i64, i32, u8), *_alphas, *_bools, *scalar()])
row(
    aten.sub.Tensor,
    samples=[*binary("normal", i64, i32, u8, bools=False), *_alphas, *scalar(bools=False)],
)
row(aten.add.Scalar, samples=[*scalar(), s(t(7), 2.5, 3), s(t(7, dtype=i64), 2, 3)])
row(aten.sub.Scalar, samples=[*scalar(bools=False), s(t(7), 2.5, 3)])
row(aten.rsub.Scalar, samples=[*scalar(bools=False), s(t(7), 2.5, 3), s(t(7, dtype=i64), 2, 3)])
row(
    aten.mul.Tensor,
    check="each",
    samples=[*binary("normal", i64, i32, u8, i16), *_bools, *scalar((2, 1, 0.1, inf, True))],
)
row(aten.mul.Scalar, check="each", samples=scalar((3, 0.1)))
row(
    aten.div.Tensor,
    check="each",
    samples=[*binary("normal", i64, i32, b8), *scalar((2, 1, 0.1, 0))],
)
row(aten.div.Scalar, check="each", samples=scalar((3, 0.1, 0)))
_modes = [
    s(*x.args, **x.kwargs, rounding_mode=mode, xfail=x.xfail)
    for x in [*binary("normal"), s(t(5, dtype=i64), t(5, dtype=i64, v="positive"))]
    for mode in ("floor", "trunc")
    if x.args[0].layout != "transposed"  # fake tensors do not give eager's strides
]
row(aten.div.Tensor_mode, check="each", samples=[*_modes, s(t(5), t(5), rounding_mode=None)])
row(
    aten.div.Scalar_mode,
    check="each",
    samples=[
        *(replace(x, kwargs={"rounding_mode": "floor"}) for x in scalar((2, -0.3, 0), ints=False)),
        *(
            s(t(3, 37, dtype=d, v="special"), n, rounding_mode=mode)
            for d in (i64, i32, i16, i8)
            for n in (3, -4, 1)
            for mode in ("floor", "trunc")
        ),
        s(t(37, dtype=u8, v="special"), 7, rounding_mode="trunc"),
    ],
)
_integers = [
    s(t(3, 37, dtype=d, v=v), n)
    for d in (i64, i32, i16, i8)
    for v in ("normal", "special")
    for n in (3, -4, 1, -1)
    if (v, n) != ("special", -1)  # eager divides the least integer by -1, which ends the process
] + [s(t(3, 37, dtype=u8, v="special"), 7)]
_moderate = lambda many: [  # noqa: E731  (eager's remainders of the largest are NaN)
    replace(x, args=tuple(
        replace(a, values="nonfinite") if isinstance(a, T) and a.values == "special" else a
        for a in x.args
    ))
    for x in many
]  # fmt: skip
row(
    aten.fmod.Tensor, aten.remainder.Tensor,
    check="each",
    samples=[
        *binary("normal", ints=False), s(t(5, dtype=b8), t(5)),
        s(t(9, dtype=i64), t(9, dtype=i64, v="positive")), s(t(5, dtype=i64), t(5)),
    ],
)  # fmt: skip
row(
    aten.fmod.Scalar, aten.remainder.Scalar,
    check="exact",
    samples=[
        *_moderate(scalar((2, -0.3, 0.0), ints=False)), *_integers, s(t(9, dtype=i64), 2.5)
    ],
)  # fmt: skip
row(
    aten.remainder.Scalar_Tensor,
    check="exact",
    samples=[s(2.5, t(3, 17)), s(7, t(9, dtype=i64, v="positive")), s(-3, t(2, 9, v="ties"))],
)
row(
    aten.atan2.default, aten.hypot.default,
    check="each",
    samples=[x for x in binary("normal", ints=False)],
)  # fmt: skip
ROWS[aten.atan2.default] = Row(
    (*ROWS[aten.atan2.default].samples, *binary("small", i64, b8)), "each"
)
row(aten.copysign.Tensor, check="exact", samples=binary("ties", i64, b8))
row(aten.copysign.Scalar, check="exact", samples=scalar((2, -0.0)))
row(
    aten.fmax.default, aten.fmin.default,
    check="equal",
    samples=[*binary("ties", i64, i32, u8), *_bools, s(t(4, 41, v="nan"), t(41, v="nan"))],
)  # fmt: skip
_shifts = [
    s(t(3, 37, dtype=d, v="special"), x)
    for d in (i64, i32, i16, i8, u8)
    for x in (t(37, dtype=d), t(37, dtype=d, v="small"), t(dtype=d, v="small"))
]
_by_number = [s(t(3, 37, dtype=d, v="special"), n) for d in (i64, i32, u8) for n in (0, 3, 31)]
row(aten.bitwise_left_shift.Tensor, aten.bitwise_right_shift.Tensor, aten.__lshift__.Tensor,
    aten.__rshift__.Tensor, check="exact", samples=_shifts)  # fmt: skip
row(aten.bitwise_left_shift.Tensor_Scalar, aten.bitwise_right_shift.Tensor_Scalar,
    aten.__lshift__.Scalar, aten.__rshift__.Scalar, check="exact",
    samples=[*_by_number, s(t(9, dtype=i64), 64), s(t(9, dtype=i64), -1)])  # fmt: skip
row(
    aten.maximum.default,
    aten.minimum.default,
    check="equal",
    samples=[*binary("ties", i64, i32, u8), *_bools],
)
row(
    aten.logical_and.default,
    aten.logical_or.default,
    check="exact",
    samples=[*binary("ties", i64, i32, u8, b8)],
)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    row(
        getattr(aten, _name).Tensor,
        check="exact",
        samples=[*binary("small", i64, i32, u8, b8)],
    )
    row(
        getattr(aten, _name).Scalar,
        check="exact",
        samples=[
            *scalar((1, 0.5), "small"),
            s(t(9), nan),
            s(t(9, dtype=i64, v="special"), 2**40),
            s(t(9, dtype=b8), True),
            s(t(9, dtype=u8), 3),
            s(t(9, dtype=f16), 0.1),
        ],
    )
row(
    aten.clamp.default,
    check="equal",
    samples=[
        *unary("normal", i64, i32, u8, min=1, max=3),
        *unary("normal", min=-0.5),
        *unary("normal", i64, max=0.75),
        s(t(9, v="special"), -inf, inf),
        s(t(9), 1.0, -1.0),
        s(t(9), nan, 1.0),
        s(t(9, dtype=b8), 0, 1),
    ],
)
row(
    aten.clamp.Tensor,
    check="equal",
    samples=[
        s(t(3, 5, 7), t(5, 1), t(7)),
        s(t(3, 5), t(5)),
        s(t(3, 5), None, t(3, 1)),
        s(t(2, 40, v="special"), t(40), t(2, 1)),
        s(t(2, 4), t(2, 4, v="special"), t(2, 4, v="special")),
        s(t(3, 5, dtype=i64), t(5, dtype=i64)),
        s(t(3, 5, dtype=i32), t(5), None),
        s(t(), t(5), t(3, 1)),
        s(t(3, 5, dtype=f16), t(5, dtype=f16)),
    ],
)
row(
    aten.hardtanh.default,
    check="equal",
    samples=[*unary("normal"), s(t(9), -0.5, 2), s(t(9, dtype=i64), -1, 2)],
)
row(
    aten.clamp_min.default,
    aten.clamp_max.default,
    check="equal",
    samples=scalar((0, 0.1, -1)),
)
row(
    aten.pow.Tensor_Scalar,
    check="each",
    samples=[
        *scalar((2, 3), "normal"),
        *scalar((0, 1, 0.5, -1, 2.3, -0.5, 4, 1.5, -2), "positive", ints=False),
        s(t(9), 3.0),
        s(t(9, dtype=i64, v="special"), 2),
        s(t(9, dtype=i64), 5),
        s(t(9, dtype=i32, v="positive"), 0.5),
        s(t(9, dtype=i64, v="positive"), 1.0),
        s(t(9, dtype=u8), 3),
    ],
)
row(
    aten.pow.Tensor_Tensor,
    check="each",
    samples=[
        *binary("positive", ints=False),
        s(t(5, 7, v="special"), t(7, v="ties")),
        s(t(9, dtype=i64), t(9, dtype=i64, v="positive")),
        s(t(9, dtype=i64, v="positive"), t(9)),
    ],
)
row(
    aten.pow.Scalar,
    check="each",
    samples=[
        s(2, t(3, 17)), s(0.5, t(9, v="special")), s(2.5, t(4, 6, at="transposed")),
        s(2, t(9, dtype=i64, v="positive")), s(2.5, t(9, dtype=i64)), s(1, t(9, v="special")),
        s(3, t(2, 9, dtype=bf16)), s(0.3, t(9, dtype=f64)), s(2, t()), s(2, t(0, 3)),
    ],
)  # fmt: skip
row(
    aten.where.self,
    check="exact",
    samples=[
        s(t(3, 5, 7, dtype=b8), t(3, 5, 7), t(3, 5, 7)),
        s(t(5, 1, dtype=b8), t(7), t(3, 1, 1)),
        s(t(4, 9, dtype=b8, at="transposed"), t(4, 9, v="special"), t(9, v="special")),
        s(t(dtype=b8), t(9), t()),
        s(t(0, 3, dtype=b8), t(3), t(3)),
        s(t(9, dtype=b8), t(9, dtype=i64), t(9)),
        s(t(9, dtype=b8), t(9, dtype=f64), t(9)),
        s(t(9, dtype=b8), t(9, dtype=i64), t(dtype=i32)),
        s(t(9, dtype=b8), t(9, dtype=b8), t(9, dtype=b8)),
        s(t(9, dtype=b8), t(9, dtype=b8), t(9, dtype=u8)),
        *(s(t(9, dtype=b8), t(9, dtype=d), t(9, dtype=d)) for d in (f16, bf16)),
    ],
)

_conversions = [
    (t(3, 5), f64), (t(3, 5, dtype=f64, v="special"), f32), (t(33, v="special"), b8),
    (t(3, 7, v="wide"), i64), (t(3, 7, v="wide"), i32), (t(3, 7), u8), (t(9, v="wide"), i16),
    (t(3, 7, dtype=f64, v="wide"), i64), (t(3, 7, dtype=i64, v="special"), f32),
    (t(3, 7, dtype=i64, v="special"), i32), (t(3, 7, dtype=i64), u8), (t(3, 7, dtype=u8), i64),
    (t(3, 7, dtype=b8), f32), (t(3, 7, dtype=b8), i64), (t(3, 7, dtype=i8), b8),
    (t(3, 7, dtype=i32, at="transposed"), f64), (t(), i64), (t(0, 3), i32),
    (t(3, 4, at="expanded"), f64), (t(3, 4, at="strided"), i64), (t(5, 7), f32),
]  # fmt: skip
_halves = [
    (t(5, 41, v="special"), f16), (t(5, 41, v="special"), bf16), (t(9, dtype=f64), bf16),
    (t(9, dtype=i64), f16), (t(9, dtype=f16, v="special"), f32), (t(9, dtype=bf16), f64),
    (t(9, dtype=f16), bf16), (t(9, dtype=bf16), i32), (t(9, dtype=f16, v="ties"), b8),
]  # fmt: skip
row(
    prims.convert_element_type.default,
    check="exact",
    samples=[*(s(*x) for x in _conversions), *(s(*x) for x in _halves)],
)
row(
    aten._to_copy.default,
    check="exact",
    samples=[
        *(s(x, dtype=d) for x, d in _conversions),
        *(s(x, dtype=d) for x, d in _halves),
        s(t(2, 3, 4, 5), memory_format=torch.channels_last),
        s(t(2, 3, 4, 5, at="channels_last"), dtype=f64, memory_format=torch.contiguous_format),
    ],
)
row(
    aten.scalar_tensor.default,
    check="exact",
    samples=[s(2.5), s(3, dtype=i64), s(True, dtype=b8), s(-0.0, dtype=f64), s(1.1, dtype=bf16)],
)
row(
    aten.full.default,
    check="exact",
    samples=[
        s([3, 5], 2.5), s([3, 5], 2), s([], True), s([0, 3], 1.0), s([7], -1, dtype=f32),
        s([7], 2.7, dtype=i64), s([3], nan), s([3], -inf), s([5], -0.0), s([5], 1, dtype=b8),
        s([5], 0.1, dtype=f16),
    ],
)  # fmt: skip
row(
    aten.full_like.default,
    check="exact",
    samples=[
        s(t(3, 5), 2.5), s(t(3, 5, at="transposed"), -1), s(t(3, dtype=i64), 2.7),
        s(t(), inf), s(t(0, 3), 1), s(t(5), 2, dtype=i32), s(t(5, dtype=b8), True),
        s(t(2, 3, 4, 5, at="channels_last"), 7), s(t(3, 5, at="expanded"), 2),
        s(t(5, dtype=bf16), 0.1),
    ],
)  # fmt: skip
row(
    aten.zeros_like.default,
    aten.ones_like.default,
    check="exact",
    samples=[
        s(t(3, 5)), s(t(3, 5, at="transposed")), s(t(3, dtype=i64)), s(t()), s(t(0, 3)),
        s(t(5), dtype=i32), s(t(5, dtype=b8)), s(t(3, 5, at="strided")), s(t(5), dtype=f64),
        s(t(5, dtype=f16)),
    ],
)  # fmt: skip

row(
    aten.arange.start_step,
    check="each",
    samples=[
        s(0, 37), s(3, 50, 7), s(9, -30, -2), s(0, 0), s(0, 2**40, 2**36), s(-5, 7, dtype=i32),
        s(0, 19, dtype=f32), s(0, 19.0, 1), s(2**24 - 3, 2**24 + 17, dtype=f32), s(0, 9, dtype=u8),
        s(0, 40, 3, dtype=bf16), s(250, 300, dtype=f16), s(0, 33, dtype=f64), s(5, 9, dtype=i16),
    ],
)  # fmt: skip
ROWS[aten.arange.start_step] = Row(
    (*ROWS[aten.arange.start_step].samples, s(0.5, 37.25, 0.3), s(-1.0, 1.0, 0.0078125)), "each"
)
row(aten.empty.memory_format, check="shape", samples=[s([3, 5]), s([0, 3]), s([2], dtype=i64)])
row(
    aten.empty_permuted.default,
    check="shape",
    samples=[s([3, 5], [1, 0]), s([0, 3], [0, 1]), s([2, 3, 4], [2, 0, 1], dtype=i64)],
)

# -- reductions ----------------------------------------------------------------------------------

LONG = 3 * 4099  # more terms than one float32 sum should have


def whole(values: str = "normal", *dtypes: torch.dtype, empty: bool = True) -> list[S]:
    """Over all elements."""
    return [
        s(t(3, 5, 7, v=values)),
        s(t(3, 13, v=values, at="transposed")),
        s(t(5, 9, v=values, at="strided")),
        s(t(4, 9, v=values, at="expanded")),
        s(t(v=values)),
        s(t(LONG, v=values)),
        s(t(3, 5, dtype=f64, v=values)),
        s(t(4, 19, v="nonfinite")),
        *([s(t(0, 3)), s(t(0))] if empty else []),
        *(s(t(3, 11, dtype=d, v=values)) for d in dtypes),
        *(s(t(3, 7, dtype=d, v=values)) for d in (f16, bf16)),
    ]


def along(
    values: str = "normal",
    *dtypes: torch.dtype,
    many: bool = True,
    empty: bool = True,
    special: str = "nonfinite",
) -> list[S]:
    """Along given dimensions; `many`: lists of them."""
    dim = lambda *d: list(d) if many else d[0]  # noqa: E731
    found = [
        s(t(3, 5, 7, v=values), dim(1)),
        s(t(3, 5, 7, v=values), dim(-1), True),
        s(t(3, 5, 17, v=values), dim(0)),
        s(t(6, 13, v=values, at="transposed"), dim(0), True),
        s(t(6, 13, v=values, at="transposed"), dim(1)),
        s(t(4, 9, v=values, at="strided"), dim(-1)),
        s(t(4, 9, v=values, at="expanded"), dim(0)),
        s(t(v=values), dim(0)),
        s(t(v=values), dim(-1), True),
        s(t(3, LONG, v=values), dim(1)),
        s(t(LONG, 3, v=values), dim(0)),
        s(t(3, 1, 5, v=values), dim(1)),
        s(t(3, 5, dtype=f64, v=values), dim(1)),
        s(t(7, 19, v=special), dim(1)),
        s(t(19, 7, v=special), dim(0)),
        s(t(0, 3), dim(1)),
        *(s(t(3, 11, dtype=d, v=values), dim(1)) for d in dtypes),
        *(s(t(3, 7, dtype=d, v=values), dim(1)) for d in (f16, bf16)),
    ]
    if empty:
        found += [s(t(3, 0), dim(1)), s(t(3, 0), dim(1), True)]
    if many:
        found += [
            s(t(3, 5, 7, v=values), [0, 2]),
            s(t(3, 5, 7, v=values), [-1, -3], True),
            s(t(2, 3, 4, 5, v=values, at="channels_last"), [2, 3]),
            s(t(2, 3, 4, 5, v=values, at="channels_last"), [1]),
            s(t(3, 5, v=values), []),
            s(t(3, 5, v=values), [], True),
        ]
    return found


row(
    aten.sum.default,
    samples=[
        *whole("positive", i64, i32, u8, b8),
        s(t(9), dtype=f64),
        s(t(9, v="wide"), dtype=i64),
    ],
)
row(
    aten.sum.dim_IntList,
    samples=[
        *along("normal", i64, i32, u8, b8),
        s(t(3, 5), None),
        s(t(3, 5), [1], dtype=f64),
        s(t(3, 5, dtype=i64), [1], dtype=f32),
        s(t(3, 5, dtype=f16), [1], dtype=f32),
    ],
)
row(
    aten.mean.default,
    samples=[*whole("positive"), s(t(9, v="positive"), dtype=f64), s(t(9, dtype=i64), dtype=f32)],
)
row(
    aten.mean.dim,
    samples=[*along(), s(t(3, 5), None), s(t(3, 5, dtype=i64), [1], dtype=f32)],
)
row(
    aten.amax.default,
    aten.amin.default,
    check="equal",
    samples=[*along("ties", i64, i32, u8, b8, empty=False), s(t(3, 5)), s(t(3, 5), (), True)],
)
row(
    aten.max.default,
    aten.min.default,
    check="equal",
    samples=whole("ties", i64, i32, u8, b8, empty=False),
)
_pairs = along("ties", i64, i32, u8, b8, many=False, empty=False)
row(
    aten.max.dim,
    aten.min.dim,
    check="equal",
    samples=[*_pairs, s(t(3, 5), 1, outs=(0,)), s(t(3, 5), 1, outs=(1,))],
)
row(
    aten.argmax.default,
    aten.argmin.default,
    check="exact",
    samples=[
        *(x for x in _pairs if x.args[0].dtype is not b8),
        s(t(3, 5, 7, v="ties")),
        s(t(3, 5, 7, v="ties"), None, True),
        s(t(3, 5, 7, v="low"), 1),
        s(t(4, 9, v="ties", at="transposed")),
        s(t()),
    ],
)
row(
    aten.prod.default,
    samples=[x for x in whole("unit", i64, i32, u8, b8) if x.args[0].shape != (LONG,)],
)
row(
    aten.prod.dim_int,
    samples=[
        x
        for x in [*along("unit", i64, i32, u8, b8, many=False), s(t(3, 5), 1, dtype=f64)]
        if LONG not in x.args[0].shape
    ],
)
row(aten.any.default, aten.all.default, check="exact", samples=whole("ties", i64, i32, u8, b8))
row(
    aten.any.dim,
    aten.all.dim,
    check="exact",
    samples=along("ties", i64, i32, u8, b8, many=False),
)
_moments = [
    *(replace(x, args=x.args[:2]) for x in along(special="nan")),
    s(t(3, 5, 7), [1], correction=0),
    s(t(3, 5, 7), [0, 2], correction=2, keepdim=True),
    s(t(3, 5, 7), [1], correction=0.5),
    s(t(3, 5, 7, v="positive")),
    s(t(3, 5, v="positive"), None, correction=None, keepdim=True),
    s(t(3, 1), [1]),
    s(t(3, 2), [1], correction=5),
    s(t(5, 9, at="transposed"), [0], keepdim=True),
]
row(aten.var.correction, samples=_moments)
row(
    aten.var_mean.correction,
    samples=[*_moments, s(t(3, 5), [1], outs=(0,)), s(t(3, 5), [1], outs=(1,))],
)
row(
    aten.native_layer_norm.default,
    samples=[
        s(t(3, 5, 7), [7], t(7), t(7), 1e-5),
        s(t(3, 5, 7), [5, 7], t(5, 7), t(5, 7), 1e-5, outs=(0,)),
        s(t(3, 5, 7), [7], None, None, 1e-6),
        s(t(3, 7), [7], t(7), None, 1e-5),
        s(t(3, 7), [7], None, t(7), 0.1, outs=(0,)),
        s(t(2, LONG), [LONG], t(LONG), t(LONG), 1e-5),
        s(t(7, 5, at="transposed"), [5], t(5), t(5), 1e-5),
        s(t(3, 6, at="strided"), [6], t(6), t(6), 1e-5),
        s(t(3, 6, at="expanded"), [6], t(6), t(6), 1e-5),
        s(t(3, 1), [1], t(1), t(1), 1e-5),
        s(t(0, 7), [7], t(7), t(7), 1e-5),
        s(t(3, 9, dtype=f64), [9], t(9, dtype=f64), t(9, dtype=f64), 1e-5),
        s(t(4, 33, v="nan"), [33], t(33), t(33), 1e-5),
        *(s(t(3, 9, dtype=d), [9], t(9, dtype=d), t(9, dtype=d), 1e-5) for d in (f16, bf16)),
    ],
)
row(
    aten._softmax.default,
    aten._log_softmax.default,
    samples=[
        s(t(3, 5, 7), 1, False),
        s(t(3, 5, 7), -1, False),
        s(t(3, 5, 7, v="wide"), 0, False),
        s(t(6, 13, at="transposed"), 1, False),
        s(t(6, 13, at="strided"), 1, False),
        s(t(6, 13, at="expanded"), 1, False),
        s(t(6, 13, at="expanded"), 0, False),
        s(t(2, 3, 4, 5, at="channels_last"), 1, False),
        s(t(5, 9, v="low"), 1, False),
        s(t(5, 29, v="nonfinite"), 1, False),
        s(t(2, LONG), 1, False),
        s(t(5, 1), 1, False),
        s(t(0, 3), 1, False),
        s(t(3, 0), 1, False),
        s(t(), 0, False),
        s(t(3, 9, dtype=f64), 1, False),
        *(s(t(3, 9, dtype=d), 1, False) for d in (f16, bf16)),
    ],
)
# -- pooling -------------------------------------------------------------------------------------


def both(*calls: tuple[Any, ...]) -> list[S]:
    """Samples whose first result is used, and the same whose results are both used."""
    return [s(x, *rest, outs=outs) for outs in ((0,), (0, 1)) for x, *rest in calls]


def shape_of(op: Any, x: T, *args: Any) -> tuple[int, ...]:
    value = op(torch.empty(x.shape, dtype=x.dtype, device="meta"), *args)
    return tuple((value[0] if isinstance(value, tuple) else value).shape)


def max_backward(op: Any, x: T, *args: Any, v: str = "normal", at: str = "dense") -> S:
    """A call of the backward of a max pooling, with positions that the pooling itself gives."""
    place = Made(shape_of(op, x, *args), i64, op=op, x=x, args=args, k=1)
    full = () if op in (aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default) else (
        *args, *([], [0], [1], False)[len(args) - 1 :]
    )  # fmt: skip
    return s(T(place.shape, x.dtype, v, at), x, *full, place)


_MAX2 = (
    (t(2, 3, 9, 7), [2, 2]),
    (t(2, 3, 9, 7), [3, 2], [2, 1]),
    (t(2, 3, 9, 7, at="channels_last"), [3], [2], [1]),
    (t(2, 3, 9, 7, v="ties"), [3, 3], [1, 1], [0, 0], [2, 1]),
    (t(2, 3, 9, 8), [3, 3], [2, 2], [0], [1], True),
    (t(2, 3, 9, 8), [3, 3], [2, 2], [1], [1], True),
    (t(2, 3, 13, 11), [3, 2], [2, 3], [1, 0], [3, 2]),
    (t(2, 3, 13, 11), [2, 2], [3, 4]),
    (t(2, 17, 7, 9, at="channels_last"), [3, 3], [1, 1], [1, 1]),
    (t(3, 9, 7), [2, 2]),
    (t(1, 3, 6, 7, v="low"), [2, 2]),
    (t(0, 3, 9, 7), [2, 2]),
    (t(2, 3, 6, 5, at="transposed"), [2, 2]),
    (t(2, 3, 6, 5, dtype=f64), [2, 2]),
)
row(
    aten.max_pool2d_with_indices.default,
    check="equal",
    samples=[
        *both(*_MAX2, (t(2, 3, 6, 5, dtype=i64), [2, 2])),
        s(t(1, 3, 9, 7, v="nonfinite"), [2, 2], outs=(0,)),
        s(t(1, 3, 9, 7, v="nan"), [3, 3], [1], [1]),
        s(t(2, 3, 9, 7), [2, 2], outs=(1,)),
        *both(
            (t(2, 3, 6, 5, dtype=bf16), [2, 2]),
            (t(2, 17, 7, 9, dtype=bf16, at="channels_last"), [3, 3], [2, 2], [1, 1]),
            (t(1, 3, 6, 7, dtype=f16, v="nan"), [3, 3], [1, 1], [1, 1]),
        ),
    ],
)
row(
    aten.max_pool2d_with_indices_backward.default,
    samples=[
        *(max_backward(aten.max_pool2d_with_indices.default, *c) for c in _MAX2),
        max_backward(aten.max_pool2d_with_indices.default, t(1, 3, 9, 7), [3], [2], [1], v="nan"),
        max_backward(
            aten.max_pool2d_with_indices.default, t(2, 5, 9, 7), [2], [2], at="channels_last"
        ),
        max_backward(aten.max_pool2d_with_indices.default, t(2, 3, 6, 5, dtype=bf16), [2, 2]),
    ],
)
_MAX3 = (
    (t(2, 3, 5, 9, 7), [2, 2, 2]),
    (t(2, 3, 7, 6, 9), [3, 2, 3], [2, 1, 3], [1, 1, 0], [1, 2, 1]),
    (t(2, 5, 5, 6, 7, at="channels_last"), [3], [2], [1]),
    (t(1, 3, 5, 8, 6, v="ties"), [3], [2], [1], [1], True),
    (t(3, 5, 4, 6), [2]),
    (t(0, 3, 5, 4, 6), [2]),
    (t(1, 2, 4, 5, 6, v="low"), [2]),
    (t(1, 2, 4, 5, 6, dtype=f64), [2]),
)
row(
    aten.max_pool3d_with_indices.default,
    check="equal",
    samples=[
        *both(*_MAX3),
        s(t(1, 2, 4, 5, 6, v="nan"), [3], [1], [1]),
        s(t(1, 2, 4, 5, 6, dtype=f16), [2]),
    ],
)
row(
    aten.max_pool3d_with_indices_backward.default,
    samples=[
        *(max_backward(aten.max_pool3d_with_indices.default, *c) for c in _MAX3),
        max_backward(aten.max_pool3d_with_indices.default, t(1, 2, 4, 5, 6), [2], v="nan"),
        max_backward(aten.max_pool3d_with_indices.default, t(1, 2, 4, 5, 6, dtype=f16), [2]),
    ],
)
_ADAPTIVE2 = (
    (t(2, 3, 8, 6), [1, 1]),
    (t(2, 3, 8, 6), [4, 3]),
    (t(2, 3, 7, 5), [3, 2]),
    (t(2, 3, 13, 10), [5, 4]),
    (t(2, 3, 3, 2), [6, 4]),
    (t(2, 3, 5, 7), [7, 3]),
    (t(2, 19, 8, 7, at="channels_last"), [2, 3]),
    (t(2, 3, 9, 7, v="ties"), [4, 4]),
    (t(1, 3, 6, 7, v="low"), [4, 3]),
    (t(3, 8, 6), [2, 4]),
    (t(0, 3, 8, 6), [2, 2]),
    (t(2, 3, 5, 7, dtype=f64), [3, 3]),
)
_ADAPTIVE3 = (
    (t(2, 3, 4, 6, 8), [2, 3, 4]),
    (t(2, 3, 5, 7, 6), [3, 4, 7]),
    (t(2, 5, 3, 7, 5, at="channels_last"), [2, 2, 2]),
    (t(3, 4, 5, 6), [2, 3, 4]),
    (t(0, 3, 4, 5, 6), [2, 2, 2]),
    (t(1, 2, 5, 4, 6, dtype=f64), [2, 3, 4]),
)
for _op, _backward, _calls in (
    (aten.adaptive_max_pool2d.default, aten.adaptive_max_pool2d_backward.default, _ADAPTIVE2),
    (aten.adaptive_max_pool3d.default, aten.adaptive_max_pool3d_backward.default, _ADAPTIVE3),
):
    _shape, _size = _calls[1][0].shape, _calls[1][1]
    row(
        _op,
        check="equal",
        samples=[
            *both(*_calls),
            s(T(_shape, f32, "nan"), _size),
            s(T(_shape, bf16), _size),
            s(T(_shape), [0] * len(_size)),
        ],
    )
    row(
        _backward,
        samples=[
            *(max_backward(_op, *c) for c in _calls),
            max_backward(_op, T(_shape), _size, v="nan"),
            max_backward(_op, T(_shape, bf16), _size),
        ],
    )
_AVG2 = (
    (t(2, 3, 9, 7), [2, 2]),
    (t(2, 3, 9, 7), [3, 2], [2, 1]),
    (t(2, 3, 9, 7, at="channels_last"), [3], [2], [1]),
    (t(2, 3, 9, 7), [3, 3], [2, 2], [1, 1], False, False),
    (t(2, 3, 9, 8), [3, 3], [2, 2], [0, 0], True),
    (t(2, 3, 9, 9), [3, 3], [2, 2], [0, 0], True),
    (t(2, 3, 9, 8), [3, 3], [2, 2], [1, 1], True, True),
    (t(2, 3, 10, 8), [4, 3], [3, 2], [2, 1], True, False),
    (t(2, 3, 9, 8), [3, 3], [2, 2], [1, 1], False, True, 4),
    (t(2, 3, 9, 8), [3, 3], [2, 2], [1, 1], True, False, -3),
    (t(2, 3, 11, 9), [2, 3], [4, 5]),
    (t(2, 19, 9, 7, at="channels_last"), [3, 3], [1, 1], [1, 1], False, False),
    (t(3, 9, 7), [2, 2]),
    (t(0, 3, 9, 7), [2, 2]),
    (t(1, 3, 9, 7, v="nonfinite"), [2, 2]),
    (t(2, 3, 6, 5, dtype=f64), [3, 2], [1], [1], False, False),
    (t(1, 2, 40, 41), [40, 41]),
    (t(2, 3, 6, 5, dtype=f16), [2, 2]),
)
_AVG3 = (
    (t(2, 3, 5, 9, 7), [2, 2, 2]),
    (t(2, 3, 7, 6, 9), [3, 2, 3], [2, 1, 3], [1, 1, 0], True, False),
    (t(2, 5, 5, 6, 7, at="channels_last"), [3], [2], [1]),
    (t(1, 3, 5, 8, 6), [3], [2], [1], True, True),
    (t(1, 3, 5, 8, 6), [3], [2], [1], True, True, 7),
    (t(3, 5, 4, 6), [2]),
    (t(0, 3, 5, 4, 6), [2]),
    (t(1, 2, 4, 5, 6, dtype=f64), [2]),
)


def avg_backward(op: Any, x: T, *args: Any) -> S:
    full = (*args, *([], [0], False, True, None)[len(args) - 1 :])
    return s(T(shape_of(op, x, *args), x.dtype, x.values), replace(x, values="normal"), *full)


for _op, _backward, _calls in (
    (aten.avg_pool2d.default, aten.avg_pool2d_backward.default, _AVG2),
    (aten.avg_pool3d.default, aten.avg_pool3d_backward.default, _AVG3),
):
    row(_op, samples=[s(*c) for c in _calls])
    row(_backward, samples=[avg_backward(_op, *c) for c in _calls])
for _op, _backward, _calls in (
    (aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d_backward.default, _ADAPTIVE2),
    (aten._adaptive_avg_pool3d.default, aten._adaptive_avg_pool3d_backward.default, _ADAPTIVE3),
):
    _shape, _size = _calls[1][0].shape, _calls[1][1]
    row(
        _op,
        samples=[
            *(s(*c) for c in _calls if c[0].values != "low"),
            s(T(_shape, f32, "nonfinite"), _size),
            s(T(_shape, bf16), _size),
            s(T(_shape), [0] * len(_size)),
        ],
    )
    row(
        _backward,
        samples=[
            *(s(T(shape_of(_op, *c), c[0].dtype), c[0]) for c in _calls),
            s(T((*_shape[:2], *_size), f32, "nonfinite"), T(_shape)),
            s(T((*_shape[:2], *_size), bf16), T(_shape, bf16)),
        ],
    )

# -- resampling ----------------------------------------------------------------------------------


def resampled(name: str, exact: bool, *calls: tuple[Any, ...]) -> None:
    """Rows of a resampling and of its backward: of each call the input and the rest."""
    forward, backward = getattr(aten, name).default, getattr(aten, f"{name}_backward").default
    back = []
    for x, size, *rest in calls:
        if x.dtype not in (f16, bf16) and 0 not in x.shape:  # eager's backward takes no such thing
            # where taps share a point, eager adds products and we multiply by the sum of weights:
            # the same but for infinities
            values = "nan" if x.values == "nonfinite" else x.values
            dy = T((*x.shape[:2], *size), x.dtype, values, x.layout)
            back.append(s(dy, size, list(x.shape), *rest))
    row(forward, check="exact" if exact else "rms", samples=[s(*c) for c in calls])
    row(backward, samples=back)


def sizes(*calls: tuple[Any, ...], linear: bool) -> list[tuple[Any, ...]]:
    """Calls (input, size, *scales) with align_corners both ways where the op takes it."""
    if not linear:
        return list(calls)
    return [(x, size, align, *scales) for align in (False, True) for x, size, *scales in calls]


for _name, _linear in (
    ("upsample_nearest1d", False),
    ("_upsample_nearest_exact1d", False),
    ("upsample_linear1d", True),
):
    resampled(
        _name,
        not _linear,
        *sizes(
            (t(2, 3, 13), [26], 2.0),
            (t(2, 3, 13), [29]),
            (t(2, 3, 13), [22], 1.7),
            (t(2, 3, 13), [7], 0.6),
            (t(2, 3, 13), [13]),
            (t(2, 3, 13), [1]),
            (t(2, 3, 1), [5]),
            (t(2, 3, 9, at="strided"), [40]),
            (t(2, 3, 9, v="nan"), [17]),
            (t(2, 3, 9, dtype=f64), [25]),
            (t(2, 3, 9, dtype=bf16), [25]),
            linear=_linear,
        ),
    )
for _name, _linear in (
    ("upsample_nearest2d", False),
    ("_upsample_nearest_exact2d", False),
    ("upsample_bilinear2d", True),
    ("upsample_bicubic2d", True),
):
    resampled(
        _name,
        not _linear,
        *sizes(
            (t(2, 3, 5, 7), [10, 14], 2.0, 2.0),
            (t(2, 3, 9, 11), [18, 7]),
            (t(2, 3, 9, 11), [15, 18], 1.7, 1.7),
            (t(2, 3, 9, 11), [5, 6], 0.6, 0.6),
            (t(2, 19, 5, 6, at="channels_last"), [15, 12]),
            (t(2, 19, 10, 6, at="channels_last"), [20, 11], 2.05, 1.9),
            (t(2, 3, 5, 6), [5, 6]),
            (t(2, 3, 5, 6), [1, 9]),
            (t(2, 3, 6, 5, at="transposed"), [13, 8]),
            *([(t(0, 3, 5, 6), [7, 7])] if _linear else []),  # torch's fake kernels fail
            (t(1, 2, 5, 6, v="nonfinite"), [10, 12]),
            (t(1, 2, 5, 6, dtype=f64), [11, 7]),
            (t(1, 2, 5, 6, dtype=f16), [11, 7]),
            linear=_linear,
        ),
    )
for _name, _linear in (
    ("upsample_nearest3d", False),
    ("_upsample_nearest_exact3d", False),
    ("upsample_trilinear3d", True),
):
    resampled(
        _name,
        not _linear,
        *sizes(
            (t(2, 3, 3, 5, 4), [6, 10, 8], 2.0, 2.0, 2.0),
            (t(2, 3, 5, 6, 4), [9, 3, 4]),
            (t(1, 3, 5, 6, 4), [8, 10, 6], 1.7, 1.7, 1.7),
            (t(1, 17, 3, 4, 5, at="channels_last"), [6, 7, 5]),
            *([(t(0, 3, 3, 5, 4), [6, 10, 8])] if _linear else []),
            (t(1, 2, 3, 5, 4, dtype=f64), [5, 6, 7]),
            linear=_linear,
        ),
    )

# -- contractions --------------------------------------------------------------------------------


def conv(x: T, w: T, bias: T | None = None, **changes: Any) -> S:
    n = len(x.shape) - 2
    full = dict(stride=[1] * n, padding=[0] * n, dilation=[1] * n) | changes
    full = dict(transposed=False, output_padding=[0] * n, groups=1) | full
    names = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
    return s(x, w, bias, *(full[k] for k in names))


row(
    aten.convolution.default,
    samples=[
        conv(t(2, 5, 9, 7), t(7, 5, 3, 3), t(7), padding=[1, 1]),
        conv(t(2, 5, 9, 7), t(7, 5, 3, 2), stride=[2, 3]),
        conv(t(1, 5, 9, 7, at="channels_last"), t(3, 5, 1, 1), t(3)),
        conv(t(1, 5, 9, 7), t(3, 5, 3, 3, at="channels_last"), t(3), padding=[2, 0]),
        conv(t(1, 3, 11, 9), t(4, 3, 3, 3), dilation=[2, 3], padding=[2, 3]),
        conv(t(2, 6, 9, 7), t(6, 1, 3, 3), t(6), groups=6, padding=[1, 1]),
        conv(t(2, 6, 9, 7), t(12, 1, 3, 3), groups=6, stride=[2, 2]),
        conv(t(2, 6, 9, 7), t(4, 3, 3, 3), t(4), groups=2),
        conv(t(2, 6, 9, 7, at="channels_last"), t(9, 2, 2, 3), groups=3, dilation=[2, 1]),
        conv(t(2, 24, 5, 5), t(24, 8, 3, 3), t(24), groups=3, padding=[1, 1], stride=[2, 1]),
        conv(t(2, 4, 5, 6), t(4, 3, 3, 3), t(3), transposed=True),
        conv(t(2, 4, 5, 6), t(4, 3, 3, 3), t(3), transposed=True, stride=[2, 2]),
        conv(t(2, 4, 5, 6), t(4, 3, 2, 3), transposed=True, stride=[3, 2], padding=[1, 0]),
        conv(t(2, 4, 5, 6), t(4, 9, 1, 1), t(9), transposed=True, stride=[2, 3]),
        conv(
            t(1, 4, 5, 6),
            t(4, 3, 3, 4),
            t(3),
            transposed=True,
            padding=[1, 3],
            stride=[4, 2],
            dilation=[2, 3],
            output_padding=[1, 1],
        ),
        conv(t(1, 4, 5, 6), t(4, 3, 3, 2), transposed=True, stride=[2, 6], dilation=[4, 4]),
        conv(t(2, 6, 5, 6), t(6, 2, 3, 3), t(6), transposed=True, stride=[2, 1], groups=3),
        conv(t(2, 6, 5, 6), t(6, 1, 3, 3), t(6), transposed=True, stride=[2, 2], groups=6),
        conv(t(2, 6, 5, 6), t(6, 2, 3, 3), transposed=True, stride=[2, 2], groups=6),
        conv(t(2, 6, 5, 6), t(6, 1, 3, 3), transposed=True, padding=[1, 1], groups=2),
        conv(t(2, 3, 7), t(3, 5, 4), t(5), transposed=True, stride=[3], padding=[2]),
        conv(t(1, 3, 3, 4, 5), t(3, 4, 2, 3, 2), transposed=True, stride=[2, 1, 2]),
        conv(t(0, 4, 5, 6), t(4, 3, 3, 3), t(3), transposed=True, stride=[2, 2]),
        conv(t(2, 3, 17), t(5, 3, 4), t(5), stride=[3], padding=[2]),
        conv(t(1, 3, 5, 6, 7), t(4, 3, 2, 3, 2), t(4), padding=[1, 0, 1]),
        conv(t(0, 3, 5, 5), t(4, 3, 3, 3), t(4)),
        conv(t(1, 3, 5, 5, dtype=f64), t(4, 3, 3, 3, dtype=f64), t(4, dtype=f64)),
        conv(t(1, 3, 5, 5, at="strided"), t(4, 3, 3, 3), t(4)),
        conv(t(3, 3, 5, 5, at="expanded"), t(4, 3, 3, 3), t(4)),
        conv(t(1, 400, 4, 4), t(5, 400, 3, 3), t(5), padding=[1, 1]),
        conv(t(1, 3, 5, 5, v="nonfinite"), t(4, 3, 2, 2), t(4)),
        conv(t(1, 3, 5, 5, dtype=bf16), t(4, 3, 3, 3, dtype=bf16), t(4, dtype=bf16)),
    ],
)


def dw(x: tuple[int, ...], w: tuple[int, ...], at: str = "dense", **changes: Any) -> S:
    """The gradient of a convolution's weights, from dy, x and w."""
    n, dtype = len(x) - 2, changes.pop("dtype", f32)
    a = dict(stride=[1] * n, padding=[0] * n, dilation=[1] * n, transposed=False)
    a = {**a, "output_padding": [0] * n, "groups": 1, **changes}
    y = aten.convolution(torch.empty(x), torch.empty(w), None, *a.values())
    inputs = (t(*shape, dtype=dtype, at=at) for shape in (y.shape, x, w))
    return s(*inputs, None, *a.values(), [False, True, False], outs=(1,))


row(
    aten.convolution_backward.default,
    samples=[
        dw((2, 17, 9, 7), (5, 17, 3, 3), padding=[1, 1]),
        dw((3, 40, 23, 21), (70, 40, 3, 3), padding=[1, 1]),  # more than a cache holds
        dw((3, 40, 23, 21), (70, 40, 3, 3), padding=[1, 1], at="channels_last"),
        dw((2, 96, 31, 30), (24, 96, 3, 2), stride=[2, 1], padding=[0, 1], at="channels_last"),
        dw((2, 96, 31, 30), (96, 32, 3, 3), groups=3, padding=[1, 1], at="channels_last"),
        dw((2, 33, 40, 31), (40, 33, 2, 3), dilation=[3, 2], padding=[2, 1], at="channels_last"),
        dw((9, 80, 9, 9), (80, 80, 9, 9), padding=[4, 4], at="channels_last"),  # taps beyond
        dw((5, 20, 999), (24, 20, 5), padding=[2], stride=[2]),
        dw((1, 20, 5, 9, 8), (18, 20, 2, 3, 2), padding=[1, 0, 1]),
        dw((2, 24, 15, 16), (24, 20, 3, 3), transposed=True, stride=[2, 2], at="channels_last"),
        dw((2, 17, 9, 7), (5, 17, 1, 1)), dw((2, 3, 9, 7), (5, 3, 3, 3)),
        dw((2, 6, 9, 7), (6, 1, 3, 3), groups=6), dw((0, 17, 9, 7), (5, 17, 3, 3)),
        dw((2, 17, 9, 7), (5, 17, 3, 3), dtype=f64), dw((2, 17, 9, 7), (5, 17, 3, 3), dtype=bf16),
    ],
)  # fmt: skip
row(
    aten.mm.default,
    samples=[
        s(t(5, 7), t(7, 3)),
        s(t(33, 17), t(17, 65)),
        s(t(5, 7, at="transposed"), t(7, 3, at="transposed")),
        s(t(5, 7, at="strided"), t(7, 3, at="gaps")),
        s(t(5, 7, at="expanded"), t(7, 1)),
        s(t(1, 7, v="positive"), t(7, 1, v="positive")),
        s(t(0, 7), t(7, 3)),
        s(t(5, 0), t(0, 3)),
        s(t(3, LONG), t(LONG, 2)),
        s(t(5, 7, dtype=f64), t(7, 3, dtype=f64)),
        s(t(5, 7, dtype=i64), t(7, 3, dtype=i64)),
        s(t(5, 7, v="nonfinite"), t(7, 3)),
        s(t(5, 7, dtype=bf16), t(7, 3, dtype=bf16)),
    ],
)
row(
    aten.bmm.default,
    samples=[
        s(t(3, 5, 7), t(3, 7, 2)),
        s(t(3, 5, 7, at="transposed"), t(3, 7, 9, at="expanded")),
        s(t(0, 5, 7), t(0, 7, 2)),
        s(t(3, 5, 0), t(3, 0, 2)),
        s(t(2, 1, 33), t(2, 33, 1)),
        s(t(3, 5, 7, dtype=f64), t(3, 7, 2, dtype=f64)),
        s(t(3, 5, 7, dtype=f16), t(3, 7, 2, dtype=f16)),
    ],
)
row(
    aten.addmm.default,
    samples=[
        s(t(3), t(5, 7), t(7, 3)),
        s(t(5, 3), t(5, 7), t(7, 3)),
        s(t(5, 1), t(5, 7), t(7, 3)),
        s(t(1, 3), t(5, 7, at="transposed"), t(7, 3, at="transposed")),
        s(t(), t(5, 7), t(7, 3)),
        s(t(3), t(5, 0), t(0, 3)),
        s(t(3), t(0, 7), t(7, 3)),
        s(t(3), t(5, 7), t(7, 3), beta=0.5, alpha=2),
        s(t(3, v="nonfinite"), t(5, 7), t(7, 3), beta=0),
        s(t(3, dtype=f64), t(5, 7, dtype=f64), t(7, 3, dtype=f64)),
        s(t(3, dtype=i64), t(5, 7, dtype=i64), t(7, 3, dtype=i64)),
        s(t(3, dtype=bf16), t(5, 7, dtype=bf16), t(7, 3, dtype=bf16)),
    ],
)
row(
    aten.baddbmm.default,
    samples=[
        s(t(3, 5, 2), t(3, 5, 7), t(3, 7, 2)),
        s(t(2), t(3, 5, 7), t(3, 7, 2)),
        s(t(3, 1, 1), t(3, 5, 7), t(3, 7, 2)),
        s(t(5, 2), t(3, 5, 7), t(3, 7, 2)),
        s(t(3, 5, 2), t(3, 5, 7), t(3, 7, 2), beta=2),
        s(t(5, 2), t(3, 5, 0), t(3, 0, 2)),
        s(t(2, dtype=f64), t(3, 5, 7, dtype=f64), t(3, 7, 2, dtype=f64)),
    ],
)

# -- movement ------------------------------------------------------------------------------------


def moved(rank_3: Iterable[tuple[Any, ...]], *others: S) -> list[S]:
    """The arguments after a (3, 5, 8) tensor, in several layouts and dtypes."""
    tensors = [
        t(3, 5, 8, v="special"), t(3, 5, 8, at="transposed"), t(3, 5, 8, at="strided"),
        t(3, 5, 8, at="expanded"), t(3, 5, 8, dtype=i64), t(3, 5, 8, dtype=b8),
        *(t(3, 5, 8, dtype=d) for d in (f16, bf16)),
    ]  # fmt: skip
    found = [
        s(x, *rest) for k, rest in enumerate(rank_3) for x in (tensors if k == 0 else tensors[:3])
    ]
    return [*found, *others]


row(
    aten.permute.default,
    check="exact",
    view=True,
    samples=moved([([2, 0, 1],), ([-1, 1, 0],)], s(t(), []), s(t(0, 3), [1, 0])),
)
row(
    aten.transpose.int,
    check="exact",
    view=True,
    samples=moved([(0, 2), (-1, -2), (1, 1)], s(t(), 0, -1), s(t(0, 3), 0, 1)),
)
row(
    aten.t.default,
    check="exact",
    view=True,
    samples=[
        s(t(5, 3)), s(t(5)), s(t()), s(t(0, 3)), s(t(4, 6, at="strided")), s(t(4, 6, dtype=i32)),
    ],
)  # fmt: skip
row(
    aten.expand.default,
    check="exact",
    view=True,
    samples=[
        s(t(3, 1, 5), [3, 4, 5]), s(t(3, 1, 5), [2, 3, -1, 5]), s(t(), [3]), s(t(1, 5), [0, 5]),
        s(t(3, 5), [3, 5]), s(t(1, 5, dtype=i64), [3, 5]), s(t(4, 1, at="transposed"), [4, 3]),
        s(t(1, dtype=b8), [7]),
    ],
)  # fmt: skip
row(
    aten.unsqueeze.default,
    check="exact",
    view=True,
    samples=moved([(0,), (-1,), (2,)], s(t(), 0), s(t(0, 3), 1)),
)
row(
    aten.squeeze.dim,
    check="exact",
    view=True,
    samples=[s(t(3, 1, 5), 1), s(t(3, 1, 5), 0), s(t(3, 1, 5), -2), s(t(), 0), s(t(1), -1)],
)
row(
    aten.squeeze.dims,
    check="exact",
    view=True,
    samples=[s(t(1, 3, 1, 5), [0, 2]), s(t(1, 3, 1), [-1, 1]), s(t(1, 0), [0]), s(t(1), [])],
)
row(
    aten.squeeze.default,
    check="exact",
    view=True,
    samples=[s(t(1, 3, 1, 5)), s(t(1, 1)), s(t()), s(t(1, 0)), s(t(1, 6, 4, at="transposed"))],
)
row(
    aten.slice.Tensor,
    check="exact",
    view=True,
    samples=moved(
        [(1, 1, 4), (2, 0, 9223372036854775807, 3), (-1, -3, -1), (0, 2, 1), (1, 7, 9)],
        s(t(7)),
        s(t(7), 0, None, -2),
        s(t(7), 0, -100, 100),
    ),
)
row(
    aten.select.int,
    check="exact",
    view=True,
    samples=moved([(1, 2), (-1, -1), (0, 0)], s(t(7), 0, 3), s(t(3, 0), 0, 1)),
)
row(
    aten.alias.default,
    aten.detach.default,
    check="exact",
    view=True,
    samples=moved([()], s(t()), s(t(0, 3))),
)
row(
    aten.diagonal.default,
    check="exact",
    view=True,
    samples=moved([(), (1, 1, 2), (-2, 0, -1)], s(t(3, 3), 5), s(t(4, 6, at="transposed"))),
)
row(
    aten.unfold.default,
    check="exact",
    view=True,
    samples=moved([(2, 3, 2), (1, 2, 1), (-1, 8, 1)], s(t(7), 0, 3, 5), s(t(), 0, 1, 1)),
)
_shapes = [([5, 24],), ([-1],), ([2, 3, 4, 5],), ([1, 15, 1, 8],)]
row(
    aten.reshape.default,
    check="exact",
    view=True,
    samples=moved(_shapes, s(t(), [1, 1]), s(t(1, 1), []), s(t(0, 3), [3, 0]), s(t(0, 3), [0])),
)
row(
    aten.view.default,
    aten._unsafe_view.default,
    check="exact",
    view=True,
    samples=[
        *(s(t(3, 5, 8, v="special"), *x) for x in _shapes),
        s(t(3, 5, 8, dtype=i64), [-1, 8]), s(t(), [1, 1]), s(t(1, 1), []), s(t(0, 3), [3, 0]),
        s(t(4, 6, at="transposed"), [2, 2, 6]), s(t(6, 4, at="gaps"), [2, 3, 4]),
        s(t(2, 12, at="strided"), [2, 3, 4]), s(t(3, 4, dtype=f16), [12]),
    ],
)  # fmt: skip
row(
    aten.clone.default,
    check="exact",
    samples=[
        *moved([()], s(t()), s(t(0, 3))),
        s(t(2, 3, 4, 5), memory_format=torch.channels_last),
        s(t(3, 5, at="transposed"), memory_format=torch.contiguous_format),
    ],
)
row(aten.lift_fresh_copy.default, check="exact", samples=moved([()], s(t()), s(t(0, 3))))
row(
    aten.cat.default,
    check="exact",
    samples=[
        s([t(3, 5), t(3, 2)], 1),
        s([t(3, 5), t(1, 5), t(4, 5)]),
        s([t(3, 5, 2), t(3, 7, 2)], -2),
        s([t(3, 5, v="special")]),
        s([t(3, 5), t(0)], 0),
        s([t(0), t(3, 5)], 1),
        s([t(3, 0), t(3, 4)], 1),
        s([t(0), t(0)]),
        s([t(3, 5, at="transposed"), t(3, 5, at="strided"), t(3, 5, at="expanded")], 1),
        s([t(2, 3, 4, 5, at="channels_last"), t(2, 4, 4, 5, at="channels_last")], 1),
        s([t(3, dtype=i64), t(2, dtype=i64)]),
        s([t(3, dtype=i64), t(2)]),
        s([t(3, dtype=b8), t(2, dtype=b8)]),
        s([t(3, dtype=f64), t(2)]),
        s([t(3, dtype=f16), t(2, dtype=f16)]),
    ],
)
row(
    aten.split.Tensor,
    check="exact",
    view=True,
    samples=[
        s(t(3, 7), 3, 1), s(t(3, 7), 3, -1), s(t(7, 3), 7), s(t(7, 3), 9),
        *([s(t(0, 3), 2)] if torch.__version__ >= (2, 12) else []),  # torch's own shape rule failed
        s(t(6, 4, at="transposed"), 4), s(t(8, dtype=i64), 4), s(t(3, 7), 3, 1, outs=(1,)),
    ],
)  # fmt: skip
row(
    aten.split_with_sizes.default,
    check="exact",
    view=True,
    samples=[
        s(t(3, 7), [3, 4], 1), s(t(3, 7), [0, 7], -1), s(t(7, 3), [1, 2, 4]), s(t(0, 3), [0]),
        s(t(6, 4, at="transposed"), [2, 2], 1), s(t(3, 7), [3, 4], 1, outs=(1,)),
    ],
)  # fmt: skip
row(
    aten.constant_pad_nd.default,
    check="exact",
    samples=[
        *moved([([1, 2],), ([0, 1, 2, 0], 1.5), ([-1, 2, 0, 0, 1, 1], -inf), ([-2, -3],)]),
        s(t(3, 5, 8), [1, 1], nan),
        s(t(3, 5, dtype=i64), [1, 1], 7),
        s(t(3, 5, dtype=i32), [1, 1], 2.0),
        s(t(3, 5, dtype=b8), [1, 1], True),
        s(t(0, 5), [1, 1, 2, 0], 3.0),
        s(t(5), [0, 0]),
        s(t(5), [-2, -3]),
        s(t(2, 3, 4, 5, at="channels_last"), [1, 1, 1, 1]),
        s(t(9, dtype=f64), [3, 3], -0.0),
    ],
)
row(
    aten.select_scatter.default,
    check="exact",
    samples=[
        *(s(t(3, 5, dtype=d), t(5, dtype=d), 0, 2) for d in (f32, f64, i64, b8)),
        s(t(3, 5, 7, at="transposed"), t(3, 7), 1, -2),
        s(t(3, 5), t(3), -1, 0),
        s(t(3, 0), t(0), 0, 1),
    ],
)
row(
    aten.flip.default,
    check="exact",
    samples=moved([([1],), ([0, 2],), ([-1, 0, 1],)], s(t(), []), s(t(0, 3), [0]), s(t(5), [])),
)
row(
    aten.linalg_vector_norm.default,
    samples=[
        *(s(t(3, 5, 8), p, [1]) for p in (0, 1, 2, 3, 0.5, -1.5, inf, -inf)),
        s(t(7, 33), 2, [-1], True), s(t(7, 33), 2, None), s(t(7, 33)), s(t(5, 3, 4), 2, [0, 2]),
        s(t(3, LONG), 2, [1]), s(t(3, 9, at="transposed"), 2, [0]), s(t(3, 9, v="special"), 1, [1]),
        s(t(3, 9, v="nan"), inf, [1]), s(t(0, 4), 2, [0]), s(t(4, 0), 2, [0]), s(t(), 2),
        s(t(3, 9, dtype=f64), 2, [1]), s(t(3, 9, dtype=bf16), 2, [1]),
        s(t(3, 9, dtype=f16), 1, [1]),
        s(t(3, 9), 2, [1], dtype=f64),
    ],
)  # fmt: skip
row(
    aten.as_strided.default,
    check="exact",
    view=False,
    samples=[
        s(t(3, 5), [3, 1, 5], [5, 7, 1]), s(t(4, 6), [2, 3], [1, 8]), s(t(4, 6), [3, 4], [6, 1], 2),
        s(t(24), [3, 5, 4], [5, 2, 1]), s(t(2, 3, 4, 5, at="channels_last"), [4, 6], [7, 13], 3),
        s(t(5, 4, at="transposed"), [20], [1]), s(t(4, 6), [2, 3], [0, 0]), s(t(), [2, 2], [0, 0]),
        s(t(5, 4, at="gaps"), [3], [1]), s(t(3, 5, dtype=i64), [2, 2], [3, 2]),
        s(t(3, 4), [0, 3], [1, 1]), s(t(7, dtype=b8), [3], [2]),
    ],
)  # fmt: skip
row(
    aten.repeat.default,
    check="exact",
    samples=moved(
        [([1, 2, 3],), ([2, 3, 1, 2],), ([1, 1, 1],)],
        s(t(), [3]), s(t(), []), s(t(5), [2, 3]), s(t(0, 3), [2, 2]), s(t(2, 3), [0, 2]),
        s(t(1, 5), [4, 1]), s(t(2, 3, 4, 5, at="channels_last"), [1, 2, 1, 1]),
    ),
)  # fmt: skip
row(
    aten.roll.default,
    check="exact",
    samples=moved(
        [([3], [1]), ([1, -2], [0, 2]), ([2, 3], [-1, -1]), ([0], [0])],
        s(t(37), [5]), s(t(37), [-50]), s(t(0, 3), [1], [0]), s(t(5), [0]),
        s(t(2, 8, 9, 16, at="channels_last"), [-3, 4], [2, 3]), s(t(9, 8, dtype=i64), [7], [0]),
    ),
)  # fmt: skip
row(
    aten.copy.default,
    check="exact",
    samples=[
        s(t(3, 5), t(3, 5)), s(t(3, 5), t()), s(t(3, 5), t(5)), s(t(3, 5), t(3, 1, dtype=i64)),
        s(t(3, 5, dtype=i64), t(5)), s(t(3, 5, dtype=b8), t(3, 5)), s(t(0, 5), t(5)), s(t(), t()),
        s(t(3, 5, at="transposed"), t(3, 5)), s(t(3, 5, dtype=bf16), t(3, 5)),
    ],
)  # fmt: skip
_statistics = lambda c: (t(c), t(c), t(c), t(c, v="positive"))  # noqa: E731
row(
    aten._native_batch_norm_legit_functional.default,
    samples=[
        s(t(3, 5, 7, 6), *_statistics(5), True, 0.1, 1e-5),
        s(t(8, 33), *_statistics(33), True, 0.25, 1e-3),
        s(t(2, 4, 9), *_statistics(4), True, 0.0, 1e-5),
        s(t(3, 17, 5, 5, at="channels_last"), *_statistics(17), True, 0.1, 1e-5),
        s(t(3, 5, 7, 6), None, None, t(5), t(5, v="positive"), True, 0.1, 1e-5),
        s(t(3, 5, 7, dtype=f64), *[t(5, dtype=f64, v="positive")] * 4, True, 0.1, 0.0),
        s(t(3, 5, 4, 4), *_statistics(5), False, 0.1, 1e-5, outs=(0,)),
        s(t(1, 5, 2, 1), *_statistics(5), True, 1.0, 1e-5),
    ],
)  # fmt: skip
row(
    aten._native_batch_norm_legit_no_training.default,
    samples=[  # further results are the CPU's own affair
        s(t(3, 5, 7, 6), *_statistics(5), 0.1, 1e-5, outs=(0,)),
        s(t(8, 33), *_statistics(33), 0.25, 1e-3, outs=(0,)),
        s(t(3, 17, 5, 5, at="channels_last"), *_statistics(17), 0.1, 1e-5, outs=(0,)),
        s(t(3, 5, 7, 6), None, None, t(5), t(5, v="positive"), 0.1, 1e-5, outs=(0,)),
        s(t(3, 5, 7, dtype=f64), *[t(5, dtype=f64, v="positive")] * 4, 0.1, 0.0, outs=(0,)),
        s(t(3, 5, 7, v="special"), *_statistics(5), 0.1, 1e-5, outs=(0,)),
        s(t(0, 5), *_statistics(5), 0.1, 0.0, outs=(0,)),
        *(s(t(3, 5, 7, dtype=d), *[t(5, dtype=d, v="positive")] * 4, 0.1, 1e-5, outs=(0,))
          for d in (f16, bf16)),
    ],
)  # fmt: skip
_pairs = lambda *shape, **k: (t(*shape, **k), t(*shape, **k))  # noqa: E731
_all = [True, True, True]
row(
    aten.native_batch_norm_backward.default,
    samples=[
        s(*_pairs(3, 5, 7, 6), *_statistics(5)[1:], t(5), t(5, v="positive"), True, 1e-5, _all),
        s(*_pairs(8, 33), t(33), None, None, t(33), t(33, v="positive"), True, 1e-5, _all),
        s(*_pairs(2, 4, 9), None, None, None, t(4), t(4, v="positive"), True, 1e-5,
          [True, False, True], outs=(0, 2)),
        s(*_pairs(3, 17, 5, 5, at="channels_last"), t(17), *_statistics(17)[2:],
          t(17), t(17, v="positive"), True, 1e-5, _all),
        s(*_pairs(3, 5, 4, 4), *_statistics(5)[1:], None, None, False, 1e-5, _all),
        *(s(*_pairs(3, 5, 4, dtype=d), t(5), None, None, t(5), t(5, v="positive"), True, 1e-5,
            _all) for d in (f16, bf16)),
    ],
)  # fmt: skip
row(
    aten._native_batch_norm_legit.no_stats,
    samples=[
        s(t(3, 5, 7, 6), t(5), t(5), True, 0.1, 1e-5), s(t(8, 3), None, None, True, 0.0, 1e-5),
        s(t(2, 5, 40, 30, v="wide"), t(5), None, True, 0.0, 1e-5),
    ],
)  # fmt: skip


_masks = [
    s(t(3, 7, dtype=d, at=at), t(7, dtype=d)) for d in (b8, i64, i32, u8) for at in ("dense",)
] + [s(t(3, 7, dtype=i64), t(3, 7, dtype=i32)), s(t(3, 7, dtype=i64), t(3, 7, dtype=b8))]
row(aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.bitwise_xor.Tensor, check="exact",
    samples=_masks)  # fmt: skip
row(
    aten.bitwise_and.Scalar, aten.bitwise_or.Scalar, aten.bitwise_xor.Scalar,
    check="exact",
    samples=[s(t(3, 7, dtype=i64), 5), s(t(3, 7, dtype=b8), True), s(t(9, dtype=u8), 3)],
)  # fmt: skip
row(
    aten.bitwise_not.default,
    check="exact",
    samples=[s(t(3, 7, dtype=d)) for d in (b8, i64, i32, u8)],
)
row(
    aten.logical_xor.default,
    check="exact",
    samples=[
        s(t(3, 7, dtype=b8), t(3, 7, dtype=b8)), s(t(3, 37, v="special"), t(37, dtype=i64)),
        s(t(0, 3), t(3)), s(t(), t(4)),
    ],
)  # fmt: skip


# -- indexing and scans --------------------------------------------------------------------------

_place = lambda *shape, dtype=i64: t(*shape, dtype=dtype, v="small")  # noqa: E731  (0 .. 4)
_any_place = lambda *shape: t(*shape, dtype=i64)  # noqa: E731  (-9 .. 9)
row(
    aten.index.Tensor, aten._unsafe_index.Tensor,
    check="exact",
    samples=[
        s(t(5, 7), [_place(3)]), s(t(10, 7), [_any_place(4)]), s(t(5, 7), [_place(3, 2)]),
        s(t(5, 6, 7), [None, _place(3)]), s(t(5, 6, 7), [_place(3), _place(3)]),
        s(t(5, 6, 7), [_place(3), None, _place(3)]), s(t(5, 6, 7), [_place(2, 1), _place(3)]),
        s(t(5, 6, 7), [None, _place(3, 1), _place(4)]), s(t(5, 6), [_place()]),
        s(t(5, 33, at="transposed"), [_place(9)]), s(t(5, 6, dtype=b8), [_place(3)]),
        s(t(5, 6, dtype=f16), [_place(3, dtype=i32)]), s(t(5, 6), [_place(0)]),
        s(t(5, 0), [_place(3)]), s(t(2, 5, 6, 4, at="channels_last"), [None, None, _place(3)]),
        s(t(19, 33, v="special"), [_any_place(6, 5)]),
        s(t(5, 6, dtype=i64), [_place(4), _place(4)]),
    ],
)  # fmt: skip
row(
    aten.embedding.default,
    check="exact",
    samples=[
        s(t(5, 33), _place(7)), s(t(5, 3), _place(2, 3)), s(t(5, 8), _place()),
        s(t(5, 8), _place(0)), s(t(5, 64, dtype=bf16), _place(3, dtype=i32)),
        s(t(5, 7, at="transposed"), _place(2, 3), 1), s(t(5, 0), _place(3)),
    ],
)  # fmt: skip
row(
    aten.index_select.default,
    check="exact",
    samples=[
        s(t(5, 7), 0, _place(3)), s(t(4, 6), 1, _place(9)), s(t(4, 6, 3), -2, _place(2)),
        s(t(5, 33, at="transposed"), 0, _place(2)), s(t(5, 7, dtype=i64), 0, _place(0)),
        s(t(5, 7, dtype=b8), 0, _place(3, dtype=i32)), s(t(5, 0), 0, _place(3)),
    ],
)  # fmt: skip
row(
    aten.gather.default,
    check="exact",
    samples=[
        s(t(5, 7), 0, _place(3, 7)), s(t(5, 7), 1, _place(5, 3)), s(t(5, 7), -1, _place(2, 9)),
        s(t(5, 6, 7), 1, _place(4, 33, 7)), s(t(5), 0, _place(3)), s(t(5, 7), 0, _place(0, 7)),
        s(t(5, 7, dtype=f64, at="transposed"), 0, _place(3, 5)),
        s(t(5, 7, dtype=b8), 0, _place(3, 2)),
    ],
)  # fmt: skip
row(
    aten.slice_scatter.default,
    check="exact",
    samples=[
        s(t(7, 5), t(3, 5), 0, 2, 5), s(t(7, 5), t(7, 2), 1, -2), s(t(7, 5), t(3, 5), 0, 1, 7, 2),
        s(t(7, 5), t(7, 5)), s(t(7, 5), t(0, 5), 0, 3, 3), s(t(7, 5), t(4, 5), 0, 0, None, 2),
        s(t(7, 5, at="transposed"), t(7, 3), 1, 0, 3),
        s(t(7, 5, dtype=i64), t(2, 5, dtype=i64), 0, 5, 99),
        s(t(2, 3, 8, 5, at="channels_last"), t(2, 3, 3, 5), 2, 1, 8, 3),
    ],
)  # fmt: skip
_running = [
    s(t(3, 37), 1), s(t(37, 3), 0), s(t(2, 9, 5), -2), s(t(9, dtype=f64), 0), s(t(), 0),
    s(t(5, 0), 1), s(t(0, 5), 1), s(t(3, 9, at="transposed"), 1), s(t(4, 9, dtype=f16), 1),
    s(t(4, 9, dtype=bf16), 0), s(t(4, 9), 1, dtype=f64), s(t(3, 7, dtype=b8), 1), s(t(1, 1), 0),
]  # fmt: skip
row(
    aten.cumsum.default,
    samples=[*_running, s(t(3, 2000), 1), s(t(4, 7, dtype=i64), 1), s(t(4, 7, dtype=u8), 1)],
)
row(
    aten.cumprod.default,
    samples=[*_running, s(t(3, 7, dtype=i32, v="ties"), 0), s(t(4, 5, dtype=i64), 1)],
)


# -- random numbers ------------------------------------------------------------------------------

_sizes = [[40, 57], [3, 0], [], [4, 31, 8]]
row(
    aten.rand.default, aten.randn.default,
    check="random",
    samples=[
        *(s(n) for n in _sizes), *(s([33, 65], dtype=d) for d in (f64, f16, bf16)),
    ],
)  # fmt: skip
row(
    aten.rand_like.default, aten.randn_like.default,
    check="random",
    samples=[
        s(t(40, 57)), s(t(40, 57, at="transposed")), s(t(0, 3)),
        s(t(2, 3, 19, 8, at="channels_last")), s(t(33, 65, dtype=f64)), s(t(33, 65), dtype=f16),
        s(t(9, 99, dtype=i64), dtype=f32),
    ],
)  # fmt: skip
row(
    aten.uniform.default, aten.normal_functional.default,
    check="random",
    samples=[
        s(t(40, 57)), s(t(40, 57), -1.5, 3.0), s(t(40, 57, at="transposed"), 2.0, 2.5), s(t(0, 3)),
        s(t(999, dtype=f64), 0.0, 2.0), s(t(999, dtype=bf16), 0.0, 2.0),
    ],
)  # fmt: skip
row(
    aten.log_normal.default,
    check="random",
    samples=[s(t(40, 57)), s(t(999, dtype=f64), 0.0, 0.5), s(t(33, 65, dtype=f16), 0.0, 0.25)],
)
row(
    aten.exponential.default,
    check="random",
    samples=[s(t(40, 57)), s(t(40, 57), 3.0), s(t(999, dtype=f64), 0.5), s(t(99, dtype=bf16))],
)
row(
    aten.normal.float_float,
    check="random",
    samples=[s(0.0, 1.0, [40, 57]), s(3.0, 0.5, [2000]), s(1.0, 2.0, [999], dtype=f64)],
)
row(
    aten.normal.Tensor_float,
    check="random",
    samples=[s(t(40, 57), 0.5), s(t(57, 40, at="transposed")), s(t(999, dtype=f64), 3.0)],
)
row(
    aten.bernoulli.p,
    check="random",
    samples=[
        s(t(40, 57), 0.3), s(t(40, 57), 0.0), s(t(40, 57), 1.0), s(t(40, 57, at="transposed"), 0.6),
        s(t(999, dtype=b8), 0.9), s(t(999, dtype=i64), 0.1), s(t(999, dtype=bf16), 0.5),
        s(t(0, 3), 0.5),
    ],
)  # fmt: skip
row(
    aten.native_dropout.default,
    check="random",
    samples=[
        s(t(40, 57), 0.3, True), s(t(40, 57), 0.3, False), s(t(40, 57, at="transposed"), 0.5, True),
        s(t(40, 57), 0.0, True), s(t(40, 57), 1.0, True), s(t(0, 3), 0.5, True, outs=(0,)),
        s(t(40, 57), 0.3, None), s(t(40, 57), 0.3, True, outs=(0,)), s(t(40), 0.5, True, outs=(1,)),
        s(t(33, 65, dtype=f64), 0.1, True), s(t(33, 65, dtype=bf16), 0.1, True),
    ],
)  # fmt: skip
row(
    aten.randint.default,
    check="random",
    samples=[s(7, [40, 57]), s(2**40, [999]), s(2, [999], dtype=f32), s(9, [0]), s(1, [7])],
)
row(
    aten.randint.low,
    check="random",
    samples=[s(-3, 7, [40, 57]), s(-(2**62), 2**62, [999]), s(5, 9, [99], dtype=u8)],
)
row(
    aten.randint_like.default,
    check="random",
    samples=[s(t(40, 57), 7), s(t(40, 57, at="transposed"), 90), s(t(99, dtype=i32), 3)],
)
row(
    aten.randint_like.low_dtype,
    check="random",
    samples=[s(t(40, 57), -2, 7), s(t(40, 57, at="transposed"), 5, 90), s(t(99, dtype=i32), 0, 3)],
)
