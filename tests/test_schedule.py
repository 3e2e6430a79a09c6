"""Steps of scheduling, each with a case that fires, near misses that must not, and what the program
means: the interpreter gives the same before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from native import execute
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from sol_dynamo.backend import sol
from sol_dynamo.fx_passes.layout import layout
from sol_dynamo.fx_passes.rewriter import Rewriter
from sol_dynamo.interp import run
from sol_dynamo.ir import Kernel, Program, Work
from sol_dynamo.lowering import lower
from sol_dynamo.schedule import beside, group, into_rows, one_sum, schedule, taps
from sol_dynamo.schedule.contraction import tile_size
from sol_dynamo.schedule.depth_first import depth_first
from sol_dynamo.schedule.fusion import fuse
from sol_dynamo.schedule.memory import nbytes, plan_memory
from sol_dynamo.schedule.nests import is_plain
from sol_dynamo.schedule.slices import place_slices
from sol_dynamo.schedule.tiling import tile
from sol_dynamo.spec import check
from sol_dynamo.target import Caps, get_target

CAPS = Caps("cpu", vector_bytes=32, vector_registers=16, max_accumulators=12, cores=2)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def lowered(f: Callable, *args: torch.Tensor, weights: Sequence[int] = ()) -> Program:
    with torch.no_grad():
        gm = make_fx(lambda *a: list(f(*a)), tracing_mode="fake")(*args)
    gm.graph.eliminate_dead_code()
    layout(Rewriter(gm, frozenset(weights), CAPS, [-1]))
    sources = [("weight" if i in weights else "input", i) for i in range(len(args))]
    return lower(gm, sources)


def same(program: Program, f: Callable, args: Sequence[torch.Tensor]) -> list[Kernel]:
    """A program's kernels; the interpreter must find f in it."""
    check(program, "a test")
    with torch.no_grad():
        exact = [r.double().numpy() for r in f(*(a.double() for a in args))]
    for got, wanted in zip(run(program, [a.numpy() for a in args]), exact, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    return [k for k in program.kernels if isinstance(k, Kernel)]


def steps(*steps: Callable) -> Callable:
    """The kernels that are left of a function after some steps."""

    def left(f: Callable, *args: torch.Tensor, weights: Sequence[int] = ()) -> list[Kernel]:
        program = lowered(f, *args, weights=weights)
        for step in steps:
            program = step(program)
        return same(program, f, args)

    return left


X, Y = randn(2, 4, 6, 6), randn(2, 3, 6, 6)
SEQUENCE = torch.ops.aten.arange.start_step


# -- slices: copies as addresses -------------------------------------------------------------


@pytest.mark.parametrize(
    "f, kernels",
    [
        (lambda x, y: [torch.cat((x.exp(), y.neg()), 1) + 1], 3),  # both are born in the cat
        (lambda x, y: [torch.cat((torch.cat((x.exp(), y.neg()), 1), y.abs()), 1) + 1], 4),  # nested
        (lambda x, y: [torch.cat((x, y.neg()), 1) + 1], 3),  # x is the caller's: copied
        (lambda x, y: (lambda a: [torch.cat((a, a), 1) + 1])(x.exp()), 3),  # one home only
        (lambda x, y: (lambda a: [a, torch.cat((a, y.neg()), 1) + 1])(x.exp()), 4),  # a is returned
        # cropped: less than a is copied
        (lambda x, y: [torch.cat((functional.pad(x.exp(), (0, -2)), y[..., 2:].neg()), 1) + 1], 4),
    ],
)
def test_slices(f, kernels):
    assert len(steps(place_slices)(f, X, Y)) == kernels


# -- inline and group ------------------------------------------------------------------------


def fused(f: Callable, *args: torch.Tensor) -> list[int]:
    """Nests of each kernel after fusion."""
    return [len(k.body) for k in steps(lambda p: fuse(p, CAPS))(f, *args)]


@pytest.mark.parametrize(
    "f, nests",
    [
        (lambda x, y: [(x.exp() + 1).abs()], [1]),  # a chain
        (lambda x, y: (lambda a: [a, a.abs()])(x.exp()), [1, 1]),  # returned: it needs memory
        (lambda x, y: (lambda a: [(a * a.abs()).neg()])(x.exp()), [1]),
        (lambda x, y: (lambda a: [a.abs(), a.neg()])(x + 1), [1, 1]),  # cheap: computed twice
        (lambda x, y: (lambda a: [a.abs(), a.neg()])(x.exp()), [1, 1, 1]),  # dear: computed once
        (lambda x, y: [x.exp().permute(0, 2, 3, 1).contiguous()], [1]),
    ],
)
def test_inline(f, nests):
    assert fused(f, X, Y) == nests


@pytest.mark.parametrize(
    "f, binds",
    [
        (lambda x: [x[:, SEQUENCE(1, 3)]], 0),
        (lambda x: [x[:, 3 - SEQUENCE(0, 4)] + 1], 0),  # walked backwards
        (lambda x: [x[:, SEQUENCE(-3, 0)]], 0),  # all of it wraps
        (
            lambda x: [
                torch.index_select(x, 2, torch.div(SEQUENCE(0, 6), 2, rounding_mode="floor") % 2)
            ],
            0,
        ),  # no negative ones
        (lambda x: [x[:, SEQUENCE(-2, 2)]], 1),  # some of it wraps
        (lambda x: [x[:, SEQUENCE(0, 2) * SEQUENCE(0, 2)]], 1),  # not affine
        (lambda x: [x[:, x[0, 0, 0].long() % 4]], 1),  # data
    ],
)
def test_formulas_of_indices_are_addresses(f, binds):
    kernels = steps(lambda p: fuse(p, CAPS))(f, X)
    assert sum(len(nest.binds) for k in kernels for nest in k.body) == binds


def test_a_formula_beyond_its_range_is_an_error():
    program = fuse(lowered(lambda x: [x[:, SEQUENCE(0, 5)]], X), CAPS)
    with pytest.raises(IndexError):
        run(program, [X.numpy()])


@pytest.mark.parametrize(
    "f, nests",
    [
        (lambda x, y: [x.sum(3).exp()], [2]),  # an epilogue
        (lambda x, y: [x.exp().sum(3)], [2]),  # a prologue
        (lambda x, y: [torch.softmax(x, 3)], [4]),
        (lambda x, y: [x - x.amax(3, keepdim=True)], [2]),
        (lambda x, y: [x.sum(3).exp() + x.prod(3)], [2, 2]),  # of two reductions: the later
        (lambda x, y: [x.sum(3).flip(2)], [2, 1]),  # reads other points: no epilogue
        (lambda x, y: (lambda s: [s, s.exp()])(x.sum(3)), [2]),
    ],
)
def test_group(f, nests):
    assert fused(f, X, Y) == nests


@pytest.mark.parametrize(
    "f, shape, nests",
    [
        (lambda x, w: [functional.layer_norm(x, (6,))], (3, 5, 6), [5]),
        (lambda x, w: [functional.layer_norm(x, (6,))], (1, 5, 6), [5]),  # rows are no first dims
        (
            lambda x, w: [x / x.sum((0, 2), keepdim=True)],
            (4, 5, 6),
            [2, 1],
        ),  # reduced, not of size 1
        (lambda x, w: [functional.gelu(functional.linear(x, w))], (3, 5, 6), [2]),
        (lambda x, w: [functional.linear(x, w) + x], (3, 5, 6), [2]),
        (lambda x, w: [functional.linear(x, w) + x], (1, 5, 6), [2]),
        (lambda x, w: [functional.linear(x, w) + x[:, :1]], (3, 5, 6), [2]),  # broadcast
        (lambda x, w: [functional.linear(x, w).transpose(0, 1).exp() + 1], (3, 5, 6), [2]),
        (lambda x, w: [functional.linear(x, w).transpose(0, 1).reshape(15, 6)], (3, 5, 6), [2, 1]),
        (lambda x, w: [x * x.sum(2, True) - (x * x).sum(2, True)], (3, 5, 6), [2, 2]),
        (lambda x, w: [x - (x.sum(2, True) / 3).exp()], (3, 5, 70), [2]),  # a value of the row
    ],
)
def test_rows_and_views(f, shape, nests):
    caps = replace(CAPS, row_cost=512)
    kernels = steps(lambda p: fuse(p, caps))(f, randn(*shape), randn(shape[-1], shape[-1]))
    assert [len(k.body) for k in kernels] == nests


@pytest.mark.parametrize(
    "f, stores",
    [
        (lambda x, w: (lambda r: [r, r > 0])(torch.relu(x)), [2]),  # the mask that backward needs
        (lambda x, w: (lambda r: [r, r > 0])(torch.relu(functional.linear(x, w))), [2]),
        (lambda x, w: (lambda r: [r, r + w, r * 2])(x.exp()), [3]),
        (lambda x, w: (lambda r: [r, r + w.exp().sum(1, True)])(x.exp()), [1, 1]),  # later
        (lambda x, w: (lambda r: [r, r.flip(1)])(x.exp()), [1, 1]),  # other points
        (lambda x, w: (lambda r: [r, r[:3] + 1])(x.exp()), [1, 1]),  # fewer
        (lambda x, w: (lambda r: [r, r.sum(1)])(x.exp()), [1, 1]),
        (lambda x, w: (lambda r: [r, r + 1, r + 2, r + 3, r + 4])(x.exp()), [4, 1]),  # many
        (lambda x, w: [x.exp(), x + 1], [1, 1]),  # of the same data only
    ],
)
def test_what_reads_a_result_is_made_beside_it(f, stores, monkeypatch):
    x, w = randn(6, 6), randn(6, 6)
    caps = replace(CAPS, images_first=False)
    together = steps(lambda p: fuse(p, caps))(f, x, w)  # a launch costs more than so few points
    assert [len(k.body[-1].stores) for k in together] == ([5] if stores == [4, 1] else stores)
    monkeypatch.setattr(beside, "FEW", 0)
    kernels = steps(lambda p: fuse(p, caps))(f, x, w)
    assert [len(k.body[-1].stores) for k in kernels] == stores
    apart = steps(lambda p: fuse(p, CAPS))(f, x, w)  # where images go one by one
    assert all(len(k.body[-1].stores) == 1 for k in apart)


@pytest.mark.parametrize(
    "f, nests",
    [
        (lambda x, w, b: [torch.relu(x @ w + w @ x)], [3]),
        (lambda x, w, b: [x @ w + w @ x], [3]),
        (lambda x, w, b: [(torch.addmm(b, x, w) + torch.addmm(b * 2, w, x)).exp()], [3]),
        (lambda x, w, b: [torch.relu(b + x @ w + (w @ x + b))], [3]),
        (lambda x, w, b: [torch.relu((x @ w + x) + (w @ x + b)) * 2], [3]),
        (lambda x, w, b: [torch.relu(x @ w + w @ x + w @ w)], [4]),
        (lambda x, w, b: [torch.relu(x @ w.t() + (w @ x + x @ x))], [4]),
        (
            lambda x, w, b: [torch.relu(torch.addmm(b, x, w) + torch.addmm(b, w, x)) + w @ w],
            [2, 2, 2],
        ),
        (lambda x, w, b: (lambda p: [p, torch.relu(p + w @ x)])(x @ w), [2, 2]),  # it is returned,
        (lambda x, w, b: (lambda p: [torch.relu(p + w @ x), p.exp().sum(0)])(x @ w), [2, 2, 2]),
        (lambda x, w, b: (lambda p: [p + w @ x + p])(x @ w), [2, 2]),  # added twice,
        (lambda x, w, b: [(x @ w) * 2 + w @ x], [2, 2]),  # not as it is,
        (lambda x, w, b: [torch.maximum(x @ w, w @ x)], [2, 2]),  # not added,
        (lambda x, w, b: [torch.relu(x @ w + 1) + w @ x], [2, 2]),
        (lambda x, w, b: [(x @ w).t() + w @ x], [2, 2]),  # at other points,
        (lambda x, w, b: [(x @ w)[:1] + w @ x], [2, 2]),
        (lambda x, w, b: [x @ w + x.sum(0)], [1, 2, 2]),  # a sum, but not of products
    ],
)
def test_sums_of_products_that_are_added_are_one(f, nests):
    args = randn(6, 6), randn(6, 7)[:, :6], randn(6)
    asked = []

    def worth(work: Work) -> bool:
        asked.append((work.batch, work.rows, work.columns, work.terms, work.unit))
        return True

    caps = replace(CAPS, images_first=False)
    kernels = steps(lambda p: fuse(p, replace(caps, one_sum=worth)))(f, *args)
    assert sorted(len(k.body) for k in kernels) == sorted(nests)
    assert {*asked} == {(1, 6, 6, 6, "ieee")}
    apart = steps(lambda p: fuse(p, replace(caps, one_sum=lambda work: False)))(f, *args)
    assert all(len(k.body) <= 2 for k in apart)


def test_products_of_one_sum_have_equal_rows():
    """And columns, or these in their place; a batch of products is no product."""

    def roles(f: Callable, *args: torch.Tensor) -> set:
        program = fuse(lowered(f, *args), CAPS)
        found = (one_sum._roles(program.buffers, k, lambda work: True) for k in program.kernels)
        return set().union(*found)

    x, y = randn(6, 6), randn(6, 6, 6)
    one = roles(lambda x: [x @ x], x)
    assert one == roles(lambda x: [(x.t() @ x.t()).t() + x], x) and None not in one
    assert one != roles(lambda y: [y @ y], y) and roles(lambda x: [x.sum(0)], x) == {None}


def test_a_sum_does_not_wait_for_what_changes_its_operands():
    """A batch norm's statistics, say: what reads them does so before they are written."""
    x, w = randn(6, 6), randn(6, 6)
    program = fuse(lowered(lambda x, w: [x @ w, w.exp(), w @ x], x, w), CAPS)
    first, between, last = program.kernels
    assert isinstance(first, Kernel) and isinstance(last, Kernel)
    assert one_sum._can_wait(program, first, [between])
    store = replace(between.body[0].stores[0], buffers=(program.inputs[0],))
    writes = replace(between, body=(replace(between.body[0], stores=(store,)),))
    assert not one_sum._can_wait(program, first, [last, writes])


NORM = partial(functional.layer_norm, normalized_shape=(6,))


@pytest.mark.parametrize(
    "f, kernels, apart",
    [
        (lambda x, w: (lambda r: [r, NORM(r)])(x + w), 1, 2),
        (lambda x, w: (lambda r: [r, torch.softmax(r, 1)])(x * w.exp()), 1, 2),
        (lambda x, w: (lambda r: [r, NORM(r), r.sum(0)])(x + w), 2, 3),
        (lambda x, w: (lambda r: [r, NORM(r), r.flip(1) + 1])(x + w), 2, 3),  # read later
        (lambda x, w: (lambda r: [r, r.flip(1) + 1, NORM(r)])(x + w), 3, 3),  # read before
        (lambda x, w: (lambda r: [r, r - r.mean(0, True)])(x + w), 3, 3),  # no rows
        (lambda x, w: (lambda r: [r, torch.relu(r @ w)])(x + w), 2, 2),
        (lambda x, w: (lambda r: [r, NORM(r.t())])(x + w), 4, 4),
        (lambda x, w: (lambda r: [r, NORM(r)])((x + w[0]) * w[:, :1]), 1, 2),
        (lambda x, w: (lambda r: [r, r.amin(1, True)])(x + w), 1, 2),
        (lambda x, w: (lambda r: [r, r.amin(1)])(x + w), 2, 2),  # rows are another dimension there
        (lambda x, w: (lambda r: [r, r.t().amin(1, True)])(x + w), 2, 2),
    ],
)
def test_rows_make_what_they_read(f, kernels, apart, monkeypatch):
    x, w = randn(6, 6), randn(6, 6)
    caps = replace(CAPS, images_first=False, row_cost=512)
    assert len(steps(lambda p: fuse(p, caps))(f, x, w)) == kernels
    assert len(steps(lambda p: fuse(p, replace(caps, row_cost=0)))(f, x, w)) == apart
    monkeypatch.setattr(into_rows, "HELD", 5)
    assert len(steps(lambda p: fuse(p, caps))(f, x, w)) == apart


def test_rows_of_a_flattened_product_are_rows(monkeypatch):
    """Its rows are read at two axes of rows, i * 6 + j: no window. So the norm of a sum with it,
    which makes the sum in each of its sweeps, is one kernel."""

    def f(x: torch.Tensor, y: torch.Tensor, v: torch.Tensor, w: torch.Tensor):
        return [functional.layer_norm(x + v + (y @ w).view(4, 6, 64), (64,))]

    args = randn(4, 6, 64), randn(24, 5), randn(64), randn(5, 64)
    caps = replace(CAPS, images_first=False, row_cost=512)
    assert len(steps(lambda p: fuse(p, caps))(f, *args)) == 2
    monkeypatch.setattr(group, "is_plain", lambda nest, rows: is_plain(nest))
    assert len(steps(lambda p: fuse(p, caps))(f, *args)) == 4


@pytest.mark.parametrize("rows, columns, kernels", [(1000, 400, 1), (9000, 40, 2)])
def test_sums_of_columns_in_parts(rows, columns, kernels):
    """Few rows are one kernel's; the sums of many parts are combined by one, too."""
    caps = replace(CAPS, images_first=False, rows=528, part_columns=32, column_bytes=1 << 17)
    f, x = lambda x: [x.sum(0), (x * x).sum(0)], randn(rows, columns)
    made = steps(lambda p: fuse(p, caps))(f, x)
    assert len(made) == kernels
    assert all(len(k.body[0].stores) == 2 for k in made)


@pytest.mark.parametrize(
    "rows, busy, parts",
    [
        (8192, 8, 4),
        (8192, 1 << 20, 256),
        (7**5, 10, 7),  # five were wanted
        (8191, 8, 1),  # a prime
    ],
)
def test_columns_are_cut_for_as_many_programs_as_are_busy(rows, busy, parts):
    caps = replace(CAPS, images_first=False, rows=busy, part_columns=32, column_bytes=1 << 14)
    program = fuse(lowered(lambda x: [x.sum(0)], x := randn(rows, 64)), caps)
    first, *second = program.kernels
    assert len(second) == (parts > 1)
    assert parts == 1 or first.body[0].axes[0].extent == parts
    same(program, lambda x: [x.sum(0)], [x])


@pytest.mark.parametrize("most, kernels", [(1 << 20, 1), (1 << 19, 2)])
def test_columns_that_one_program_may_read_are_not_cut(most, kernels):
    """2 MiB, half of it for each of two programs."""
    caps = replace(CAPS, images_first=False, rows=528, part_columns=32, column_bytes=most)
    program = fuse(lowered(lambda x: [x.sum(0)], randn(8192, 64)), caps)
    assert len(program.kernels) == kernels


@pytest.mark.parametrize(
    "f, stores",
    [
        (lambda x, w: [torch.cat([x.exp(), w + 1], 1)], [2]),
        (lambda x, w: [torch.cat([x.exp(), w + 1], 0)], [2]),
        (lambda x, w: [torch.cat([functional.linear(x, w), x.flip(1)], 1)], [2]),
        (lambda x, w: [torch.cat([x.exp(), w + 1, x * w], 1)], [3]),
        (lambda x, w: [torch.cat([x.exp(), w[:, :5] + 1], 1)], [1, 1]),  # other points
        (lambda x, w: [torch.cat([x.exp(), w[:5] + 1], 0)], [1, 1]),
        (lambda x, w: (lambda r: [torch.cat([r, r.flip(1)], 1)])(x.exp()), [1, 1]),  # waits for it
        (lambda x, w: [torch.cat([x.exp(), w.sum(1, True) + w], 1)], [1, 1]),
    ],
)
def test_slices_side_by_side_are_made_together(f, stores, monkeypatch):
    x, w = randn(6, 6), randn(6, 6)
    caps = replace(CAPS, images_first=False)
    kernels = steps(lambda p: fuse(place_slices(p), caps))(f, x, w)
    assert [len(k.body[-1].stores) for k in kernels] == stores
    monkeypatch.setattr(beside, "NEXT", 0)
    apart = steps(lambda p: fuse(place_slices(p), caps))(f, x, w)
    assert all(len(k.body[-1].stores) == 1 for k in apart)


@pytest.mark.parametrize(
    "channels, outputs, kernel, padding, stride, split",
    [
        (64, 2, (3, 3), (1, 1), (1, 1), True),
        (64, 2, (3, 5), (0, 2), (1, 1), True),
        (64, 2, (1, 3), (0, 0), (2, 1), True),  # rows may be apart
        (64, 2, (3, 3), (1, 1), (1, 2), False),  # points of a row are not
        (64, 2, (3, 1), (1, 0), (1, 1), False),  # no taps along a row
        (64, 32, (3, 3), (1, 1), (1, 1), False),  # the parts would be more than what is saved
        (3, 2, (3, 3), (1, 1), (1, 1), False),
    ],
)
def test_taps_along_a_row_are_summed_afterwards(
    channels, outputs, kernel, padding, stride, split, monkeypatch
):
    monkeypatch.setattr(taps, "READ_AGAIN", 0)

    def f(x, w, b):
        return [torch.relu(functional.conv2d(x, w, b, stride, padding))]

    x = randn(2, channels, 6, 7).contiguous(memory_format=torch.channels_last)
    w, b = randn(outputs, channels, *kernel), randn(outputs)
    program = lowered(f, x, w, b)
    made = fuse(program, replace(CAPS, images_first=False))
    assert len(same(made, f, (x, w, b))) == 1 + split
    assert len(fuse(program, CAPS).kernels) == 1
    inside = replace(CAPS, images_first=False, taps_columns=(4, 128))  # of products with TF32
    assert len(fuse(program, inside).kernels) == 1 + split
    monkeypatch.undo()
    assert len(fuse(program, replace(CAPS, images_first=False)).kernels) == 1  # too little to gain


def test_a_reader_of_all_slices_waits_for_the_last():
    """Whatever the order in which the slices' kernels find their groups."""

    def f(x, y):
        s = x.sum(1, keepdim=True)
        late = (x * 2).prod(1, keepdim=True)
        whole = torch.cat((late, torch.exp(s)), 1)
        return [torch.where(whole > y, whole, 0)]

    x, y = randn(5, 7), randn(5, 2)
    torch._dynamo.reset()
    (got,) = torch.compile(f, backend=sol)(x, y)
    torch.testing.assert_close(got, f(x, y)[0])


def test_epilogues_of_convolutions():
    w, b = randn(5, 4, 3, 3), randn(2, 5, 6, 6)

    def f(x, w, b):
        return [torch.relu(functional.conv2d(x, w, padding=1) + b)]

    assert fused(f, X, w, b) == [2]


# -- depth first -----------------------------------------------------------------------------


def test_depth_first():
    w, v = randn(5, 4, 3, 3), randn(6, 5, 1, 1)

    def f(x, w, v):
        return [functional.conv2d(functional.conv2d(x, w), v)]

    def banded(images: int) -> Program:
        x = randn(images, 4, 6, 6)
        program = depth_first(fuse(lowered(f, x, w, v, weights=(1, 2)), CAPS), CAPS)
        check(program, "a test")
        return program

    (band,) = banded(4).depth_first
    assert (band.first, band.last, band.chunk, band.trips) == (0, 2, 1, 4)
    assert banded(4).buffers["convolution"].shape[0] == 1  # one image at a time
    assert not banded(3).depth_first  # two images for each core


# -- tiles -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n, m", [(64, 49), (16, 3136), (1000, 1), (7, 5), (1, 1), (256, 196)])
def test_tile_size(n, m):
    for caps in (CAPS, Caps("cpu")):
        width = caps.vector_bytes // 4
        vectors, points = tile_size(n, m, width, caps, m, 8)
        assert 1 <= points <= m and vectors * points <= caps.max_accumulators
        assert vectors * points + vectors + 1 <= caps.vector_registers
        assert vectors == 1 or (vectors - 1) * width < n
        assert tile_size(n, m, width, caps, min(m, 3), 1) <= (1, 3)


def test_inputs_that_are_scattered_are_packed():
    """A matrix that is walked along its other dimension, in the order of the walk."""

    def f(x, w):
        return [x @ w.t()]

    def packed(m: int, order: Callable) -> list[str]:
        x, w = randn(m, 32), order(randn(24, 32))
        program = tile(fuse(lowered(f, x, w), CAPS), CAPS)
        return [k.note for k in program.kernels if isinstance(k, Kernel) and k.note]

    (note,) = packed(16, lambda w: w)
    assert "moves data" in note
    assert not packed(16, lambda w: w.t().contiguous().t())  # it lies in the order of the walk
    assert not packed(2, lambda w: w)  # too few uses to pay


def weight_gradient(padding: int, stride: int) -> Callable:
    def f(dy, x, w):
        a = ([stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [False, True, False])
        return [torch.ops.aten.convolution_backward(dy, x, w, None, *a)[1]]

    return f


@pytest.mark.parametrize("l2", [1 << 12, 1 << 14])
@pytest.mark.parametrize("padding, stride, taps", [(1, 1, 3), (3, 1, 5), (1, 2, 3), (0, 1, 2)])
def test_sums_in_memory(l2, padding, stride, taps):
    """The weights' gradient is summed in chunks that fit in cache, whatever the border."""
    f, x, w = weight_gradient(padding, stride), randn(3, 17, 11, 10), randn(26, 17, taps, taps)
    y = functional.conv2d(x, w, None, stride, padding)
    args = [a.to(memory_format=torch.channels_last) for a in (randn(*y.shape), x, w)]
    program = schedule(lowered(f, *args), replace(CAPS, l2=l2))
    (kernel,) = [k for k in same(program, f, args) if any(s.carry for s in k.schedules)]
    assert kernel.schedules[0].tile
    (got,) = execute(program, [a.numpy() for a in args])
    (exact,) = f(*(a.double() for a in args))
    np.testing.assert_allclose(got, exact.numpy(), rtol=1e-4, atol=1e-5)


def test_products_over_much_memory():
    """x.t() @ y: rows of both operands are copied next to each other, a chunk at a time."""

    def f(x, y):
        return [x.t() @ y]

    x, y = randn(1200, 50), randn(1200, 34)
    program = schedule(lowered(f, x, y), replace(CAPS, l2=1 << 16))
    (kernel,) = same(program, f, (x, y))
    assert len(kernel.body) == 4 and any(s.carry for s in kernel.schedules)
    np.testing.assert_allclose(
        execute(program, [x.numpy(), y.numpy()])[0],
        f(x.double(), y.double())[0],
        rtol=1e-4,
        atol=1e-4,
    )
    few = schedule(lowered(f, x[:100], y[:100]), replace(CAPS, l2=1 << 12))
    assert not any(s.carry for k in same(few, f, (x[:100], y[:100])) for s in k.schedules)


# -- memory ----------------------------------------------------------------------------------


def test_memory_is_shared_by_lifetime():
    """A chain of n matmuls needs two intermediates at a time."""

    def f(x):
        for _ in range(6):
            x = x @ x
        return [x]

    program = schedule(lowered(f, randn(8, 8)), CAPS)
    sizes = [nbytes(program.buffers[b]) for b in program.arena]
    assert len(sizes) == 5 and program.arena_bytes == 2 * max(sizes)


def test_memory_of_many():
    """Offsets never overlap in time and place; as dense as what lives at once."""

    def f(x):
        kept = [(x * k) @ x for k in range(1, 9)]
        while len(kept) > 1:
            kept = [(a @ b) for a, b in zip(kept[::2], kept[1::2], strict=True)]
        return kept

    program = plan_memory(tile(fuse(lowered(f, randn(16, 16)), CAPS), CAPS))
    check(program, "a test")  # arena-keeps-what-lives
    assert program.arena_bytes <= 10 * 16 * 16 * 4


# -- the whole way ---------------------------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 3, 64])
def test_cores_change_nothing(cores):
    """Work is cut for as many cores as there are; the bits of a result depend on shapes only."""
    target = get_target("cpu")
    x, w = randn(3, 16, 14, 14), randn(24, 16, 3, 3)

    def f(x, w):
        return [torch.softmax(functional.conv2d(x, w, padding=1).relu(), 1).sum((2, 3))]

    program = lowered(f, x, w, weights=(1,))
    results = [
        execute(schedule(program, replace(target.caps, cores=n)), [x.numpy(), w.numpy()])
        for n in (target.caps.cores, cores)
    ]
    np.testing.assert_array_equal(*(r[0] for r in results))
