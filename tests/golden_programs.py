"""The golden programs: what the loop IR must be able to say, written by hand.

Each is a program with schedules, inputs for it, and a float64 reference in torch. The interpreter
and every target run them; their text stands in tests/golden. Sizes are odd where tails should show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import inf, prod, sqrt
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sol_dynamo.affine import Index
from sol_dynamo.ir import (
    Axis,
    Bind,
    Buffer,
    Const,
    Expr,
    Iota,
    Kernel,
    Load,
    Loops,
    Op,
    Origin,
    Program,
    Reduce,
    Schedule,
    Store,
)

Array = np.ndarray


@dataclass(frozen=True)
class Golden:
    """`reference` maps the arrays of `inputs` to the program's outputs, floats in float64."""

    program: Program
    inputs: Callable[[np.random.Generator], list[Array]]
    reference: Callable[[list[Array]], list[Array]]


# -- shorthand -------------------------------------------------------------------------------


def buffer(name: str, shape: tuple[int, ...], dtype="f32", scope="arena", inner="") -> Buffer:
    """Contiguous memory; inner="channels": dimension 1 is innermost (channels last)."""
    order = [0, *range(2, len(shape)), 1] if inner else list(range(len(shape)))
    strides = [0] * len(shape)
    for n, d in enumerate(order):
        strides[d] = prod(shape[e] for e in order[n + 1 :])
    return Buffer(name, dtype, shape, tuple(strides), scope=scope)


def at(b: Buffer, *index, mask=(), other=None) -> Load:
    return Load(b.name, tuple(map(Index.of, index)), b.dtype, tuple(mask), other)


def op(name: str, *args: Expr) -> Expr:
    return Op(name, args, args[-1].dtype)


def f32(value: float) -> Const:
    return Const(value, "f32")


def put(
    b: Buffer | tuple[Buffer, ...], index, value: Expr | tuple[Expr, ...], reduce=None
) -> Store:
    buffers = b if isinstance(b, tuple) else (b,)
    values = value if isinstance(value, tuple) else (value,)
    names = tuple(x.name for x in buffers)
    return Store(names, tuple(map(Index.of, index)), values, (), reduce)


def axes(reduce="", scan="", **extents: int) -> tuple[Axis, ...]:
    kinds = {s: "reduce" for s in reduce.split()} | {s: "scan" for s in scan.split()}
    return tuple(Axis(s, n, kinds.get(s, "parallel")) for s, n in extents.items())


def program(buffers: list[Buffer], kernels: list[Kernel], inputs: str, outputs: str, packs=()):
    table = {b.name: b for b in buffers}
    return Program(
        table, tuple(kernels), tuple(inputs.split()), tuple(outputs.split()), packs=packs
    )


def kernel(name: str, nests: list[tuple[Loops, Schedule]], *ops: str) -> Kernel:
    body, schedules = zip(*nests, strict=True)
    return Kernel(name, body, schedules, Origin(ops=ops))


def attached(order: str, at: tuple[str, str], **options) -> Schedule:
    return Schedule(tuple(order.split()), at=at, **options)


def unrolled(loops: str) -> frozenset[str]:
    return frozenset(loops.split())


SUM = Reduce("sum", "f32")


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], list[Array]]:
    return lambda rng: [rng.standard_normal(s).astype(np.float32) for s in shapes]


def reference(f: Callable[..., object]) -> Callable[[list[Array]], list[Array]]:
    """f over torch tensors, floats widened to float64."""

    def g(inputs: list[Array]) -> list[Array]:
        tensors = [torch.from_numpy(np.array(x)) for x in inputs]
        out = f(*(t.double() if t.is_floating_point() else t for t in tensors))
        return [t.numpy() for t in (out if isinstance(out, tuple) else (out,))]

    return g


# -- programs --------------------------------------------------------------------------------


def conv_bn_residual_relu(
    n_: int = 2, i_: int = 5, o_: int = 24, h_: int = 9, w_: int = 10
) -> Golden:
    """relu(conv(x, w, padding=1) * scale + shift + residual), channels last, weights packed: the
    padding is a masked load, the weights' copy a pack nest, the rest an epilogue in registers."""
    x = buffer("x", (n_, i_, h_, w_), scope="input", inner="channels")
    residual = buffer("residual", (n_, o_, h_, w_), scope="input", inner="channels")
    weight = buffer("weight", (o_, i_, 3, 3), scope="weight")
    scale, shift = (buffer(s, (o_,), scope="weight") for s in ("scale", "shift"))
    packed = buffer("packed", (3, 3, i_, o_), scope="weight")
    acc = buffer("acc", (n_, o_, h_, w_), scope="local", inner="channels")
    out = buffer("out", (n_, o_, h_, w_), scope="output", inner="channels")
    n, o, h, w, i, kh, kw = map(Index.of, ("n", "o", "h", "w", "i", "kh", "kw"))
    pack = Loops(
        axes(kh=3, kw=3, i=i_, o=o_), (put(packed, (kh, kw, i, o), at(weight, o, i, kh, kw)),)
    )
    p, q = h + kh - 1, w + kw - 1
    inside = (p, h_ - 1 - p, q, w_ - 1 - q)
    product = op("mul", at(x, n, i, p, q, mask=inside, other=0.0), at(packed, kh, kw, i, o))
    sums = Loops(
        axes("kh kw i", n=n_, o=o_, h=h_, w=w_, kh=3, kw=3, i=i_),
        (put(acc, (n, o, h, w), product, SUM),),
    )
    normed = op("add", op("mul", at(acc, n, o, h, w), at(scale, o)), at(shift, o))
    value = op("max", op("add", normed, at(residual, n, o, h, w)), f32(0.0))
    result = Loops(axes(n=n_, o=o_, h=h_, w=w_), (put(out, (n, o, h, w), value),))
    first = attached(
        "kh.0 kw.0 i.0 w.0 o.0",
        ("out", "w.0"),
        unroll=unrolled("w.0 o.0"),
        vector=("o.0", 16),
    )
    second = Schedule(
        ("n.0", "h.0", "o.0", "w.0", "w.1", "o.1"),
        {"o": (16,), "w": (4,)},
        parallel=2,
        unroll=unrolled("w.1 o.1"),
        vector=("o.1", 16),
        peel=unrolled("w.0"),
        outline="w.0",
    )
    ops = "convolution", "batch_norm", "add", "relu"
    return Golden(
        program(
            [x, residual, weight, scale, shift, packed, acc, out],
            [kernel("conv", [(sums, first), (result, second)], *ops)],
            "x residual weight scale shift",
            "out",
            (pack,),
        ),
        normal(x.shape, residual.shape, weight.shape, (o_,), (o_,)),
        reference(
            lambda x, r, w, a, b: torch.relu(
                F.conv2d(x, w, padding=1) * a.view(-1, 1, 1) + b.view(-1, 1, 1) + r
            )
        ),
    )


def softmax(rows: int = 6, cols: int = 37) -> Golden:
    """Three nests of one row each in one kernel: maximum, sum of powers, quotient."""
    x = buffer("x", (rows, cols), scope="input")
    top, total = (buffer(s, (rows,), scope="local") for s in ("top", "total"))
    out = buffer("out", (rows, cols), scope="output")
    power = op("exp", op("sub", at(x, "i", "j"), at(top, "i")))
    space = {"i": rows, "j": cols}
    nests = [
        Loops(axes("j", **space), (put(top, "i", at(x, "i", "j"), Reduce("max", "f32")),)),
        Loops(axes("j", **space), (put(total, "i", power, SUM),)),
        Loops(axes(**space), (put(out, "ij", op("div", power, at(total, "i"))),)),
    ]
    lanes: dict[str, Any] = {"unroll": unrolled("j.1"), "vector": ("j.1", 16)}
    row = attached("j.0 j.1", ("out", "i.0"), tile={"j": (16,)}, **lanes)
    last = Schedule(("i.0", "j.0", "j.1"), {"j": (16,)}, parallel=1, **lanes)
    return Golden(
        program(
            [x, top, total, out],
            [kernel("softmax", list(zip(nests, (row, row, last), strict=True)), "softmax")],
            "x",
            "out",
        ),
        normal(x.shape),
        reference(lambda x: torch.softmax(x, 1)),
    )


def argmax(rows: int = 6, cols: int = 23) -> Golden:
    """Value and position at once; the inputs have ties, infinities and NaN."""
    x = buffer("x", (rows, cols), scope="input")
    best = buffer("best", (rows,), scope="output")
    where = buffer("where", (rows,), "i64", "output")
    pair = (at(x, "i", "j"), Iota(Index.of("j")))
    nest = Loops(
        axes("j", i=rows, j=cols), (put((best, where), "i", pair, Reduce("argmax", "f32")),)
    )
    schedule = Schedule(("i.0", "j.0", "j.1"), {"j": (8,)}, 1, unrolled("j.1"), vector=("j.1", 8))

    def inputs(rng: np.random.Generator) -> list[Array]:
        v = rng.integers(-3, 4, (rows, cols)).astype(np.float32)
        v[1 % rows, [3 % cols, 17 % cols]] = np.nan
        v[2 % rows] = -inf
        v[3 % rows, [5 % cols, 20 % cols]] = inf
        return [v]

    return Golden(
        program([x, best, where], [kernel("argmax", [(nest, schedule)], "max")], "x", "best where"),
        inputs,
        reference(lambda x: tuple(torch.max(x, 1))),
    )


def _norm(name: str, statistics: Callable, parts: tuple[str, ...], rows: int, cols: int) -> Golden:
    """(x - mean) / sqrt(var + eps) * weight + bias; `statistics` gives the nests before the last
    one, and mean and variance from the local buffers named in `parts`."""
    eps = 1e-5
    x = buffer("x", (rows, cols), scope="input")
    weight, bias = (buffer(s, (cols,), scope="weight") for s in ("weight", "bias"))
    local = [buffer(s, (rows,), scope="local") for s in parts]
    out = buffer("out", (rows, cols), scope="output")
    nests, mean, variance = statistics(x, local, {"i": rows, "j": cols})
    scale = op("div", f32(1.0), op("sqrt", op("add", variance, f32(eps))))
    value = op("mul", op("sub", at(x, "i", "j"), mean), scale)
    value = op("add", op("mul", value, at(weight, "j")), at(bias, "j"))
    nests.append(Loops(axes(i=rows, j=cols), (put(out, "ij", value),)))
    lanes: dict[str, Any] = {"unroll": unrolled("j.1"), "vector": ("j.1", 16)}
    row = attached("j.0 j.1", ("out", "i.0"), tile={"j": (16,)}, **lanes)
    last = Schedule(("i.0", "j.0", "j.1"), {"j": (16,)}, parallel=1, **lanes)
    schedules = [*[row] * (len(nests) - 1), last]
    return Golden(
        program(
            [x, weight, bias, *local, out],
            [kernel(name, list(zip(nests, schedules, strict=True)), "native_layer_norm")],
            "x weight bias",
            "out",
        ),
        normal(x.shape, (cols,), (cols,)),
        reference(lambda x, w, b: F.layer_norm(x, (cols,), w, b, eps)),
    )


def layer_norm(rows: int = 5, cols: int = 33) -> Golden:
    """Two passes: the mean, then the squared deviations from it."""

    def statistics(x: Buffer, local: list[Buffer], space: dict[str, int]):
        total, squares = local
        mean = op("div", at(total, "i"), f32(space["j"]))
        centered = op("sub", at(x, "i", "j"), mean)
        nests = [
            Loops(axes("j", **space), (put(total, "i", at(x, "i", "j"), SUM),)),
            Loops(axes("j", **space), (put(squares, "i", op("mul", centered, centered), SUM),)),
        ]
        return nests, mean, op("div", at(squares, "i"), f32(space["j"]))

    return _norm("layer_norm", statistics, ("total", "squares"), rows, cols)


def layer_norm_welford(rows: int = 5, cols: int = 33) -> Golden:
    """One pass: count, mean and squared deviations as one tuple."""

    def statistics(x: Buffer, local: list[Buffer], space: dict[str, int]):
        count, mean, squares = local
        point = (f32(1.0), at(x, "i", "j"), f32(0.0))
        nest = Loops(
            axes("j", **space),
            (put((count, mean, squares), "i", point, Reduce("welford", "f32")),),
        )
        return [nest], at(mean, "i"), op("div", at(squares, "i"), at(count, "i"))

    return _norm("layer_norm_welford", statistics, ("count", "mean", "squares"), rows, cols)


def gather(rows: int = 11, width: int = 19, n_: int = 7) -> Golden:
    """Rows of a table, their numbers data: a bind, with wrap and eager's error."""
    table = buffer("table", (rows, width), scope="weight")
    index = buffer("index", (n_,), "i64", "input")
    out = buffer("out", (n_, width), scope="output")
    bind = Bind("row", at(index, "i"), rows, "index out of range in self")
    nest = Loops(axes(i=n_, j=width), (put(out, "ij", at(table, "row", "j")),), (bind,))
    schedule = Schedule(("i.0", "j.0", "j.1"), {"j": (16,)}, 1, unrolled("j.1"), vector=("j.1", 16))
    return Golden(
        program(
            [index, table, out],
            [kernel("gather", [(nest, schedule)], "index")],
            "index table",
            "out",
        ),
        lambda rng: [
            np.resize(np.array([0, 3 % rows, -1, rows - 1, -rows, 3 % rows, 5 % rows]), n_),
            rng.standard_normal((rows, width)).astype(np.float32),
        ],
        reference(lambda i, t: t[i]),
    )


def cumsum(rows: int = 4, cols: int = 29) -> Golden:
    """A scan: running sums, accumulated wide and rounded at each position."""
    x = buffer("x", (rows, cols), scope="input")
    out = buffer("out", (rows, cols), scope="output")
    value = Op("cast", (at(x, "i", "j"),), "f64")
    nest = Loops(axes(scan="j", i=rows, j=cols), (put(out, "ij", value, Reduce("sum", "f64")),))
    return Golden(
        program(
            [x, out],
            [kernel("cumsum", [(nest, Schedule(("i.0", "j.0"), parallel=1))], "cumsum")],
            "x",
            "out",
        ),
        normal(x.shape),
        reference(lambda x: torch.cumsum(x, 1)),
    )


def max_pool_indices(n_: int = 2, c_: int = 3, h_: int = 9, w_: int = 10) -> Golden:
    """3x3, stride 2, padding 1: value and position in the plane. What the mask keeps out is -inf at
    the greatest position, so that it loses every tie."""
    oh, ow = (h_ + 1) // 2, (w_ + 1) // 2
    x = buffer("x", (n_, c_, h_, w_), scope="input")
    best = buffer("best", (n_, c_, oh, ow), scope="output")
    where = buffer("where", (n_, c_, oh, ow), "i64", "output")
    h, w, kh, kw = map(Index.of, ("h", "w", "kh", "kw"))
    p, q = h * 2 + kh - 1, w * 2 + kw - 1
    inside = (p, h_ - 1 - p, q, w_ - 1 - q)
    zero = Const(0, "i64")
    guard = reduce(
        lambda a, b: op("and", a, b), [Op("ge", (Iota(m), zero), "bool") for m in inside]
    )
    position = op("where", guard, Iota(p * w_ + q), Const(2**63 - 1, "i64"))
    pair = (at(x, "n", "c", p, q, mask=inside, other=-inf), position)
    nest = Loops(
        axes("kh kw", n=n_, c=c_, h=oh, w=ow, kh=3, kw=3),
        (put((best, where), ("n", "c", h, w), pair, Reduce("argmax", "f32")),),
    )
    schedule = Schedule(
        ("n.0", "c.0", "h.0", "w.0", "kh.0", "kw.0"), parallel=2, unroll=unrolled("kh.0 kw.0")
    )

    def inputs(rng: np.random.Generator) -> list[Array]:
        v = rng.integers(-9, 10, x.shape).astype(np.float32)
        v[0, 0, :4, :4] = -inf
        v[-1, -1, h_ // 2, w_ // 2] = np.nan
        return [v]

    return Golden(
        program(
            [x, best, where],
            [kernel("max_pool", [(nest, schedule)], "max_pool2d_with_indices")],
            "x",
            "best where",
        ),
        inputs,
        reference(lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True)),
    )


def inverted_residual(n_: int = 2, c_: int = 8, m_: int = 24, h_: int = 12, w_: int = 10) -> Golden:
    """x + project(relu6(depthwise(relu6(expand(x))))), depth first: rows of the expansion are kept
    in a ring of 3, computed row by row as the output's rows need them."""
    x = buffer("x", (n_, c_, h_, w_), scope="input", inner="channels")
    w1 = buffer("w1", (c_, m_), scope="weight")
    w2 = buffer("w2", (3, 3, m_), scope="weight")
    w3 = buffer("w3", (m_, c_), scope="weight")
    b1, b2 = (buffer(s, (m_,), scope="weight") for s in ("b1", "b2"))
    b3 = buffer("b3", (c_,), scope="weight")
    wide = (n_, m_, h_, w_)
    expanded, e, filtered, d = (
        buffer(s, wide, scope="local", inner="channels") for s in ("expanded", "e", "filtered", "d")
    )
    projected = buffer("projected", x.shape, scope="local", inner="channels")
    out = buffer("out", x.shape, scope="output", inner="channels")
    n, m, o, h, w, kh, kw = map(Index.of, ("n", "m", "o", "h", "w", "kh", "kw"))
    p, q = h + kh - 1, w + kw - 1
    inside = (p, h_ - 1 - p, q, w_ - 1 - q)
    space = {"n": n_, "m": m_, "h": h_, "w": w_}

    def relu6(v: Expr) -> Expr:
        return op("min", op("max", v, f32(0.0)), f32(6.0))

    def biased(b: Buffer, s) -> Reduce:
        return Reduce("sum", "f32", (at(b, s),))

    tap = op("mul", at(e, n, m, p, q, mask=inside, other=0.0), at(w2, kh, kw, m))
    point = op("mul", at(x, n, "i", h, w), at(w1, "i", m))
    mix = op("mul", at(d, n, m, h, w), at(w3, m, o))
    nests = [
        Loops(axes("i", **space, i=c_), (put(expanded, (n, m, h, w), point, biased(b1, m)),)),
        Loops(axes(**space), (put(e, (n, m, h, w), relu6(at(expanded, n, m, h, w))),)),
        Loops(
            axes("kh kw", **space, kh=3, kw=3),
            (put(filtered, (n, m, h, w), tap, biased(b2, m)),),
        ),
        Loops(axes(**space), (put(d, (n, m, h, w), relu6(at(filtered, n, m, h, w))),)),
        Loops(
            axes("m", n=n_, o=c_, h=h_, w=w_, m=m_),
            (put(projected, (n, o, h, w), mix, biased(b3, o)),),
        ),
        Loops(
            axes(n=n_, o=c_, h=h_, w=w_),
            (put(out, (n, o, h, w), op("add", at(projected, n, o, h, w), at(x, n, o, h, w))),),
        ),
    ]
    eight: dict[str, Any] = {"unroll": unrolled("w.0 m.0"), "vector": ("m.0", 8)}
    tile: dict[str, Any] = {
        "tile": {"w": (5,), "m": (8,)},
        "unroll": unrolled("w.1 m.1"),
        "vector": ("m.1", 8),
    }
    schedules = [
        attached("i.0 w.0 m.0", ("e", "m.0"), **eight),
        attached("h.0 w.0 m.0 w.1 m.1", ("out", "h.0"), store_at="n.0", fold={"e": 3}, **tile),
        attached("kh.0 kw.0 w.0 m.0", ("d", "m.0"), **eight),
        attached("w.0 m.0 w.1 m.1", ("out", "h.0"), **tile),
        attached("m.0 w.0 o.0", ("out", "w.0"), unroll=unrolled("w.0 o.0"), vector=("o.0", 8)),
        Schedule(
            ("n.0", "h.0", "w.0", "w.1", "o.0"),
            {"w": (5,)},
            parallel=1,
            unroll=unrolled("w.1 o.0"),
            vector=("o.0", 8),
        ),
    ]
    ops = "convolution", "hardtanh", "convolution", "hardtanh", "convolution", "add"
    return Golden(
        program(
            [x, w1, w2, w3, b1, b2, b3, expanded, e, filtered, d, projected, out],
            [kernel("inverted_residual", list(zip(nests, schedules, strict=True)), *ops)],
            "x w1 w2 w3 b1 b2 b3",
            "out",
        ),
        normal(x.shape, (c_, m_), (3, 3, m_), (m_, c_), (m_,), (m_,), (c_,)),
        reference(
            lambda x, w1, w2, w3, b1, b2, b3: (
                x
                + F.conv2d(
                    F.relu6(
                        F.conv2d(
                            F.relu6(F.conv2d(x, w1.t()[:, :, None, None], b1)),
                            w2.permute(2, 0, 1)[:, None],
                            b2,
                            padding=1,
                            groups=m_,
                        )
                    ),
                    w3.t()[:, :, None, None],
                    b3,
                )
            )
        ),
    )


def matmul(m_: int = 35, n_: int = 40, k_: int = 21) -> Golden:
    """a @ b + bias in one nest: the sum starts at the bias; M and N have tails, a tile is a dot."""
    a = buffer("a", (m_, k_), scope="input")
    b = buffer("b", (k_, n_), scope="input")
    bias = buffer("bias", (n_,), scope="input")
    out = buffer("out", (m_, n_), scope="output")
    product = op("mul", at(a, "m", "k"), at(b, "k", "n"))
    nest = Loops(
        axes("k", m=m_, n=n_, k=k_),
        (put(out, "mn", product, Reduce("sum", "f32", (at(bias, "n"),))),),
    )
    schedule = Schedule(
        ("m.0", "n.0", "k.0", "m.1", "n.1"),
        {"m": (6,), "n": (32,)},
        parallel=1,
        unroll=unrolled("m.1 n.1"),
        vector=("n.1", 16),
    )
    return Golden(
        program(
            [a, b, bias, out], [kernel("addmm", [(nest, schedule)], "addmm")], "a b bias", "out"
        ),
        normal((m_, k_), (k_, n_), (n_,)),
        reference(lambda a, b, bias: a @ b + bias),
    )


def attention(h_: int = 2, q_: int = 7, k_: int = 11, d_: int = 16) -> Golden:
    """softmax(q k^T / sqrt(d)) v, one pass over the keys: (m, l, o) is one tuple. A query's m and
    l are written once for each d, with equal values: one store has one index."""
    q = buffer("q", (h_, q_, d_), scope="input")
    k, v = (buffer(s, (h_, k_, d_), scope="input") for s in ("k", "v"))
    score = buffer("score", (h_, q_, k_), scope="local")
    top, total, mixed = (buffer(s, (h_, q_, d_), scope="local") for s in ("top", "total", "mixed"))
    out = buffer("out", (h_, q_, d_), scope="output")
    product = op("mul", at(q, "h", "i", "e"), at(k, "h", "j", "e"))
    scaled = op("mul", at(score, "h", "i", "j"), f32(1 / sqrt(d_)))
    point = (scaled, f32(1.0), at(v, "h", "j", "d"))
    nests = [
        Loops(axes("e", h=h_, i=q_, j=k_, e=d_), (put(score, "hij", product, SUM),)),
        Loops(
            axes("j", h=h_, i=q_, d=d_, j=k_),
            (put((top, total, mixed), "hid", point, Reduce("attention", "f32")),),
        ),
        Loops(
            axes(h=h_, i=q_, d=d_),
            (put(out, "hid", op("div", at(mixed, "h", "i", "d"), at(total, "h", "i", "d"))),),
        ),
    ]
    schedules = [
        attached("e.0", ("top", "j.0")),
        attached("j.0 d.0", ("out", "i.0"), unroll=unrolled("d.0"), vector=("d.0", 16)),
        Schedule(("h.0", "i.0", "d.0"), parallel=2, unroll=unrolled("d.0"), vector=("d.0", 16)),
    ]
    return Golden(
        program(
            [q, k, v, score, top, total, mixed, out],
            [kernel("attention", list(zip(nests, schedules, strict=True)), "sdpa")],
            "q k v",
            "out",
        ),
        normal(q.shape, k.shape, v.shape),
        reference(lambda q, k, v: F.scaled_dot_product_attention(q, k, v)),
    )


def cat_slices(n_: int = 2, a_: int = 3, h_: int = 10) -> Golden:
    """cat((relu(x), x * 2), 1) * y: two producers write slices of one buffer, views of it."""
    x = buffer("x", (n_, a_, h_), scope="input")
    y = buffer("y", (n_, 2 * a_, h_), scope="input")
    both = buffer("both", y.shape)
    slices = [
        Buffer(f"slice{s}", "f32", x.shape, both.strides, s * a_ * h_, "both") for s in range(2)
    ]
    out = buffer("out", y.shape, scope="output")
    point = at(x, "n", "c", "h")
    values = (op("max", point, f32(0.0)), op("mul", point, f32(2.0)))
    loops = Schedule(("n.0", "c.0", "h.0"), parallel=1, unroll=unrolled("h.0"), vector=("h.0", 8))
    kernels = [
        kernel(b.name, [(Loops(axes(n=n_, c=a_, h=h_), (put(b, "nch", value),)), loops)], name)
        for b, value, name in zip(slices, values, ("relu", "mul"), strict=True)
    ]
    value = op("mul", at(both, "n", "c", "h"), at(y, "n", "c", "h"))
    last = Loops(axes(n=n_, c=2 * a_, h=h_), (put(out, "nch", value),))
    return Golden(
        program(
            [x, y, both, *slices, out],
            [*kernels, kernel("out", [(last, loops)], "mul")],
            "x y",
            "out",
        ),
        normal(x.shape, y.shape),
        reference(lambda x, y: torch.cat((torch.relu(x), x * 2), 1) * y),
    )


BUILDERS: dict[str, Callable[..., Golden]] = {
    f.__name__: f
    for f in (
        conv_bn_residual_relu,
        softmax,
        argmax,
        layer_norm,
        layer_norm_welford,
        gather,
        cumsum,
        max_pool_indices,
        inverted_residual,
        matmul,
        attention,
        cat_slices,
    )
}
PROGRAMS: dict[str, Golden] = {name: f() for name, f in BUILDERS.items()}
