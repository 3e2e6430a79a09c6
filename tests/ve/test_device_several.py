"""Several cards: each tensor on its own, the current one, copies between them."""

from __future__ import annotations

import threading

import pytest
import torch
from device import check_python, same

pytestmark = pytest.mark.skipif(torch.ve.device_count() < 2, reason="one card")


def test_current_device():
    assert torch.ve.current_device() == 0
    with torch.ve.device(1):
        assert torch.ve.current_device() == 1
        assert torch.ones(2, device="ve").device == torch.device("ve:1")
        with torch.ve.device("ve:0"):
            assert torch.ve.current_device() == 0
        with torch.ve.device(None), torch.ve.device(-1):
            assert torch.ve.current_device() == 1
    assert torch.ve.current_device() == 0
    with torch.ve.device_of(torch.ones(2, device="ve:1")):
        assert torch.ve.current_device() == 1
    with torch.ve.device_of(torch.ones(2)):
        assert torch.ve.current_device() == 0
    try:
        torch.ve.set_device("ve:1")
        assert torch.empty(1, device="ve").get_device() == 1
    finally:
        torch.ve.set_device(0)


def test_current_device_belongs_to_a_thread():
    seen = []
    with torch.ve.device(1):
        thread = threading.Thread(target=lambda: seen.append(torch.ve.current_device()))
        thread.start()
        thread.join()
    assert seen == [0]


def test_copies_between_cards():
    x = torch.randn(5, 6)
    a = x.to("ve:0")
    b = a.to("ve:1")
    assert b.device == torch.device("ve:1")
    same(b, x)
    same(a.t().to("ve:1"), x.t())
    same(a.to("ve:1", torch.float64), x.double())
    c = torch.zeros(6, 5, device="ve:1")
    c.t().copy_(a)
    same(c, x.t())
    assert a.to("ve:0") is a and a.ve(1).get_device() == 1
    large = torch.arange(10_000_000, dtype=torch.int32)
    same(large.to("ve:0").to("ve:1"), large)


def test_operators_stay_on_their_card():
    b = torch.randn(4, device="ve:1")
    assert (b * 2).device == b.device and torch.zeros_like(b).device == b.device
    assert torch.arange(3, device="ve:1").device == b.device
    assert torch.cat([b, b]).device == b.device
    with pytest.raises(RuntimeError, match=r"same device.*ve:[01] and ve:[01]"):
        b + torch.ones(4, device="ve:0")


def test_memory_is_counted_on_its_card():
    before = [torch.ve.memory_allocated(i) for i in (0, 1)]
    x = torch.empty(4096, dtype=torch.uint8, device="ve:1")
    after = [torch.ve.memory_allocated(i) for i in ("ve:0", torch.device("ve:1"))]
    assert [b - a for a, b in zip(before, after, strict=True)] == [0, 4096]
    del x


def test_streams_and_events_of_each_card():
    s = torch.ve.Stream(device=1)
    assert s.device == torch.device("ve:1")
    with torch.ve.stream(s):
        assert torch.ve.current_device() == 1 and torch.ve.current_stream() == s
        x = torch.ones(1000).to("ve", non_blocking=True)
        event = s.record_event()
    assert torch.ve.current_stream(1).stream_id == 0
    torch.ve.current_stream(0).wait_event(event)  # across cards
    torch.ve.synchronize(0)
    torch.ve.synchronize(1)
    assert event.query() and x.sum().item() == 1000


def test_generators_of_each_card():
    a = torch.rand(5, device="ve:1", generator=torch.Generator("ve:1").manual_seed(3))
    b = torch.rand(5, device="ve:0", generator=torch.Generator("ve:0").manual_seed(3))
    assert torch.equal(a.cpu(), b.cpu())
    torch.manual_seed(9)
    assert torch.equal(torch.rand(5, device="ve:1").cpu(), torch.rand(5, device="ve:0").cpu())
    states = torch.ve.get_rng_state_all()
    torch.rand(5, device="ve:1")
    now = torch.ve.get_rng_state_all()
    assert torch.equal(states[0], now[0]) and not torch.equal(states[1], now[1])


def test_backward_on_each_card():
    for i in (0, 1):
        x = torch.randn(3, device=f"ve:{i}", requires_grad=True)
        (x * x).sum().backward()
        assert x.grad.device == x.device
        same(x.grad, 2 * x.detach().cpu())
    a = torch.randn(3, device="ve:0", requires_grad=True)
    (a.to("ve:1") * 3).sum().backward()
    same(a.grad, torch.full((3,), 3.0))


def test_cards_that_are_not_there():
    n = torch.ve.device_count()
    for call in (
        lambda: torch.ones(2, device=f"ve:{n}"),
        lambda: torch.ve.set_device(n),
        lambda: torch.ve.memory_allocated(n),
        lambda: torch.ve.device(n).__enter__(),
        lambda: torch.ve.Stream(device=n),
    ):
        with pytest.raises(RuntimeError, match=f"ve:{n}"):
            call()
    with pytest.raises(ValueError, match="expected a ve device"):
        torch.ve.synchronize("cpu")


def test_how_many_is_asked_for():
    code = "import torch; print(torch.ve.device_count(), torch.ones(2, device='ve:2').device)"
    assert check_python(code, SOL_VE_CARDS="3").split() == ["3", "ve:2"]
    code = """
        import torch
        try:
            torch.ve.device_count()
        except ValueError as e:
            print(e)
    """
    assert "SOL_VE_CARDS='many'" in check_python(code, SOL_VE_CARDS="many")


def test_a_graph_on_two_cards():
    from sol_dynamo.backend import sol

    class Halves(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(6, 7, device="ve:0")
            self.b = torch.nn.Linear(7, 4, device="ve:1")

        def forward(self, x):
            return self.b(self.a(x).relu().to("ve:1"))

    net, x = Halves(), torch.randn(3, 6)
    torch._dynamo.reset()
    y = torch.compile(net, backend=sol)(x.to("ve:0"))
    assert "several devices: ve:0, ve:1" in sol.graphs[-1].reason
    assert y.device == torch.device("ve:1")
    y.sum().backward()
    gradient = net.a.weight.grad
    net.zero_grad()
    net(x.to("ve:0")).sum().backward()
    assert gradient.device == torch.device("ve:0")
    torch.testing.assert_close(gradient, net.a.weight.grad)


def test_a_graph_makes_tensors_where_it_says():
    torch._dynamo.reset()
    made = torch.compile(lambda: torch.arange(4, device="ve:1") * 2, backend="sol")()
    assert made.device == torch.device("ve:1")
    same(made, torch.arange(4) * 2)
