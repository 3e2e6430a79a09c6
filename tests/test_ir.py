"""The loop IR: interning, walking, printing; and its meaning, op by op and monoid by monoid, next
to torch eager."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest
import torch
from golden_programs import PROGRAMS, at, axes, buffer, op, put

from sol_dynamo import interp
from sol_dynamo.affine import Index
from sol_dynamo.interp import BoundsError, execute, run
from sol_dynamo.ir import (
    DTYPES,
    MONOIDS,
    OPS,
    Axis,
    Bind,
    Buffer,
    Const,
    DepthFirst,
    Expr,
    Extern,
    Iota,
    Kernel,
    Load,
    Loops,
    Op,
    Program,
    Reduce,
    Ref,
    Schedule,
    Store,
    children,
    loads,
    read,
    rewrite,
    show,
    subst,
    walk,
    written,
)
from sol_dynamo.spec import check

ROW, COL = Index.of("i"), Index.of("j")
TORCH = {
    "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16,
    "i64": torch.int64, "i32": torch.int32, "i16": torch.int16, "i8": torch.int8,
    "u8": torch.uint8, "bool": torch.bool,
}  # fmt: skip


def x_at(*index: Index, dtype="f32", **kw) -> Load:
    return Load("x", index, dtype, **kw)


def program(*nests: Loops, buffers: list[Buffer], inputs="x", outputs="out", **kw) -> Program:
    """A kernel for each nest; valid, or the test fails here."""
    kernels = tuple(Kernel(n.name, (n,)) for n in nests)
    table = {b.name: b for b in buffers}
    p = Program(table, kernels, tuple(inputs.split()), tuple(outputs.split()), **kw)
    check(p, "test")
    return p


# -- interning -------------------------------------------------------------------------------


def test_equal_expressions_are_identical() -> None:
    assert x_at(ROW) is x_at(Index.of("i")) is not x_at(COL)
    assert op("add", x_at(ROW), x_at(COL)) is op("add", x_at(ROW), x_at(COL))
    assert Iota(ROW) is Iota(ROW, "i64") is not Iota(ROW, "i32")
    e = op("mul", x_at(ROW, mask=(ROW - 1,), other=0.0), Const(2.0, "f32"))
    assert pickle.loads(pickle.dumps(e)) is e and copy.deepcopy(e) is e


def test_constants_are_exact() -> None:
    numbers = [Const(v, "f32") for v in (1, 1.0, True, 0.0, -0.0, nan)]
    assert len({id(c) for c in numbers}) == 6
    assert Const(nan, "f32") is Const(float("nan"), "f32")
    assert Const(1, "f32") is not Const(1, "f64")
    guarded = [x_at(ROW, mask=(ROW,), other=v) for v in (0.0, -0.0, 0, None)]
    assert len({id(e) for e in guarded}) == 4


def test_other_means_nothing_without_a_mask() -> None:
    assert x_at(ROW, other=1.0) is x_at(ROW)
    assert x_at(ROW).other is None


def test_expressions_are_immutable() -> None:
    with pytest.raises(AttributeError, match="immutable"):
        x_at(ROW).buffer = "y"
    with pytest.raises(AttributeError):
        PROGRAMS["softmax"].program.kernels[0].name = "y"


# -- walking ---------------------------------------------------------------------------------


def test_walk_gives_each_once_arguments_first() -> None:
    a, b = x_at(ROW), x_at(COL)
    s = op("add", a, b)
    root = op("mul", s, op("sub", s, a))
    order = list(walk(root, s))
    assert len(order) == len(set(order)) == 5
    for e in order:
        assert all(order.index(c) < order.index(e) for c in children(e))


def test_walk_and_rewrite_are_linear_and_do_not_recurse() -> None:
    e: Expr = x_at(ROW)
    for _ in range(20_000):
        e = op("add", e, e)  # 2^20000 paths
    assert sum(1 for _ in walk(e)) == 20_001
    new = rewrite(e, lambda leaf: x_at(COL))
    assert [x for x in walk(new) if isinstance(x, Load)] == [x_at(COL)]


def test_rewrite_without_a_change_is_identity() -> None:
    e = op("add", x_at(ROW), op("exp", Const(1.0, "f32")))
    assert rewrite(e, lambda leaf: leaf) is e


def test_subst_reaches_indices_masks_and_iotas() -> None:
    e = op("add", Op("cast", (Iota(ROW + COL),), "f32"), x_at(ROW, mask=(ROW - 1,), other=0.0))
    new = subst(e, {"i": COL * 2})
    loads = [x for x in walk(new) if isinstance(x, Load)]
    assert loads == [x_at(COL * 2, mask=(COL * 2 - 1,), other=0.0)]
    assert Iota(COL * 3) in list(walk(new))
    assert subst(e, {"k": 0}) is e


def test_reads_and_writes() -> None:
    k = PROGRAMS["inverted_residual"].program.kernels[0]
    assert written(k) == ("expanded", "e", "filtered", "d", "projected", "out")
    assert read(k)[:3] == ("x", "w1", "b1")
    (bound,) = PROGRAMS["gather"].program.kernels[0].body
    assert [e.buffer for e in loads(bound)] == ["index", "table"]
    call = Extern("cat", torch.cat, ([Ref("a"), Ref("b")],), (("out", Ref("c")),), ("d",))
    assert set(read(call)) == {"a", "b", "c"} and written(call) == ("d",)


def test_base_and_address() -> None:
    p = PROGRAMS["cat_slices"].program
    assert p.base("slice1") is p.buffers["both"] is p.base("both")
    assert p.buffers["slice1"].address((ROW, COL, Index.of(2))) is ROW * 60 + COL * 10 + 32
    assert p.buffers["both"].numel == 120


# -- printing --------------------------------------------------------------------------------


def test_show() -> None:
    e = op(
        "max", op("mul", x_at(ROW - 1, mask=(ROW - 1,), other=0.0), Const(2.0, "f32")), x_at(ROW)
    )
    assert show(e) == "max(((x[i - 1] if i - 1 >= 0 else 0.0) * 2.0), x[i])"
    assert show(Op("cast", (Iota(ROW),), "f32")) == "f32(i64(i))"
    assert show(buffer("b", (2, 3))) == "b: f32[2, 3] strides [3, 1] in arena"
    assert show(Buffer("v", "f32", (3,), (1,), 3, "b")) == "v: f32[3] strides [1] in b+3"
    s = Store(("y",), (ROW,), (x_at(ROW, COL),), (ROW - 1,), Reduce("sum", "f32", (x_at(ROW),)))
    nest = Loops(axes("j", i=4, j=3), (s,), (Bind("r", Iota(ROW), 4),))
    assert show(nest).splitlines() == [
        "for i < 4, j < 3 (reduce):",
        "    r = index i64(i) < 4",
        "    y[i] sum= x[i, j] from x[i] if i - 1 >= 0",
    ]
    assert show(Loops((), (put(buffer("y", ()), (), x_at()),))) == "for once:\n    y[] = x[]"


def test_show_names_what_is_shared() -> None:
    """Text is linear in the nodes; short expressions are repeated, as one would by hand."""
    e = op("exp", x_at(ROW))
    short = put(buffer("y", (4,)), "i", op("mul", e, e))
    assert show(Loops(axes(i=4), (short,))).splitlines()[1] == "    y[i] = (exp(x[i]) * exp(x[i]))"
    for _ in range(7):
        e = op("add", e, e)
    four, eight = (
        "((exp(x[i]) + exp(x[i])) + (exp(x[i]) + exp(x[i])))",
        "((%{0} + %{0}) + (%{0} + %{0}))",
    )
    assert show(Loops(axes(i=4), (put(buffer("y", (4,)), "i", e),))).splitlines() == [
        "for i < 4:",
        f"    %0 = {four}",
        "    %1 = " + "({0} + {0})".format(eight.format(0)),
        "    y[i] = " + eight.format(1),
    ]
    for _ in range(1000):
        e = op("add", e, e)
    assert len(show(Loops(axes(i=4), (put(buffer("y", (4,)), "i", e),)))) < 100_000


def test_show_prints_every_field_of_a_schedule() -> None:
    s = Schedule(
        ("i.0", "i.1"), {"i": (4,)}, 1, frozenset(("i.1",)), ("i.1", 4), ("y", "i.0"), "i.0",
        {"b": 2}, frozenset(("i.0",)), "i.0", "i.0",
    )  # fmt: skip
    assert show(s) == (
        "i.0 i.1; tile={'i': (4,)}; parallel=1; unroll=['i.1']; vector=('i.1', 4); "
        "at=('y', 'i.0'); store_at=i.0; fold={'b': 2}; peel=['i.0']; outline=i.0; partial=i.0"
    )
    assert show(Schedule(("i.0",))) == "i.0"


# -- the meaning of operations ---------------------------------------------------------------

FLOATS = [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -2.5, 1.0, -1.0, 3.7, -3.7, 1e-8, 90.0, -90.0, 1e30]
SPECIAL = [*FLOATS, inf, -inf, nan]
REFERENCE = {
    "neg": torch.neg, "abs": torch.abs, "not": torch.bitwise_not, "add": torch.add,
    "sub": torch.sub, "mul": torch.mul, "div": torch.div, "floordiv": torch.floor_divide,
    "mod": torch.remainder, "min": torch.minimum, "max": torch.maximum, "and": torch.bitwise_and,
    "or": torch.bitwise_or, "xor": torch.bitwise_xor, "shl": torch.bitwise_left_shift,
    "shr": torch.bitwise_right_shift, "lt": torch.lt, "le": torch.le, "gt": torch.gt,
    "ge": torch.ge, "eq": torch.eq, "ne": torch.ne, "isnan": torch.isnan, "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt, "exp": torch.exp, "expm1": torch.expm1, "log": torch.log,
    "log1p": torch.log1p, "log2": torch.log2, "log10": torch.log10, "sin": torch.sin,
    "cos": torch.cos, "tan": torch.tan, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    "erf": torch.erf, "pow": torch.pow, "floor": torch.floor, "ceil": torch.ceil,
    "trunc": torch.trunc, "round": torch.round, "signbit": torch.signbit, "asin": torch.asin,
    "acos": torch.acos, "atan": torch.atan, "sinh": torch.sinh, "cosh": torch.cosh,
    "asinh": torch.asinh, "acosh": torch.acosh, "atanh": torch.atanh, "erfc": torch.erfc,
    "exp2": torch.exp2, "lgamma": torch.lgamma, "atan2": torch.atan2, "hypot": torch.hypot,
    "fmod": torch.fmod,
}  # fmt: skip
ELSEWHERE = {"cast", "where", "tf32"}  # have tests of their own
CASES = [
    (name, dtype)
    for name, info in OPS.items()
    for dtype in ("f32", "f64", "i64", "i32", "i8", "u8", "bool")
    if name not in ELSEWHERE and DTYPES[dtype][1] in info.kinds
]


def samples(name: str, dtype: str) -> list[torch.Tensor]:
    """Arguments of an op: every pair of interesting values that eager defines."""
    kind = DTYPES[dtype][1]
    if kind == "f":
        values = torch.tensor(SPECIAL, dtype=TORCH[dtype])
    elif kind == "b":
        values = torch.tensor([False, True])
    else:
        limits = torch.iinfo(TORCH[dtype])
        some = [0, 1, 2, 3, 7, 100, limits.max, limits.min]
        values = torch.tensor(some + [-1, -2, -7] * (kind == "i"), dtype=TORCH[dtype])
    if OPS[name].arity == 1:
        return [values]
    a, b = (t.reshape(-1) for t in torch.meshgrid(values, values, indexing="ij"))
    if kind in "iu" and name in ("floordiv", "mod"):
        keep = (b != 0) & ~((a == a.min()) & (b == -1))
    elif name in ("shl", "shr"):
        keep = (b >= 0) & (b < 8 * DTYPES[dtype][0])
    else:
        return [a, b]
    return [a[keep], b[keep]]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_op_is_eager_s(name: str, dtype: str) -> None:
    args = samples(name, dtype)
    ref = REFERENCE[name](*args)
    n = len(args[0])
    ins = [buffer(f"x{k}", (n,), dtype, "input") for k in range(len(args))]
    result = "bool" if ref.dtype == torch.bool else dtype
    out = buffer("out", (n,), result, "output")
    value = Op(name, tuple(at(b, "i") for b in ins), result)
    p = program(
        Loops(axes(i=n), (put(out, "i", value),)),
        buffers=[*ins, out],
        inputs=" ".join(b.name for b in ins),
    )
    (y,) = run(p, [a.numpy() for a in args])
    assert y.dtype == ref.numpy().dtype
    if DTYPES[result][1] == "f":
        eps = 4 * torch.finfo(TORCH[dtype]).eps  # eager's own functions are within a few ulp
        np.testing.assert_allclose(y, ref.numpy(), rtol=eps, atol=torch.finfo(TORCH[dtype]).tiny)
        exact = name in ("neg", "abs", "mul", "add", "trunc", "ceil", "floor", "round")
        if exact:
            number = ~np.isnan(y)
            np.testing.assert_array_equal(np.signbit(y)[number], ref.signbit().numpy()[number])
    else:
        np.testing.assert_array_equal(y, ref.numpy())


def test_tf32_has_ten_bits_of_fraction() -> None:
    x = np.array(
        [1 + 2**-11, 1 + 2**-11 - 2**-23, -3.0 - 2**-10, inf, -0.0, np.finfo(np.float32).max],
        np.float32,
    )
    expected = np.array([1 + 2**-10, 1, -3.0 - 2**-9, inf, -0.0, inf], np.float32)
    y = interp.OPERATIONS["tf32"](x)
    np.testing.assert_array_equal(y.view(np.int32), expected.view(np.int32))
    assert np.isnan(interp.OPERATIONS["tf32"](np.array([nan, -nan], np.float32))).all()


def test_every_op_has_a_meaning() -> None:
    assert {*interp.OPERATIONS, *interp.FUNCTIONS} == set(OPS)
    assert set(interp.COMBINE) == set(MONOIDS)
    assert {*REFERENCE, *ELSEWHERE} == set(OPS)


@pytest.mark.parametrize("source", TORCH)
@pytest.mark.parametrize("target", TORCH)
def test_cast_is_eager_s(source: str, target: str) -> None:
    kinds = DTYPES[source][1], DTYPES[target][1]
    values = [0, 1, 2, 3, 100] + [-1, -100] * (kinds[0] != "u" and kinds[1] != "u")
    values += [0.5, 1.5, 3.14159] if kinds[0] == "f" else []
    values += [-0.5, -1.7] if kinds == ("f", "i") else []
    values += [nan, inf, -inf, 1e5, 65519.9] if kinds == ("f", "f") else []
    x = torch.tensor(values, dtype=torch.float64).to(TORCH[source])
    ref = x.to(TORCH[target])
    n = len(values)
    b, out = buffer("x", (n,), source, "input"), buffer("out", (n,), target, "output")
    p = program(
        Loops(axes(i=n), (put(out, "i", Op("cast", (at(b, "i"),), target)),)), buffers=[b, out]
    )
    (y,) = run(p, [(x.float() if source == "bf16" else x).numpy()])
    np.testing.assert_array_equal(y, (ref.float() if target == "bf16" else ref).numpy())


def test_where_takes_from_either_side() -> None:
    x, out = buffer("x", (5,), scope="input"), buffer("out", (5,), scope="output")
    value = op("where", Op("isnan", (at(x, "i"),), "bool"), Const(-1.0, "f32"), at(x, "i"))
    p = program(Loops(axes(i=5), (put(out, "i", value),)), buffers=[x, out])
    np.testing.assert_array_equal(run(p, [[nan, 1, inf, 0, nan]])[0], [-1, 1, inf, 0, -1])


def test_bf16_is_rounded_at_every_op() -> None:
    x, out = buffer("x", (999,), "bf16", "input"), buffer("out", (999,), "bf16", "output")
    value = op("add", op("mul", at(x, "i"), at(x, "i")), at(x, "i"))
    p = program(Loops(axes(i=999), (put(out, "i", value),)), buffers=[x, out])
    t = torch.randn(999, generator=torch.Generator().manual_seed(0)).bfloat16()
    np.testing.assert_array_equal(run(p, [t.float().numpy()])[0], (t * t + t).float().numpy())
    wide = run(p, [t.float().numpy()], wide=True)[0]
    np.testing.assert_array_equal(wide, (t.double() * t.double() + t.double()).numpy())


# -- the meaning of reductions ---------------------------------------------------------------


def reduction(monoid: str, shape, dtype="f32", acc=None, scan=False, init=None) -> Program:
    """out[i, ...] = monoid over j of x[i, j]; argmax with positions, tuples with their unit."""
    acc = acc or dtype
    x = buffer("x", shape, dtype, "input")
    v = at(x, "i", "j")
    v = v if acc == dtype else Op("cast", (v,), acc)
    one, zero = Const(1.0, acc), Const(0.0, acc)
    values = {
        "argmax": (v, Iota(COL)), "argmin": (v, Iota(COL)), "welford": (one, v, zero),
        "softmax": (v, one), "attention": (v, one, v),
    }.get(monoid, (v,))  # fmt: skip
    index = (ROW, COL) if scan else (ROW,)
    dims = shape if scan else shape[:1]
    outs = tuple(
        buffer(f"out{k}", dims, "i64" if monoid[:3] == "arg" and k else acc, "output")
        for k in range(len(values))
    )
    kinds = {"scan": "j"} if scan else {"reduce": "j"}
    nest = Loops(
        axes(**kinds, i=shape[0], j=shape[1]),
        (put(outs, index, values, Reduce(monoid, acc, init)),),
    )
    return program(nest, buffers=[x, *outs], outputs=" ".join(b.name for b in outs))


def awkward(shape=(6, 13), seed=0) -> torch.Tensor:
    """Ties, infinities and NaN."""
    t = torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()
    t[1, 3] = t[1, 9] = nan
    t[2, 4], t[2, 5] = inf, inf
    t[3] = -inf
    t[4, 0] = -inf
    return t


@pytest.mark.parametrize("limit", [1 << 22, 20], ids=["whole", "chunks"])
@pytest.mark.parametrize(
    ("monoid", "reference"),
    [
        ("sum", lambda t: [t.sum(1)]),
        ("prod", lambda t: [t.prod(1)]),
        ("max", lambda t: [t.amax(1)]),
        ("min", lambda t: [t.amin(1)]),
        ("argmax", lambda t: [torch.max(t, 1)[0], torch.argmax(t, 1)]),
        ("argmin", lambda t: [torch.min(t, 1)[0], torch.argmin(t, 1)]),
        ("welford", lambda t: [0 * t[:, 0] + 13, t.mean(1), t.var(1, correction=0) * 13]),
    ],
)
def test_monoid_is_eager_s(monoid: str, reference, limit: int, monkeypatch) -> None:
    monkeypatch.setattr(interp, "LIMIT", limit)
    t = awkward()
    if monoid == "welford":
        t = torch.randn(6, 13, generator=torch.Generator().manual_seed(1)) + 100
    for y, ref in zip(run(reduction(monoid, t.shape), [t.numpy()]), reference(t), strict=True):
        np.testing.assert_allclose(y, ref.numpy(), rtol=3e-6)


def test_logical_monoids() -> None:
    t = torch.tensor([[False, False], [False, True], [True, True]])
    assert run(reduction("any", (3, 2), "bool"), [t.numpy()])[0].tolist() == [False, True, True]
    assert run(reduction("all", (3, 2), "bool"), [t.numpy()])[0].tolist() == [False, False, True]


def test_online_softmax_is_softmax() -> None:
    t = awkward()
    t[0, 5] = -inf
    m, total = run(reduction("softmax", t.shape), [t.numpy()])
    np.testing.assert_array_equal(m, t.amax(1).numpy())
    with np.errstate(all="ignore"):
        y = np.exp(t.numpy() - m[:, None]) / total[:, None]
    np.testing.assert_allclose(y, torch.softmax(t, 1).numpy(), rtol=1e-6)


def test_online_attention_is_a_weighted_mean() -> None:
    t = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)) * 50
    _, total, mixed = run(reduction("attention", t.shape), [t.numpy()])
    ref = (torch.softmax(t, 1) * t).sum(1)
    np.testing.assert_allclose(mixed / total, ref.numpy(), rtol=1e-6)


@pytest.mark.parametrize("monoid", ["sum", "max", "prod"])
def test_reduction_starts_at_init_not_at_memory(monoid: str) -> None:
    t = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    start = Op("cast", (Iota(ROW * 10),), "f32")
    (y,) = run(reduction(monoid, (4, 5), init=(start,)), [t.numpy()])
    tens = torch.arange(4) * 10.0
    ref = {
        "sum": tens + t.sum(1), "max": torch.maximum(tens, t.amax(1)), "prod": tens * t.prod(1),
    }[monoid]  # fmt: skip
    np.testing.assert_allclose(y, ref.numpy(), rtol=1e-6)


def test_reduction_of_nothing_is_the_identity() -> None:
    empty = np.zeros((3, 0), np.float32)
    for monoid, value in (("sum", 0), ("prod", 1), ("max", -inf), ("min", inf)):
        assert run(reduction(monoid, (3, 0)), [empty])[0].tolist() == [value] * 3
    low = run(reduction("max", (3, 0), "i8"), [empty.astype(np.int8)])[0]
    assert low.tolist() == [-128] * 3
    start = (Const(7.0, "f32"),)
    assert run(reduction("sum", (3, 0), init=start), [empty])[0].tolist() == [7] * 3
    assert run(reduction("sum", (0, 3)), [empty.T])[0].tolist() == []


@pytest.mark.parametrize(
    ("monoid", "reference"),
    [
        ("sum", lambda t: [torch.cumsum(t, 1)]),
        ("prod", lambda t: [torch.cumprod(t, 1)]),
        ("max", lambda t: [torch.cummax(t, 1)[0]]),
    ],
)
def test_scan_is_eager_s(monoid: str, reference) -> None:
    t = awkward()
    (y,), (ref,) = run(reduction(monoid, t.shape, scan=True), [t.numpy()]), reference(t)
    np.testing.assert_allclose(y, ref.numpy(), rtol=1e-6)


def test_long_sums_associate_pairwise() -> None:
    t = np.full((1, 1 << 20), 0.1, np.float32)
    (y,) = run(reduction("sum", t.shape), [t])
    assert abs(y[0] / (np.float64(np.float32(0.1)) * t.size) - 1) < 1e-6


# -- memory ----------------------------------------------------------------------------------


def test_stores_hold_where_their_mask_does() -> None:
    x, out = buffer("x", (4,), scope="input"), buffer("out", (2,), scope="output")
    s = Store(("out",), (ROW - 1,), (at(x, "i"),), (ROW - 1, 2 - ROW))
    p = program(Loops(axes(i=4), (s,)), buffers=[x, out])
    assert run(p, [[5, 6, 7, 8]])[0].tolist() == [6, 7]


def test_nothing_is_read_where_a_mask_fails() -> None:
    x, out = buffer("x", (2,), scope="input"), buffer("out", (6,), scope="output")
    value = at(x, ROW - 2, mask=(ROW - 2, 3 - ROW), other=-1.0)
    p = program(Loops(axes(i=6), (put(out, "i", value),)), buffers=[x, out])
    assert run(p, [[5, 6]])[0].tolist() == [-1, -1, 5, 6, -1, -1]


def test_out_of_bounds_names_the_nest_and_the_index() -> None:
    x, out = buffer("x", (3,), scope="input"), buffer("out", (4,), scope="output")
    nest = Loops(axes(i=4), (put(out, "i", at(x, "i")),))
    p = Program({"x": x, "out": out}, (Kernel("k", (nest,)),), ("x",), ("out",))
    with pytest.raises(BoundsError, match=r"kernel k, nest out: x\[i\]: index 0 is 3, not in 0..2"):
        run(p, [[1, 2, 3]])
    swapped = Loops(axes(i=4), (put(x, "i", at(out, "i")),))
    p = Program({"x": x, "out": out}, (Kernel("k", (swapped,)),), ("out",), ("x",))
    with pytest.raises(BoundsError, match=r"nest x: x\[i\]"):
        run(p, [[1, 2, 3, 4]])


def test_memory_is_poison_until_written() -> None:
    for dtype, bad in (("f32", nan), ("f64", nan), ("i8", -91), ("u8", 0xA5), ("bool", True)):
        out = buffer("out", (3,), dtype, "output")
        (y,) = run(Program({"out": out}, (), (), ("out",)), [])
        np.testing.assert_array_equal(y, np.full(3, bad))


def test_locals_are_forgotten_between_kernels() -> None:
    p = PROGRAMS["softmax"].program
    machine = execute(p, PROGRAMS["softmax"].inputs(np.random.default_rng(0)))
    assert set(machine.memory) == {"x", "out"}


def test_strided_views_share_memory() -> None:
    """out is a transposed slice of the middle rows of base: what is stored there is in base."""
    base = buffer("base", (4, 3), scope="output")
    view = Buffer("view", "f32", (3, 2), (1, 3), 3, "base", "output")
    p = program(
        Loops(axes(i=3, j=2), (put(view, "ij", Op("cast", (Iota(ROW * 10 + COL),), "f32")),)),
        buffers=[base, view],
        inputs="",
        outputs="view base",
    )
    v, b = run(p, [])
    assert v.tolist() == [[0, 1], [10, 11], [20, 21]]
    np.testing.assert_array_equal(b, [[nan] * 3, [0, 10, 20], [1, 11, 21], [nan] * 3])


def test_overlapping_inputs_keep_their_layout() -> None:
    """An expanded input: one element behind each row."""
    x = Buffer("x", "f32", (3, 4), (1, 0), scope="input")
    out = buffer("out", (3, 4), scope="output")
    p = program(Loops(axes(i=3, j=4), (put(out, "ij", at(x, "i", "j")),)), buffers=[x, out])
    a = np.broadcast_to(np.array([[1.0], [2.0], [3.0]]), (3, 4))
    np.testing.assert_array_equal(run(p, [a])[0], a)


def test_binds_see_earlier_binds() -> None:
    x = buffer("x", (5,), "i64", "input")
    out = buffer("out", (5,), "i64", "output")
    binds = (Bind("r", at(x, "i"), 5), Bind("s", at(x, "r"), 5))
    p = program(Loops(axes(i=5), (put(out, "i", at(x, "s")),), binds), buffers=[x, out])
    v = np.array([1, -1, 3, 0, 2])
    assert run(p, [v])[0].tolist() == v[v[v]].tolist()
    with pytest.raises(IndexError, match="index 5 is out of bounds for dimension with size 5"):
        run(p, [[0, 0, 5, 0, 0]])


def test_input_of_another_shape() -> None:
    with pytest.raises(ValueError, match="input x has shape"):
        run(PROGRAMS["softmax"].program, [np.zeros((6, 38))])


def test_extern_calls_and_symbolic_sizes() -> None:
    """nonzero defines a size; a kernel runs over it; torch views our memory."""
    from sympy import Symbol

    u = Symbol("u", integer=True, positive=True)
    x = Buffer("x", "f32", (7,), (1,), scope="input")
    found = Buffer("found", "i64", (u, 1), (1, 1), scope="extern")
    out = Buffer("out", "f32", (u,), (1,), scope="output")
    call = Extern("nonzero", torch.ops.aten.nonzero.default, (Ref("x"),), (), ("found",), ("u",))
    bind = Bind("r", Load("found", (ROW, Index()), "i64"), 7)
    nest = Loops((Axis("i", u),), (put(out, "i", at(x, "r")),), (bind,))
    p = Program(
        {"x": x, "found": found, "out": out}, (call, Kernel("k", (nest,))), ("x",), ("out",), ("u",)
    )
    check(p, "test")
    assert run(p, [[0, 3, 0, 0, 5, 6, 0]])[0].tolist() == [3, 5, 6]


def test_extern_with_views_lists_and_bf16() -> None:
    x = buffer("x", (4, 3), "bf16", "input")
    rows = Buffer("rows", "bf16", (2, 3), (6, 1), 0, "x", "input")
    out = buffer("out", (4, 3), "bf16", "extern")
    call = Extern("cat", torch.ops.aten.cat.default, ([Ref("rows"), Ref("rows")], 0), (), ("out",))
    p = Program({"x": x, "rows": rows, "out": out}, (call,), ("x",), ("out",))
    check(p, "test")
    v = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(run(p, [v])[0], np.concatenate([v[::2], v[::2]]))


def test_depth_first_runs_kernels_chunk_by_chunk() -> None:
    """Two kernels over one image each; the intermediate is one image, reused by every chunk."""
    images, width = 3, 4
    x, out = (
        buffer("x", (images, width), scope="input"),
        buffer("out", (images, width), scope="output"),
    )
    middle = buffer("middle", (1, width))
    first = Loops(axes(i=1, j=width), (put(middle, "ij", op("neg", at(x, "i", "j"))),))
    second = Loops(axes(i=1, j=width), (put(out, "ij", op("exp", at(middle, "i", "j"))),))
    p = program(first, second, buffers=[x, middle, out])
    row = width * 4
    p = replace(p, depth_first=(DepthFirst(0, 2, 1, images),), chunked={"x": row, "out": row})
    check(p, "depth_first")
    v = np.random.default_rng(0).standard_normal((images, width)).astype(np.float32)
    np.testing.assert_allclose(run(p, [v])[0], np.exp(-v), rtol=1e-6)
    np.testing.assert_allclose(run(p, [v], wide=True)[0], np.exp(-v.astype(np.float64)))


def test_schedules_are_ignored() -> None:
    for g in PROGRAMS.values():
        bare = replace(
            g.program, kernels=tuple(replace(k, schedules=()) for k in g.program.kernels)
        )
        inputs = g.inputs(np.random.default_rng(1))
        for a, b in zip(run(bare, inputs), run(g.program, inputs), strict=True):
            np.testing.assert_array_equal(a, b)
