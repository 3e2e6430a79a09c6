"""Decision 2: whatever happens to weights after compiling, the next result uses the new ones."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import nn

import sol_dynamo
from sol_dynamo.backend import sol


def network() -> nn.Module:
    torch.manual_seed(0)
    m = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 10),
    ).eval()
    m[1].running_mean.normal_()
    m[1].running_var.uniform_(0.5, 2)
    return m


X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def step(m: nn.Module) -> None:
    optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
    m(X).square().sum().backward()
    optimizer.step()


def load(m: nn.Module) -> None:
    state = {k: v + 0.25 if v.is_floating_point() else v for k, v in m.state_dict().items()}
    m.load_state_dict(state)


def data_assigned(m: nn.Module) -> None:
    m[0].weight.data = torch.randn_like(m[0].weight)


def data_written(m: nn.Module) -> None:
    m[0].weight.data.mul_(2)


def copied(m: nn.Module) -> None:
    with torch.no_grad():
        m[4].weight.copy_(torch.randn_like(m[4].weight))


def numpy_written(m: nn.Module) -> None:
    m[4].weight.detach().numpy()[3, 500] += 5
    sol_dynamo.refresh(m)


def submodule_replaced(m: nn.Module) -> None:
    m[4] = nn.Linear(1024, 10)


def statistics_updated(m: nn.Module) -> None:
    m.train()
    with torch.no_grad():
        m(X)
    m.eval()


CHANGES = [
    step,
    load,
    data_assigned,
    data_written,
    copied,
    numpy_written,
    submodule_replaced,
    statistics_updated,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("way", ["compile", "optimize"])
def test_change_is_seen(change, way):
    torch._dynamo.reset()
    m = network()
    f = torch.compile(m, backend=sol)
    if way == "optimize":
        f = sol_dynamo.optimize(m, X.size())
        m = f._model
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(f(X), m(X), rtol=1e-4, atol=1e-4)
    before = m(X).detach().clone()
    change(m)
    with torch.no_grad():
        assert not torch.allclose(m(X), before)
        torch.testing.assert_close(f(X), m(X), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(f(X), m(X), rtol=1e-4, atol=1e-4)


def test_four_equal_blocks_share_one_compile():
    """block.compile() on equal blocks is one graph called with four sets of weights."""
    from sol_dynamo.backend import compiled

    torch._dynamo.reset()
    torch.manual_seed(0)
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(32, 32), nn.ReLU()) for _ in range(4))).eval()
    reference = copy.deepcopy(blocks)
    for b in blocks:
        b.compile(backend=sol)
    x = torch.randn(5, 32)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(blocks(x), reference(x))
        blocks[2][0].weight.mul_(3)
        reference[2][0].weight.mul_(3)
        torch.testing.assert_close(blocks(x), reference(x))
    assert 1 <= len(compiled) <= 4


def test_freed_address_is_not_mistaken():
    """A new weight at an old one's address is a new weight."""
    torch._dynamo.reset()
    m = nn.Linear(64, 64).eval()
    f = torch.compile(m, backend=sol)
    x = torch.randn(3, 64)
    with torch.no_grad():
        f(x)
        for _ in range(8):
            m.weight = None
            gc.collect()
            m.weight = nn.Parameter(torch.randn(64, 64))
            torch.testing.assert_close(f(x), m(x))


def test_inference_tensors():
    """Weights without a version counter are watched by their elements."""
    torch._dynamo.reset()
    with torch.inference_mode():
        m = network()
        f = torch.compile(m, backend=sol)
        torch.testing.assert_close(f(X), m(X), rtol=1e-4, atol=1e-4)
        m[0].weight.mul_(2)
        torch.testing.assert_close(f(X), m(X), rtol=1e-4, atol=1e-4)
