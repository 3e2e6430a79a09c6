"""`sol.optimize`: one capture, direct calls, and the normal way for whatever does not fit."""

from __future__ import annotations

import pytest
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


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x, y):
        return self.b(self.a(x)) + y


CHANGES = {
    "same objects": lambda m: None,
    "tied to other weights": lambda m: setattr(
        m.b, "weight", nn.Parameter(m.b.weight.detach().clone())
    ),
    "untied": lambda m: setattr(m.b, "weight", nn.Parameter(torch.zeros(4, 4))),
    "other strides": lambda m: setattr(m.b.weight, "data", m.b.weight.data.t()),
    "new submodule": lambda m: setattr(m, "a", nn.Linear(4, 4)),
    "a bias": lambda m: setattr(m.a, "bias", nn.Parameter(torch.ones(4))),
    "train": lambda m: m.train(),
    "other dtype": lambda m: m.double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_the_model_are_seen(change):
    torch._dynamo.reset()
    m = Tied().eval()
    f = sol_dynamo.optimize(m, (2, 4), (2, 4))
    x, y = torch.randn(2, 4), torch.randn(2, 4)
    for _ in range(2):
        torch.testing.assert_close(f(x, y), m(x, y))
    assert f._direct is not None
    torch.manual_seed(0)
    CHANGES[change](f._model)
    dtype = f._model.a.weight.dtype
    x, y = x.to(dtype), y.to(dtype)
    torch.testing.assert_close(f(x, y), f._model(x, y))


def test_weights_of_another_shape_go_the_normal_way():
    torch._dynamo.reset()
    m = nn.Sequential(nn.Linear(4, 4)).eval()
    f = sol_dynamo.optimize(m, (1, 4))
    x = torch.ones(1, 4)
    f(x), f(x)
    for rows in (2, 9):
        f._model[0].weight = nn.Parameter(torch.randn(rows, 4))
        f._model[0].bias = nn.Parameter(torch.zeros(rows))
        torch.testing.assert_close(f(x), f._model(x))


def test_which_inputs_are_one_tensor():
    torch._dynamo.reset()
    m = Tied().eval()
    f = sol_dynamo.optimize(m, (2, 4), (2, 4))
    x, y = torch.randn(2, 4), torch.randn(2, 4)
    for args in ((x, x), (x, x), (x, y), (y, x), (y, y)):
        torch.testing.assert_close(f(*args), m(*args))
