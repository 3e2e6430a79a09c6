"""Random numbers as functions of a seed and an index: counter-based, so that they fuse like any
other expression, and neither schedules nor threads change them.

A call of the program draws a seed for each random op from torch's default generator, in order, so
that `torch.manual_seed` decides all that follows, and ops that are programs by themselves draw the
same as they do in a graph. Element i is Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random
numbers: as easy as 1, 2, 3; SC 2011) of the counter i under that seed. ATen's numbers are others;
`fallback_random` leaves these ops to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import pi
from typing import Any

import torch
from torch import fx

from ..affine import Index
from ..ir import DTYPES, Buffer, Const, Expr, Iota, Op, contiguous
from .graph import Lowering, NotHandled, cast, rule

aten = torch.ops.aten
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEYS = (0x9E3779B9, 0xBB67AE85)  # added to the key in each round
_DIGITS = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}  # of a uniform number, as eager draws it
_FLOATS = tuple(_DIGITS)


def _op(name: str, *args: Expr) -> Expr:
    return Op(name, args, args[0].dtype)


def _high(x: Expr) -> Expr:
    """The upper half of 64 bits."""
    return cast(_op("shr", x, Const(32, "u64")), "u32")


def philox(seed: Expr, counter: Sequence[Expr]) -> tuple[Expr, Expr, Expr, Expr]:
    """Four words of 32 random bits from a seed of 64 bits and a counter of four words."""
    a, b, c, d = counter
    keys = [cast(seed, "u32"), _high(seed)]
    for r in range(_ROUNDS):
        if r:
            keys = [_op("add", k, Const(w, "u32")) for k, w in zip(keys, _KEYS, strict=True)]
        left, right = (
            _op("mul", cast(x, "u64"), Const(m, "u64"))
            for x, m in zip((a, c), _MULTIPLIERS, strict=True)
        )
        a, b, c, d = (
            _op("xor", _op("xor", _high(right), b), keys[0]),
            cast(right, "u32"),
            _op("xor", _op("xor", _high(left), d), keys[1]),
            cast(left, "u32"),
        )
    return a, b, c, d


Words = tuple[Expr, Expr, Expr, Expr]


def _draw(low: Lowering, node: fx.Node, value: Callable[..., Expr], k: int | None = None) -> Buffer:
    """A result of a random op, value(words, index) at each element, with a seed of its own."""
    out = low.output(node, k)
    seed = low.seed()

    def element(*i: Index) -> Expr:
        place = sum((x * s for x, s in zip(i, contiguous(out.shape), strict=True)), Index())
        beyond = Iota(place // 2**32, "u32") if out.numel > 2**32 else Const(0, "u32")
        counter = (Iota(place, "u32"), beyond, Const(0, "u32"), Const(0, "u32"))
        return value(philox(cast(seed, "u64"), counter), i)

    return low.pointwise(out, element)


def _wide(a: Expr, b: Expr) -> Expr:
    """Two words as 64 bits."""
    return _op("or", _op("shl", cast(a, "u64"), Const(32, "u64")), cast(b, "u64"))


def _uniform(words: Words, dtype: str) -> Expr:
    """In [0, 1), with the digits that eager's numbers have; held in float32 for 16 bits."""
    digits = _DIGITS[dtype]
    if dtype == "f64":
        whole = cast(_op("shr", _wide(*words[:2]), Const(64 - digits, "u64")), "i64")
        return _op("mul", cast(whole, "f64"), Const(2.0**-digits, "f64"))
    whole = cast(_op("shr", words[0], Const(32 - digits, "u32")), "i32")
    return _op("mul", cast(whole, "f32"), Const(2.0**-digits, "f32"))


def _positive(words: Words, dtype: str) -> Expr:
    """In (0, 1], with full precision next to 0."""
    if dtype == "f64":
        return _op("sub", Const(1.0, "f64"), _uniform(words, "f64"))
    middle = _op("add", cast(words[0], "f32"), Const(0.5, "f32"))
    return _op("mul", middle, Const(2.0**-32, "f32"))


def _normal(words: Words, dtype: str) -> Expr:
    """With mean 0 and variance 1: sqrt(-2 log u) cos(2 pi v) (Box and Muller, 1958)."""
    acc = "f64" if dtype == "f64" else "f32"
    log = _op("log", _positive(words, acc))
    radius = _op("sqrt", _op("mul", log, Const(-2.0, acc)))
    turn = _uniform((words[2], words[3], *words[:2]), acc)
    return _op("mul", radius, _op("cos", _op("mul", turn, Const(2 * pi, acc))))


def _exponential(words: Words, dtype: str) -> Expr:
    """-log u, and never zero: who takes its logarithm relies on that, as eager's users do."""
    acc = "f64" if dtype == "f64" else "f32"
    log = _op("neg", _op("log", _positive(words, acc)))
    return _op("max", log, Const(2.0**-53 if acc == "f64" else 2.0**-25, acc))


def _below(words: Words, p: float) -> Expr:
    """True with probability p."""
    if p >= 1:
        return Const(True, "bool")
    return Op("lt", (words[0], Const(round(p * 2**32), "u32")), "bool")


def _integer(words: Words, low: int, high: int) -> Expr:
    """In [low, high), each equally likely up to 2^-32 of its probability."""
    count = Const(high - low, "u64")
    if high - low < 2**32:  # the upper 64 of the 96 bits of a product
        least = _op("shr", _op("mul", cast(words[1], "u64"), count), Const(32, "u64"))
        product = _op("add", _op("mul", cast(words[0], "u64"), count), least)
        drawn = _op("shr", product, Const(32, "u64"))
    else:
        drawn = _op("mod", _wide(*words[:2]), count)
    return _op("add", cast(drawn, "i64"), Const(low, "i64"))


def _scaled(x: Expr, by: float, shift: float) -> Expr:
    return _op("add", _op("mul", x, Const(float(by), x.dtype)), Const(float(shift), x.dtype))


def _refusal(dtype: str, rest: dict[str, Any]) -> NotHandled | None:
    if rest.get("generator") is not None:
        return NotHandled("a generator of its own")
    return None if dtype in _FLOATS else NotHandled(f"random {dtype}")


def _floats(low: Lowering, node: fx.Node, rest: dict[str, Any], value: Callable[..., Expr]) -> Any:
    dtype = low.dtype(node)
    return _refusal(dtype, rest) or _draw(low, node, lambda words, _: value(words, dtype))


@rule(aten.rand.default, aten.rand_like.default)
def rand(low: Lowering, node: fx.Node, *_: Any, **rest: Any) -> Any:
    return _floats(low, node, rest, _uniform)


@rule(aten.randn.default, aten.randn_like.default)
def randn(low: Lowering, node: fx.Node, *_: Any, **rest: Any) -> Any:
    return _floats(low, node, rest, _normal)


@rule(aten.uniform.default)
def uniform(low: Lowering, node: fx.Node, x: Buffer, a: float = 0, b: float = 1, **rest) -> Any:
    """u * (b - a) + a"""
    return _floats(low, node, rest, lambda words, d: _scaled(_uniform(words, d), b - a, a))


@rule(aten.normal_functional.default)
def normal(low: Lowering, node: fx.Node, x: Buffer, mean: float = 0, std: float = 1, **rest) -> Any:
    return _floats(low, node, rest, lambda words, d: _scaled(_normal(words, d), std, mean))


@rule(aten.normal.float_float)
def normal_of_size(
    low: Lowering, node: fx.Node, mean: float, std: float, size: Sequence[int], **rest: Any
) -> Any:
    return _floats(low, node, rest, lambda words, d: _scaled(_normal(words, d), std, mean))


@rule(aten.normal.Tensor_float)
def normal_around(low: Lowering, node: fx.Node, mean: Buffer, std: float = 1, **rest: Any) -> Any:
    dtype = low.dtype(node)
    if refusal := _refusal(dtype, rest):
        return refusal

    def value(words: Words, i: Sequence[Index]) -> Expr:
        x = _normal(words, dtype)
        spread = _op("mul", x, Const(float(std), x.dtype))
        return _op("add", cast(low.load(mean, i), x.dtype), spread)

    return _draw(low, node, value)


@rule(aten.log_normal.default)
def log_normal(
    low: Lowering, node: fx.Node, x: Buffer, mean: float = 1, std: float = 2, **rest: Any
) -> Any:
    def value(words: Words, dtype: str) -> Expr:
        return _op("exp", _scaled(_normal(words, dtype), std, mean))

    return _floats(low, node, rest, value)


@rule(aten.exponential.default)
def exponential(low: Lowering, node: fx.Node, x: Buffer, rate: float = 1, **rest: Any) -> Any:
    def value(words: Words, dtype: str) -> Expr:
        e = _exponential(words, dtype)
        return e if rate == 1 else _op("div", e, Const(float(rate), e.dtype))

    return _floats(low, node, rest, value)


@rule(aten.bernoulli.p)
def bernoulli(low: Lowering, node: fx.Node, x: Buffer, p: float = 0.5, **rest: Any) -> Any:
    """1 with probability p, else 0."""
    if rest.get("generator") is not None:
        return NotHandled("a generator of its own")
    return _draw(low, node, lambda words, _: cast(_below(words, p), low.dtype(node)))


@rule(aten.native_dropout.default)
def dropout(low: Lowering, node: fx.Node, x: Buffer, p: float, train: bool | None = True) -> Any:
    """x * mask / (1 - p), and the mask, which is true with probability 1 - p."""
    if x.dtype not in _FLOATS:
        return NotHandled(f"dropout of {x.dtype}")
    if train is False:
        mask = low.pointwise(low.output(node, 1), lambda *i: Const(True, "bool"))
        return low.copy(x, low.output(node, 0)), mask
    acc = "f64" if x.dtype == "f64" else "f32"
    kept = 1 - p
    scale = Const(1 / kept if kept else 0.0, acc)
    mask = _draw(low, node, lambda words, _: _below(words, kept), 1)

    def value(*i: Index) -> Expr:
        chosen = _op("mul", cast(low.load(x, i), acc), cast(low.load(mask, i), acc))
        return _op("mul", chosen, scale)

    return low.pointwise(low.output(node, 0), value), mask


def _integers(low: Lowering, node: fx.Node, first: int, end: int, rest: dict[str, Any]) -> Any:
    dtype = low.dtype(node)
    if rest.get("generator") is not None:
        return NotHandled("a generator of its own")
    if DTYPES[dtype][1] == "b" or not 0 < end - first < 2**64:
        return NotHandled(f"random integers of {dtype} in {first} .. {end}")
    return _draw(low, node, lambda words, _: cast(_integer(words, first, end), dtype))


@rule(aten.randint.default)
def randint(low: Lowering, node: fx.Node, end: int, size: Sequence[int], **rest: Any) -> Any:
    return _integers(low, node, 0, end, rest)


@rule(aten.randint.low)
def randint_from(
    low: Lowering, node: fx.Node, first: int, end: int, size: Sequence[int], **rest: Any
) -> Any:
    return _integers(low, node, first, end, rest)


@rule(aten.randint_like.default)
def randint_like(low: Lowering, node: fx.Node, x: Buffer, end: int, **rest: Any) -> Any:
    return _integers(low, node, 0, end, rest)


@rule(aten.randint_like.low_dtype)
def randint_like_from(
    low: Lowering, node: fx.Node, x: Buffer, first: int, end: int, **rest: Any
) -> Any:
    return _integers(low, node, first, end, rest)
