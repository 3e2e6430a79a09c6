"""The C emitter beyond the golden programs: what it writes is what the interpreter means, and what
it cannot write it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch
from golden_programs import (
    PROGRAMS,
    SUM,
    at,
    axes,
    buffer,
    f32,
    kernel,
    op,
    program,
    put,
    unrolled,
)
from native import assert_close, assert_means, default_schedule, execute, own_schedule

from sol_dynamo.affine import Index
from sol_dynamo.interp import run
from sol_dynamo.ir import (
    Bind,
    Buffer,
    Const,
    Expr,
    Iota,
    Kernel,
    KernelError,
    Loops,
    Op,
    Program,
    Reduce,
    Schedule,
    Store,
)
from sol_dynamo.kernels.c.program import emit_program
from sol_dynamo.kernels.c.values import EmitError
from sol_dynamo.kernels.constants import bits, rounded
from sol_dynamo.spec import check

Array = np.ndarray
BITS = np.arange(1 << 16, dtype=np.uint16).view(np.int16)


def single(
    nest: Loops, buffers: list[Buffer], inputs: str, schedule: Schedule | None = None
) -> Program:
    """A program of one kernel of one nest that stores all outputs."""
    outputs = " ".join(b.name for b in buffers if b.scope == "output")
    p = program(buffers, [kernel("k", [(nest, schedule or Schedule(()))])], inputs, outputs)
    return p if schedule else replace(p, kernels=(Kernel("k", (nest,)),))


def natively(p: Program, arrays: list[Array], ulps: float = 4) -> list[Array]:
    """Check a program and its schedule (the default one, if it has none) against its meaning."""
    check(p, "the test")
    scheduled = own_schedule(p) if p.kernels[0].schedules else default_schedule(p)
    return assert_means(scheduled, arrays, ulps)


# -- 16-bit floats ---------------------------------------------------------------------------


def casts(source: str, result: str, points: int) -> Program:
    x, y = buffer("x", (points,), source, "input"), buffer("y", (points,), result, "output")
    return single(
        Loops(axes(i=points), (put(y, "i", Op("cast", (at(x, "i"),), result)),)), [x, y], "x"
    )


def torch_call(p: Program, x: torch.Tensor) -> torch.Tensor:
    from native import CPU

    p = default_schedule(p)
    executable = CPU.build(CPU.emit(p), p)
    (y,) = executable([x], executable.prepare([]))
    return y


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_half_widens_exactly(dtype: torch.dtype) -> None:
    name = "f16" if dtype == torch.float16 else "bf16"
    x = torch.from_numpy(np.append(BITS, BITS[:13])).view(dtype)  # with a tail of a vector
    y = torch_call(casts(name, "f32", len(x)), x)
    assert_close(y.numpy(), x.float().numpy(), 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_half_narrows_as_eager(dtype: torch.dtype) -> None:
    """All values, the middles between neighbours and what lies next to those; then random bits."""
    name = "f16" if dtype == torch.float16 else "bf16"
    exact = torch.from_numpy(BITS).view(dtype).float()
    middle = (exact.double() + torch.roll(exact, 1).double()).div(2).float()
    random = np.random.default_rng(0).integers(-(2**31), 2**31, 100_001).astype(np.int32)
    x = torch.cat(
        [
            exact,
            middle,
            torch.nextafter(middle, torch.tensor(inf)),
            torch.nextafter(middle, torch.tensor(-inf)),
            torch.from_numpy(random.view(np.float32)),
            torch.tensor([inf, -inf, nan, 0.0, -0.0, 65504.0, 65519.99, 65520.0, 3.4e38]),
        ]
    )
    y = torch_call(casts("f32", name, len(x)), x)
    numbers = ~x.isnan()
    assert torch.equal(y[numbers].view(torch.int16), x.to(dtype)[numbers].view(torch.int16))
    assert y[~numbers].isnan().all()


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("value", [0.1, -0.0, 1e9, -1e300, 5e-8, 65519.0, 65520.0, inf, nan, 3])
def test_half_constants(dtype: str, value: float) -> None:
    kind = torch.float16 if dtype == "f16" else torch.bfloat16
    expected = torch.tensor(float(value), dtype=torch.float32).to(kind)
    assert bits(value, dtype) == int(expected.view(torch.int16)) & 0xFFFF
    np.testing.assert_equal(rounded(value, dtype), float(expected))


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_half_operations_round_each(dtype: str) -> None:
    """Sums, products and constants in a 16-bit dtype; a masked load whose page is not zero."""
    n = 37
    x, y = buffer("x", (n,), dtype, "input"), buffer("y", (n,), dtype, "output")
    before = at(x, Index.of("i") - 1, mask=(Index.of("i") - 1,), other=-inf)
    value = op("max", op("mul", op("add", at(x, "i"), Const(0.1, dtype)), at(x, "i")), before)
    nest = Loops(axes(i=n), (put(y, "i", value),))
    v = (
        np.random.default_rng(0)
        .standard_normal(n)
        .astype(np.float16 if dtype == "f16" else np.float32)
    )
    natively(single(nest, [x, y], "x"), [v], 0)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_half_sums(dtype: str) -> None:
    rows, cols = 3, 45
    x, y = buffer("x", (rows, cols), dtype, "input"), buffer("y", (rows,), dtype, "output")
    value = Op("cast", (at(x, "i", "j"),), "f32")
    nest = Loops(axes("j", i=rows, j=cols), (put(y, "i", value, SUM),))
    v = np.random.default_rng(0).integers(-9, 10, (rows, cols))
    natively(single(nest, [x, y], "x"), [v.astype(np.float16 if dtype == "f16" else np.float32)], 0)


# -- scans -----------------------------------------------------------------------------------


def scan(shape: tuple[int, int], dim: int, monoid="sum", acc="f64", **options: Any) -> Program:
    """A running reduction of x along one dimension."""
    x, y = buffer("x", shape, scope="input"), buffer("y", shape, scope="output")
    init, schedule = options.get("init"), options.get("schedule")
    value = at(x, "i", "j") if acc == "f32" else Op("cast", (at(x, "i", "j"),), acc)
    reduce = Reduce(monoid, acc, (Const(init, acc),) if init is not None else None)
    nest = Loops(axes(scan="ij"[dim], i=shape[0], j=shape[1]), (put(y, "ij", value, reduce),))
    return single(nest, [x, y], "x", schedule)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1), (7, 39), (40, 1), (3, 16)])
def test_scan(shape: tuple[int, int], dim: int) -> None:
    v = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    natively(scan(shape, dim), [v], 1)


def test_scan_monoids() -> None:
    v = np.random.default_rng(0).standard_normal((5, 21)).astype(np.float32)
    v[1, 3], v[2, 0] = nan, -inf
    natively(scan((5, 21), 1, "max", "f32"), [v], 0)
    natively(scan((5, 21), 0, "min", "f32"), [v], 0)
    natively(scan((5, 21), 0, "prod", "f64", init=2.0), [np.nan_to_num(v, neginf=1)], 4)


def test_scan_as_scheduled() -> None:
    """Cut in tiles that are written out; vectors across; one after the other in a ring of nests."""
    v = np.random.default_rng(0).standard_normal((6, 23)).astype(np.float32)
    tiled = Schedule(("i.0", "j.0", "j.1"), {"j": (4,)}, 1, unrolled("j.1"))
    natively(scan((6, 23), 1, schedule=tiled), [v], 1)
    across = Schedule(("j.0", "i.0", "j.1"), {"j": (8,)}, 0, unrolled("j.1"), ("j.1", 8))
    natively(scan((6, 23), 0, schedule=across), [v], 1)


def test_scan_of_a_reduction() -> None:
    """Running sums of row sums: each position first reduces."""
    x = buffer("x", (4, 9, 17), scope="input")
    y = buffer("y", (4, 9), scope="output")
    nest = Loops(axes("k", "j", i=4, j=9, k=17), (put(y, "ij", at(x, "i", "j", "k"), SUM),))
    v = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    natively(single(nest, [x, y], "x"), [v], 8)


def test_long_scan_is_as_exact_as_eager() -> None:
    v = np.random.default_rng(0).random((2, 100_003)).astype(np.float32)
    (y,) = execute(default_schedule(scan(v.shape, 1)), [v])
    exact = np.cumsum(v.astype(np.float64), 1)
    assert np.abs(y - exact).max() <= np.spacing(exact.max().astype(np.float32))
    assert_close(y, torch.cumsum(torch.from_numpy(v), 1).numpy(), 1)


@pytest.mark.parametrize(
    ("dim", "schedule"),
    [
        (1, Schedule(("i.0", "j.0"), vector=("j.0", 8), unroll=unrolled("j.0"))),
        (0, Schedule(("i.0", "j.0"))),
        (1, Schedule(("i.0", "j.0"), parallel=2)),
    ],
    ids=["along lanes", "moving points inside", "shared among threads"],
)
def test_scan_refused(dim: int, schedule: Schedule) -> None:
    with pytest.raises((EmitError, KernelError)):
        emit_program(own_schedule(scan((6, 23), dim, schedule=schedule)))


# -- indirect addresses ----------------------------------------------------------------------


def indirect(
    index_shape: tuple[int, ...],
    table_shape: tuple[int, ...],
    place: Callable[..., tuple],
    **sizes: int,
) -> Program:
    """out[axes] = table[place(r)], r = index[first axes]."""
    table = buffer("table", table_shape, scope="input")
    index = buffer("index", index_shape, "i64", "input")
    out = buffer("out", tuple(sizes.values()), scope="output")
    names = list(sizes)
    bind = Bind("r", at(index, *names[: len(index_shape)]), table_shape[place("r").index("r")])
    nest = Loops(axes(**sizes), (put(out, names, at(table, *place("r"))),), (bind,))
    return single(nest, [index, table, out], "index table")


def test_indirect_along_and_across_lanes() -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((9, 33)).astype(np.float32)
    rows = indirect((5,), table.shape, lambda r: (r, "j"), i=5, j=33)
    (y,) = natively(rows, [np.array([8, -9, 0, -1, 3]), table], 0)
    assert (y == table[[8, -9, 0, -1, 3]]).all()
    index = rng.integers(-33, 33, (9, 21))
    gathered = indirect(index.shape, table.shape, lambda r: ("i", r), i=9, j=21)
    (y,) = natively(gathered, [index, table], 0)
    assert (y == np.take_along_axis(table, index % 33, 1)).all()


def test_indirect_of_indirect_in_a_sum() -> None:
    """out[i, d] = sum over j of table[order[index[i, j]], d]"""
    table = buffer("table", (7, 19), scope="input")
    order = buffer("order", (5,), "i32", "input")
    index = buffer("index", (4, 6), "i64", "input")
    out = buffer("out", (4, 19), scope="output")
    binds = (Bind("a", at(index, "i", "j"), 5), Bind("b", at(order, "a"), 7))
    nest = Loops(axes("j", i=4, d=19, j=6), (put(out, "id", at(table, "b", "d"), SUM),), binds)
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(-5, 5, (4, 6)),
        rng.integers(-7, 7, 5).astype(np.int32),
        rng.standard_normal((7, 19)).astype(np.float32),
    ]
    natively(single(nest, [table, order, index, out], "index order table"), arrays)


@pytest.mark.parametrize("bad", [9, -10, 2**40, -(2**63)])
def test_indirect_out_of_range(bad: int) -> None:
    """Eager's error, either of its kinds; the program stays usable."""
    from native import CPU

    p = default_schedule(indirect((5,), (9, 33), lambda r: (r, "j"), i=5, j=33))
    table = torch.randn(9, 33)
    executable = CPU.build(CPU.emit(p), p)
    none = executable.prepare([])
    good = torch.tensor([0, 1, 2, 3, 8])
    for kind in (IndexError, RuntimeError):
        with pytest.raises(kind, match=f"index {bad} is out of bounds.*size 9.*from index"):
            executable([torch.tensor([0, 1, bad, 3, 4]), table], none)
    assert torch.equal(executable([good, table], none)[0], table[good])


def test_golden_gather_out_of_range() -> None:
    g = PROGRAMS["gather"]
    _, table = g.inputs(np.random.default_rng(0))
    for bad in (11, -12):
        with pytest.raises(IndexError, match=f"index out of range in self.*index.*{bad}"):
            execute(own_schedule(g.program), [np.array([0, bad, 0, 0, 0, 0, 0]), table])


# -- reductions ------------------------------------------------------------------------------

ACROSS = Schedule(("i.0", "j.0", "j.1"), {"j": (16,)}, 1, unrolled("j.1"), ("j.1", 8))
DOWN = Schedule(("i.0", "j.0", "i.1"), {"i": (16,)}, 1, unrolled("i.1"), ("i.1", 16))


def rows(
    monoid: str,
    values: Callable[[Expr], tuple],
    shape=(5, 45),
    acc="f32",
    dtypes=("f32",),
    **how: Any,
) -> Program:
    """A reduction of each row of x."""
    x = buffer("x", shape, how.get("dtype", acc), "input")
    outs = tuple(buffer(f"y{n}", shape[:1], t, "output") for n, t in enumerate(dtypes))
    init = how.get("init")
    reduce = Reduce(
        monoid, acc, init and tuple(Const(v, t) for v, t in zip(init, dtypes, strict=True))
    )
    nest = Loops(
        axes("j", i=shape[0], j=shape[1]), (put(outs, "i", values(at(x, "i", "j")), reduce),)
    )
    return single(nest, [x, *outs], "x", how.get("schedule"))


def hard(shape: tuple[int, int]) -> Array:
    """Ties, NaN (one and several in a row), infinities, rows of one infinity."""
    v = np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32)
    v[0, shape[1] // 2] = nan
    v[1] = -inf
    v[2] = inf
    v[3, [shape[1] // 3, -1]] = nan
    return v


@pytest.mark.parametrize("schedule", [None, ACROSS, DOWN], ids=["default", "across", "down"])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions(name: str, schedule: Schedule | None) -> None:
    """As the interpreter and as eager: the first of equal values, the first NaN."""
    v = hard((5, 45))
    p = rows(name, lambda x: (x, Iota(Index.of("j"))), dtypes=("f32", "i64"), schedule=schedule)
    best, where = natively(p, [v], 0)
    eager = getattr(torch, name[3:])(torch.from_numpy(v), 1)
    assert (where == eager.indices.numpy()).all()
    np.testing.assert_array_equal(best, eager.values.numpy())


@pytest.mark.parametrize("acc", ["i64", "i8", "u8", "f64"])
def test_positions_of_other_dtypes(acc: str) -> None:
    numpy = {"i64": np.int64, "i8": np.int8, "u8": np.uint8, "f64": np.float64}[acc]
    v = np.random.default_rng(0).integers(0, 9, (5, 45)).astype(numpy)
    p = rows(
        "argmax", lambda x: (x, Iota(Index.of("j"))), acc=acc, dtypes=(acc, "i64"), schedule=ACROSS
    )
    natively(p, [v])


@pytest.mark.parametrize("schedule", [None, ACROSS, DOWN], ids=["default", "across", "down"])
@pytest.mark.parametrize("acc", ["f32", "f64"])
def test_welford(acc: str, schedule: Schedule | None) -> None:
    v = (np.random.default_rng(0).standard_normal((5, 45)) + 100).astype("float" + acc[1:])
    one, zero = Const(1.0, acc), Const(0.0, acc)
    p = rows("welford", lambda x: (one, x, zero), acc=acc, dtypes=(acc,) * 3, schedule=schedule)
    count, mean, m2 = natively(p, [v], 64)  # m2 is a difference
    assert (count == 45).all()
    np.testing.assert_allclose(m2 / 45, v.astype(np.float64).var(1), rtol=2e-5)
    np.testing.assert_allclose(mean, v.astype(np.float64).mean(1), rtol=3e-7)


@pytest.mark.parametrize("schedule", [None, ACROSS, DOWN], ids=["default", "across", "down"])
def test_online_softmax(schedule: Schedule | None) -> None:
    v = np.random.default_rng(0).standard_normal((5, 45)).astype(np.float32)
    v[0, :20], v[1], v[2, 44], v[3, 3], v[4, 7] = -inf, -inf, 80, nan, inf
    p = rows("softmax", lambda x: (x, f32(1.0)), dtypes=("f32",) * 2, schedule=schedule)
    natively(p, [v], 8)


@pytest.mark.parametrize("schedule", [None, ACROSS, DOWN], ids=["default", "across", "down"])
@pytest.mark.parametrize(
    ("monoid", "acc", "init"),
    [
        ("sum", "f32", 2.0),
        ("prod", "f64", 3.0),
        ("max", "f32", 2.5),
        ("sum", "i64", 7),
        ("sum", "i8", 3),
    ],
)
def test_start_counts_once(monoid: str, acc: str, init: float, schedule: Schedule | None) -> None:
    """Lanes and unrolled parts do not each begin with the initial value."""
    v = np.random.default_rng(0).integers(1, 3, (5, 45))
    numpy = {"f32": "float32", "f64": "float64", "i64": "int64", "i8": "int8"}[acc]
    p = rows(monoid, lambda x: (x,), acc=acc, dtypes=(acc,), init=(init,), schedule=schedule)
    natively(p, [v.astype(numpy)], 8)


@pytest.mark.parametrize("schedule", [ACROSS, DOWN], ids=["across", "down"])
@pytest.mark.parametrize("monoid", ["any", "all"])
def test_truth(monoid: str, schedule: Schedule) -> None:
    v = np.random.default_rng(0).random((5, 45)) < 0.5
    v[0], v[1] = False, True
    p = rows(monoid, lambda x: (x,), acc="bool", dtypes=("bool",), schedule=schedule)
    natively(p, [v])


@pytest.mark.parametrize("schedule", [None, ACROSS, DOWN], ids=["default", "across", "down"])
@pytest.mark.parametrize("monoid", ["sum", "prod", "max", "argmax", "welford"])
def test_reduction_over_nothing(monoid: str, schedule: Schedule | None) -> None:
    """No points: the identity, and for a position 0."""
    values: dict[str, Any] = {
        "argmax": lambda x: (x, Iota(Index.of("j"))),
        "welford": lambda x: (f32(1.0), x, f32(0.0)),
    }
    dtypes = {"argmax": ("f32", "i64"), "welford": ("f32",) * 3}.get(monoid, ("f32",))
    p = rows(monoid, values.get(monoid, lambda x: (x,)), (5, 0), dtypes=dtypes, schedule=schedule)
    natively(p, [np.empty((5, 0), np.float32)])


def test_store_mask_of_a_reduction() -> None:
    x, y = buffer("x", (6, 9), scope="input"), buffer("y", (6,), scope="output")
    store = Store(("y",), (Index.of("i"),), (at(x, "i", "j"),), (3 - Index.of("i"),), SUM)
    p = single(Loops(axes("j", i=6, j=9), (store,)), [x, y], "x", Schedule(("i.0", "j.0")))
    v = np.random.default_rng(0).standard_normal((6, 9)).astype(np.float32)
    (y_,) = execute(own_schedule(p), [v])
    assert_close(y_[:4], run(p, [v])[0][:4], 4)


def test_store_mask_in_lanes() -> None:
    """Lanes whose mask fails keep what another nest wrote there."""
    x, y = buffer("x", (41,), scope="input"), buffer("y", (50,), scope="output")
    i = Index.of("i")
    where = Store(("y",), (i,), (at(x, "i"),), (i - 3, 37 - i))
    wide = Schedule(("i.0", "i.1"), {"i": (16,)}, 0, unrolled("i.1"), ("i.1", 16))
    p = single(Loops(axes(i=41), (where,)), [x, y], "x", wide)
    v = np.random.default_rng(0).standard_normal(41).astype(np.float32)
    (got,) = execute(own_schedule(p), [v])
    assert (got[3:38] == v[3:38]).all()


# -- rings and refusals ----------------------------------------------------------------------


def test_ring_computes_each_row_once() -> None:
    """Rows of the expansion are kept from one output row to the next, and none is computed outside
    the image."""
    text = emit_program(own_schedule(PROGRAMS["inverted_residual"].program)).body
    assert "long done0 = 0;" in text and "% 3" in text
    assert "SOL_MAX(0, SOL_MAX(done0 - " in text and "done0 = SOL_MAX(done0, SOL_MIN(" in text


def with_nest(name: str, **fields: Any) -> Program:
    """A golden program whose first nest is another."""
    p = PROGRAMS[name].program
    k = p.kernels[-1]
    return replace(p, kernels=(replace(k, body=(replace(k.body[0], **fields), *k.body[1:])),))


def rescheduled(name: str, k: int, **fields: Any) -> Program:
    """A golden program whose last kernel's k-th nest is walked differently."""
    p = PROGRAMS[name].program
    kernel = p.kernels[-1]
    schedules = list(kernel.schedules)
    schedules[k] = replace(schedules[k], **fields)
    return replace(p, kernels=(*p.kernels[:-1], replace(kernel, schedules=tuple(schedules))))


class Unknown(Expr):
    __slots__ = ("dtype",)

    def __new__(cls):
        return cls._intern(("unknown",), dtype="f32")


def refusals() -> dict[str, Program]:
    """A program for each thing that the emitter does not write."""
    golden = {n: g.program for n, g in PROGRAMS.items()}
    x, y = buffer("x", (6, 23), scope="input"), buffer("y", (6,), scope="output")
    nest = Loops(axes("j", i=6, j=23), (put(y, "i", at(x, "i", "j"), SUM),))
    inside_out = Schedule(("j.0", "i.0"))
    over = replace(nest.stores[0], reduce=Reduce("max", "bool"), values=(Const(True, "bool"),))
    unknown = replace(nest.stores[0], values=(Unknown(),))
    loop = Schedule(("i.0", "j.0"))
    pack = golden["conv_bn_residual_relu"].packs[0]
    scaled = replace(pack, stores=(replace(pack.stores[0], values=(f32(1.0),)),))
    gather = golden["gather"].kernels[0].body[0]
    return {
        "sizes": replace(golden["softmax"], symbols=("n",)),
        "unscheduled": single(nest, [x, y], "x"),
        "points that move in a reduction": single(nest, [x, y], "x", inside_out),
        "bool maximum": single(replace(nest, stores=(over,)), [x, y], "x", loop),
        "unknown expression": single(replace(nest, stores=(unknown,)), [x, y], "x", loop),
        "wide vectors": rescheduled("matmul", 0, vector=("n.1", 64)),
        "loop of no axis": rescheduled("matmul", 0, order=("m.0", "n.0", "z.0", "m.1", "n.1")),
        "reduce loop left out": rescheduled("matmul", 0, order=("m.0", "n.0", "m.1", "n.1")),
        "shared reduction": rescheduled(
            "matmul", 0, order=("k.0", "m.0", "n.0", "m.1", "n.1"), parallel=1
        ),
        "pack that computes": replace(golden["conv_bn_residual_relu"], packs=(scaled,)),
        "empty table": with_nest("gather", binds=(replace(gather.binds[0], bound=0),)),
        "ring too small": rescheduled("inverted_residual", 1, fold={"e": 2}),
        "ring in tiles": rescheduled(
            "inverted_residual", 1,
            order=("h.0", "h.1", "w.0", "m.0", "w.1", "m.1"),
            tile={"h": (2,), "w": (5,), "m": (8,)},
        ),
        "nowhere computed": rescheduled("softmax", 0, at=None),
    }  # fmt: skip


@pytest.mark.parametrize("what", refusals())
def test_refused(what: str) -> None:
    """Never a guess: an error that says what is not written."""
    with pytest.raises((EmitError, KernelError)):
        emit_program(own_schedule(refusals()[what]))


def test_nothing_to_store() -> None:
    x, y = buffer("x", (0, 9), scope="input"), buffer("y", (0,), scope="output")
    nest = Loops(axes("j", i=0, j=9), (put(y, "i", at(x, "i", "j"), SUM),))
    natively(single(nest, [x, y], "x"), [np.empty((0, 9), np.float32)])
    natively(single(nest, [x, y], "x", Schedule(("i.0", "j.0"))), [np.empty((0, 9), np.float32)])


# -- through the whole pipeline --------------------------------------------------------------


def compiled_equals_eager(f: Callable, *args: torch.Tensor) -> None:
    from sol_dynamo.backend import sol
    from sol_dynamo.report import report

    torch._dynamo.reset()
    for got, expected in zip(torch.compile(f, backend=sol)(*args), f(*args), strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
    assert not report(sol.graphs[-1].compiled.program).aten_calls


def test_bool_arithmetic() -> None:
    a, b = (torch.rand(3, 37, generator=torch.Generator().manual_seed(s)) < 0.5 for s in (0, 1))
    compiled_equals_eager(
        lambda a, b: (a * b, a + b, torch.maximum(a, b), torch.minimum(a, b), a.amax(1), b.min()),
        a,
        b,
    )


def test_attached_nest_that_nobody_reads() -> None:
    """The powers of a softmax are kept for the matmul's kernel too: stored at divided indices."""
    from sol_dynamo.backend import sol

    w, x = torch.randn(2, 2), torch.randn(2, 2, 1, 2)
    torch._dynamo.reset()
    f = torch.compile(lambda x: torch.softmax(x, 3) @ w, backend=sol)
    torch.testing.assert_close(f(x), torch.softmax(x, 3) @ w)


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 1, 1)])
def test_max_pool_positions(size: int, stride: int, padding: int) -> None:
    """Eager keeps the first of equal numbers, and the last of several NaN."""
    x = torch.randint(-3, 4, (2, 3, 9, 11), generator=torch.Generator().manual_seed(0)).float()
    x[0, 0, :4, :4] = nan
    x[0, 1, 2, 3:5] = nan
    x[1] = -inf
    pool = torch.nn.functional.max_pool2d
    compiled_equals_eager(lambda x: pool(x, size, stride, padding, return_indices=True), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_half_graph(dtype: torch.dtype) -> None:
    x = torch.randn(5, 67, generator=torch.Generator().manual_seed(0)).to(dtype)
    compiled_equals_eager(lambda x: (x + x.abs() * 3, (x * x).relu(), x.float() * 2, x.amax(0)), x)
