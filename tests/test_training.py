"""Training: gradients, running statistics and whole runs, compiled, against eager and float64."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accuracy import ULP2, relative_error
from torch import nn

from sol_dynamo import compat
from sol_dynamo.backend import Backend

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3)), (4, 5)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.SiLU(),
            nn.Conv2d(8, 12, 3, stride=2, bias=False), nn.BatchNorm2d(12), nn.Tanh(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(48, 4),
        ),
        (5, 3, 11, 12),
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(6, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6(),
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False),
            nn.BatchNorm2d(24), nn.Hardswish(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 3),
        ),
        (3, 6, 9, 7),
    ),
    "pooling": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 5, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(5, 5, 3, groups=5),
            nn.ELU(), nn.Upsample(scale_factor=2), nn.Flatten(), nn.Linear(500, 3),
        ),
        (2, 2, 16, 15),
    ),
    "norms": (
        lambda: nn.Sequential(
            nn.Linear(6, 8), nn.LayerNorm(8), nn.Mish(), nn.Unflatten(1, (8, 1)),
            nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(8, 5), nn.LogSoftmax(1),
        ),
        (7, 6),
    ),
    "attention": (
        lambda: nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), (2, 5, 16),
    ),
    "one dimension": (
        lambda: nn.Sequential(
            nn.Conv1d(3, 6, 5, padding=2, bias=False), nn.BatchNorm1d(6), nn.GLU(1),
        ),
        (4, 3, 17),
    ),
    "three dimensions": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 4, 3, bias=False), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2),
        ),
        (2, 2, 6, 7, 8),
    ),
}  # fmt: skip


def step(model: Callable, parameters: list[nn.Parameter], x: torch.Tensor) -> list[torch.Tensor]:
    """The result and the gradients of the parameters and of the input."""
    for p in parameters:
        p.grad = None
    x = x.detach().clone().requires_grad_()
    y = model(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in parameters if p.grad is not None)]


@pytest.mark.parametrize("name", MODELS)
def test_step(name):
    """Results, gradients and buffers within the contract, gradients in eager's strides."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model = make().train()
    x = torch.randn(shape)
    ours, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    backend = Backend()
    run = torch.compile(ours, backend=backend, dynamic=False)
    for _ in range(2):
        eager = step(model, list(model.parameters()), x)
        got = step(run, list(ours.parameters()), x)
        wide = step(exact, list(exact.parameters()), x.double())
        for k, (a, e, w) in enumerate(zip(got, eager, wide, strict=True)):
            assert a.stride() == e.stride(), (k, a.shape, a.stride(), e.stride())
            scale = max(relative_error(e, w), 1e-7)
            assert relative_error(a, w) <= 2 * scale + ULP2
    assert [g.kind for g in backend.graphs] == ["forward", "backward"]
    assert all(g.runner is not None for g in backend.graphs)
    buffers = zip(ours.buffers(), model.buffers(), exact.buffers(), strict=True)
    for a, e, w in buffers:
        assert relative_error(a.double(), w) <= 2 * relative_error(e.double(), w) + ULP2


def test_rotated_pairs():
    """Every second element of a part (rotary embeddings): backward scatters to such places."""

    class Rotary(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.randn(3, 2))

        def forward(self, x):
            first, rest = x[..., :4], x[..., 4:]
            turned = torch.stack((-first[..., 1::2], first[..., ::2]), -1).flatten(-2)
            scale = self.scale.repeat_interleave(2, -1)
            return torch.cat((first * scale.cos() + turned * scale.sin(), rest), -1)

    torch._dynamo.reset()
    model, x = Rotary(), torch.randn(2, 3, 9)
    ours, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    got = step(torch.compile(ours, backend=Backend()), list(ours.parameters()), x)
    eager = step(model, list(model.parameters()), x)
    wide = step(exact, list(exact.parameters()), x.double())
    for a, e, w in zip(got, eager, wide, strict=True):
        assert relative_error(a, w) <= 2 * relative_error(e, w) + ULP2


@pytest.mark.parametrize("name", MODELS)
def test_step_under_autocast(name):
    """Mixed precision: results and gradients as near to float64 as eager's. Statistics of
    normalizations stay float32, whatever their fake kernels say."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model = make().train()
    ours, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    run = torch.compile(ours, backend=Backend(), dynamic=False)
    x = 3 + torch.randn(shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        eager = step(model, list(model.parameters()), x)
        got = step(run, list(ours.parameters()), x)
    wide = step(exact, list(exact.parameters()), x.double())
    for a, e, w in zip(got, eager, wide, strict=True):
        assert (a.dtype, a.stride()) == (e.dtype, e.stride())
        assert (
            relative_error(a, w) <= 2 * relative_error(e, w) + 2 * torch.finfo(torch.bfloat16).eps
        )


def test_saved_activations_stay_where_they_lie():
    """Between two convolutions nothing is copied: backward is compiled for channels-last."""
    from sol_dynamo.report import report

    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.SiLU(), nn.Conv2d(16, 8, 3), nn.Tanh())
    backend = Backend()
    step(torch.compile(model, backend=backend), list(model.parameters()), torch.randn(2, 3, 9, 9))
    forward, backward = (g.compiled for g in backend.graphs)
    moved = [k.name for k in report(forward.program).kernels if "an output in eager" in k.note]
    assert len(moved) <= 1, moved  # the result, which the user sees in NCHW
    saved = [forward.program.buffers[o] for o in forward.program.outputs[1:] if o]
    assert any(b.scope == "input" for b in saved), "weights are saved as they are"
    assert any(len(b.shape) == 4 and b.strides[1] == 1 for b in saved)
    given = {forward.program.buffers[o].strides for o in forward.program.outputs[1:] if o}
    assert {backward.program.buffers[i].strides for i in backward.program.inputs[:-1]} <= given


def test_parts_of_a_product_are_saved_together():
    """Attention's operands, which backward reads, lie in the one product that they are parts of."""
    torch._dynamo.reset()
    linear, backend = nn.Linear(8, 24), Backend()

    def attention(x: torch.Tensor) -> torch.Tensor:
        parts = (t.view(2, 5, 2, 4).transpose(1, 2) for t in linear(x).chunk(3, 2))
        return F.scaled_dot_product_attention(*parts)

    x = torch.randn(2, 5, 8)
    made = torch.compile(attention, backend=backend)(x)
    gradient = torch.autograd.grad(made.sin().sum(), linear.weight)
    program = backend.graphs[0].compiled.program
    assert not [b for b in program.buffers if b[:4] == "out_"]
    saved = [program.buffers[o] for o in program.outputs[1:] if o]
    bases = [b.base for b in saved if b.base and b.scope != "input"]
    assert len(bases) == 3 and len({*bases}) == 1
    wide = linear.weight.detach().double().requires_grad_()
    y = F.linear(x.double(), wide, linear.bias.detach().double())
    parts = (t.view(2, 5, 2, 4).transpose(1, 2) for t in y.chunk(3, 2))
    exact = torch.autograd.grad(F.scaled_dot_product_attention(*parts).sin().sum(), wide)
    torch.testing.assert_close(gradient[0].double(), exact[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("made_by", ["convolution", "cat", "product"])
def test_rows_of_attention(made_by):
    """Behind a convolution channels lie innermost, but attention's kernels take the elements of a
    row to: they read what lies otherwise as if it did not, or fail."""
    torch._dynamo.reset()
    convolution = nn.Conv2d(3, 4, 3, padding=1)

    def attention(c: Callable, x: torch.Tensor) -> torch.Tensor:
        y = c(x)  # heads, rows and their elements for channels, heights and widths
        if made_by == "cat":
            y = torch.cat([y.sin(), y.cos()], -1)
        q = y * 2 if made_by == "product" else y
        return F.scaled_dot_product_attention(q, y, y + 1).relu()

    x = torch.randn(2, 3, 12, 8)
    wide = copy.deepcopy(convolution).double()
    exact = attention(wide, x.double())
    with torch.no_grad():
        for _ in range(2):  # in memory that holds what the first one left, too
            made = torch.compile(attention, backend=Backend())(convolution, x)
            torch.testing.assert_close(made.double(), exact.detach(), rtol=1e-5, atol=1e-5)
            assert made.stride() == attention(convolution, x).stride()
    made = torch.compile(attention, backend=Backend())(convolution, x)
    (gradient,) = torch.autograd.grad(made.sin().sum(), convolution.weight)
    (wanted,) = torch.autograd.grad(exact.sin().sum(), wide.weight)
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-4, atol=1e-4)


def test_gradients_are_not_copied():
    """What was transposed twice, or lost dimensions of size 1, is the memory that it lies in."""
    torch._dynamo.reset()
    model, backend = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5)), Backend()
    x = torch.randn(7, 8, requires_grad=True)
    torch.compile(model, backend=backend, dynamic=False)(x).sum().backward()
    assert len(backend.graphs) == 2
    copied = [b for g in backend.graphs for b in g.compiled.program.buffers if b[:4] == "out_"]
    assert not copied
    wide, wide_x = copy.deepcopy(model).double(), x.detach().double().requires_grad_()
    wide.zero_grad()
    wide(wide_x).sum().backward()
    for p, q in zip((x, *model.parameters()), (wide_x, *wide.parameters()), strict=True):
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-5, atol=1e-5)
        assert p.grad._base is None


def test_a_saved_view_is_not_overwritten():
    """Two steps in flight: what the first saved is read after the second forward ran."""
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    run = torch.compile(model, backend=Backend())
    x, y = torch.randn(3, 6), torch.randn(3, 6)
    first, second = run(x).sum(), run(y).sum()
    for loss, reference in ((first, model(x).sum()), (second, model(y).sum())):
        expected = torch.autograd.grad(reference, list(model.parameters()))
        for a, b in zip(torch.autograd.grad(loss, list(model.parameters())), expected, strict=True):
            torch.testing.assert_close(a, b)


def test_backward_twice():
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(6, 6), nn.SiLU())
    y = torch.compile(model, backend=Backend())(torch.randn(3, 6)).sum()
    first = torch.autograd.grad(y, list(model.parameters()), retain_graph=True)
    for a, b in zip(first, torch.autograd.grad(y, list(model.parameters())), strict=True):
        assert torch.equal(a, b)


def test_nothing_outlives_its_step():
    """What forward saved is freed with backward, without a garbage collection: its memory is the
    next step's."""
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
    backend = Backend()
    run, x = torch.compile(model, backend=backend), torch.randn(2, 3, 9, 9)
    run(x).sum().backward()
    executable = backend.graphs[0].compiled.executable
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            run(x).sum().backward()
        assert len(executable._blocks._known) == 1
        first, second = run(x), run(x)
        assert len(executable._blocks._known) == 2
        first.sum().backward()
        second.sum().backward()
    finally:
        gc.enable()


def test_statistics_are_updated_at_once(monkeypatch):
    torch._dynamo.reset()
    model = resnet().train()
    ours, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    backend, copied = Backend(), []
    monkeypatch.setattr(
        compat, "copy_all", lambda places, values, real=compat.copy_all: (
            copied.append(len(places)), real(places, values)
        ),
    )  # fmt: skip
    run, before = torch.compile(ours, backend=backend), [b._version for b in ours.buffers()]
    for _ in range(3):
        x = torch.randn(8, 3, 12, 12)
        for f, m, t in ((model, model, x), (run, ours, x), (exact, exact, x.double())):
            m.zero_grad()
            f(t).square().sum().backward()
    assert copied == 3 * [4, 8]  # counts; means and variances
    for a, e, w in zip(ours.buffers(), model.buffers(), exact.buffers(), strict=True):
        assert a.dtype == e.dtype and relative_error(a, w) <= 2 * relative_error(e, w) + 4e-7
    for a, e, w in zip(ours.parameters(), model.parameters(), exact.parameters(), strict=True):
        assert relative_error(a.grad, w.grad) <= 2 * relative_error(e.grad, w.grad) + 4e-7
    versions = [b._version for b in ours.buffers()]
    assert all(now > then for now, then in zip(versions, before, strict=True))


def test_frozen_layers_are_packed_once():
    torch._dynamo.reset()
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))
    model[0].requires_grad_(False)
    backend = Backend()
    run, x = torch.compile(model, backend=backend), torch.randn(2, 3, 9, 9)
    run(x).sum().backward()
    program = backend.graphs[0].compiled.program
    assert len(program.packs) == 1
    with torch.no_grad():
        model[0].weight.mul_(2)
    torch.testing.assert_close(run(x), model(x), rtol=1e-4, atol=1e-5)


def resnet() -> nn.Module:
    class Block(nn.Module):
        def __init__(self, c: int):
            super().__init__()
            self.a, self.b = (nn.Conv2d(c, c, 3, padding=1, bias=False) for _ in range(2))
            self.na, self.nb = nn.BatchNorm2d(c), nn.BatchNorm2d(c)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(x + self.nb(self.b(F.relu(self.na(self.a(x))))))

    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), Block(16), nn.MaxPool2d(2), Block(16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    return nn.Sequential(
        nn.Linear(6, 32), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        nn.Flatten(), nn.Linear(32 * 7, 5),
    )  # fmt: skip


def train(model: nn.Module, run: Callable, x: torch.Tensor, t: torch.Tensor, steps: int) -> Any:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(run(x), t)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("make, shape", [(resnet, (8, 3, 12, 12)), (transformer, (8, 7, 6))])
def test_fifty_steps(make, shape):
    """The loss curve is eager's within 1e-3, both near float64's."""
    torch._dynamo.reset()
    torch.manual_seed(1)
    model, x, t = make().train(), torch.randn(shape), torch.randint(0, 5, (shape[0],))
    ours, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    eager = train(model, model, x, t, 50)
    got = train(ours, torch.compile(ours, backend=Backend()), x, t, 50)
    wide = train(exact, exact, x.double(), t, 50)
    for a, e, w in zip(got, eager, wide, strict=True):
        assert abs(a - e) <= 1e-3 * abs(e)
        assert abs(a - w) <= 1e-3 * abs(w) and abs(e - w) <= 1e-3 * abs(w)
    assert got[-1] < 0.5 * got[0]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_compiled_optimizer(kind):
    torch._dynamo.reset()
    torch.manual_seed(0)
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    ours, x = copy.deepcopy(model), torch.randn(4, 5)
    a, b = (kind(m.parameters(), 1e-2, **options) for m in (model, ours))
    update = torch.compile(b.step, backend=Backend(), fullgraph=False)
    for _ in range(4):
        for m, apply in ((model, a.step), (ours, update)):
            m.zero_grad()
            m(x).square().sum().backward()
            apply()
        for p, q in zip(model.parameters(), ours.parameters(), strict=True):
            torch.testing.assert_close(q, p, rtol=1e-5, atol=1e-6)


def test_memory_that_is_saved_is_used_again_when_nobody_has_it(monkeypatch):
    """Neither a tensor, nor another one there, nor the storage; changed, it is made anew."""
    from sol_dynamo.ir import Buffer
    from sol_dynamo.kernels import host

    buffers = [Buffer(n, "f32", (3, 4), (4, 1), scope="saved") for n in "xy"]
    blocks = host.Blocks(buffers, "cpu", {"part": ("y", (2, 2), (4, 1), 5)})

    def take() -> tuple[dict[str, torch.Tensor], int]:
        made = dict(blocks.take())
        return made, made["x"].data_ptr()

    made, at = take()
    assert made["y"].data_ptr() == at + 64 and made["x"].stride() == (4, 1)
    made["y"].copy_(torch.arange(12).view(3, 4))
    assert made["part"].tolist() == [[5, 6], [9, 10]]
    weight = torch.ones(3, 4, requires_grad=True)
    for holder in (
        lambda r: r["y"], lambda r: r["part"], lambda r: r["x"].view(12),
        lambda r: r["y"].untyped_storage(), lambda r: r["y"].numpy(),
        lambda r: (weight * r["x"]).sum(), lambda r: r["x"].detach(),
    ):  # fmt: skip
        held = holder(made)
        del made
        other, elsewhere = take()
        assert elsewhere != at
        del held, other
        made, again = take()
        assert again in (at, elsewhere)
        at = again
    for change in (
        lambda r: r["x"].requires_grad_(),
        lambda r: r["x"].untyped_storage().resize_(0),
        lambda r: r["y"].set_(torch.zeros(2)),
    ):
        change(made)
        del made
        made, _ = take()
        assert not made["x"].requires_grad and made["y"].shape == (3, 4)
        assert made["x"].data_ptr() + 64 == made["y"].data_ptr()
        made["x"].fill_(1)
    held = [take()[0] for _ in range(3)]
    assert len(blocks._known) >= 4
    del held
    for _ in range(host.KEPT + 1):
        take()
    assert len(blocks._known) <= 2  # what is held now, and what calls take
