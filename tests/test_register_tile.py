"""Several results of a point: where windows overlap, what they share, and what is left alone."""

from __future__ import annotations

from itertools import product

import pytest

from sol_dynamo.affine import Index
from sol_dynamo.ir import Axis, Load, Loops, Op, Reduce, Store
from sol_dynamo.kernels.triton.register_tile import RegisterTile, common, split, windows


def window(step: int, dilation: int, taps: int, points: int = 12) -> Loops:
    """out[o] = sum over t of x[step * o + dilation * t] * w[t]"""
    o, t = Index.of("o"), Index.of("t")
    x = Load("x", (o * step + t * dilation,), "f32")
    value = Op("mul", (x, Load("w", (t,), "f32")), "f32")
    store = Store(("out",), (o,), (value,), reduce=Reduce("sum", "f32"))
    return Loops((Axis("o", points), Axis("t", taps, "reduce")), (store,))


@pytest.mark.parametrize("step, dilation, taps, shared", [
    (1, 1, 3, True),  # neighbours share two elements
    (2, 1, 3, True),  # one
    (2, 2, 3, True),
    (3, 1, 3, False),  # none
    (1, 2, 3, False),  # none of neighbours, though some of others
    (1, 1, 1, False),
])  # fmt: skip
def test_which_windows_overlap(step, dilation, taps, shared):
    found = windows(window(step, dilation, taps))
    assert [(w.axis.symbol, w.tap.symbol, w.step) for w in found] == (
        [("o", "t", step // dilation)] if shared else []
    )


def test_taps_that_read_their_own_share_nothing():
    o, t = Index.of("o"), Index.of("t")
    x = Load("x", (o + t, t), "f32")
    store = Store(("out",), (o,), (x,), reduce=Reduce("sum", "f32"))
    assert windows(Loops((Axis("o", 12), Axis("t", 3, "reduce")), (store,))) == []


@pytest.mark.parametrize("step, results", [(1, 2), (1, 4), (2, 3)])
def test_results_have_their_own_terms(step, results):
    """Each result sums what it summed before, in that order, and loads are of all results."""
    nest = window(step, 1, 5)
    (cut,) = split((nest,), nest.axis("o"), results, "r")
    outer, taps = 12 // results, 5 + step * (results - 1)
    assert [(a.symbol, a.extent) for a in cut.axes] == [("o", outer), ("r", results), ("t", 5)]
    (tile,) = [w for w in windows(cut) if w.axis.symbol == "r"]
    sums = tile.sums(cut)
    assert {a.symbol: a.extent for a in sums[0].axes} == {"o": outer, "t": taps}
    assert common(sums) == [sums[0].stores[0].values[0].args[0]]
    for n, each in enumerate(sums):
        first, last = tile.taps(n)
        assert last - first == 4
        x, w = each.stores[0].values[0].args
        for o, tap in product(range(outer), range(5)):
            at = {"o": Index.of(o), "t": Index.of(first + tap)}
            assert x.index[0].subst(at).const == step * (results * o + n) + tap
            assert w.index[0].subst(at).const == tap


def test_rows_share_what_does_not_depend_on_them():
    m, n, k = map(Index.of, "mnk")
    x, w = Load("x", (m, k), "f32"), Load("w", (n, k), "f32")
    store = Store(("out",), (m, n), (Op("mul", (x, w), "f32"),), reduce=Reduce("sum", "f32"))
    nest = Loops((Axis("m", 4), Axis("n", 6), Axis("k", 8, "reduce")), (store,))
    sums = RegisterTile(nest.axis("m")).sums(nest)
    assert len(sums) == 4 and common(sums) == [w]
    assert [s.stores[0].values[0].args[0].index[0].const for s in sums] == [0, 1, 2, 3]


def test_loads_of_a_result():
    tile = RegisterTile(Axis("r", 1), Axis("t", 3, "reduce"), 1)
    assert tile.loaded(4) == pytest.approx(6 / 12)
    assert tile.loads(4) == pytest.approx((6 + 3) / 4)
