"""Random numbers: reproducible from a seed, states that can be kept, generators of one's own."""

from __future__ import annotations

import pytest
import torch
from device import check_python


def setup_module():
    torch.ve.init()  # torch.Generator does not ask for it


DRAWS = [
    lambda g: torch.rand(50, device="ve", generator=g),
    lambda g: torch.randn(50, device="ve", generator=g),
    lambda g: torch.randint(1000, (50,), device="ve", generator=g),
    lambda g: torch.randperm(50, device="ve", generator=g),
    lambda g: torch.empty(50, device="ve").uniform_(generator=g),
    lambda g: torch.empty(50, device="ve").exponential_(generator=g),
    lambda g: torch.full((50,), 0.5, device="ve").bernoulli(generator=g),
    lambda g: torch.multinomial(torch.ones(60, device="ve"), 50, generator=g),
    lambda g: torch.normal(torch.zeros(50, device="ve"), 1.0, generator=g),
]


@pytest.mark.parametrize("draw", DRAWS)
def test_the_same_seed_gives_the_same_numbers(draw):
    g = torch.Generator(device="ve").manual_seed(5)
    a, b = draw(g), draw(g)
    g.manual_seed(5)
    assert torch.equal(draw(g).cpu(), a.cpu()) and torch.equal(draw(g).cpu(), b.cpu())
    assert not torch.equal(a.cpu(), b.cpu())
    assert not torch.equal(draw(g.manual_seed(6)).cpu(), a.cpu())
    torch.manual_seed(5)
    assert torch.equal(draw(None).cpu(), a.cpu())


def test_the_cpu_generator_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(5)
    torch.manual_seed(3)
    torch.rand(100, device="ve")
    torch.nn.functional.dropout(torch.ones(10, device="ve"))
    assert torch.equal(torch.rand(5), expected)


def test_states():
    torch.ve.manual_seed(11)
    torch.rand(3, device="ve")
    state = torch.ve.get_rng_state()
    assert state.device.type == "cpu" and state.dtype == torch.uint8
    a = torch.rand(7, device="ve")
    torch.ve.set_rng_state(state)
    assert torch.equal(torch.rand(7, device="ve").cpu(), a.cpu())
    states = torch.ve.get_rng_state_all()
    assert len(states) == torch.ve.device_count()
    torch.ve.set_rng_state_all(states)
    with pytest.raises(RuntimeError, match="16"):
        torch.ve.set_rng_state(torch.zeros(5, dtype=torch.uint8))


def test_generators_are_copied_with_their_state():
    g = torch.Generator(device="ve").manual_seed(1)
    torch.rand(4, device="ve", generator=g)
    h = g.clone_state() if hasattr(g, "clone_state") else torch.Generator(device="ve")
    h.set_state(g.get_state())
    a, b = (torch.rand(9, device="ve", generator=x) for x in (g, h))
    assert torch.equal(a.cpu(), b.cpu()) and g.device.type == "ve"


def test_seeds():
    torch.ve.manual_seed(42)
    assert torch.ve.initial_seed() == 42
    torch.ve.seed()
    assert torch.ve.initial_seed() != 42
    torch.ve.seed_all()
    assert len({g.initial_seed() for g in torch.ve.default_generators}) == 1
    torch.manual_seed(8)
    assert torch.ve.initial_seed() == 8


def test_fork_rng():
    torch.manual_seed(1)
    with torch.random.fork_rng(devices=[0], device_type="ve"):
        a = torch.rand(5, device="ve")
    assert torch.equal(torch.rand(5, device="ve").cpu(), a.cpu())


def test_a_seed_from_before_the_first_use_counts():
    code = """
        import torch
        torch.manual_seed(77)
        assert not torch.ve.is_initialized()
        print(torch.rand(4, device="ve").tolist(), torch.ve.initial_seed())
    """
    assert check_python(code) == check_python(code)
    assert "77" in check_python(code)


def test_uniform_and_normal_look_like_it():
    torch.manual_seed(0)
    u, n = torch.rand(100_000, device="ve").cpu(), torch.randn(100_000, device="ve").cpu()
    assert abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.01
    assert abs(n.mean()) < 0.02 and abs(n.var() - 1) < 0.03
    assert u.min() >= 0 and u.max() < 1


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout(p):
    x = torch.ones(200, 50, device="ve", requires_grad=True)
    torch.manual_seed(4)
    y = torch.nn.functional.dropout(x, p)
    torch.manual_seed(4)
    assert torch.equal(torch.nn.functional.dropout(x, p).cpu(), y.cpu())
    kept = y.detach().cpu() != 0
    assert abs(kept.float().mean() - (1 - p)) < 0.02
    if p < 1:
        assert torch.allclose(y.detach().cpu()[kept], torch.tensor(1 / (1 - p)))
    y.sum().backward()
    assert torch.equal(x.grad.cpu(), y.detach().cpu())


def test_a_generator_of_the_cpu_is_refused_or_followed():
    """Its numbers are what decides, wherever they are made."""
    g = torch.Generator().manual_seed(5)
    x = torch.rand(5, generator=g.manual_seed(5))
    y = torch.empty(5, device="ve").uniform_(generator=g.manual_seed(5))
    assert torch.equal(y.cpu(), x)
