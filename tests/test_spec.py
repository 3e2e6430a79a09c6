"""Every check of the spec: a case that fires, and beside it a near miss that does not.

One file, as `spec.py` is, so that a check without its pair is seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from golden_programs import PROGRAMS, SUM, at, axes, buffer, f32, op, put

from sol_dynamo.affine import Index
from sol_dynamo.ir import (
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
    Origin,
    Program,
    Reduce,
    Ref,
    Schedule,
    Store,
)
from sol_dynamo.spec import CHECKS, SpecError, check, determined

i, j, k = map(Index.of, "ijk")
X = buffer("x", (4, 6), scope="input")
W = buffer("w", (6,), scope="weight")
ROW = buffer("row", (4,), scope="output")
OUT = buffer("out", (4, 6), scope="output")
POINT = axes(i=4, j=6)
COPY = Loops(POINT, (put(OUT, "ij", at(X, i, j)),))


def program(*nests: Loops, buffers: tuple[Buffer, ...] = (X, W, OUT), **options: Any) -> Program:
    """One kernel for each nest; x and w in, out out, unless options say otherwise."""
    kernels = tuple(Kernel(f"k{n}", (nest,)) for n, nest in enumerate(nests))
    fields = {"inputs": ("x", "w"), "outputs": ("out",), "kernels": kernels, **options}
    return Program({b.name: b for b in buffers}, **fields)


def value(e: Expr, out: Buffer = OUT, loops=POINT, binds=(), mask=()) -> Program:
    """out[i, j] = e"""
    store = Store((out.name,), (i, j), (e,), mask)
    return program(Loops(loops, (store,), binds), buffers=(X, W, out))


def summed(index=(i,), e: Expr | None = None, reduce=SUM, out=ROW, loops=None) -> Program:
    """row[i] sum= x[i, j]"""
    store = Store((out.name,), index, (e or at(X, i, j),), (), reduce)
    loops = loops or axes("j", i=4, j=6)
    return program(Loops(loops, (store,)), buffers=(X, W, out), outputs=(out.name,))


def kernel(*nests: Loops, schedules=(), buffers=(), **options: Any) -> Program:
    """All nests in one kernel."""
    k = Kernel("k", nests, tuple(schedules))
    return program(buffers=(X, W, OUT, *buffers), **{"kernels": (k,), **options})


LOCAL = buffer("t", (4,), scope="local")
TOTAL = Loops(axes("j", i=4, j=6), (put(LOCAL, "i", at(X, i, j), SUM),))
SCALED = Loops(POINT, (put(OUT, "ij", op("mul", at(X, i, j), at(LOCAL, i))),))
ROOT = Schedule(("i.0", "j.0"))
INSIDE = Schedule(("j.0",), at=("out", "i.0"))


def scheduled(first=INSIDE, last=ROOT) -> Program:
    """t[i] sum= x[i, j]; out[i, j] = x[i, j] * t[i], in one kernel."""
    return kernel(TOTAL, SCALED, schedules=(first, last), buffers=(LOCAL,))


def extern(out="e", arg="x", scope="extern") -> Program:
    call = Extern("relu", torch.relu, (Ref(arg),), (), (out,))
    e = buffer("e", (4, 6), scope=scope)
    return program(buffers=(X, W, OUT, e), kernels=(call,), outputs=("e",))


def view(**fields: Any) -> Program:
    """out, written through a view of all of it."""
    v = replace(OUT, name="v", base="out", **fields)
    rows, cols = v.shape
    e = op("neg", Op("cast", (Iota(i),), v.dtype))
    return program(Loops(axes(i=rows, j=cols), (put(v, "ij", e),)), buffers=(X, W, OUT, v))


def packed(source: Buffer = W, target="weight", name="packed") -> Program:
    """packed[5 - j] = w[j], once per weight set; out[i, j] = x[i, j] * packed[j]"""
    b = buffer("packed", (6,), scope=target)
    e = Load(source.name, (5 - j,) if source is W else (Index(), 5 - j), "f32")
    pack = Loops(axes(j=6), (Store((name,), (j,), (e,)),))
    use = Loops(POINT, (put(OUT, "ij", op("mul", at(X, i, j), at(b, j))),))
    return program(use, buffers=(X, W, b, OUT), packs=(pack,))


def placed(first: int, second: int, end: int) -> Program:
    """a = -x; b = -a; c = -b; out = -c + b, with a, b and c in the arena."""
    a, b, c = (buffer(s, (4, 6)) for s in "abc")
    chain = [(a, at(X, i, j)), (b, at(a, i, j)), (c, at(b, i, j))]
    nests = [Loops(POINT, (put(t, "ij", op("neg", e)),)) for t, e in chain]
    nests.append(Loops(POINT, (put(OUT, "ij", op("add", at(c, i, j), at(b, i, j))),)))
    arena = {"a": 0, "b": first, "c": second}
    return program(*nests, buffers=(X, W, a, b, c, OUT), arena=arena, arena_bytes=end)


def bands(*d: DepthFirst, step=24) -> Program:
    b = buffer("b", (4, 6))
    nests = (
        Loops(POINT, (put(b, "ij", at(X, i, j)),)),
        Loops(POINT, (put(OUT, "ij", at(b, i, j)),)),
    )
    return program(*nests, buffers=(X, W, b, OUT), depth_first=d, chunked={"out": step})


def _shifted(amount: int, mask=()) -> Expr:
    """x[i, j + amount]"""
    return at(X, i, j + amount, mask=mask, other=0.0)


def _stored(index, loops, shape, mask=()) -> Program:
    out = buffer("out", shape, scope="output")
    return program(Loops(loops, (Store(("out",), index, (f32(0.0),), mask),)), buffers=(X, W, out))


def cases() -> Iterator[tuple[str, str, Program, Program]]:
    """(check, what its message says, a program that breaks it, a near miss)"""
    good = program(COPY)

    name = "buffers_exist"
    yield name, "no buffer y", value(Load("y", (i, j), "f32")), good
    yield name, "no buffer z", replace(good, outputs=("z",)), replace(good, outputs=("out", None))
    yield name, "no buffer y", extern(arg="y"), extern()
    yield name, "no buffer y", extern(out="y"), replace(extern(out=""), outputs=("x",))
    lost = {**view().buffers, "v": replace(view().buffers["v"], base="nowhere")}
    yield name, "a view of nowhere", replace(view(), buffers=lost), view()
    yield name, "filed under y", replace(good, buffers={**good.buffers, "y": X}), good

    name = "buffers_are_typed"
    for bad, text in (
        (replace(OUT, dtype="f8"), "dtype f8"),
        (replace(OUT, scope="heap"), "scope heap"),
        (replace(OUT, strides=(1,)), "2 sizes, 1 strides"),
        (replace(OUT, offset=-1), "negative"),
    ):
        yield name, text, replace(good, buffers={"x": X, "w": W, "out": bad}), good

    name = "views_lie_in_their_base"
    yield name, "ends at 25, its base at 24", view(offset=1), view(offset=1, shape=(4, 5))
    yield name, "ends at 27", view(strides=(7, 1)), view(strides=(7, 1), shape=(3, 6))
    yield name, "i32 view of f32", view(dtype="i32"), view(dtype="f32")
    b = view()
    nested = {**b.buffers, "u": replace(OUT, name="u", base="v")}
    flat = {**b.buffers, "u": replace(OUT, name="u", base="out")}
    yield name, "itself a view", replace(b, buffers=nested), replace(b, buffers=flat)
    ring = {**scheduled().buffers, "u": replace(LOCAL, name="u", base="t")}
    yield name, "view of local", replace(scheduled(), buffers=ring), scheduled()

    name = "axes_are_sound"
    yield name, "i names two", value(at(X, i, i), loops=axes(i=4) * 2), good
    bind = Bind("i", Iota(j), 6)
    yield (
        name,
        "i names two",
        value(at(X, i, j), binds=(bind,)),
        value(at(X, i, "r"), binds=(replace(bind, symbol="r"),)),
    )
    yield name, "axis j is serial", value(f32(0), loops=(*axes(i=4), Axis("j", 6, "serial"))), good
    yield (
        name,
        "extent -1",
        value(f32(0), loops=axes(i=4, j=-1)),
        value(f32(0), loops=axes(i=4, j=0)),
    )
    yield name, "without a store", program(Loops(POINT, ()), COPY), good
    scan = axes(scan="j", i=4, j=6)
    yield name, "a scan", value(at(X, i, j), loops=scan), summed((i, j), loops=scan, out=OUT)

    name = "symbols_are_bound"
    yield name, "k is bound nowhere", value(at(X, i, k)), good
    yield (
        name,
        "n is bound nowhere",
        value(at(X, i, j, mask=("n" - j,))),
        replace(value(at(X, i, j, mask=("n" - j,))), symbols=("n",)),
    )
    two = [Bind("r", Iota(j), 6), Bind("s", Iota(Index.of("r")), 6)]
    yield (
        name,
        "r is bound nowhere",
        value(at(X, i, "s"), binds=tuple(two[::-1])),
        value(at(X, i, "s"), binds=tuple(two)),
    )
    yield name, "depends on reduce axis j", summed((j,)), summed((i,))
    start = Reduce("sum", "f32", (at(W, j),))
    yield (
        name,
        "j is bound nowhere",
        summed(reduce=start),
        summed(reduce=replace(start, init=(at(W, i),))),
    )
    yield (
        name,
        "j is bound nowhere",
        summed((i, j), reduce=start, loops=scan, out=OUT),
        summed((i, j), reduce=replace(start, init=(at(W, i),)), loops=scan, out=OUT),
    )

    name = "expressions_are_typed"
    x, n = at(X, i, j), Iota(j)
    for text, bad, near in (
        ("f64 load of a f32", Load("x", (i, j), "f64"), x),
        ("1 indices of 2", Load("x", (i,), "f32"), x),
        ("unknown op relu", op("relu", x), op("exp", x)),
        ("takes 2 arguments", op("add", x), op("add", x, x)),
        ("add of f32, i64 gives f32", Op("add", (x, n), "f32"), op("add", x, x)),
        ("exp is not for i64", op("exp", n), op("exp", Op("cast", (n,), "f32"))),
        ("add is not for bool", op("add", *[op("not", _ge(n))] * 2), op("or", _ge(n), _ge(n))),
        ("gives bool", Op("lt", (x, x), "f32"), Op("lt", (x, x), "bool")),
        ("condition is not bool", Op("where", (x, x, x), "f32"), op("where", _ge(n), x, x)),
        ("where of f32, i64", Op("where", (_ge(n), x, n), "f32"), op("where", _ge(n), n, n)),
        ("not an integer", Const(0.5, "i64"), Const(-float("inf"), "i64")),
        ("unknown dtype f8", Op("cast", (x,), "f8"), Op("cast", (x,), "f16")),
        ("an index is a number", Iota(i, "bool"), Iota(i, "i32")),
    ):
        yield name, text, _typed(bad), _typed(near)

    name = "stores_are_typed"
    yield name, "i64 value for f32 buffer", value(n), value(Op("cast", (n,), "f32"))
    yield name, "1 indices for the 2", summed((i,), out=OUT), summed((i,))
    both = Store(("out",), (i, j), (x, x))
    yield name, "2 values for 1 buffers", program(Loops(POINT, (both,))), good
    wide = Reduce("sum", "f64")
    yield (
        name,
        "f32 value for a f64",
        summed(reduce=wide),
        summed(e=Op("cast", (x,), "f64"), reduce=wide),
    )
    yield name, "unknown monoid median", summed(reduce=Reduce("median", "f32")), summed()
    yield (
        name,
        "argmax combines 2",
        summed(reduce=Reduce("argmax", "f32")),
        summed(reduce=Reduce("max", "f32")),
    )
    start = Reduce("sum", "f32", (f32(0.0), f32(0.0)))
    yield name, "sum combines 1", summed(reduce=start), summed()
    yield (
        name,
        "any accumulates bool",
        summed(reduce=Reduce("any", "f32")),
        summed(e=_ge(n), reduce=Reduce("any", "bool")),
    )
    yield name, "a position is an integer", _pair(x, "f32"), _pair(n, "i64")
    yield (
        name,
        "softmax accumulates floats",
        _pair(n, "i64", "softmax", "i64"),
        _pair(f32(1.0), "f32", "softmax"),
    )

    name = "loads_stay_in_bounds"
    yield name, "index 1 may be 1..6, the dimension is 0..5", value(_shifted(1)), value(_shifted(0))
    yield name, "may be -1..4", value(_shifted(-1)), value(_shifted(-1, (j - 1,)))
    yield name, "may be -2..3", value(_shifted(-2, (j - 1,))), value(_shifted(-2, (j - 2,)))
    yield name, "may be 1..6", value(_shifted(1, (5 - j,))), value(_shifted(1, (4 - j,)))
    halved = at(X, i, (j - 1) // 2, mask=(j - 1,), other=0.0)
    yield name, "may be -1..2", value(_masked(halved, (j,))), value(halved)
    upper = at(X, i, (j + 8) // 2, mask=(3 - j,), other=0.0)
    yield name, "may be 4..6", value(_masked(upper, (4 - j,))), value(upper)
    twice = at(X, i, 2 * j, mask=(2 - j,), other=0.0)
    yield name, "may be 0..10", value(_masked(twice, (3 - j,))), value(twice)
    pairs = at(X, i, 2 * ((j + 1) // 2) - 2, mask=(j - 1,), other=0.0)
    yield name, "may be -2..4", value(_masked(pairs, (j,))), value(pairs)
    pairs = at(X, i, 2 * ((j + 3) // 2) - 1, mask=(3 - j,), other=0.0)
    yield name, "may be 1..7", value(_masked(pairs, (5 - j,))), value(pairs)
    sums = at(X, i, i + 2 * ((j + 1) // 2) - 2, mask=(j - 1, 2 - j), other=0.0)
    yield name, "may be -2..7", value(_masked(sums, (j, 2 - j))), value(sums)
    deep = at(X, i, (j + 1) // 4 - 1, mask=((j + 1) // 2 - 2,), other=0.0)
    yield name, "may be -1..0", value(_masked(deep, ((j + 1) // 2 - 1,))), value(deep)
    last = at(X, i, j + 1, mask=(1 - j % 3,), other=0.0)
    yield name, "may be 1..6", value(_masked(last, (2 - j % 3,))), value(last)
    wide = buffer("out", (4, 24), scope="output"), axes(i=4, j=24)
    digit = at(X, i, (j // 4) % 3 - 1, mask=((j // 2) % 6 - 2,), other=0.0)
    loose = _masked(digit, ((j // 2) % 6 - 1,))
    yield name, "may be -1..1", value(loose, *wide), value(digit, *wide)
    never = at(X, i, j + 9, mask=(j - 9,), other=0.0)
    yield name, "may be 9..14", value(_masked(never, (j - 5,))), value(never)
    row = Bind("r", Iota(j), 6)
    yield (
        name,
        "may be 0..5",
        value(at(X, "r", j), binds=(row,)),
        value(at(X, i, "r"), binds=(row,)),
    )
    empty = buffer("out", (4, 0), scope="output")
    yield name, "may be 9..9", value(at(X, i, 9)), value(at(X, i, 9), empty, axes(i=4, j=0))

    name = "stores_stay_in_bounds"
    yield (
        name,
        "may be 0..5",
        _stored((i, j), POINT, (4, 5)),
        _stored((i, j), POINT, (4, 5), (4 - j,)),
    )

    name = "stores_do_not_race"
    yield name, "j may vary", _stored((i,), POINT, (4,)), _stored((i,), axes(i=4, j=1), (4,))
    yield (
        name,
        "i, j may vary",
        _stored((i + j,), POINT, (9,)),
        _stored((i * 6 + j,), POINT, (24,)),
    )
    yield (
        name,
        "i, j may vary",
        _stored((i * 5 + j,), POINT, (21,)),
        _stored((i + j * 4,), POINT, (24,)),
    )
    m = Index.of("m")
    fused = axes(m=24)
    yield (
        name,
        "m may vary",
        _stored((m // 6,), fused, (4,)),
        _stored((m // 6, m % 6), fused, (4, 6)),
    )
    yield (
        name,
        "m may vary",
        _stored((m // 6, m % 5), fused, (4, 5)),
        _stored((m // 12, (m // 6) % 2, m % 6), fused, (2, 2, 6)),
    )
    r = Bind("r", Iota(i), 4)
    scatter = Loops(axes(i=4), (put(ROW, "r", f32(0.0)),), (r,))
    direct = Loops(axes(i=4), (put(ROW, "i", f32(0.0)),), (r,))
    yield (
        name,
        "i may vary",
        program(scatter, buffers=(X, W, ROW), outputs=("row",)),
        program(direct, buffers=(X, W, ROW), outputs=("row",)),
    )
    inside = axes("j", i=4, j=6)
    kept = (put(ROW, "i", at(X, i, j)), put(OUT, "ij", at(X, i, j)))
    yield (
        name,
        "j may vary",
        program(Loops(inside, kept), buffers=(X, W, ROW, OUT)),
        program(Loops(inside, (replace(kept[0], reduce=SUM), kept[1])), buffers=(X, W, ROW, OUT)),
    )

    name = "buffers_are_written_once"
    yield name, "out is written twice", program(COPY, COPY), good
    halves = [
        replace(OUT, name=s, shape=(2, 6), base="out", offset=o) for s, o in (("a", 0), ("b", 12))
    ]
    again = [halves[0], replace(halves[1], offset=0)]
    yield name, "as a before", _slices(again), _slices(halves)

    name = "writes_match_scopes"
    back = Loops(POINT, (put(X, "ij", at(OUT, i, j)),))
    other = replace(good, inputs=("out", "w"), outputs=("x",))
    scopes = {"x": replace(X, scope="output"), "w": W, "out": replace(OUT, scope="input")}
    swapped = replace(other, kernels=(Kernel("k", (back,)),))
    yield name, "x is input memory", swapped, replace(swapped, buffers=scopes)
    yield name, "a pack reads x", packed(X), packed(W)
    yield name, "a pack writes packed", packed(target="arena"), packed()
    yield name, "e is weight memory", extern(scope="weight"), extern()
    yield name, "e is local memory", extern(scope="local"), extern(scope="output")

    name = "reads_follow_writes"
    middle = buffer("m", (4, 6))
    make = Loops(POINT, (put(middle, "ij", at(X, i, j)),))
    use = Loops(POINT, (put(OUT, "ij", at(middle, i, j)),))
    three = (X, W, middle, OUT)
    yield (
        name,
        "m is read before",
        program(use, make, buffers=three),
        program(make, use, buffers=three),
    )
    yield name, "its own result", value(at(OUT, i, j)), good
    yield name, "at the end, out is read", replace(good, kernels=()), good
    nothing = {**good.buffers, "out": replace(OUT, shape=(0, 6))}
    yield name, "at the end", replace(good, kernels=()), replace(good, kernels=(), buffers=nothing)
    apart = program(TOTAL, SCALED, buffers=(X, W, LOCAL, OUT))
    yield name, "t is read before", apart, kernel(TOTAL, SCALED, buffers=(LOCAL,))
    late = replace(packed(), packs=())
    yield name, "packed is read before", late, packed()
    yield name, "e is read before", extern(arg="e"), extern()

    name = "outputs_outlive_the_call"
    in_arena = {**good.buffers, "out": replace(OUT, scope="arena")}
    yield name, "output out lies in memory", replace(good, buffers=in_arena), good

    name = "every_nest_has_a_schedule"
    one = kernel(TOTAL, SCALED, schedules=(ROOT,), buffers=(LOCAL,))
    yield name, "1 schedules for 2 nests", one, scheduled()

    name = "tiles_descend"
    tiled = Schedule(("i.0", "j.0", "j.1", "j.2"), {"j": (4, 2)})
    yield (
        name,
        "do not descend",
        scheduled(last=replace(tiled, tile={"j": (2, 4)})),
        scheduled(last=tiled),
    )
    yield (
        name,
        "do not descend",
        scheduled(last=replace(tiled, tile={"j": (4, 0)})),
        scheduled(last=replace(tiled, tile={"j": (4, 4)})),
    )
    yield name, "k, which is no axis", scheduled(last=replace(ROOT, tile={"k": (2,)})), scheduled()

    name = "orders_name_every_loop"
    for order, text in (
        (("i.0",), "loops ['j.0'] of j, its order []"),
        (("i.0", "j.0", "j.0"), "its order ['j.0', 'j.0']"),
        (("i.0", "j.0", "j.1"), "its order ['j.0', 'j.1']"),
        (("i.0", "j.0", "k.0"), "['k.0'] of no axis"),
    ):
        near = scheduled(last=Schedule(("j.0", "i.0")))
        yield name, text, scheduled(last=Schedule(order)), near
    yield (
        name,
        "['j.1', 'j.0', 'j.2']",
        scheduled(last=replace(tiled, order=("j.1", "j.0", "i.0", "j.2"))),
        scheduled(last=replace(tiled, order=("j.0", "j.1", "i.0", "j.2"))),
    )
    whole = replace(INSIDE, order=("i.0", "j.0"))
    yield name, "its order []", scheduled(replace(INSIDE, order=("i.0",))), scheduled(whole)

    name = "parallel_loops_are_parallel"
    yield (
        name,
        "3 parallel loops",
        scheduled(last=replace(ROOT, parallel=3)),
        scheduled(last=replace(ROOT, parallel=2)),
    )
    yield name, "1 parallel loops in t", scheduled(replace(INSIDE, parallel=1)), scheduled()
    alone = summed()
    yield (
        name,
        "loop j.0 of row is not",
        _with(alone, Schedule(("j.0", "i.0"), parallel=1)),
        _with(alone, Schedule(("i.0", "j.0"), parallel=1)),
    )

    name = "vectors_are_innermost"
    yield (
        name,
        "vector loop j.1",
        scheduled(last=replace(tiled, vector=("j.1", 2))),
        scheduled(last=replace(tiled, vector=("j.2", 2))),
    )
    yield (
        name,
        "3 lanes",
        scheduled(last=replace(ROOT, vector=("j.0", 3))),
        scheduled(last=replace(ROOT, vector=("j.0", 4))),
    )

    name = "loop_options_name_loops"
    for option in ("unroll", "peel"):
        bad, near = ({option: frozenset((s,))} for s in ("j.1", "j.0"))
        yield (
            name,
            f"{option} of j.1",
            scheduled(last=replace(ROOT, **bad)),
            scheduled(last=replace(ROOT, **near)),
        )
    yield (
        name,
        "outline of j.1",
        scheduled(last=replace(ROOT, outline="j.1")),
        scheduled(last=replace(ROOT, outline="i.0")),
    )
    parts = replace(INSIDE, partial="j.0")
    yield name, "sums of i.0", scheduled(replace(parts, partial="i.0")), scheduled(parts)
    tiled = replace(ROOT, order=("i.0", "j.0", "i.1"), tile={"i": (4,)})
    yield (
        name,
        "a halo of (1, 3)",
        scheduled(last=replace(tiled, halo={"i": (1, 3)})),
        scheduled(last=replace(tiled, halo={"i": (1, 2)})),
    )
    shared = scheduled(replace(INSIDE, split=2))
    yield name, "2 programs share no reduce loop", scheduled(last=replace(ROOT, split=2)), shared
    yield name, "sums of j.0, no reduce loop", scheduled(last=replace(ROOT, partial="j.0")), good

    name = "nests_are_attached"
    yield name, "t is computed nowhere", scheduled(Schedule(("i.0", "j.0"))), scheduled()
    yield name, "at w, no later nest", scheduled(replace(INSIDE, at=("w", "i.0"))), scheduled()
    yield (
        name,
        "at i.1, no loop of out",
        scheduled(replace(INSIDE, at=("out", "i.1"))),
        scheduled(replace(INSIDE, order=("i.0", "j.0"), at=("out", ""))),
    )
    yield name, "out is computed at t", scheduled(last=replace(ROOT, at=("t", "i.0"))), scheduled()
    yield (
        name,
        "stored at j.0",
        scheduled(replace(INSIDE, store_at="j.0")),
        scheduled(replace(INSIDE, store_at="i.0")),
    )
    yield (
        name,
        "folds x",
        scheduled(replace(INSIDE, fold={"x": 2})),
        scheduled(replace(INSIDE, fold={"t": 2})),
    )
    yield name, "to 0 rows", scheduled(replace(INSIDE, fold={"t": 0})), scheduled()
    yield name, "has store_at or fold", scheduled(last=replace(ROOT, store_at="i.0")), scheduled()

    name = "depth_first_runs_kernels"
    yield name, "of 2 kernels", bands(DepthFirst(0, 3, 1, 4)), bands(DepthFirst(0, 2, 1, 4))
    yield (
        name,
        "after 1",
        bands(DepthFirst(0, 1, 1, 4), DepthFirst(0, 2, 1, 4)),
        bands(DepthFirst(0, 1, 1, 4), DepthFirst(1, 2, 1, 4)),
    )
    yield name, "bytes apart", bands(step=25), bands(step=24)
    call = replace(extern(), depth_first=(DepthFirst(0, 1, 1, 4),))
    yield name, "a call outside", call, extern()

    name = "arena_keeps_what_lives"
    yield name, "b and c live at once at byte 160", placed(96, 160, 256), placed(96, 192, 288)
    yield name, "live at once", placed(0, 0, 96), placed(0, 96, 192)  # b in place of a
    yield name, "96..192 of 191 bytes", placed(96, 192, 191), placed(96, 0, 192)


def _ge(e: Expr) -> Expr:
    return Op("ge", (e, Const(0, e.dtype)), "bool")


def _typed(e: Expr) -> Program:
    """A program with e somewhere in it, cast to what its buffer holds."""
    return value(Op("cast", (e,), "f32"))


def _pair(second: Expr, dtype: str, monoid="argmax", acc="f32") -> Program:
    outs = (buffer("a", (4,), acc, "output"), buffer("b", (4,), dtype))
    first = at(X, i, j) if acc == "f32" else second
    store = put(outs, (i,), (first, second), Reduce(monoid, acc))
    return program(Loops(axes("j", i=4, j=6), (store,)), buffers=(X, W, *outs), outputs=("a",))


def _slices(views: list[Buffer]) -> Program:
    nests = [Loops(axes(i=2, j=6), (put(v, "ij", at(X, i, j)),)) for v in views]
    return program(*nests, buffers=(X, W, OUT, *views))


def _with(p: Program, s: Schedule) -> Program:
    return replace(p, kernels=tuple(replace(k, schedules=(s,)) for k in p.kernels))


def _masked(e: Load, mask) -> Load:
    return Load(e.buffer, e.index, e.dtype, mask, e.other)


CASES = list(cases())


@pytest.mark.parametrize(
    ("name", "text", "bad", "near"), CASES, ids=[f"{n}-{t}" for n, t, *_ in CASES]
)
def test_check(name: str, text: str, bad: Program, near: Program) -> None:
    with pytest.raises(SpecError) as error:
        check(bad, "a_pass")
    message = str(error.value)
    assert message.startswith(f"{name.replace('_', '-')}, after a_pass: ")
    assert text in message.splitlines()[0]
    check(near, "a_pass")


def test_every_check_has_a_case() -> None:
    assert {f.__name__ for f in CHECKS} == {name for name, *_ in CASES}


def test_the_message_shows_where() -> None:
    """The check, the pass, the origin, the kernel with its other nests, and the buffers in it."""
    p = value(_shifted(1))
    (k,) = p.kernels
    origin = Origin(("add_3",), ("aten.add.Tensor",), "model.py:12 y = x + 1")
    p = replace(p, kernels=(replace(k, origin=origin),))
    with pytest.raises(SpecError) as error:
        check(p, "fuse")
    assert str(error.value).splitlines() == [
        "loads-stay-in-bounds, after fuse: x[i, j + 1]: index 1 may be 1..6, the dimension is 0..5",
        "in k0, from add_3, aten.add.Tensor model.py:12 y = x + 1",
        "    kernel k0  # aten.add.Tensor",
        "        for i < 4, j < 6:",
        "            out[i, j] = x[i, j + 1]",
        "    x: f32[4, 6] strides [6, 1] in input",
        "    out: f32[4, 6] strides [6, 1] in output",
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_golden_programs_are_valid_without_schedules(name: str) -> None:
    p = PROGRAMS[name].program
    check(replace(p, kernels=tuple(replace(k, schedules=()) for k in p.kernels)), "test")


def test_determined() -> None:
    m = Index.of("m")
    ranges = {"m": (0, 23), "i": (0, 3), "j": (0, 5)}
    assert determined((m // 6, m % 6), ranges) == {"m"}
    assert determined((m // 12, (m // 6) % 2, m % 6), ranges) == {"m"}
    assert determined(((m // 6) % 4, m % 6), ranges) == {"m"}  # m // 6 < 4
    assert determined(((m // 6) % 3, m % 6), ranges) == set()
    assert determined((i + j, j), ranges) == {"i", "j"}
    assert determined((i + j, i - j), ranges) == set()  # true, but not by mixed radix
    assert determined((i * 6 - j,), ranges) == {"i", "j"}
    point = (i * 6 + j) // 9, (i * 2 + j // 3) % 3, j % 3  # of 3 x 3 ones, six of them at a time
    assert determined(point, ranges) == {"i", "j"}
    assert determined((point[0], (i * 2 + j // 2) % 3, j % 3), ranges) == set()
    ranges["one"] = (0, 0)
    assert determined((i * 6 + Index.of("one") * 6 + j,), ranges) == {"i", "j", "one"}


def test_symbolic_sizes_are_left_unproven() -> None:
    from sympy import Symbol

    n = Symbol("n", integer=True, positive=True)
    x, out = (Buffer(b, "f32", (n,), (1,), scope=s) for b, s in (("x", "input"), ("out", "output")))
    nest = Loops((Axis("i", n),), (put(out, "i", at(x, i + 1)),))
    check(program(nest, buffers=(x, out), inputs=("x",), symbols=("n",)), "test")
