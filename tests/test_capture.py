"""`sol.optimize`: one capture, direct calls, and the normal way for whatever does not fit."""

from __future__ import annotations

import torch
from torch import nn

import sol_dynamo
from sol_dynamo import backend


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()


def compiles(monkeypatch) -> list:
    seen: list = []
    original = backend.compile_graph
    monkeypatch.setattr(backend, "compile_graph", lambda *a: seen.append(1) or original(*a))
    return seen


def test_two_sizes_of_one_class_stay_static(monkeypatch):
    """A second model of the same class and another batch is no reason for symbolic sizes."""
    torch._dynamo.reset()
    seen = compiles(monkeypatch)
    for batch in (1, 5):
        m = network()
        x = torch.rand(batch, 3, 8, 8)
        f = sol_dynamo.optimize(m, x.size())
        for _ in range(3):
            torch.testing.assert_close(f(x), m(x))
        assert f._direct is not None
    assert len(seen) == 2


def test_other_size_goes_the_normal_way(monkeypatch):
    torch._dynamo.reset()
    seen = compiles(monkeypatch)
    m = network()
    f = sol_dynamo.optimize(m, (2, 3, 8, 8))
    for batch in (2, 3, 2, 3):
        x = torch.rand(batch, 3, 8, 8)
        torch.testing.assert_close(f(x), m(x))
    assert len(seen) == 2


def test_result_that_is_no_tensor(monkeypatch):
    """A dict of results has no direct call; it is still compiled once."""
    torch._dynamo.reset()
    seen = compiles(monkeypatch)

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return {"y": self.inner(x)}

    m = Named().eval()
    f = sol_dynamo.optimize(m, (2, 3, 8, 8))
    x = torch.rand(2, 3, 8, 8)
    for _ in range(3):
        torch.testing.assert_close(f(x)["y"], m(x)["y"])
    assert f._direct is None
    assert len(seen) == 1


def test_state_dict_keys_are_the_models():
    m = network()
    f = sol_dynamo.optimize(m, (2, 3, 8, 8))
    assert list(f.state_dict()) == list(m.state_dict())
    assert [n for n, _ in f.named_parameters()] == [n for n, _ in m.named_parameters()]
