"""FX passes, each with a case that fires, near misses that must not, and a numerical check."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional

from sol_dynamo.backend import Backend
from sol_dynamo.compat import OpOverload
from sol_dynamo.config import Config
from sol_dynamo.decompositions import decompositions
from sol_dynamo.fx_passes import PASSES, partitioned, run, verify
from sol_dynamo.fx_passes.batch_norm import batch_norm
from sol_dynamo.fx_passes.convolution_backward import convolution_backward
from sol_dynamo.fx_passes.fold_scale import fold_scale
from sol_dynamo.fx_passes.hoist import hoist
from sol_dynamo.fx_passes.layout import layout
from sol_dynamo.fx_passes.normalize import normalize
from sol_dynamo.fx_passes.partition import recompute_masks
from sol_dynamo.fx_passes.rewriter import Rewriter
from sol_dynamo.fx_passes.share_cat import share_cat
from sol_dynamo.target import Caps

aten = torch.ops.aten
CAPS = Caps("cpu")


def graph(f: Callable, *args: torch.Tensor) -> fx.GraphModule:
    """The ATen graph of f, with fake values."""
    with torch.no_grad():
        gm = make_fx(lambda *a: [f(*a)], tracing_mode="fake")(*args)
    gm.graph.eliminate_dead_code()
    return gm


def rewritten(
    p: Callable, f: Callable, *args: torch.Tensor, weights: Sequence[int] = (), fuel: int = -1
) -> tuple[int, list[str]]:
    """How often a pass fires, and the ops that it leaves; the values must be eager's."""
    gm = graph(f, *args)
    r = Rewriter(gm, frozenset(weights), CAPS, [fuel])
    p(r)
    r.finish()
    verify(gm, p.__name__)
    exact = f(*(a.double() if a.is_floating_point() else a for a in args))
    torch.testing.assert_close(gm(*args)[0].double(), exact.double(), rtol=1e-5, atol=1e-6)
    return r.count, opnames(gm)


def opnames(gm: fx.GraphModule) -> list[str]:
    ops = [n.target for n in gm.graph.nodes if n.op == "call_function"]
    return [t._opname for t in ops if isinstance(t, OpOverload)]


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


X, W = randn(2, 3, 5, 5), randn(4, 3, 3, 3)
SCALE = randn(4, 1, 1)


# -- normalize -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f, left",
    [
        (lambda x: x.clone() + 1, ["add"]),
        (lambda x: x.detach() + 1, ["add"]),
        (lambda x: x * 1 + 1, ["add"]),
        (lambda x: x.view(2, 3, 5, 5) + 1, ["add"]),
        (lambda x: functional.hardtanh(x, -0.5, 0.5), ["clamp"]),
        (lambda x: functional.relu6(x), ["clamp"]),
        (lambda x: x[0, 0].t() + 1, ["select", "select", "permute", "add"]),
    ],
)
def test_normalize(f, left):
    count, ops = rewritten(normalize, f, X)
    assert count == 1 and ops == left


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.clone(),  # returned: it must be memory of its own
        lambda x: x * 2 + 1,
        lambda x: x[:, :1].expand(2, 3, 5, 5) + 1,
        lambda x: x.view(6, 25) + 1,
        lambda x: x.int() * 1.0,  # another dtype
    ],
)
def test_normalize_leaves(f):
    assert rewritten(normalize, f, X)[0] == 0


def test_copies_in_whose_strides_something_is_read():
    """Itself or through views: a GPU's product of int8 takes columns of its second matrix."""

    def names(f: Callable) -> list[str]:
        gm = graph(f, torch.ones(32, 64).to(torch.int8), torch.ones(64, 48).to(torch.int8))
        r = Rewriter(gm, frozenset(), CAPS, [-1])
        normalize(r)
        r.finish()
        return opnames(gm)

    copied = lambda b: b.t().contiguous()  # noqa: E731
    assert "clone" in names(lambda a, b: torch._int_mm(a, copied(b).t()))
    assert "clone" in names(lambda a, b: torch._int_mm(a, copied(b).chunk(2)[0].t()))
    assert "clone" not in names(lambda a, b: copied(b).chunk(2)[0].t() + 1)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: torch.complex(x, x).t().reshape(-1).abs() + 1,
        lambda x: torch.complex(x, x).t().expand(4, 5, 3).reshape(4, 15).abs() + 1,
    ],
)
def test_copies_that_views_of_aten_need(f):
    """Values that no kernel of ours holds are viewed by ATen, as they lie."""
    x = torch.randn(3, 5)
    with torch.no_grad():
        assert torch.equal(torch.compile(f, backend=Backend())(x), f(x))


# -- batch_norm ------------------------------------------------------------------------------

STATISTICS = [randn(3), randn(3).abs() + 0.5]
AFFINE = [randn(3) + 1, randn(3)]


def norm(x, mean, var, gamma=None, beta=None):
    return functional.batch_norm(x, mean, var, gamma, beta, training=False)


@pytest.mark.parametrize("affine", [0, 1, 2])
def test_batch_norm(affine):
    args = [X, *STATISTICS, *AFFINE[:affine]]
    count, ops = rewritten(batch_norm, norm, *args, weights=range(1, len(args)))
    assert count == 1 and not any("batch_norm" in op for op in ops)


def test_batch_norm_of_computed_statistics_stays():
    count, ops = rewritten(batch_norm, norm, X, *STATISTICS, weights=(1,))
    assert count == 0 and any("batch_norm" in op for op in ops)


# -- fold_scale ------------------------------------------------------------------------------


def gradients(
    x: tuple[int, ...], w: tuple[int, ...], mask: Sequence[bool] = (True, True, True), **options
) -> tuple[Callable, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A convolution's backward as one tensor, and its arguments: dy, x, w."""
    n = len(x) - 2
    a = dict(stride=[1] * n, padding=[0] * n, dilation=[1] * n, transposed=False)
    a = {**a, "output_padding": [0] * n, "groups": 1, **options}
    y = aten.convolution(randn(*x), randn(*w), None, *a.values())
    ofs = [y.shape[1]]

    def f(dy, x, w):
        found = aten.convolution_backward(dy, x, w, ofs, *a.values(), list(mask))
        return torch.cat([t.flatten() for t in found if t is not None])

    return f, torch.randn(y.shape).double(), randn(*x).double(), randn(*w).double()


@pytest.mark.parametrize(
    "x, w, options",
    [
        ((2, 4, 9, 8), (6, 4, 3, 2), {}),
        ((2, 4, 9, 8), (6, 4, 3, 3), {"stride": [2, 3], "padding": [1, 2], "dilation": [2, 1]}),
        ((2, 4, 9, 8), (6, 2, 3, 3), {"stride": [2], "padding": [1], "groups": 2}),
        ((2, 4, 9), (4, 1, 4), {"stride": [3], "groups": 4}),
        ((2, 4, 5, 6), (4, 3, 3, 3), {"transposed": True, "stride": [2, 2], "padding": [1, 0]}),
        ((1, 4, 3, 4, 5), (3, 4, 2, 1, 2), {"stride": [1, 2, 2]}),
    ],
)
def test_convolution_backward(x, w, options):
    """The gradient of the weights alone stays; of what nobody uses nothing does."""
    count, left = rewritten(convolution_backward, *gradients(x, w, **options))
    assert count == 2 and {"convolution", "convolution_backward", "sum"} <= set(left)
    count, left = rewritten(convolution_backward, *gradients(x, w, (True, False, False), **options))
    assert count == 1 and "convolution_backward" not in left


def test_convolution_backward_leaves():
    """Half precision, tensors without elements, and what is a weight's gradient already."""
    f, *args = gradients((2, 4, 9, 8), (6, 4, 3, 2), (False, True, False))
    assert rewritten(convolution_backward, f, *args)[0] == 0
    f, *args = gradients((0, 4, 9, 8), (6, 4, 3, 2))
    assert rewritten(convolution_backward, f, *args)[0] == 0
    f, *args = gradients((2, 4, 9, 8), (6, 4, 3, 2))
    r = Rewriter(graph(f, *(a.bfloat16() for a in args)), frozenset(), CAPS, [-1])
    convolution_backward(r)
    assert r.count == 0


def folded(f: Callable, weights: Sequence[int] = (1, 2)) -> int:
    return rewritten(fold_scale, f, X, W, SCALE, weights=weights)[0]


@pytest.mark.parametrize(
    "f",
    [
        lambda x, w, s: functional.conv2d(x, w) * s,
        lambda x, w, s: functional.conv2d(x, w) + s,
        lambda x, w, s: s + functional.conv2d(x, w, s[:, 0, 0]) * s,
        lambda x, w, s: functional.conv2d(x, w) * s[:1],
    ],
)
def test_fold_scale(f):
    assert folded(f) == 1


@pytest.mark.parametrize(
    "f, weights",
    [
        (lambda x, w, s: functional.conv2d(x, w) * s, (1,)),  # the scale is no weight
        (lambda x, w, s: functional.conv2d(x, w) * s, (2,)),
        (lambda x, w, s: functional.conv2d(x, w) * s.view(4, 1)[:3].view(3, 1), (1, 2)),  # by row
        (lambda x, w, s: (lambda y: y * s + y)(functional.conv2d(x, w)), (1, 2)),  # two readers
        (lambda x, w, s: torch.add(functional.conv2d(x, w), s, alpha=2), (1, 2)),
        (lambda x, w, s: functional.conv_transpose2d(x, w[:3]) * s[:1], (1, 2)),
    ],
)
def test_fold_scale_leaves(f, weights):
    assert folded(f, weights) == 0


def test_folded_weights_are_rounded_once():
    """Their products are taken in float64."""
    g = torch.Generator().manual_seed(1)
    x, w, s = torch.ones(1, 1, 1, 1), torch.randn(64, 1, 1, 1, generator=g), torch.randn(64, 1, 1)
    gm = graph(lambda x, w, s: functional.conv2d(x, w) * s, x, w, s)
    r = Rewriter(gm, frozenset((1, 2)), CAPS, [-1])
    fold_scale(r)
    r.finish()
    exact = (w[:, 0].double() * s.double()).float()
    assert torch.equal(gm(x, w, s)[0][0], exact)


# -- share_cat -------------------------------------------------------------------------------

PARTS = [randn(2, n, 3) for n in (1, 2, 3)]


def cats(a, b, c):
    ab, abc = torch.cat((a, b), 1), torch.cat((a, b, c), 1)
    return torch.cat((ab.flatten(1), abc.flatten(1)), 1)


def test_share_cat():
    gm = graph(cats, *PARTS)
    r = Rewriter(gm, frozenset(), CAPS, [-1])
    share_cat(r)
    r.finish()
    first, second, _ = gm.graph.find_nodes(op="call_function", target=aten.cat.default)
    assert r.count == 1 and second.args[0][0] is first and len(second.args[0]) == 2
    assert torch.equal(gm(*PARTS)[0], cats(*PARTS))


@pytest.mark.parametrize(
    "f, count",
    [
        (lambda a, b, c: torch.cat((a,), 1) + 1, 1),
        (lambda a, b, c: torch.cat((a, b), 1).sum() + torch.cat((b, a, c), 1).sum(), 0),
        (lambda a, b, c: torch.cat((a, a), 1).sum() + torch.cat((a, a, b[:, :1]), 2).sum(), 0),
        (lambda a, b, c: torch.cat((a, b, c), 1).sum() + torch.cat((a, c), 1).sum(), 0),
        (lambda a, b, c: torch.cat((a, b, c), 1).sum() + torch.cat((a, b, c), 1).sum(), 0),
    ],
)
def test_share_cat_prefixes(f, count):
    assert rewritten(share_cat, f, *PARTS)[0] == count


# -- layout ----------------------------------------------------------------------------------


def strides_of(f: Callable, caps: Caps) -> dict[str, tuple | None]:
    gm = graph(f, X, W)
    layout(Rewriter(gm, frozenset((1,)), caps, [-1]))
    return {n.name: n.meta["sol_strides"] for n in gm.graph.nodes if n.op == "call_function"}


def test_layout():
    f = lambda x, w: torch.relu(functional.conv2d(torch.neg(x), w, padding=1)).mean((2, 3))  # noqa: E731
    inner = (100, 1, 20, 4)
    found = strides_of(f, CAPS)
    assert found == {"neg": None, "convolution": inner, "relu": inner, "mean": None}
    assert set(strides_of(f, replace(CAPS, channels_last=False)).values()) == {None}


# -- hoist -----------------------------------------------------------------------------------


def parts_of(
    f: Callable, *args: torch.Tensor, weights: Sequence[int]
) -> tuple[list[str], list[str]]:
    """Ops of the graph for each call and of that for each weight set; together they are f."""
    gm = graph(f, *args)
    h = hoist(gm, frozenset(weights))
    made = h.weights(*(args[i] for i in weights))
    given = [args[i] if kind == "input" else made[i] for kind, i in h.sources]
    torch.testing.assert_close(h.main(*given)[0], f(*args))
    return opnames(h.main), opnames(h.weights)


def test_hoist():
    def f(x, v, w):
        return x + (v * w).exp() + w

    args = randn(3), randn(3), randn(3)
    assert parts_of(f, *args, weights=(1, 2)) == (["add", "add"], ["mul", "exp"])
    assert parts_of(f, *args, weights=(2,)) == (["mul", "exp", "add", "add"], [])


def test_hoist_leaves():
    """Expansions are addresses; random values are new in each call."""
    x, w = randn(8, 3), randn(1, 3)
    assert parts_of(lambda x, w: x * w.expand(8, 3), x, w, weights=(1,))[1] == []
    gm = graph(lambda x, w: x * torch.rand_like(w), x, w)
    assert not opnames(hoist(gm, frozenset((1,))).weights)


# -- the driver ------------------------------------------------------------------------------


def test_fuel_and_dump(tmp_path):
    def f(x, w, s):
        return functional.relu6(functional.conv2d(x, w) * s)

    for fuel, left in ((0, {"hardtanh", "mul"}), (1, {"clamp", "mul"}), (-1, {"clamp"})):
        config = replace(Config(), fuel=fuel, dump=str(tmp_path / str(fuel)))
        main = run(graph(f, X, W, SCALE), (1, 2), CAPS, config).main
        assert set(opnames(main)) - {"convolution"} == left
    assert len(list((tmp_path / "0").iterdir())) == len(PASSES)


def test_values_of_like_calls_are_computed_once():
    """Alike are operands' metadata and the types of numbers, too."""
    gm = graph(lambda x, y: x + y, torch.randn(3), torch.randn(3))
    r = Rewriter(gm, frozenset(), CAPS, [-1])
    x, y = gm.graph.find_nodes(op="placeholder")
    at = gm.graph.output_node()
    one, like = (r.call(at, aten.mul.Tensor, t, 2).meta["val"] for t in (x, y))
    assert one is like
    assert r.call(at, aten.mul.Tensor, x, 2.0).meta["val"] is not one
    wide = r.call(at, torch.ops.prims.convert_element_type.default, x, torch.float64)
    assert r.call(at, aten.mul.Tensor, wide, 2).meta["val"].dtype == torch.float64


def _net(x, v, w, *, between=lambda h: h, last=lambda h, w: (h @ w).sum()):
    return last(between(torch.relu(x @ v)), w)


def _bits(x, v, w):
    """A mask of the bits of what is copied, not of its numbers."""
    h = x @ v
    y = h.clone() @ w
    return (y * (h.detach().view(torch.int64) > 2)[:, :4]).sum()


def _part(x, v, w):
    """Backward needs a part of the copy: the mask of all would need all."""
    h = torch.relu(x @ v)
    return (h.clone()[:2] @ w).sum() + h.sum()


@pytest.mark.parametrize(
    "f, masks",
    [
        (partial(_net, between=torch.clone), 1),
        (partial(_net, between=lambda h: h.clone().view(2, 3, 8)), 1),
        (_net, 0),  # without a copy torch's cut does well
        (partial(_net, between=lambda h: (h * 2).clone()), 0),  # a copy of something else
        (partial(_net, between=torch.clone, last=lambda h, w: h.sum()), 0),  # which nobody needs
        (_bits, 0),
        (_part, 0),
    ],
)
def test_masks_of_copies_that_backward_has_are_computed_there(f, masks):
    """Gradients are the same, bit for bit. On torch 2.11, the cut saves the first mask, too."""
    from functorch.compile import aot_function, make_boxed_func

    found: list[int] = []
    kept: list[torch.dtype] = []

    def partition_fn(joint, inputs, **kwargs):
        found.append(len(recompute_masks(copy.deepcopy(joint).graph)))
        forward, backward = partitioned(joint, inputs, **kwargs)
        kept.extend(n.meta["val"].dtype for n in backward.graph.find_nodes(op="placeholder"))
        return forward, backward

    def compiler(gm, inputs):
        return make_boxed_func(gm.forward)

    shapes = (6, 5), (5, 8), (8, 4)
    given = [torch.randn(n, dtype=torch.float64, requires_grad=True) for n in shapes]
    step = aot_function(
        f,
        fw_compiler=compiler,
        bw_compiler=compiler,
        partition_fn=partition_fn,
        decompositions=decompositions(False),
    )
    step(*given).backward()
    ours = [t.grad for t in given]
    for t in given:
        t.grad = None
    f(*given).backward()
    for a, b in zip(ours, given, strict=True):
        assert torch.equal(a, b.grad) if a is not None else b.grad is None
    assert found == [masks]
    assert not masks or torch.bool not in kept


def test_what_users_say_of_a_mask_stays():
    def f(x, v, w, g):
        h = torch.relu(x @ v)
        d = h.clone()
        return torch.where(h <= 0, 0, g @ w.t()), d.t() @ g

    args = [torch.randn(n) for n in ((6, 5), (5, 8), (8, 4), (6, 4))]
    for asked in (None, "saved"):
        gm = make_fx(f)(*args)
        *_, tangent = gm.graph.find_nodes(op="placeholder")
        tangent.target = tangent.name = "tangents_1"
        (mask,) = gm.graph.find_nodes(op="call_function", target=aten.le.Scalar)
        if asked:
            mask.meta["recompute"] = asked
        before = mask.args[0]
        assert recompute_masks(gm.graph) == ([] if asked else [mask])
        assert (mask.args[0] is before) == bool(asked)
