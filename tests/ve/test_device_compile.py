"""Dynamo and AOTAutograd trace tensors of the device, and know its interface."""

from __future__ import annotations

import pytest
import torch
from device import check_python, same


def setup_module():
    torch.ve.init()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_graphs(backend):
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    other = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).ve()
    other.load_state_dict(net.state_dict())
    x = torch.randn(3, 4)
    compiled = torch.compile(other, backend=backend, fullgraph=True)
    same(compiled(x.to("ve")).detach(), net(x).detach(), rtol=1e-5, atol=1e-5)
    compiled(x.to("ve")).sum().backward()
    net(x).sum().backward()
    for q, p in zip(other.parameters(), net.parameters(), strict=True):
        same(q.grad, p.grad, rtol=1e-5, atol=1e-5)


def test_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.empty(3, 4, device="ve")
        y = torch.nn.functional.conv1d(x[None], torch.empty(5, 3, 2, device="ve"))
        assert y.device == torch.device("ve:0") and y.shape == (1, 5, 3)
        assert (x @ x.t()).device.type == "ve"


def test_the_interface_is_registered():
    from torch._dynamo.device_interface import get_interface_for_device

    from sol_dynamo.ve import interface

    interface.register()
    found = get_interface_for_device("ve")
    assert found.is_available() and found.device_count() == torch.ve.device_count()
    assert found.current_device() == 0 and get_interface_for_device("ve:0") is found
    assert found.Worker.get_device_properties(0) == torch.ve.get_device_properties(0)
    with found.device(0):
        found.synchronize()
    assert found.get_raw_stream(0) == 0 and found.exchange_device(0) == 0


@pytest.mark.parametrize(
    "use",
    [
        "import torch._dynamo; torch.ones(2, device='ve')",
        "x = torch.ones(2, device='ve') + 1; torch.compile(lambda x: x - 1, backend='sol')(x)",
    ],
)
def test_whoever_comes_last_registers_it(use):
    check_python(
        f"""
        import torch
        {use}
        from torch._dynamo.device_interface import get_interface_for_device
        assert get_interface_for_device("ve").device_count() == torch.ve.device_count()
        """
    )


def test_streams_in_a_compiled_function():
    @torch.compile(backend="eager")
    def f(x):
        with torch.ve.device(0):
            return x * 2

    same(f(torch.ones(3, device="ve")), torch.full((3,), 2.0))


def test_random_numbers_in_a_compiled_function():
    @torch.compile(backend="aot_eager")
    def f(x):
        return torch.nn.functional.dropout(x, 0.5)

    x = torch.ones(100, device="ve")
    torch.manual_seed(1)
    a = f(x)
    torch.manual_seed(1)
    assert torch.equal(f(x).cpu(), a.cpu())
    kept = (a.cpu() != 0).sum().item()
    assert 20 < kept < 80
