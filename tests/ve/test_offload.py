"""`sol_dynamo.device.set`: models of the host run there, inputs and outputs stay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sol_dynamo


@pytest.fixture(autouse=True)
def on_device():
    sol_dynamo.device.set("ve", 0)
    yield
    sol_dynamo.device.reset()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    ).eval()


CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def test_results_stay_on_the_host_and_weights_move_once(monkeypatch):
    m, x = network(), torch.rand(2, 3, 8, 8)
    f = sol_dynamo.optimize(m, x.size())
    before = torch.ve.memory_allocated()
    y = f(x)
    assert y.device.type == "cpu" and next(f.parameters()).device.type == "cpu"
    torch.testing.assert_close(y, m(x), **CLOSE)
    assert torch.ve.memory_allocated() > before
    placed = f._offloaded._placed
    for _ in range(3):
        torch.testing.assert_close(f(x + 1), m(x + 1), **CLOSE)
    assert f._offloaded._placed is placed


def test_changed_weights_move_again():
    m, x = network(), torch.rand(2, 3, 8, 8)
    f = sol_dynamo.optimize(m, x.size())
    f(x)
    with torch.no_grad():
        for net in (m, f):
            weights = dict(net.named_parameters())
            weights["0.weight"].mul_(2)
            weights["4.bias"].data = torch.arange(5.0)
    torch.testing.assert_close(f(x), m(x), **CLOSE)
    other = network()
    other[4].weight.data.zero_()
    f.load_state_dict(other.state_dict())
    torch.testing.assert_close(f(x), other(x), **CLOSE)


def test_written_buffers_come_back():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls.add_(1)
            return x * self.calls

    f = sol_dynamo.optimize(Counting().eval(), (3,))
    for k in (1, 2, 3):
        torch.testing.assert_close(f(torch.ones(3)), torch.full((3,), float(k)))
    assert f.calls.device.type == "cpu" and f.calls.item() == 3


def test_tied_weights_and_results_in_containers():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x, *, scale):
            return {"y": self.b(self.a(x)), "z": [x * scale]}

    m = Tied().eval()
    f = sol_dynamo.optimize(m, (2, 4))
    x, s = torch.rand(2, 4), torch.rand(4)
    got, expected = f(x, scale=s), m(x, scale=s)
    torch.testing.assert_close(got["y"], expected["y"], **CLOSE)
    torch.testing.assert_close(got["z"], expected["z"], **CLOSE)


def test_training_is_refused():
    f = sol_dynamo.optimize(network(), (2, 3, 8, 8)).train()
    with pytest.raises(RuntimeError, match="eval mode"):
        f(torch.rand(2, 3, 8, 8))


def test_what_is_set_and_what_is_not_there():
    assert str(sol_dynamo.device.current()) == "ve:0"
    for wrong in (("ve", 7), ("vee", 0), ("cuda:99",)):
        with pytest.raises(ValueError, match="there are: cpu, ve:0"):
            sol_dynamo.device.set(*wrong)
    assert str(sol_dynamo.device.current()) == "ve:0"
    sol_dynamo.device.set("cpu")
    assert sol_dynamo.device.current() is None
