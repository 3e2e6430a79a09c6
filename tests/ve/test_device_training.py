"""Autograd and training in eager: layers that accelerators do their own way, optimizers, losses."""

from __future__ import annotations

import pytest
import torch
from device import same
from torch import nn

CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def pair(make):
    """The same module on the CPU and on the device."""
    torch.manual_seed(torch.seed() % 2**31)
    net = make()
    other = make().ve()
    other.load_state_dict(net.state_dict())
    return net, other


def compare(net, other, *inputs):
    """Results, gradients of inputs and parameters, buffers."""
    xs = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    ys = [x.detach().to("ve").requires_grad_(x.requires_grad) for x in xs]
    expected, got = net(*xs), other(*ys)

    def flat(result):
        return [t for r in result for t in flat(r)] if isinstance(result, tuple) else [result]

    for g, e in zip(flat(got), flat(expected), strict=True):
        same(g.detach(), e.detach(), **CLOSE)
    weights = [torch.linspace(0.5, 1.5, e.numel()).view(e.shape) for e in flat(expected)]
    sum((e * w).sum() for e, w in zip(flat(expected), weights, strict=True)).backward()
    sum((g * w.to("ve")).sum() for g, w in zip(flat(got), weights, strict=True)).backward()
    for y, x in zip(ys, xs, strict=True):
        if x.requires_grad:
            same(y.grad, x.grad, **CLOSE)
    for q, p in zip(other.parameters(), net.parameters(), strict=True):
        same(q.grad, p.grad, rtol=1e-4, atol=1e-4)
    for b, a in zip(other.buffers(), net.buffers(), strict=True):
        same(b, a, **CLOSE)


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
        (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2), (2, 4, 9, 8)),
        (lambda: nn.Conv2d(4, 8, (3, 1), groups=2, bias=False), (1, 4, 7, 5)),
        (lambda: nn.Conv3d(2, 3, 2), (1, 2, 4, 5, 3)),
        (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2), (2, 4, 5, 4)),
        (lambda: nn.ConvTranspose1d(2, 3, 2), (2, 2, 5)),
    ],
)
def test_convolutions(make, shape):
    compare(*pair(make), torch.randn(shape))
    if len(shape) == 4:
        net, other = pair(make)
        compare(net, other, torch.randn(shape).to(memory_format=torch.channels_last))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "num_layers": 2}, {"bias": False}])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent(kind, options):
    net, other = pair(lambda: kind(5, 7, batch_first=True, **options))
    compare(net, other, torch.randn(3, 4, 5))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_cells(kind, bias):
    net, other = pair(lambda: kind(5, 7, bias=bias))
    compare(net, other, torch.randn(3, 5))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention(causal, masked):
    if causal and masked:
        pytest.skip("not both")
    qkv = [torch.randn(2, 3, n, 8) for n in (5, 6, 6)]
    mask = torch.randn(5, 6) if masked else None

    class Attention(nn.Module):
        def forward(self, q, k, v):
            m = None if mask is None else mask.to(q.device)
            return nn.functional.scaled_dot_product_attention(q, k, v, m, is_causal=causal)

    torch.ve.reset_fallbacks()
    compare(Attention(), Attention(), *qkv)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        compare(Attention(), Attention(), *qkv)
    assert not any("attention" in k for k in torch.ve.fallbacks())


def test_attention_that_the_fused_operator_does_not_take():
    f = nn.functional.scaled_dot_product_attention
    q, k, v = (torch.randn(2, 4, 5, 8) for _ in range(3))
    few = torch.randn(2, 2, 5, 8)
    same(f(q.ve(), few.ve(), few.ve(), enable_gqa=True), f(q, few, few, enable_gqa=True), **CLOSE)
    same(f(q[0].ve(), k[0].ve(), v[0].ve()), f(q[0], k[0], v[0]), **CLOSE)
    mask = torch.randn(5, 5).ve().requires_grad_()
    f(q.ve(), k.ve(), v.ve(), mask).sum().backward()
    assert mask.grad is not None and mask.grad.is_ve


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), (2, 3, 6, 6)),
        (lambda: nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.GELU()), (3, 5)),
        (lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.MaxPool2d(2), nn.Flatten()), (2, 4, 6, 6)),
        (lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), (2, 5, 8)),
        (lambda: nn.MultiheadAttention(8, 2, batch_first=True), (2, 5, 8)),
    ],
)
def test_layers(make, shape):
    net, other = pair(make)
    x = torch.randn(shape)
    inputs = [x, x * 2, x * 3] if isinstance(net, nn.MultiheadAttention) else [x]
    compare(net, other, *inputs)


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "Adam": lambda p: torch.optim.Adam(p, 0.01),
    "Adam foreach": lambda p: torch.optim.Adam(p, 0.01, foreach=True),
    "AdamW amsgrad": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.05),
    "NAdam": lambda p: torch.optim.NAdam(p, 0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_losses_follow_the_cpus(name):
    def make():
        return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))

    nets = pair(make)
    optimizers = [OPTIMIZERS[name](net.parameters()) for net in nets]
    for _ in range(8):
        x, y = torch.randn(10, 6), torch.randint(3, (10,))
        losses = []
        for net, optimizer, device in zip(nets, optimizers, ("cpu", "ve"), strict=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x.to(device)), y.to(device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        assert abs(losses[0] - losses[1]) < 1e-4


def test_second_derivatives_and_hooks():
    x = torch.randn(4).ve().requires_grad_()
    seen = []
    x.register_hook(lambda g: seen.append(g.is_ve))
    (g,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
    g.sum().backward()
    same(x.grad, 6 * x.detach().cpu(), **CLOSE)
    assert seen and all(seen)
    assert torch.autograd.gradcheck(
        torch.tanh, torch.randn(3, dtype=torch.double).ve().requires_grad_()
    )


def test_checkpointing():
    _, other = pair(lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.ReLU()))
    x = torch.randn(3, 4).ve().requires_grad_()
    torch.manual_seed(2)
    y = torch.utils.checkpoint.checkpoint(other, x, use_reentrant=False)
    torch.manual_seed(2)
    assert torch.equal(other(x).detach().cpu(), y.detach().cpu())
    y.sum().backward()
    assert x.grad.is_ve


def test_data_parallel_threads():
    """Backward from several threads at once."""
    import threading

    errors = []

    def work():
        try:
            x = torch.randn(50).ve().requires_grad_()
            (x * x).sum().backward()
            same(x.grad, 2 * x.detach().cpu())
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
