"""Recurrent networks on the device: eager and compiled as one program, with gradients."""

from __future__ import annotations

import pytest
import torch
from device import same
from torch import nn

from sol_dynamo import backend, compat

CLOSE = {"rtol": 2e-6, "atol": 1e-6}
NETS = {
    "gru cell": (lambda: nn.GRUCell(5, 7), (4, 5)),
    "gru cell without biases": (lambda: nn.GRUCell(5, 7, bias=False), (4, 5)),
    "lstm cell": (lambda: nn.LSTMCell(5, 7), (4, 5)),
    "lstm cell without biases": (lambda: nn.LSTMCell(5, 7, bias=False), (4, 5)),
    "rnn cell": (lambda: nn.RNNCell(5, 7), (4, 5)),
    "gru": (lambda: nn.GRU(3, 4, 2, bidirectional=True), (2, 3, 3)),
    "lstm": (lambda: nn.LSTM(3, 4, 2, bidirectional=True), (2, 3, 3)),
    "lstm with projections": (lambda: nn.LSTM(3, 4, proj_size=2, batch_first=True), (2, 3, 3)),
    "rnn": (lambda: nn.RNN(3, 4, nonlinearity="relu"), (2, 3)),
}


@pytest.fixture(autouse=True)
def whole_graphs():
    """Dynamo breaks graphs at recurrent layers unless told otherwise."""
    import torch._dynamo

    torch.ve.reset_fallbacks()
    compat.reset_dynamo()
    with torch._dynamo.config.patch(allow_rnn=True):
        yield
    assert not torch.ve.fallbacks()


def results(net: nn.Module, f, x: torch.Tensor) -> list[torch.Tensor]:
    """All that comes of a net, and gradients of its input and parameters."""
    x = x.detach().clone().requires_grad_()
    flat = compat.tree_leaves(f(x))
    weights = [torch.linspace(-1, 1, t.numel()).view(t.shape).to(t.device) for t in flat]
    loss = sum((t * w).sum() for t, w in zip(flat, weights, strict=True))
    grads = torch.autograd.grad(loss, [x, *net.parameters()])
    return [t.detach() for t in (*flat, *grads)]


@pytest.mark.parametrize("name", NETS)
def test_results_and_gradients(name):
    make, shape = NETS[name]
    torch.manual_seed(0)
    net, x = make(), torch.randn(shape)
    other = make().ve()
    other.load_state_dict(net.state_dict())
    expected = results(net, net, x)
    backend.sol.graphs.clear()
    compiled = torch.compile(other, backend="sol", fullgraph=True, dynamic=False)
    for f in (other, compiled):
        for g, e in zip(results(other, f, x.ve()), expected, strict=True):
            same(g, e, **CLOSE)
    forward, backward = backend.sol.graphs
    for graph in (forward, backward):
        assert not any("_thnn" in getattr(k, "name", "") for k in graph.compiled.program.kernels)


def test_sizes_may_be_symbols():
    torch.manual_seed(0)
    net = nn.GRUCell(5, 7, bias=False)
    other = nn.GRUCell(5, 7, bias=False).ve()
    other.load_state_dict(net.state_dict())
    f = torch.compile(other, backend="sol", fullgraph=True, dynamic=True)
    for n in (4, 6):
        x = torch.randn(n, 5)
        for g, e in zip(results(other, f, x.ve()), results(net, net, x), strict=True):
            same(g, e, **CLOSE)


class Steps(nn.Module):
    """Two cells with dropout between them, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.GRUCell(3, 4), nn.LSTMCell(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, state = None, None
        for part in x:
            h = self.first(part, h)
            state = self.second(nn.functional.dropout(h, 0.5), state)
        return state[0]


def test_dropout_is_the_same_eager_and_compiled():
    torch.manual_seed(0)
    net, x = Steps().ve(), torch.randn(3, 2, 3).ve()
    found = []
    for seed, f in (
        (7, net),
        (7, torch.compile(net, backend="sol", fullgraph=True, dynamic=False)),
        (8, net),
    ):
        torch.manual_seed(seed)
        found.append([t.cpu() for t in results(net, f, x)])
    for g, e in zip(*found[:2], strict=True):
        torch.testing.assert_close(g, e, **CLOSE)
    assert not torch.allclose(found[0][0], found[2][0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """Gates are computed in float32 and rounded once."""
    torch.manual_seed(0)
    net, x = nn.LSTMCell(5, 7).to(dtype), torch.randn(4, 5, dtype=dtype)
    other = nn.LSTMCell(5, 7).to(dtype).ve()
    other.load_state_dict(net.state_dict())
    bound = 8 * torch.finfo(dtype).eps
    f = torch.compile(other, backend="sol", dynamic=False)
    for g in (other, f):
        for a, e in zip(results(other, g, x.ve()), results(net, net, x), strict=True):
            same(a, e, rtol=bound, atol=bound)
