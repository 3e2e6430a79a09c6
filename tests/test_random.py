"""Random numbers: Philox's published answers, distributions, what the seed decides and what it must
not, dropout in training and under checkpoints, and eager's own numbers where they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native import assert_means, default_schedule
from torch import nn
from torch.utils.checkpoint import checkpoint

from sol_dynamo.affine import Index
from sol_dynamo.backend import Backend
from sol_dynamo.ir import Axis, Buffer, Extern, Kernel, Load, Loops, Program, Store
from sol_dynamo.lowering.random import philox

N = 50_000


def compiled(f: Callable, *args: torch.Tensor, **options: bool) -> torch.Tensor:
    """f compiled anew, and called once."""
    torch._dynamo.reset()
    return torch.compile(f, backend=Backend(), dynamic=False, options=options)(*args)


def aten_calls(f: Callable, *args: torch.Tensor) -> list[str]:
    torch._dynamo.reset()
    backend = Backend()
    torch.compile(f, backend=backend, dynamic=False)(*args)
    steps = [k for g in backend.graphs for k in g.compiled.program.kernels]
    return [k.reason for k in steps if isinstance(k, Extern)]


def test_philox_gives_the_published_answers():
    """The known answers of Random123 (kat_vectors, philox4x32 10)."""
    rows = [
        ("00000000 " * 6, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 6, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ]
    given = np.array([[int(w, 16) for w in a.split()] for a, _ in rows], np.uint32)
    answers = np.array([[int(w, 16) for w in b.split()] for _, b in rows], np.uint32)
    seeds = given[:, 4].astype(np.uint64) | given[:, 5].astype(np.uint64) << np.uint64(32)
    count = 17  # lanes and a tail
    given, answers = given[np.arange(count) % 3], answers[np.arange(count) % 3]
    words = Buffer("words", "u32", (count, 4), (4, 1), scope="input")
    seed = Buffer("seed", "u64", (count,), (1,), scope="input")
    out = Buffer("out", "u32", (4, count), (count, 1), scope="output")
    i = Index.of("i")
    counter = [Load("words", (i, Index.of(k)), "u32") for k in range(4)]
    results = philox(Load("seed", (i,), "u64"), counter)
    buffers = {b.name: b for b in (words, seed, out)}
    kernels = []
    for k, value in enumerate(results):
        row = Buffer(f"out{k}", "u32", (count,), (1,), k * count, "out", "output")
        buffers[row.name] = row
        nest = Loops((Axis("i", count),), (Store((row.name,), (i,), (value,)),))
        kernels.append(Kernel(row.name, (nest,)))
    program = Program(buffers, tuple(kernels), ("words", "seed"), ("out",))
    (got,) = assert_means(default_schedule(program), [given[:, :4], seeds[np.arange(count) % 3]])
    np.testing.assert_array_equal(got.T, answers)


def phi(x: torch.Tensor) -> torch.Tensor:
    return torch.special.ndtr(x)


CONTINUOUS: dict[str, tuple[Callable[[], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]] = {
    "rand": (lambda: torch.rand(N), lambda x: x),
    "rand of float64": (lambda: torch.rand(N, dtype=torch.float64), lambda x: x),
    "uniform": (lambda: torch.empty(N).uniform_(-3, 5), lambda x: (x + 3) / 8),
    "randn": (lambda: torch.randn(N), phi),
    "randn of float64": (lambda: torch.randn(N, dtype=torch.float64), phi),
    "normal": (lambda: torch.empty(N).normal_(2, 0.5), lambda x: phi((x - 2) / 0.5)),
    "normal of a size": (lambda: torch.normal(1.0, 3.0, (N,)), lambda x: phi((x - 1) / 3)),
    "around": (lambda: torch.normal(torch.full((N,), 7.0), 2.0), lambda x: phi((x - 7) / 2)),
    "exponential": (lambda: torch.empty(N).exponential_(3), lambda x: 1 - torch.exp(-3 * x)),
    "log normal": (lambda: torch.empty(N).log_normal_(0, 0.5), lambda x: phi(x.log() / 0.5)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_distribution(name: str):
    """Kolmogorov and Smirnov's test at a level that fails once in 10^9; the seed is fixed."""
    draw, cumulative = CONTINUOUS[name]
    torch.manual_seed(11)
    x = compiled(draw).double().sort().values
    assert x.isfinite().all()
    steps = torch.arange(N + 1, dtype=torch.float64) / N
    p = cumulative(x)
    distance = torch.maximum(p - steps[:-1], steps[1:] - p).max().item()
    assert distance < math.sqrt(10.7 / N), distance
    assert aten_calls(draw) == ["the seed of random numbers"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_uniform_numbers_are_below_one(dtype: torch.dtype):
    """As many different ones as the dtype's digits allow, none of them one."""
    digits = {torch.float16: 11, torch.bfloat16: 8}.get(dtype, 24)
    x = compiled(lambda: torch.rand(1 << 18, dtype=dtype)).double()
    assert x.min() >= 0 and x.max() < 1
    whole = x * 2**digits
    if digits < 24:
        assert torch.equal(whole, whole.round()) and len(x.unique()) == 2**digits
    else:
        assert len(x.unique()) > 0.99 * len(x)


def test_moments_and_independence():
    """Of two streams, and of neighbours in one; correlations have a deviation of 1 / sqrt(n)."""
    torch.manual_seed(5)
    a, b = compiled(lambda: (torch.randn(N), torch.randn(N)))
    limit = 6 / math.sqrt(N)
    for x in (a, b):
        x = x.double()
        assert abs(x.mean()) < limit and abs((x**2).mean() - 1) < limit * math.sqrt(2)
        assert abs((x**3).mean()) < limit * math.sqrt(15)
        assert abs((x**4).mean() - 3) < limit * math.sqrt(96)
        assert abs((x[1:] * x[:-1]).mean()) < limit
    assert abs((a * b).mean()) < limit


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.3, 1.0])
def test_bernoulli(p: float):
    torch.manual_seed(2)
    x = compiled(lambda: torch.empty(N).bernoulli_(p))
    assert set(x.unique().tolist()) <= {0.0, 1.0}
    assert abs(x.mean().item() - p) <= 6 * math.sqrt(p * (1 - p) / N)


@pytest.mark.parametrize("low, high", [(0, 7), (-3, 2), (5, 6), (0, 2**32), (-(2**62), 2**62)])
def test_integers(low: int, high: int):
    torch.manual_seed(2)
    x = compiled(lambda: torch.randint(low, high, (N,)))
    assert x.dtype is torch.int64 and low <= x.min() and x.max() < high
    scaled = (x.double() - low) / (high - low)
    width = high - low
    mean, deviation = (width - 1) / 2 / width, math.sqrt((1 - 1 / width**2) / 12)
    assert abs(scaled.mean().item() - mean) <= 6 * deviation / math.sqrt(N)
    if width < 10:
        counts = torch.bincount(x - low, minlength=width).double()
        expected = N / width
        assert ((counts - expected) ** 2 / expected).sum() < 60  # chi squared of 6 or less


def test_the_seed_decides():
    def f(x):
        return F.dropout(x, 0.5), torch.rand_like(x), torch.bernoulli(x.sigmoid())

    run, x = torch.compile(f, backend=Backend()), torch.randn(64, 65)
    torch.manual_seed(3)
    first = run(x)
    second = run(x)
    torch.manual_seed(3)
    again = run(x)
    for a, b, c in zip(first, again, second, strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)
    with torch.random.fork_rng():
        forked = run(x)
    assert all(torch.equal(a, b) for a, b in zip(forked, run(x), strict=True))


def test_numbers_depend_on_neither_threads_nor_what_reads_them():
    def f(x):
        noise = torch.randn(33, 65)
        return noise, noise.t().contiguous() * 2, (noise + x).sum(1), torch.rand(65, 33).t() + x

    x, threads, found = torch.randn(33, 65), torch.get_num_threads(), []
    run = torch.compile(f, backend=Backend())
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        torch.manual_seed(9)
        found.append(run(x))
    torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    noise, doubled, sums, _ = found[0]
    assert torch.equal(doubled, noise.t() * 2)
    torch.testing.assert_close(sums, (noise + x).sum(1))
    torch.manual_seed(9)
    alone = compiled(lambda: torch.randn(33, 65))
    assert torch.equal(alone, noise)


# -- dropout ----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout_keeps_and_scales(p: float):
    x = torch.rand(200, 251) + 1
    y = compiled(lambda x: F.dropout(x, p), x)
    kept = y != 0
    assert abs(kept.double().mean().item() - (1 - p)) <= 6 * math.sqrt(p * (1 - p) / x.numel())
    torch.testing.assert_close(y[kept], x[kept] / (1 - p), rtol=3e-7, atol=0)


def test_dropout_s_backward_has_forward_s_mask():
    x = torch.randn(40, 57, requires_grad=True)
    y = compiled(lambda x: F.dropout(x.exp(), 0.4) * 3, x)
    (g,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(g, y.detach())


def gradient(f: Callable, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().requires_grad_()
    y = f(x)
    y.sum().backward()
    assert x.grad is not None
    return y.detach(), x.grad


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_checkpoints_draw_the_same_numbers_again(inside: bool, reentrant: bool):
    """exp(dropout(x)) is its own derivative where x is kept, times the scale."""
    if inside and reentrant:
        pytest.skip("Dynamo does not trace reentrant checkpoints")
    part = lambda x: F.dropout(x, 0.4).exp()  # noqa: E731
    torch._dynamo.reset()
    if inside:
        whole = lambda x: checkpoint(part, x, use_reentrant=False)  # noqa: E731
        f = torch.compile(whole, backend=Backend())
    else:
        fast = torch.compile(part, backend=Backend())
        f = lambda x: checkpoint(fast, x, use_reentrant=reentrant)  # noqa: E731
    y, g = gradient(f, torch.rand(30, 47) + 0.5)
    kept = y != 1
    assert 0.5 < kept.double().mean() < 0.7
    torch.testing.assert_close(g, torch.where(kept, y / 0.6, 0.0))


def test_training_with_dropout_learns():
    """As well as eager: a line of points through two layers with dropout between them."""
    x = torch.linspace(-2, 2, 256).unsqueeze(1)
    target = x.sin()

    def loss_of(compile: Callable) -> float:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Dropout(0.1), nn.Linear(64, 1))
        run, optimizer = compile(net), torch.optim.Adam(net.parameters(), 0.02)
        for _ in range(150):
            optimizer.zero_grad()
            F.mse_loss(run(x), target).backward()
            optimizer.step()
        return F.mse_loss(net.eval()(x), target).item()

    torch._dynamo.reset()
    eager = loss_of(lambda net: net)
    ours = loss_of(lambda net: torch.compile(net, backend=Backend()))
    assert ours < 2 * eager + 0.01, (ours, eager)


# -- eager's numbers --------------------------------------------------------------------------

X = torch.linspace(0.1, 0.9, 200)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: F.dropout(x, 0.3) * 2,
        lambda x: torch.rand_like(x) + torch.randn_like(x),
        lambda x: torch.bernoulli(x),
        lambda x: torch.randint(3, 50, (7, 5)),
        lambda x: torch.empty_like(x).uniform_(2, 3) + torch.empty_like(x).exponential_(),
        lambda x: torch.normal(x, 2.0) + torch.empty_like(x).bernoulli_(0.4),
        lambda x: F.rrelu(x - 0.5, training=True),
        lambda x: torch.randperm(9),
    ],
)
def test_fallback_random_gives_eager_s_numbers(f: Callable):
    torch.manual_seed(4)
    eager = f(X)
    torch.manual_seed(4)
    torch.testing.assert_close(compiled(f, X, fallback_random=True), eager)


@pytest.mark.parametrize(
    "f",
    [
        lambda g: torch.rand(9, generator=g),
        lambda g: torch.randint(9, (9,), generator=g),
    ],
)
def test_a_generator_of_its_own_stays_eager_s(f: Callable):
    torch._dynamo.reset()
    run = torch.compile(lambda g: f(g) + 1, backend=Backend())
    got, eager = (h(torch.Generator().manual_seed(5)) for h in (run, lambda g: f(g) + 1))
    assert torch.equal(got, eager)
