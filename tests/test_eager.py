"""Whatever runs in eager runs with us: the same values, dtypes, strides, aliases and mutations.

`CALLS` are functions with their arguments, over everything that users of torch.compile write; each
is one compiled graph or several. What has a life longer than one call (modules, threads, forks,
random streams) has a test of its own below.
"""

from __future__ import annotations

import copy
import gc
import os
import threading
from collections.abc import Callable
from typing import Any
from weakref import ref

import pytest
import torch
import torch.nn.functional as F
from accuracy import ULP2, relative_error, same
from torch import nn
from torch.func import grad, vmap

import sol_dynamo
from sol_dynamo import backend
from sol_dynamo.backend import sol
from sol_dynamo.kernels.c import target as c_target
from sol_dynamo.report import report
from sol_dynamo.schedule import tiling

Args = Callable[[], tuple[Any, ...]]
CALLS: dict[str, tuple[Callable, Args, dict[str, Any]]] = {}


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape).to(dtype)


def integers(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.randint(low, high, shape).to(dtype)


def call(name: str, f: Callable, *args: Callable[[], Any], **options: Any) -> None:
    """`args` are drawn anew for each run."""
    assert name not in CALLS
    CALLS[name] = f, lambda: tuple(a() for a in args), options


def n(*shape: int, dtype: torch.dtype = torch.float32) -> Callable[[], torch.Tensor]:
    return lambda: normal(*shape, dtype=dtype)


def i(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> Callable:
    return lambda: integers(low, high, *shape, dtype=dtype)


def compile(f: Callable, **options: Any) -> Callable:
    torch._dynamo.reset()
    return torch.compile(f, backend=sol, **options)


# -- functions ------------------------------------------------------------------------------------

SPECIAL = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1.0, -1.0]

call("strided", lambda x: x[::2, 1::3].relu() + 1, n(9, 10))
call("expanded", lambda x: (x.expand(4, 5) + 1).sum(0), n(5))
call("flip", lambda x: x.flip(0) * 2, n(5, 3))
call("empty", lambda x: (x * 2, x.sum(), x.sum(0), x.mean(1), x.amax(1)), n(0, 5))
call("0-d", lambda x: x * 2 + x.exp(), n())
call(
    "conv2d-groups",
    lambda x, w: F.conv2d(x, w, stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
    n(2, 6, 9, 11),
    n(4, 3, 3, 3),
)
call("conv1d", lambda x, w, b: F.conv1d(x, w, b, padding=2), n(2, 3, 11), n(5, 3, 4), n(5))
call(
    "conv3d", lambda x, w, b: F.conv3d(x, w, b, padding=1), n(1, 3, 5, 6, 7), n(5, 3, 3, 3, 3), n(5)
)
call(
    "conv-transpose2d",
    lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1),
    n(1, 3, 5, 6),
    n(3, 4, 3, 3),
)
call("conv2d-unbatched", F.conv2d, n(3, 5, 6), n(4, 3, 2, 2))
call("conv2d-same", lambda x, w: F.conv2d(x, w, padding="same"), n(1, 3, 5, 6), n(4, 3, 4, 2))
call("conv2d-many-channels", F.conv2d, n(1, 131, 3, 3), n(7, 131, 1, 1))
for _mode in ("reflect", "replicate", "circular"):
    call(
        f"conv2d-{_mode}",
        lambda x, w, mode=_mode: F.conv2d(F.pad(x, (1, 1, 1, 1), mode=mode), w),
        n(1, 3, 6, 7),
        n(4, 3, 3, 3),
    )
call("max-pool-ceil", lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), n(1, 3, 8, 9))
call(
    "max-pool-dilated",
    lambda x: F.max_pool2d(x, 2, 2, 0, dilation=2, return_indices=True),
    n(1, 3, 8, 9),
)
call(
    "avg-pool",
    lambda x: (
        F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        F.avg_pool2d(x, 3, 2, 1, divisor_override=5),
        F.lp_pool2d(x, 2, 2),
    ),
    n(1, 3, 8, 9),
)
call(
    "adaptive-pool",
    lambda x: (F.adaptive_avg_pool2d(x, (3, 2)), F.adaptive_max_pool2d(x, 3)),
    n(1, 3, 8, 9),
)
call(
    "integers",
    lambda x, y: (
        *(x + y, x * y - 3, x // 2, x % 3, -x, x.abs(), x & y, x | y, x ^ y, ~x, x << 1, x >> 1),
    ),
    i(-9, 9, 7),
    i(-9, 9, 7),
)
for _dtype in (torch.int8, torch.int32, torch.int64):
    call(
        f"wrapping-{_dtype}",
        lambda x: (x * x + x, -x, x.abs(), x - 1, (x * 3).sum(), x // -1, x % -1),
        lambda dtype=_dtype: torch.tensor([torch.iinfo(dtype).min, -1, 0, 5] * 9, dtype=dtype),
    )
call(
    "promotion",
    lambda x, y: (x + y, x * 2.5, y * True, x / 2, x.float()),
    i(-9, 9, 7),
    i(0, 9, 7, dtype=torch.uint8),
)
call(
    "bool",
    lambda x: (x & ~x, x.sum(), x.any(), x.all(), x + x, x * x, x.float().mean()),
    lambda: integers(0, 2, 9).bool(),
)
call("f64", lambda x: (x.sin().sum(1), x.softmax(0), x @ x.T), n(5, 7, dtype=torch.float64))
for _dtype in (torch.bfloat16, torch.float16):
    call(
        f"half-{_dtype}",
        lambda x: (x.sin().sum(1), x.softmax(0), x * 1.1 + x, x @ x.T, F.layer_norm(x, (7,))),
        n(5, 7, dtype=_dtype),
    )
    call(f"mixed-{_dtype}", lambda x, y: (x + y, x * y.sum()), n(5, 7, dtype=_dtype), n(5, 7))
call(
    "special-values",
    lambda x: (
        *(x.relu(), x.clamp(-0.5, 0.5), x.max(), x.min(), x.argmax(), x.softmax(0), x.sign()),
        *(torch.maximum(x, -x), 1 / x, x.isnan(), x.sigmoid(), x.tanh(), x.round(), x.floor()),
    ),
    lambda: torch.tensor(SPECIAL),
)
call(
    "ties",
    lambda x: (x.argmax(), x.argmax(1), x.argmin(0, keepdim=True), x.max(1), x.min(0)),
    lambda: integers(0, 4, 6, 7).float(),
)
call(
    "reductions",
    lambda x: (
        *(x.sum((0, 2)), x.mean((1, 2), keepdim=True), x.amax((0, 1)), x.var((0, 2)), x.std(1)),
        *(x.norm(dim=1), x.prod(1), x.logsumexp(1), x.log_softmax(-1), x.cumsum(1), x.cumprod(0)),
    ),
    n(3, 4, 5),
)
call(
    "cat",
    lambda x, y: (
        torch.cat([x, y.double(), x[:0]], 0),
        torch.cat([x, x, x[:, 1:2]], 1) * 2,
        torch.cat([x[0], torch.empty(0)], 0),
        torch.stack([x[:2], y], 1),
        torch.chunk(x, 3, 1),
    ),
    n(3, 4, dtype=torch.float64),
    n(2, 4),
)
call(
    "nested-cat",
    lambda x: torch.cat([torch.cat([x, x + 1], 1), torch.cat([x * 2, x], 1)], 1).relu(),
    n(2, 3, 4, 4),
)
call(
    "views",
    lambda x: (
        x.view(2, 6).t().reshape(3, 4)[1:],
        x.unfold(0, 2, 1),
        x.permute(1, 0),
        x.as_strided((3, 2), (1, 3), 1) + 1,
        (x + 1).as_strided((3, 2), (1, 3), 1) + 1,
    ),
    n(4, 3),
)
call("returned-twice", lambda x: ((y := x + 1), y, x, x.t(), y.t()), n(4, 3))
call("constants", lambda x: (torch.ones(3), torch.arange(5), 3, "a", None, x.shape), n(4, 3))
call(
    "containers",
    lambda d: {"a": d["x"] + 1, "b": [d["y"], (d["x"],)]},
    lambda: {"x": normal(3), "y": normal(2)},
)
call("item", lambda x: x * x.sum().item(), n(3))
call("data-dependent", lambda x: (x.nonzero(), x[x > 0], torch.where(x > 0)), n(5, 4))
call("unique", lambda x: x.unique(return_counts=True), i(0, 4, 9))
call(
    "complex",
    lambda x: (x * 2, x.abs(), torch.view_as_real(x), torch.fft.fft(x)),
    n(4, dtype=torch.complex64),
)
call("fft", lambda x: torch.fft.rfft(x + 1).abs() + 1, n(8))
call(
    "sparse",
    lambda x, y: torch.sparse.mm(x, y + 1) + 1,
    lambda: normal(4, 4).relu().to_sparse(),
    n(4, 3),
)
call(
    "deep", lambda x: [x := x * 1.01 + 0.01 if k % 2 else x.sin() for k in range(150)][-1], n(7, 5)
)
call("wide", lambda x: [x * k + 1 for k in range(150)], n(7, 5))
call(
    "norms",
    lambda x: (
        F.layer_norm(x, (5, 5)),
        F.group_norm(x, 2),
        F.instance_norm(x),
        F.rms_norm(x, (5,)),
        F.batch_norm(x, torch.zeros(4), torch.ones(4), training=True),
    ),
    n(2, 4, 5, 5),
)


def power_iteration(w, u):
    """Nests of one kernel over unequal extents: a step of spectral normalization."""
    v = (w.t() * u).sum(1)
    v = v / (v**2).sum(0, True).sqrt().expand(v.shape)
    return v, (w * v).sum(1)


call("power-iteration", power_iteration, n(5, 6), n(5))
call("power-iteration-wide", power_iteration, n(19, 7), n(19))
call(
    "attention",
    lambda q, k, v: (
        F.scaled_dot_product_attention(q, k, v),
        F.scaled_dot_product_attention(q, k, v, is_causal=True),
    ),
    *[n(2, 3, 5, 8)] * 3,
)
call(
    "embedding",
    lambda k, w: (F.embedding(k, w, padding_idx=1), F.embedding_bag(k, w), F.one_hot(k, 5)),
    i(0, 5, 3, 4),
    n(5, 6),
)
call(
    "einsum",
    lambda a, b: (torch.einsum("bij,bjk->bik", a, b), torch.einsum("bij,bij->b", a, a)),
    n(2, 3, 4),
    n(2, 4, 5),
)
call(
    "order",
    lambda x: (x.topk(3), x.sort(1), x.argsort(0), x.kthvalue(2), x.median(1), x.mode(1)),
    n(5, 6),
)
call(
    "indexing",
    lambda x, k: (
        x.gather(1, k),
        torch.zeros(5, 6).scatter_add(1, k, x),
        x[[0, 2], [1, 3]],
        x.index_select(0, torch.tensor([2, 0])),
        x.index_put((torch.tensor([1, 1]),), torch.tensor(2.0), True),
        x.take(torch.tensor([3, 4])),
    ),
    n(5, 6),
    i(0, 6, 5, 6),
)
call(
    "upsampling",
    lambda x: (
        F.interpolate(x, scale_factor=2),
        F.interpolate(x, (7, 5), mode="bilinear", align_corners=False),
        F.interpolate(x, scale_factor=1.5, mode="bicubic"),
        F.pixel_shuffle(x, 2),
        F.grid_sample(x, torch.full((1, 3, 3, 2), 0.3), align_corners=False),
    ),
    n(1, 4, 4, 4),
)
call(
    "padding",
    lambda x: (
        F.pad(x, (1, 2)),
        F.pad(x, (-1, 2, 0, -1)),
        F.pad(x, (1, 1, 1, 1), mode="reflect"),
        F.pad(x, (1, 1), value=float("inf")),
    ),
    n(1, 4, 4, 4),
)
call(
    "matrices",
    lambda x: (
        *(x.tril(), x.triu(1), x.diag(), x.roll(1, 0), x.rot90(), x.masked_fill(x > 0, 3)),
        *(x.trace(), torch.kron(x, x)),
    ),
    n(4, 4),
)
call(
    "linalg",
    lambda x: (torch.linalg.inv(x + 9 * torch.eye(4)), torch.linalg.qr(x)[1].abs()),
    n(4, 4, dtype=torch.float64),
)
call(
    "strides-of-outputs",
    lambda x: (x.expand(4, 3) * 1, torch.cat([x.t()]), x.expand(4, 3)[:, ::2] / 1),
    n(1, 3),
)
call(
    "strides-that-aten-reads",
    lambda x, w: torch.as_strided(F.conv2d(x, w, padding=1), (5, 5), (7, 2), 3),
    n(2, 3, 8, 8),
    n(8, 3, 3, 3),
)
call(
    "numbers-out-of-range",
    lambda x, y: (x < 200, x > -1000, y < -1, y >= 300, x.bool().sum(dtype=torch.bool)),
    i(-9, 9, 7, dtype=torch.int8),
    i(0, 9, 7, dtype=torch.uint8),
)
call("vmap", lambda x: vmap(lambda r: (r * 2).sum() + r.max())(x), n(4, 5))
call("func-grad", lambda x: grad(lambda r: (r.sin() * r).sum())(x), n(4, 5))
call("cond", lambda x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,)), n(4, 5))
call(
    "matmul",
    lambda a, b: (
        *(a @ b.t(), a.t() @ a, a[0] @ b.t(), a @ b[0], torch.dot(a[0], b[0])),
        *(torch.outer(a[0], b[0]), torch.addmm(a[:1, :3], a, b.t(), beta=0.5, alpha=2)),
    ),
    n(3, 5),
    n(3, 5),
)
call("bmm-broadcast", lambda a, b: a @ b, n(4, 1, 3, 5), n(2, 5, 3))
call("mm-empty", lambda a, b: (a @ b, F.linear(a, b.t(), torch.ones(3))), n(4, 0), n(0, 3))
call("dynamic", lambda x: (x * 2).sum(0) + x.shape[0], n(4, 5), dynamic=True)
call(
    "dynamic-conv",
    lambda x, w: F.conv2d(x, w).relu().mean((2, 3)),
    n(2, 3, 9, 9),
    n(4, 3, 3, 3),
    dynamic=True,
)
call(
    "channels-last",
    lambda x, w: (
        F.conv2d(x, w, padding=1) + 1,
        x.relu(),
        x * x.sum(1, keepdim=True),
        x.contiguous(),
        x.clone(memory_format=torch.preserve_format),
    ),
    lambda: normal(2, 3, 9, 9).to(memory_format=torch.channels_last),
    n(4, 3, 3, 3),
)
call(
    "losses",
    lambda x, t: (
        F.cross_entropy(x, t),
        F.mse_loss(x, x + 1),
        F.binary_cross_entropy_with_logits(x, x.sigmoid()),
        F.smooth_l1_loss(x, -x),
        F.kl_div(x, x.softmax(1), reduction="batchmean"),
        F.cosine_similarity(x, x + 1),
    ),
    n(4, 5),
    i(0, 5, 4),
)
call(
    "activations",
    lambda x: (
        *(F.gelu(x), F.gelu(x, approximate="tanh"), F.silu(x), F.mish(x), F.elu(x), F.selu(x)),
        *(F.celu(x), F.softplus(x), F.hardswish(x), F.hardsigmoid(x), F.leaky_relu(x), F.glu(x)),
        *(F.prelu(x, torch.tensor([0.1])), F.relu6(x), F.logsigmoid(x), F.softsign(x)),
        *(F.tanhshrink(x), F.threshold(x, 0.1, 2.0)),
    ),
    n(4, 6),
)
call(
    "functions",
    lambda x: (
        *(x.atan(), x.asin(), x.sinh(), x.exp2(), x.erfinv(), x.lgamma(), x.digamma(), x.frac()),
        *(torch.atan2(x, x + 1), torch.hypot(x, x), x.fmod(0.3), x.remainder(0.3), x.signbit()),
        *(torch.copysign(x, -x), torch.lerp(x, x + 1, 0.3), x.abs().pow(2.5), x.abs().pow(x)),
        *(torch.logaddexp(x, x), x.nan_to_num(), x.isfinite()),
    ),
    lambda: normal(4, 6).clamp(-0.9, 0.9),
)


@pytest.mark.parametrize("name", CALLS)
def test_call(name):
    f, draw, options = CALLS[name]
    compiled = compile(f, **options)
    for seed in range(2):
        torch.manual_seed(seed)
        args = draw()
        copies = copy.deepcopy(args)
        same(f(*args), compiled(*copies))
        same(args, copies, "argument")


def test_negated_input():
    x = normal(4, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    same(x + 1, compile(lambda x: x + 1)(x))


# -- mutation and aliases -------------------------------------------------------------------------


def mutates(x):
    x.add_(1)
    y = x.view(-1)
    y[2:4].mul_(3)
    return x * 2, y


def assigns(x):
    y = x.clone()
    y[1] = 5
    y[:, 2] += 1
    y[y > 1] = 0
    return y


def overlapping(b):
    x, y = b[:4], b[2:]
    x.mul_(2)
    return x + y


def old_value(a, b):
    y = a * 1
    a.copy_(b)
    return y


def old_value_cat(a, b):
    y = torch.cat([a])
    a.copy_(b)
    return y.t()


def old_value_view(a, b):
    y = a + 1
    a.copy_(b)
    return y.t()


def old_value_moved(a, b):
    y = a.flip(0).reshape(-1)
    a.copy_(b)
    return y, y


def swapped(a, b):
    c = a.clone().t()
    a.copy_(b)
    b.copy_(c)
    return a + 1


def cache_row(a, b):
    old = a * 1
    a[torch.tensor(1)] = b[0]
    return old.t(), a.sum()


@pytest.mark.parametrize(
    "f", [old_value, old_value_cat, old_value_view, old_value_moved, swapped, cache_row]
)
def test_reads_before_a_write_see_the_old_values(f):
    args = normal(4, 4), normal(4, 4)
    copies = copy.deepcopy(args)
    same(f(*args), compile(f)(*copies))
    same(args, copies, "argument")


@pytest.mark.parametrize("f, shape", [(mutates, (4, 3)), (assigns, (4, 3)), (overlapping, (6,))])
def test_mutation(f, shape):
    args = (normal(*shape),)
    copies = copy.deepcopy(args)
    same(f(*args), compile(f)(*copies))
    same(args, copies, "argument")


def test_outputs_alias_inputs():
    compiled = compile(lambda x: (x.view(-1), x + 1, x))
    x = normal(2, 3)
    a, _, c = compiled(x)
    a[0] = 9
    assert x[0, 0] == 9 and c is x


def test_outputs_are_the_callers_to_keep():
    compiled = compile(lambda x: x * 2 + 1)
    x, y = normal(5), normal(5)
    a, b = compiled(x), compiled(y)
    same(x * 2 + 1, a)
    a.add_(1)
    same(x * 2 + 1, compiled(x))
    same(y * 2 + 1, b)


# -- modules --------------------------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent(kind):
    m = kind(3, 4, 2, batch_first=True, bidirectional=True).requires_grad_(False)
    x = normal(2, 5, 3)
    same(m(x), compile(m)(x))


def test_training():
    """Gradients, running statistics and an optimizer's steps."""
    a, b = network(), network()
    compiled = compile(b)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (a, b)]
    for _ in range(4):
        x = normal(4, 3, 8, 8)
        for optimizer, m in zip(optimizers, (a, compiled), strict=True):
            optimizer.zero_grad()
            m(x).square().mean().backward()
            optimizer.step()
    for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
    a.eval(), b.eval()
    with torch.no_grad():
        torch.testing.assert_close(a(x), compiled(x), rtol=1e-3, atol=1e-5)


def test_gradient_of_an_input():
    f = lambda x: (x.relu() * x).sum()  # noqa: E731
    x = normal(4).requires_grad_()
    compile(f)(x).backward()
    got, x.grad = x.grad, None
    f(x).backward()
    same(x.grad, got)


def test_checkpointing():
    from torch.utils.checkpoint import checkpoint

    m = network().eval()
    f = lambda x: checkpoint(m, x, use_reentrant=False).sum()  # noqa: E731
    x = normal(2, 3, 8, 8).requires_grad_()
    same(torch.autograd.grad(f(x), x), torch.autograd.grad(compile(f)(x), x))


@pytest.mark.parametrize("inside", [False, True])
def test_autocast(inside):
    def f(x, w):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
            return (x @ w).relu()

    x, w = normal(4, 5), normal(5, 6)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=not inside):
        same(f(x, w), compile(f)(x, w))


def test_custom_op():
    @torch.library.custom_op("sol_test::accumulate", mutates_args=("y",))
    def accumulate(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        y.add_(x)
        return x * 2

    @accumulate.register_fake
    def _(x, y):
        return torch.empty_like(x)

    def f(x, y):
        return accumulate(x + 1, y) * y

    args = normal(3), normal(3)
    copies = copy.deepcopy(args)
    same(f(*args), compile(f)(*copies))
    same(args, copies, "argument")


def test_dtype_that_a_fake_kernel_does_not_know():
    """What only ATen reads has the dtype that ATen gave it; what a kernel reads, the fake one's."""

    @torch.library.custom_op("sol_test::statistics", mutates_args=())
    def statistics(x: torch.Tensor) -> torch.Tensor:
        return x.double().sum(1)

    @statistics.register_fake
    def _(x):
        return x.new_empty(x.shape[:1])

    @torch.library.custom_op("sol_test::exponent", mutates_args=())
    def exponent(x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float64
        return x.exp().float()

    @exponent.register_fake
    def _(x):
        return x.new_empty(x.shape)

    def f(x):
        s = statistics(x + 1)
        return exponent(s) * 2, s, statistics(x) * 2

    x = normal(3, 4)
    results, s, doubled = compile(f)(x)
    same(results, f(x)[0])
    same(s, f(x)[1])
    same(doubled, f(x)[2].float())


def test_buffers_written_in_forward():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.register_buffer("cache", torch.zeros(4, 3))

        def forward(self, x, at: int = 0):
            self.count += 1
            self.cache[at] = x
            return x * self.count + self.cache.sum()

    a, b = Counter(), Counter()
    compiled = compile(b)
    for k in range(4):
        x = normal(3)
        same(a(x, k % 3), compiled(x, k % 3))
        same(a.state_dict(), b.state_dict(), "buffer")


def complex_part():
    f = lambda x, y: torch.view_as_real(torch.view_as_complex(x) * y).relu() * 2  # noqa: E731
    return f, (normal(4, 5, 2), normal(4, 5, dtype=torch.complex64))


def view_of_what_is_written_next():
    """The complex view's memory is not used again while it is needed."""

    def f(x):
        z = torch.view_as_complex(x.sin())
        y = x.cos().cumsum(0).cumsum(1)
        return y.exp(), torch.view_as_real(z * z)

    return f, (normal(33, 7, 2),)


def float8_part():
    f = lambda x: x.relu().to(torch.float8_e4m3fn).to(torch.float32).sin()  # noqa: E731
    return f, (normal(4, 5),)


def sizes_that_are_data():
    return lambda x: ((x * 2).sin()[x > 0] + 1, x.cos()), (normal(4, 5),)


def branches():
    f = lambda x: torch.cond(x.sum() > 0, torch.sin, torch.cos, (x * 2,)).relu()  # noqa: E731
    return f, (normal(4, 5),)


def imaginary_part_of_a_conjugate():
    return lambda x: x.imag.neg().sin(), (torch.conj(normal(4, 5, dtype=torch.complex64)),)


FOREIGN = (
    *(complex_part, view_of_what_is_written_next, float8_part, sizes_that_are_data),
    *(branches, imaginary_part_of_a_conjugate),
)


@pytest.mark.parametrize("dynamic", [None, True])
def test_many_shapes(dynamic):
    m = network().eval()
    compiled = compile(m, dynamic=dynamic)
    with torch.no_grad():
        for k in (1, 2, 3, 5, 8):
            x = normal(k, 3, 8 + k, 8)
            same(m(x), compiled(x))


def test_random_streams_follow_the_seed():
    f = lambda x: (F.dropout(x, 0.5), torch.rand_like(x), torch.bernoulli(x.sigmoid()))  # noqa: E731
    compiled, x = compile(f), normal(100)
    torch.manual_seed(3)
    first = compiled(x)
    torch.manual_seed(3)
    second, third = compiled(x), compiled(x)
    same(first, second)
    assert not torch.equal(second[1], third[1])


def test_while_loop():
    from torch._higher_order_ops.while_loop import while_loop

    def f(x):
        return while_loop(lambda k, x: k < 3, lambda k, x: (k + 1, x * 2), (torch.tensor(0), x))

    x = normal(3)
    same(f(x), compile(f)(x))


def test_subclass():
    class Marked(torch.Tensor):
        pass

    x = normal(3)
    got = compile(lambda x: x + 1)(x.as_subclass(Marked))
    assert isinstance(got, Marked)
    same(x + 1, got.as_subclass(torch.Tensor))


def test_half_precision_batch_norm_of_large_means():
    m = nn.BatchNorm2d(8).eval().bfloat16()
    m.running_mean.uniform_(20, 30)
    m.running_var.uniform_(0.01, 0.02)
    x = (m.running_mean.view(1, -1, 1, 1).float() + 0.1 * normal(4, 8, 9, 9)).bfloat16()
    with torch.no_grad():
        exact = copy.deepcopy(m).double()(x.double())
        eager, ours = (relative_error(f(x), exact) for f in (m, compile(m)))
    assert ours <= 2 * eager + ULP2


def test_default_device():
    compiled, x = compile(lambda x: x @ x + 1), normal(5, 5)
    torch.set_default_device("meta")
    try:
        first, second = compiled(x), compiled(x)
    finally:
        torch.set_default_device(None)
    same((x @ x + 1, x @ x + 1), (first, second))


def test_a_deleted_model_leaves_no_weights():
    m = nn.Linear(64, 64).eval()
    with torch.no_grad():
        compile(m)(normal(2, 64))
    weight = ref(m.weight.untyped_storage())
    del m
    torch._dynamo.reset()
    gc.collect()
    assert weight() is None


def test_weights_that_change_often_may_stay(monkeypatch):
    """What cannot be built again without hoisting them goes on as it is."""
    m = nn.Linear(4, 4, bias=False).eval()
    compiled, x = compile(m), torch.ones(2, 4)
    with torch.no_grad():
        compiled(x)

        def fails(*args):
            raise RuntimeError("no space left")

        monkeypatch.setattr(backend, "build", fails)
        for _ in range(8):
            m.weight.add_(1)
            same(m(x), compiled(x))


def test_an_error_of_the_compiler_leaves_the_graph_to_aten(monkeypatch):
    """With a word about which graph it was; under strict it raises."""

    def broken(*_):
        raise ValueError("broken on purpose")

    def f(x):
        return x.sin() + 1

    monkeypatch.setattr(backend, "compile_graph", broken)
    x = normal(3)
    with pytest.raises(Exception, match="broken on purpose"):
        torch.compile(f, backend=sol, options={"strict": True})(x)
    torch._dynamo.reset()
    with pytest.warns(UserWarning, match=r"2 ops, from .*line.*x\.sin\(\).*broken on purpose"):
        y = torch.compile(f, backend=sol, options={"strict": False})(x)
    same(f(x), y)


def test_a_kernel_that_cannot_be_compiled_leaves_its_ops_to_aten(monkeypatch):
    """The other kernels of the graph are compiled."""

    def f(x):
        return x.sin().cumsum(1), (x * 2).relu()

    walk = tiling.schedule_kernel

    def broken(plan):
        if any("cumsum" in op for op in plan.kernel.origin.ops):
            raise ValueError("broken on purpose")
        walk(plan)

    monkeypatch.setattr(c_target, "schedule_kernel", broken)
    x = normal(3, 4)
    with pytest.raises(Exception, match="broken on purpose"):
        torch.compile(f, backend=sol, options={"strict": True})(x)
    torch._dynamo.reset()
    with pytest.warns(UserWarning, match=r"from .*line.*cumsum.*broken on purpose"):
        y = torch.compile(f, backend=sol, options={"strict": False})(x)
    same(f(x), y)
    left = [k.ops for k in report(sol.graphs[-1].compiled.program).aten_calls]
    assert ("aten.cumsum.default",) in left and ("aten.relu.default",) not in left


def test_sizes_that_come_again_are_compiled():
    """Once is left to ATen, and so is what comes when enough programs were compiled."""
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: (x * 2).relu().sum(0) + x.shape[0],
        backend=sol,
        dynamic=True,
        options={"sizes": 2},
    )
    rows = iter((4, 5, 4, 5, 6, 6, 4))
    programs: list[Any] = []
    for _ in range(7):
        x = normal(next(rows), 3)
        same((x * 2).relu().sum(0) + x.shape[0], compiled(x))
        programs.append(sol.graphs[-1].runner)
    assert programs[:2] == [None, None] and programs[3] is not programs[2] is not None
    assert programs[4:] == programs[3:4] * 3


@pytest.mark.parametrize("make", FOREIGN, ids=lambda f: f.__name__)
def test_values_that_only_aten_holds(make):
    """Complex and 8-bit tensors and data-dependent sizes are left to ATen op by op: what is
    around them is compiled."""
    torch._dynamo.reset()
    f, args = make()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        same(f(*args), torch.compile(f, backend=sol)(*args))
    kernels = report(sol.graphs[-1].compiled.program).kernels
    assert {k.extern for k in kernels} == {True, False}


def test_constants_of_a_graph_are_prepared_once():
    def f(x):
        return (x * torch.tensor([1.0, 2.0, 3.0]).exp()).relu()

    torch._dynamo.reset()
    compiled, x = torch.compile(f, backend=sol), normal(4, 3)
    same(f(x), compiled(x))
    assert [k.ops for k in report(sol.graphs[-1].compiled.program).kernels] == [
        ("aten.mul.Tensor", "aten.relu.default")
    ]


def test_dump_has_a_folder_for_each_graph(tmp_path):
    def f(x):
        y = x.sin() + 1
        torch._dynamo.graph_break()
        return y.cos() * 2

    torch.compile(f, backend=sol, options={"dump": str(tmp_path)})(normal(3))
    folders = sorted(tmp_path.iterdir())
    assert len(folders) == 2
    for folder, name in zip(folders, ("sin", "cos"), strict=True):
        assert name in (folder / "ir_lower.txt").read_text()
        assert list(folder.glob("*.c"))


# -- processes and threads ------------------------------------------------------------------------


def test_threads_share_a_compiled_model():
    m = network().eval()
    compiled = compile(m)
    inputs = [normal(2, 3, 8, 8) for _ in range(6)]
    failed: list[BaseException] = []
    with torch.no_grad():
        compiled(inputs[0])
        expected = [m(x) for x in inputs]

    def run(k: int) -> None:
        try:
            with torch.no_grad():
                for _ in range(30):
                    same(expected[k], compiled(inputs[k]))
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(len(inputs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed, failed[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork():
    m = network().eval()
    compiled, x = compile(m), normal(2, 3, 8, 8)
    with torch.no_grad():
        expected = compiled(x)
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if torch.equal(compiled(x), expected) else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_one_thread_gives_the_same_bits():
    m = network().eval()
    compiled, x = compile(m), normal(2, 3, 33, 31)
    threads = torch.get_num_threads()
    try:
        with torch.no_grad():
            several = compiled(x)
            torch.set_num_threads(1)
            assert torch.equal(several, compiled(x))
    finally:
        torch.set_num_threads(threads)


def test_copies_of_a_compiled_model_are_apart():
    m = network().eval()
    compiled, x = compile(m), normal(2, 3, 8, 8)
    with torch.no_grad():
        compiled(x)
        other = copy.deepcopy(compiled)
        other._orig_mod[0].weight.mul_(2)
        same(other._orig_mod(x), other(x))
        same(m(x), compiled(x))


def test_explain_names_what_attention_runs_on():
    q = normal(1, 2, 5, 8)
    report = sol_dynamo.explain(lambda q: F.scaled_dot_product_attention(q, q, q), q)
    (program,) = report.programs
    assert [k.ops for k in program.aten_calls] == [
        ("aten._scaled_dot_product_flash_attention_for_cpu.default",)
    ]


@pytest.mark.parametrize("n", [3, 16, 67, 1000])
@pytest.mark.parametrize("integer", [torch.int64, torch.int32, torch.int16, torch.int8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_integer_has_no_negative_zero(dtype, integer, n):
    """Though a compiler may truncate a float without making an integer of it."""

    def f(x):
        return x.to(integer).to(torch.int64).to(dtype)

    x = -torch.rand(n, dtype=dtype)
    torch._dynamo.reset()
    got = torch.compile(f, backend="sol")(x)
    assert torch.equal(got, f(x)) and not got.signbit().any()


def test_where_a_strided_scatter_begins():
    """It counts from where memory begins, and a graph's values lie in the middle of its own."""

    def f(x, y):
        a = (x @ y).exp()
        z = a.sum(0)
        whole = torch.full((20,), 1.0).tanh()
        made = torch.as_strided_scatter(whole, a * 2, (3, 4), (5, 1), 2)
        return made * 3, z, torch.as_strided_scatter(x.flatten()[2:], a.sum(1), (3,), (2,), 3)

    x, y = normal(3, 5), normal(5, 4)
    same(f(x, y), compile(f)(x, y))
    base = normal(4, 5)  # an input that begins elsewhere itself
    g = lambda x: torch.as_strided_scatter(x, x[0] * 2, (5,), (1,), 5) + 1  # noqa: E731
    same(g(base[1:]), compile(g)(base[1:]))


def test_a_backward_graph_on_aten_gets_what_begins_elsewhere():
    from torch.fx.experimental.proxy_tensor import make_fx

    from sol_dynamo.fallback import run_on_aten

    f = lambda x: x.as_strided((2, 3), (3, 1), 1) * 2  # noqa: E731
    x = normal(7)
    graph = make_fx(f, tracing_mode="fake")(x)
    moved = torch.cat([torch.zeros(5), x])[5:]
    (got,) = [run_on_aten(graph, restride=True)([moved])]
    same(f(x), got)


def test_a_graph_on_aten_views_what_lies_otherwise_than_traced():
    """torch's fake kernel says that a group norm of channels that lie innermost moves them."""
    from torch.fx.experimental.proxy_tensor import make_fx

    from sol_dynamo.fallback import run_on_aten

    def f(x):
        normed = torch.ops.aten.native_group_norm.default(x, None, None, 2, 4, 15, 2, 1e-5)[0]
        return [torch.ops.aten.view.default(normed, [2, 60])]

    x = torch.randn(2, 4, 3, 5).to(memory_format=torch.channels_last)
    (got,) = run_on_aten(make_fx(f, tracing_mode="fake")(x))([x])
    same(torch.nn.functional.group_norm(x, 2).reshape(2, 60), got)
